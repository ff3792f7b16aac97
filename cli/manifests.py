"""Manifests from files, directories and standard input; each remembers its file and lines.

Whatever the server refuses can so be told where the user wrote it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from steersman.cli.errors import Failed, failed, sentence
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj

_SUFFIXES = (".yaml", ".yml", ".json")
_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")
_UNKNOWN = re.compile(r'(?:unknown|duplicate) field "([^"]+)"')
#: how the server says it of an applied configuration
_UNDECLARED = re.compile(r"\s\.([^\n]*?): field not declared in schema")
_KEY = re.compile(r'(\w+)=(?:"([^"]*)"|([^,]+))')


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as written by the user.

    Args:
        obj: its content.
        source: file name, or `standard input`.
        node: the YAML tree it came from; None for an item that has none of its own.
    """

    obj: Obj
    source: str
    node: yaml.Node | None = field(default=None, repr=False)

    def line_of(self, path: str) -> int:
        """The line (from 1) of a field path such as `spec.containers[0].image`, or of the nearest parent written."""
        node = self.node
        if node is None:
            return 1
        line = node.start_mark.line
        for index, name in _STEP.findall(path):
            found = _descend(node, name or (index if "=" in index else index.strip("\"'")))
            if found is None:
                break
            key, node = found
            line = (key or node).start_mark.line
        return int(line) + 1

    @property
    def label(self) -> str:
        """How errors name it before the server knows it."""
        name = (self.obj.get("metadata") or {}).get("name", "")
        return f"{self.obj.get('kind', '')} {name!r}".strip()


def _descend(node: yaml.Node, step: str) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key, value
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        return None, node.value[int(step)]
    if isinstance(node, yaml.SequenceNode) and (
        keys := {key: text or plain for key, text, plain in _KEY.findall(step)}
    ):
        return next(((None, item) for item in node.value if _has(item, keys)), None)
    return None


def _has(item: yaml.Node, keys: Mapping[str, str]) -> bool:
    """Whether an item of a list has the keys, as far as they are written."""
    rows = item.value if isinstance(item, yaml.MappingNode) else ()
    written = {key.value: value.value for key, value in rows if key.value in keys}
    return bool(written) and all(keys[key] == value for key, value in written.items())


def read(names: Sequence[str], *, recursive: bool = False) -> list[Manifest]:
    """Reads all manifests of files, directories and `-`; items of lists stand for themselves.

    Raises:
        Failed: a file is missing or malformed; the message names file and line.
    """
    found: list[Manifest] = []
    for source, text in _texts(names, recursive):
        found += _parse(source, text)
    if not found:
        raise failed("no objects passed: the manifests are empty")
    return found


def _texts(names: Sequence[str], recursive: bool) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            yield "standard input", sys.stdin.buffer.read()
            continue
        path = Path(name)
        if path.is_dir():
            walk = path.rglob("*") if recursive else path.iterdir()
            files = sorted(file for file in walk if file.suffix in _SUFFIXES and file.is_file())
            if not files:
                raise failed(f"{name}: the directory holds no .yaml, .yml or .json file")
        else:
            files = [path]
        for file in files:
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                raise failed(f"cannot read {file}: {error.strerror}") from None


def _parse(source: str, text: bytes) -> list[Manifest]:
    try:
        rows = list(yamlio.documents(_decoded(source, text)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise failed(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise failed(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise failed(f"{source}: nested too deeply") from None
    return [manifest for value, node in rows for manifest in _flatten(Manifest(value, source, node))]


def _decoded(source: str, text: bytes) -> str:
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise failed(f"{source}:{line}: not valid UTF-8") from None
    # tabs may indent JSON, and YAML refuses them
    return orjson.dumps(orjson.loads(text)).decode() if _is_tabbed_json(decoded) else decoded


def _is_tabbed_json(text: str) -> bool:
    if not text.lstrip().startswith("{") or "\t" not in text:
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _flatten(manifest: Manifest) -> list[Manifest]:
    obj: Any = manifest.obj
    if not isinstance(obj, dict):
        raise failed(f"{manifest.source}:{manifest.line_of('')}: a manifest must be a mapping, not {_noun(obj)}")
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key), str) or not obj[key]:
            raise failed(f"{manifest.source}:{manifest.line_of(key)}: {key} is not set")
    if obj["kind"].endswith("List") and isinstance(obj.get("items"), list):
        items = _descend(manifest.node, "items") if manifest.node is not None else None
        nodes = items[1].value if items and isinstance(items[1], yaml.SequenceNode) else [None] * len(obj["items"])
        rows = zip(obj["items"], nodes, strict=True)
        return [row for value, node in rows for row in _flatten(Manifest(value, manifest.source, node))]
    if not isinstance(obj.get("metadata"), dict):
        raise failed(f"{manifest.source}:{manifest.line_of('metadata')}: metadata is not set")
    return [manifest]


def _noun(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "a boolean"}.get(type(value), "a number")


def refusal(error: ApiError, manifest: Manifest) -> Failed:
    """The server's refusal of a manifest, each cause with the line it is about."""
    lines = []
    for cause in error.causes:
        if cause.field and cause.reason != "FieldManagerConflict":
            lines.append(f"error: {manifest.source}:{manifest.line_of(cause.field)}: {cause.field}: {cause.message}")
    if not lines:
        for path in (*_UNKNOWN.findall(error.message), *_UNDECLARED.findall(error.message)):
            lines.append(f'error: {manifest.source}:{manifest.line_of(path)}: unknown field "{path}"')
    if lines:
        return Failed("\n".join(lines))
    return Failed(f"{sentence(error)}\n(from {manifest.source}:{manifest.line_of('')}, {manifest.label})")
