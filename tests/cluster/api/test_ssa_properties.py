"""What must hold of field sets and of server-side apply, whatever the objects."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steersman.cluster.api import ssa
from steersman.cluster.api.fieldset import difference, intersection, paths, union
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.meta.errors import Conflict

Obj = dict[str, Any]

#: a kind with a map, a struct, a keyed list, a set and an atomic list
THING: Obj = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "data": {"type": "object", "additionalProperties": {"type": "string"}},
        "struct": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "rows": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
        },
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "atoms": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
    },
}
SCHEMA: SchemaNode = SchemaSet({"Thing": THING}, structural=True).node("Thing")
WORDS = st.sampled_from(["a", "b", "c"])


def _rows(values: dict[str, str | None]) -> list[Obj]:
    return [{"name": k, "value": v} if v is not None else {"name": k} for k, v in values.items()]


CONFIGS = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Thing"), "metadata": st.just({"name": "t"})},
    optional={
        "data": st.dictionaries(WORDS, WORDS, max_size=3),
        "struct": st.fixed_dictionaries({}, optional={"a": WORDS, "b": WORDS}),
        "rows": st.dictionaries(WORDS, st.none() | WORDS, max_size=3).map(_rows),
        "tags": st.lists(WORDS, unique=True, max_size=3),
        "atoms": st.lists(WORDS, max_size=2),
    },
)
TREES: Any = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", "k:{}", "."]), inner, min_size=1, max_size=3).map(
        lambda tree: {k: ({} if k == "." else v) for k, v in tree.items()} if set(tree) != {"."} else {}
    ),
    max_leaves=8,
)


def members(tree: Obj) -> set[str]:
    return set(paths({k: v for k, v in tree.items() if k != "."}))


def apply(live: Obj | None, config: Obj, manager: str, now: float = 0, *, force: bool = True) -> Obj:
    return ssa.apply(SCHEMA, live, config, manager=manager, force=force, api_version="v1", now=now)


def owned(obj: Obj, manager: str) -> Obj:
    rows = obj["metadata"].get("managedFields", ())
    return next((row["fieldsV1"] for row in rows if row["manager"] == manager), {})


def holds(obj: Any, config: Any) -> bool:
    """Whether everything that a configuration says is so in the object."""
    if isinstance(config, dict):
        return isinstance(obj, dict) and all(key in obj and holds(obj[key], value) for key, value in config.items())
    if isinstance(config, list) and config and isinstance(config[0], dict):
        by_name = {row["name"]: row for row in obj}
        return all(row["name"] in by_name and holds(by_name[row["name"]], row) for row in config)
    return bool(obj == config)


def holds_config(obj: Obj, config: Obj) -> bool:
    rest = {k: v for k, v in config.items() if k not in ("metadata", "tags") and v != []}
    return holds(obj, rest) and set(config.get("tags", ())) <= set(obj.get("tags", ()))


@given(TREES, TREES)
@settings(max_examples=150)
def test_field_sets_are_sets(left: Obj, right: Obj) -> None:
    left, right = ({k: v for k, v in tree.items() if k != "."} for tree in (left, right))
    before = copy.deepcopy((left, right))
    assert members(union(left, right)) == members(left) | members(right)
    assert members(difference(left, right)) == members(left) - members(right)
    assert members(intersection(left, right)) == members(left) & members(right)
    assert (left, right) == before


@given(CONFIGS, CONFIGS)
@settings(max_examples=150)
def test_what_is_applied_is_so_and_stays_so(first: Obj, second: Obj) -> None:
    live = apply(apply(None, first, "m"), second, "m", 1)
    assert holds_config(live, second)
    assume(owned(live, "m"))
    assert apply(live, second, "m", 2) == live


@given(CONFIGS, CONFIGS)
@settings(max_examples=150)
def test_a_second_apply_leaves_nothing_of_the_first_behind(first: Obj, second: Obj) -> None:
    again = apply(apply(None, first, "m"), second, "m", 1)
    fresh = apply(None, second, "m", 1)
    assert members(owned(again, "m")) == members(owned(fresh, "m"))
    assert again.get("data", {}) == fresh.get("data", {}) and again.get("struct", {}) == fresh.get("struct", {})
    assert sorted(again.get("tags", [])) == sorted(fresh.get("tags", []))
    assert {row["name"]: row for row in again.get("rows", ())} == {row["name"]: row for row in fresh.get("rows", ())}


@given(CONFIGS, CONFIGS, CONFIGS)
@settings(max_examples=150)
def test_nobody_changes_what_another_owns_without_force(mine: Obj, theirs: Obj, later: Obj) -> None:
    live = apply(apply(None, mine, "me"), theirs, "them", 1)
    try:
        after = apply(live, later, "them", 2, force=False)
    except Conflict as conflict:
        assert conflict.causes and {cause.reason for cause in conflict.causes} == {"FieldManagerConflict"}
        return
    assert members(owned(after, "me")) == members(owned(live, "me"))
    for path in members(owned(live, "me")):
        key = path.rpartition(".")[2]
        if path.startswith(".data."):
            assert after["data"][key] == live["data"][key]
        if path.startswith(".struct."):
            assert after["struct"][key] == live["struct"][key]


@given(CONFIGS, CONFIGS)
@settings(max_examples=150)
def test_an_update_owns_exactly_what_it_changed_besides(first: Obj, second: Obj) -> None:
    live = apply(None, first, "applier")
    new = {**second, "metadata": {"name": "t"}}
    after = ssa.track_update(SCHEMA, live, new, manager="updater", api_version="v1", now=1)
    if not live["metadata"].get("managedFields"):
        assert "managedFields" not in after["metadata"]
        return
    assert not members(owned(after, "updater")) & members(owned(after, "applier")) & _scalars(second, first)
    assert ssa.track_update(SCHEMA, after, copy.deepcopy(after), manager="updater", api_version="v1", now=9) == after


def _scalars(new: Obj, old: Obj) -> set[str]:
    """Paths of map values that differ between the two."""
    changed = {k for k, v in (new.get("data") or {}).items() if (old.get("data") or {}).get(k) != v}
    return {f".data.{key}" for key in changed}
