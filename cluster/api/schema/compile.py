"""The fast check: a kind's schema as a msgspec type that reads JSON bytes at native speed and refuses what is wrong.

It answers only yes or no. A yes means that the body has no unknown field, no wrong type and no quantity or time out
of form, so that the plain JSON tree can be taken as it is; what is wrong is for `walk` to say.
"""

from __future__ import annotations

from keyword import iskeyword
from typing import Annotated, Any

import msgspec

from steersman.cluster.api.schema.node import SchemaNode

_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_QUANTITY = Annotated[
    str, msgspec.Meta(pattern=r"^[+-]?(\d{1,18}(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]?|[eE][+-]?\d{1,3})$")
]
_TIME = Annotated[
    str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\d[Tt][0-2]\d:[0-5]\d:[0-6]\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
]
_SCALARS: dict[tuple[str, str], Any] = {
    ("integer", "int32"): _INT32,
    ("integer", ""): _INT64,
    ("integer", "int64"): _INT64,
    ("string", "byte"): bytes,
    ("string", "date-time"): _TIME,
}
_BY_TYPE: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "number": float,
    "integer": _INT64,
    "quantity": _QUANTITY | int | float,
    "int-or-string": _INT32 | str,
    "any": Any,
}


class FastCheck:
    """Whether a JSON body has the shape of a kind.

    Args:
        node: the kind's schema.

    Attributes:
        exact: False when the schema is recursive, so that a yes says nothing about the deeper parts.
        shut: whether a yes also bounds the depth: nothing of the schema but `fieldsV1` takes any value.
    """

    __slots__ = ("_decode", "exact", "shut")

    def __init__(self, node: SchemaNode) -> None:
        compiler = _Compiler()
        self._decode = msgspec.json.Decoder(compiler.type_of(node, ())).decode
        self.exact = not compiler.recursive
        self.shut = not compiler.open and self.exact

    def __call__(self, body: bytes) -> bool:
        try:
            self._decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True


class _Compiler:
    def __init__(self) -> None:
        self.recursive = False
        self.open = False
        self._structs: dict[str, Any] = {}

    def type_of(self, node: SchemaNode, above: tuple[str, ...]) -> Any:
        if node.type == "array":
            items = node.items
            return list[self.type_of(items, above)] if items is not None else list[Any]  # type: ignore[misc]
        if node.type == "object":
            return self._object(node, above)
        self.open = self.open or node.type == "any"
        return _SCALARS.get((node.type, node.format)) or _BY_TYPE[node.type]

    def _object(self, node: SchemaNode, above: tuple[str, ...]) -> Any:
        additional = node.additional
        if additional is not None:
            return dict[str, self.type_of(additional, above)]  # type: ignore[misc]
        if node.preserve_unknown or not node.raw.get("properties"):
            self.open = self.open or not node.definition.endswith(".FieldsV1")
            return dict[str, Any]
        if not node.definition:
            return self._struct(node, above)
        if node.definition in above:
            self.recursive = True
            return dict[str, Any]
        found = self._structs.get(node.definition)
        if found is None:
            found = self._structs[node.definition] = self._struct(node, (*above, node.definition))
        return found

    def _struct(self, node: SchemaNode, above: tuple[str, ...]) -> Any:
        rows, names = [], {}
        for index, (name, child) in enumerate(node.properties.items()):
            plain = name.isidentifier() and not iskeyword(name) and not name.startswith("__")
            attribute = name if plain else f"field_{index}"
            names[attribute] = name
            rows.append((attribute, self.type_of(child, above), None))
        return msgspec.defstruct(
            (node.definition.rpartition(".")[2] or "Anonymous"),
            rows,
            rename=names,
            forbid_unknown_fields=True,
            gc=False,
        )
