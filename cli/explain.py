"""`steer explain`: the documentation of kinds and fields, from the server's OpenAPI v3 documents."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.kinds import Kinds
from steersman.cli.output import columns_of_terminal
from steersman.cli.session import Session, api_command
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

EXAMPLES = """
steer explain pods
steer explain deployment.spec.strategy
steer explain pod.spec.containers --recursive
steer explain cronjobs --api-version=batch/v1
"""
_REF = "#/components/schemas/"
_WIDTH = 100
_DEPTH_MAX = 24


@api_command("explain", examples=EXAMPLES)
@click.argument("path", metavar="TYPE[.FIELD...]", shell_complete=complete_targets)
@click.option("--recursive", is_flag=True, help="Names and types of all fields below.")
@click.option("--api-version", metavar="VERSION", help="Of this group and version: apps/v1.")
async def explain(session: Session, path: str, recursive: bool, api_version: str | None) -> None:
    """Document a kind and its fields, as the server describes them."""
    kinds = await session.kinds()
    resource, fields = _split(kinds, path)
    if api_version:
        found = kinds.by_kind(api_version, resource.kind)
        if found is None:
            raise failed(f'the server has no kind {resource.kind} in version "{api_version}"')
        resource = found.resource
    schemas = await _schemas(session, resource)
    node = _kind_schema(schemas, resource)
    trail = Documents(schemas)
    for name in fields:
        below = trail.properties(node)
        if name not in below:
            close = ", ".join(sorted(below)) or "none"
            raise failed(f'field "{name}" does not exist in {resource.kind}; there are: {close}')
        node = below[name]
    click.echo("\n".join(_lines(trail, resource, fields, node, recursive)))


def _split(kinds: Kinds, path: str) -> tuple[Resource, list[str]]:
    """Reads `deployments.apps.spec.replicas`: the longest leading part that names a kind, then fields."""
    parts = path.rstrip(".").split(".")
    for end in range(len(parts), 1, -1):
        word = ".".join(parts[:end]).lower()
        for row in kinds.all:
            if row.resource.group and word in (str(row.resource), _versioned(row.resource)):
                return row.resource, parts[end:]
    return kinds.find(parts[0]).resource, parts[1:]


def _versioned(resource: Resource) -> str:
    return f"{resource.plural}.{resource.version}.{resource.group}"


async def _schemas(session: Session, resource: Resource) -> Mapping[str, Obj]:
    index = await session.fetch("/openapi/v3")
    key = f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"
    entry = (index.get("paths") or {}).get(key)
    if entry is None:
        raise failed(f"the server documents no kinds of {resource.api_version}")
    document = await session.fetch(entry["serverRelativeURL"])
    found: Mapping[str, Obj] = (document.get("components") or {}).get("schemas") or {}
    return found


def _kind_schema(schemas: Mapping[str, Obj], resource: Resource) -> Obj:
    for schema in schemas.values():
        for row in schema.get("x-kubernetes-group-version-kind") or ():
            if (row.get("group"), row.get("version"), row.get("kind")) == (
                resource.group,
                resource.version,
                resource.kind,
            ):
                return schema
    raise failed(f"the server does not document {resource.kind} in {resource.api_version}")


class Documents:
    """Follows references between the schemas of one document."""

    def __init__(self, schemas: Mapping[str, Obj]) -> None:
        self._schemas = schemas

    def resolved(self, node: Obj) -> Obj:
        """The schema itself, its own description before that of what it refers to."""
        reference = node.get("$ref") or next((row["$ref"] for row in node.get("allOf") or () if "$ref" in row), None)
        if reference is None:
            return node
        found = self._schemas.get(reference.removeprefix(_REF), {})
        own = {key: value for key, value in node.items() if key in ("description", "default")}
        return {**found, **own, "x-name": reference.rpartition(".")[2]}

    def element(self, node: Obj) -> Obj:
        """What a list holds, or a map's values are; the schema itself for anything else."""
        found = self.resolved(node)
        if found.get("type") == "array":
            return self.element(found.get("items") or {})
        if isinstance(found.get("additionalProperties"), dict):
            return self.element(found["additionalProperties"])
        return found

    def properties(self, node: Obj) -> Mapping[str, Obj]:
        found: Mapping[str, Obj] = self.element(node).get("properties") or {}
        return found

    def type_name(self, node: Obj) -> str:
        found = self.resolved(node)
        kind = found.get("type", "")
        if kind == "array":
            return f"[]{self.type_name(found.get('items') or {})}"
        if isinstance(found.get("additionalProperties"), dict):
            return f"map[string]{self.type_name(found['additionalProperties'])}"
        if found.get("x-name"):
            return str(found["x-name"])
        if kind == "object" or not kind:
            return "Object"
        return str(kind)


def _lines(trail: Documents, resource: Resource, fields: list[str], node: Obj, recursive: bool) -> Iterator[str]:
    if resource.group:
        yield f"GROUP:      {resource.group}"
    yield f"KIND:       {resource.kind}"
    yield f"VERSION:    {resource.version}"
    yield ""
    if fields:
        yield f"FIELD: {fields[-1]} <{trail.type_name(node)}>"
        yield ""
    yield "DESCRIPTION:"
    yield from _wrapped(_description(trail, node), 4)
    properties = trail.properties(node)
    if not properties:
        return
    yield ""
    yield "FIELDS:"
    if recursive:
        yield from _tree(trail, node, 2, ())
        return
    required = trail.element(node).get("required") or ()
    for name, child in sorted(properties.items()):
        mark = " -required-" if name in required else ""
        yield f"  {name}\t<{trail.type_name(child)}>{mark}".expandtabs(4)
        if choices := trail.resolved(child).get("enum"):
            yield f"    enum: {', '.join(map(str, choices))}"
        yield from _wrapped(_description(trail, child), 4)
        yield ""


def _description(trail: Documents, node: Obj) -> str:
    own: str = node.get("description") or trail.resolved(node).get("description") or ""
    return own or trail.element(node).get("description") or "<empty>"


def _wrapped(text: str, indent: int) -> Iterator[str]:
    width = min(columns_of_terminal() or _WIDTH, _WIDTH) - indent
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, width) or [""]:
            yield " " * indent + line


def _tree(trail: Documents, node: Obj, indent: int, seen: tuple[str, ...]) -> Iterator[str]:
    for name, child in sorted(trail.properties(node).items()):
        kind = trail.type_name(child)
        yield f"{' ' * indent}{name}\t<{kind}>".expandtabs(2)
        bare = kind.replace("[]", "").replace("map[string]", "")
        if bare not in seen and indent < _DEPTH_MAX * 2:
            yield from _tree(trail, child, indent + 2, (*seen, bare))


COMMANDS = [explain]
