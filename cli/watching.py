"""A kind watched on behalf of `steer get -w`: rows appended in a pipe, a table redrawn in place on a terminal.

A watch that ends is resumed where it stopped; one whose start is too old begins again with a list.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import click

from steersman.cli import tables
from steersman.cli.kinds import Target
from steersman.cli.output import Format, aligned, painted, print_lines, print_object, without_managed_fields
from steersman.cli.session import Session, target
from steersman.cli.tables import Layout, Query
from steersman.cluster.meta.errors import Expired, from_status
from steersman.cluster.meta.objects import Obj


class Watching:
    """One watch.

    Args:
        what: the kind.
        layout: of the rows; its columns are set by the first table.
        field_selector: narrows the watch.
        options: of the command line.
    """

    def __init__(
        self, session: Session, what: Target, layout: Layout, field_selector: str, options: dict[str, Any]
    ) -> None:
        self._session = session
        self._what = what
        self._layout = layout
        self._options = options
        self._query = Query(
            everywhere=options["everywhere"], label_selector=options["selector"], field_selector=field_selector
        )
        self._scope = session.scope(what.resource, everywhere=options["everywhere"])

    async def _tables(self) -> AsyncIterator[tuple[str, Obj]]:
        """Yields (`LISTED` | `ADDED` | `MODIFIED` | `DELETED`, table); `LISTED` begins anew."""
        version = ""
        while True:
            if not version:
                table = await tables.fetch(self._session, self._what, self._query)
                self._layout.columns = table["columnDefinitions"]
                version = table["metadata"].get("resourceVersion", "")
                yield "LISTED", table
            try:
                async for event in self._session.stream(self._path(version), accept=tables.ACCEPT):
                    obj = event["object"]
                    if event["type"] == "ERROR":
                        raise from_status(obj)
                    version = _version(obj) or version
                    if event["type"] == "BOOKMARK":
                        continue
                    yield event["type"], _as_table(obj, self._what)
            except Expired:
                version = ""

    def _path(self, version: str) -> str:
        return target(
            self._what.resource.path(self._scope),
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            labelSelector=self._query.label_selector,
            fieldSelector=self._query.field_selector,
        )

    async def print_rows(self) -> None:
        """Prints a line for each change, below what there is already."""
        widths: list[int] = []
        first = True
        async for kind, table in self._tables():
            lines = [self._layout.cells(row, self._what) for row in table["rows"]]
            if kind == "LISTED" and (self._options["watch_only"] or not first):
                lines = []
            if first and not self._options["no_headers"]:
                lines.insert(0, self._layout.headings())
            shown = aligned(lines, widths=widths)
            if lines:
                widths = widths or [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
                print_lines(shown, heading=first and not self._options["no_headers"])
            first = False

    async def redraw(self) -> None:
        """Keeps one table on the terminal up to date until the user ends it."""
        from rich.live import Live
        from rich.text import Text

        rows: dict[str, list[str]] = {}
        with Live(auto_refresh=False, vertical_overflow="visible") as live:
            async for kind, table in self._tables():
                if kind == "LISTED":
                    rows.clear()
                for row in table["rows"]:
                    key = _key(row)
                    if kind == "DELETED":
                        rows.pop(key, None)
                    else:
                        rows[key] = self._layout.cells(row, self._what)
                size = shutil.get_terminal_size()
                lines = aligned([self._layout.headings(), *rows.values()], fit=size.columns)
                lines = [click.style(lines[0], bold=True), *(painted(line) for line in lines[1 : size.lines - 1])]
                live.update(Text.from_ansi("\n".join(lines)), refresh=True)

    async def print_objects(self, form: Format, name: Callable[[Obj], str]) -> None:
        """Prints each object as it is and as it changes."""
        client, resource = self._session.client, self._what.resource
        selectors: dict[str, Any] = {
            "label_selector": self._query.label_selector,
            "field_selector": self._query.field_selector,
        }
        version, seen = "", False
        while True:
            if not version:
                found = await client.list(resource, self._scope, **selectors)
                version = found.resource_version
                for obj in found.items if not (self._options["watch_only"] or seen) else ():
                    self._print(obj, form, name)
                seen = True
            try:
                async for kind, obj in client.watch(resource, self._scope, resource_version=version, **selectors):
                    version = obj["metadata"].get("resourceVersion", version)
                    if kind != "BOOKMARK":
                        self._print(obj, form, name)
            except Expired:
                version = ""

    def _print(self, obj: Obj, form: Format, name: Callable[[Obj], str]) -> None:
        if form.kind == "yaml":
            click.echo("---")
        print_object(obj if self._options["show_managed_fields"] else without_managed_fields(obj), form, name)
        if form.kind == "jsonpath":
            click.echo()


def _version(obj: Obj) -> str:
    """The version an event brings: of its row's object, or of a bookmark."""
    for row in obj.get("rows") or ():
        if version := ((row.get("object") or {}).get("metadata") or {}).get("resourceVersion"):
            return str(version)
    return str((obj.get("metadata") or {}).get("resourceVersion", ""))


def _as_table(obj: Obj, what: Target) -> Obj:
    if obj.get("kind") == "Table":
        return obj
    return tables.as_table(obj, what)


def _key(row: Obj) -> str:
    metadata = (row.get("object") or {}).get("metadata") or {}
    return metadata.get("uid") or f"{metadata.get('namespace', '')}/{metadata.get('name', row['cells'][0])}"
