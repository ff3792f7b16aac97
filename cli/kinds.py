"""Names of kinds as people write them: `po`, `pods`, `deploy/web`, `deployments.apps`, `pods,svc`, `all`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from steersman.cli.errors import failed
from steersman.cluster.meta.resources import Resource

if TYPE_CHECKING:
    from steersman.actors.client import Discovered


@dataclass(frozen=True, slots=True)
class Target:
    """A kind, and the objects of it that are meant; none means all."""

    kind: Discovered
    names: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        return self.kind.resource


def reference(resource: Resource, name: str) -> str:
    """How messages name an object: `pod/web`, `deployment.apps/web`."""
    suffix = f".{resource.group}" if resource.group else ""
    return f"{resource.kind.lower()}{suffix}/{name}"


class Kinds:
    """The kinds a server offers, found by any of their names."""

    def __init__(self, discovered: Sequence[Discovered]) -> None:
        self.all = tuple(discovered)
        self._names: dict[str, Discovered] = {}
        for row in discovered:
            resource = row.resource
            words = (resource.plural, row.singular or resource.kind.lower(), resource.kind.lower(), *row.short_names)
            for word in words:
                if row.preferred:
                    self._names.setdefault(word, row)
                self._names.setdefault(f"{word}.{resource.group}", row)
                self._names.setdefault(f"{word}.{resource.version}.{resource.group}".rstrip("."), row)

    def find(self, word: str) -> Discovered:
        """Returns the kind that a word names.

        Raises:
            Failed: there is none.
        """
        found = self._names.get(word) or self._names.get(word.lower())
        if found is None:
            close = [name for name in difflib.get_close_matches(word.lower(), self._names, n=3) if "." not in name]
            hint = f". Did you mean {' or '.join(close)}?" if close else "; see `steer api-resources`"
            raise failed(f'the server doesn\'t have a resource type "{word}"{hint}')
        return found

    def category(self, word: str) -> list[Discovered]:
        """The listable kinds of a category such as `all`; none when there is no such category."""
        return [row for row in self.all if word in row.categories and "list" in row.verbs and row.preferred]

    def by_kind(self, api_version: str, kind: str) -> Discovered | None:
        for row in self.all:
            if row.resource.kind == kind and row.resource.api_version == api_version:
                return row
        return None

    def targets(self, words: Sequence[str]) -> list[Target]:
        """Reads `TYPE[,TYPE] [NAME...]` or `TYPE/NAME...`.

        Raises:
            Failed: a type is unknown, or the forms are mixed.
        """
        if not words:
            raise click.UsageError(
                "You must specify the type of resource. Use `steer api-resources` for the list of them."
            )
        if any("/" in word for word in words):
            return self._slashed(words)
        names = tuple(words[1:])
        found: list[Target] = []
        for word in words[0].split(","):
            members = self.category(word.lower()) if word.lower() not in self._names else []
            found += [Target(row, names) for row in members or [self.find(word)]]
        return found

    def _slashed(self, words: Sequence[str]) -> list[Target]:
        found: list[Target] = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not kind or not name or "/" in name:
                raise failed(
                    f"there is no need to specify a resource type as a separate argument: {word!r} is no TYPE/NAME"
                )
            row = self.find(kind)
            if found and found[-1].kind is row:
                found[-1] = Target(row, (*found[-1].names, name))
            else:
                found.append(Target(row, (name,)))
        return found

    def one(self, words: Sequence[str]) -> tuple[Discovered, str]:
        """Reads exactly one object.

        Raises:
            Failed: none or several are named.
        """
        found = self.targets(words)
        if len(found) != 1 or len(found[0].names) != 1:
            raise failed("exactly one object is needed: TYPE NAME or TYPE/NAME")
        return found[0].kind, found[0].names[0]
