"""Server-side apply beside a simple model of it: fields are sets of paths, and nothing is clever.

The model is written after structured-merge-diff's own words for what an update, an apply and a removal are, for one
kind with a map, a struct, a keyed list, a set and an atomic list.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.cluster.api import ssa
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.meta.errors import Conflict

Obj = dict[str, Any]
Path = tuple[str, ...]
Fields = frozenset[Path]

_ROW: Obj = {"type": "object", "properties": {"name": {"type": "string"}, "in": {"$ref": "#/definitions/Struct"}}}
DEFINITIONS: dict[str, Obj] = {
    "Struct": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    "Thing": {
        "type": "object",
        "properties": {
            "data": {"type": "object", "additionalProperties": {"type": "string"}},
            "struct": {
                "type": "object",
                "properties": {"deep": {"$ref": "#/definitions/Struct"}, "c": {"type": "string"}},
            },
            "rows": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": _ROW,
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "atoms": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
        },
    },
}
SCHEMA: SchemaNode = SchemaSet(DEFINITIONS, structural=True).node("Thing")
MANAGERS = ("one", "two", "three")


# ---- the model; an object is a tree of dicts in which keyed lists and sets are dicts by path element


def is_declared(path: Path) -> bool:
    """Whether a path ends in a field of a struct."""
    return len(path) == 1 or (path[-1][:2] == "f:" and path[0] != "f:data")


def children(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def said(tree: Any, path: Path = (), *, emptied: bool = False) -> set[Path]:
    """ToFieldSet: what a configuration says; `emptied`: a list without items is one whose items were removed."""
    found: set[Path] = set()
    for element, value in children(tree).items():
        here = (*path, element)
        found |= said(value, here, emptied=emptied)
        counts_empty = emptied or element not in ("f:rows", "f:tags")
        if not isinstance(value, dict) or not is_declared(here) or (not value and counts_empty):
            found.add(here)
    return found


def compared(old: Any, new: Any, path: Path = ()) -> tuple[set[Path], set[Path]]:
    """Compare: (added or modified, removed)."""
    touched: set[Path] = set()
    removed: set[Path] = set()
    for element in {**children(old), **children(new)}:
        here = (*path, element)
        before, after = children(old).get(element), children(new).get(element)
        if isinstance(before or after, dict):
            more = compared(before, after, here)
            touched, removed = touched | more[0], removed | more[1]
            changed = before is None or after is None
        else:
            changed = before != after
        if changed:
            (touched if after is not None else removed).add(here)
    return touched, removed


def merged(live: Any, config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    live = children(live)
    return {key: merged(live.get(key), config[key]) if key in config else live[key] for key in {**live, **config}}


def without(tree: Any, gone: set[Path], path: Path = ()) -> Any:
    """RemoveItems."""
    if not isinstance(tree, dict):
        return tree
    rest = {element: value for element, value in tree.items() if (*path, element) not in gone}
    return {element: without(value, gone, (*path, element)) for element, value in rest.items()}


def named(fields: set[Path]) -> set[Path]:
    """EnsureNamedFieldsAreMembers: the structs on the way count as well."""
    heads = {path[:depth] for path in fields for depth in range(1, len(path))}
    return fields | {path for path in heads if is_declared(path)}


class Model:
    """One object and who owns what of it; `sets` are by (manager, operation)."""

    def __init__(self) -> None:
        self.live: Any = None
        self.sets: dict[tuple[str, str], set[Path]] = {}

    def _take(self, mine: tuple[str, str], new: Any, *, force: bool) -> tuple[set[Path], set[Path]] | None:
        touched, removed = compared(self.live, new)
        if not force and any(fields & touched for owner, fields in self.sets.items() if owner != mine):
            return None
        for owner in self.sets:
            if owner != mine:
                self.sets[owner] = self.sets[owner] - touched - removed
        return touched, removed

    def update(self, manager: str, new: Any) -> None:
        if self.live is not None and not self.sets:
            self.live = new
            return
        mine = (manager, "Update")
        found = self._take(mine, new, force=True)
        assert found is not None
        self.sets[mine] = (self.sets.get(mine, set()) | found[0]) - found[1]
        self._done(new)

    def apply(self, manager: str, config: Any, *, force: bool) -> bool:
        mine = (manager, "Apply")
        before = dict(self.sets)
        if self.live is not None and not self.sets:
            self.sets["before-first-apply", "Update"] = compared({}, self.live)[0]
        last, self.sets[mine] = self.sets.get(mine), said(config)
        new = merged(self.live, config)
        if last:
            everything = named(said(new))
            left = named(said(without(new, named(last)), emptied=True))
            owned = named(set().union(*self.sets.values()))
            kept = without(new, everything - (left | owned))
            new = without(new, (everything - named(said(kept, emptied=True))) & named(last))
        if self._take(mine, new, force=force) is None:
            self.sets = before
            return False
        self._done(new)
        return True

    def _done(self, new: Any) -> None:
        self.live = {element: value for element, value in new.items() if value or element not in ("f:rows", "f:tags")}
        self.sets = {owner: fields for owner, fields in self.sets.items() if fields}


# ---- the same in both worlds


def to_object(tree: Any) -> Obj:
    found: Obj = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}}
    for element, value in (tree or {}).items():
        key = element[2:]
        if key in ("rows", "tags"):
            found[key] = [plain(item) if isinstance(item, dict) else item for item in value.values()]
        else:
            found[key] = plain(value)
    return found


def plain(value: Any) -> Any:
    return {key[2:]: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def to_tree(obj: Obj) -> Any:
    found = {}
    for key in ("data", "struct", "rows", "tags", "atoms"):
        if key not in obj:
            continue
        value = obj[key]
        if key == "rows":
            value = {f'k:{{"name":"{row["name"]}"}}': fielded(row) for row in value}
        elif key == "tags":
            value = {f'v:"{item}"': item for item in value}
        else:
            value = fielded(value)
        found[f"f:{key}"] = value
    return found


def fielded(value: Any) -> Any:
    return {f"f:{key}": fielded(item) for key, item in value.items()} if isinstance(value, dict) else value


def members(tree: Obj, path: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for element, node in tree.items():
        if element != ".":
            here = (*path, element)
            found |= members(node, here) | ({here} if not node or "." in node else set())
    return found


def owners(obj: Obj) -> dict[tuple[str, str], set[Path]]:
    rows = obj["metadata"].get("managedFields", ())
    return {(row["manager"], row["operation"]): members(row["fieldsV1"]) for row in rows}


WORDS = st.sampled_from(["a", "b"])
STRUCTS = st.fixed_dictionaries({}, optional={"f:a": WORDS, "f:b": WORDS})
TREES = st.fixed_dictionaries(
    {},
    optional={
        "f:data": st.dictionaries(st.sampled_from(["f:x", "f:y"]), WORDS, max_size=2),
        "f:struct": st.fixed_dictionaries({}, optional={"f:deep": STRUCTS, "f:c": WORDS}),
        "f:rows": st.dictionaries(WORDS, st.none() | STRUCTS, min_size=1, max_size=2).map(
            lambda rows: {
                f'k:{{"name":"{name}"}}': {"f:name": name, **({} if inner is None else {"f:in": inner})}
                for name, inner in rows.items()
            }
        ),
        "f:tags": st.lists(WORDS, unique=True, min_size=1, max_size=2).map(lambda tags: {f'v:"{t}"': t for t in tags}),
        "f:atoms": st.lists(WORDS, max_size=2),
    },
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["update", "apply", "force"]), st.sampled_from(MANAGERS), TREES), min_size=1, max_size=6
)


@given(STEPS)
@settings(max_examples=150)
def test_owners_and_objects_are_those_of_the_model(steps: list[tuple[str, str, Any]]) -> None:
    model, live = Model(), None
    for operation, manager, tree in steps:
        obj = to_object(tree)
        if operation == "update":
            model.update(manager, tree)
            live = ssa.track_update(SCHEMA, live, obj, manager=manager, api_version="v1", now=0)
        else:
            force = operation == "force"
            accepted = model.apply(manager, tree, force=force)
            try:
                live = ssa.apply(SCHEMA, live, obj, manager=manager, force=force, api_version="v1", now=0)
                assert accepted
            except Conflict:
                assert not accepted
                if live is None:
                    return
        live = {key: value for key, value in live.items() if value or key not in ("rows", "tags")}  # no list is empty
        assert owners(live) == model.sets
        assert to_tree(live) == model.live
