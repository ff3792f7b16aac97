from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.patch import Inapplicable, json_patch, merge_patch
from steersman.cluster.meta.errors import BadRequest, Invalid, RequestEntityTooLarge

RFC_6902 = [
    ("adds a member", {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ("inserts", {"foo": ["a", "b"]}, [{"op": "add", "path": "/foo/1", "value": "x"}], {"foo": ["a", "x", "b"]}),
    ("appends", {"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
    ("removes a member", {"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
    ("removes an item", {"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
    ("replaces", {"foo": {"a": 1}}, [{"op": "replace", "path": "/foo/a", "value": None}], {"foo": {"a": None}}),
    (
        "moves",
        {"foo": {"bar": 1, "waldo": 2}, "qux": {}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": 1}, "qux": {"thud": 2}},
    ),
    ("moves items", {"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
    ("copies", {"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
    ("tests", {"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], {"a/b": 1, "m~n": 2}),
    ("counts from the end", {"l": [1, 2]}, [{"op": "replace", "path": "/l/-1", "value": 3}], {"l": [1, 3]}),
    ("adds before the end", {"l": [1, 2]}, [{"op": "add", "path": "/l/-2", "value": 3}], {"l": [1, 3, 2]}),
    ("takes what is left out for null", {"a": 1}, [{"op": "add", "path": "/b"}], {"a": 1, "b": None}),
    ("tests absence", {"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
]


@pytest.mark.parametrize("name,target,ops,expected", RFC_6902, ids=[row[0] for row in RFC_6902])
def test_json_patch(name: str, target: Any, ops: Any, expected: Any) -> None:
    assert json_patch(target, ops) == expected


REFUSED = [
    ([{"op": "remove", "path": "/nope"}],
     "error in remove for path: '/nope': Unable to remove nonexistent key: nope: missing value"),
    ([{"op": "remove", "path": "/nope/x"}],
     'remove operation does not apply: doc is missing path: "/nope/x": missing value'),
    ([{"op": "replace", "path": "/nope", "value": 1}],
     "replace operation does not apply: doc is missing key: /nope: missing value"),
    ([{"op": "replace", "path": "/nope/x", "value": 1}],
     "replace operation does not apply: doc is missing path: /nope/x: missing value"),
    ([{"op": "add", "path": "/list/4", "value": 1}],
     "error in add for path: '/list/4': Unable to access invalid index: 4: invalid index referenced"),
    ([{"op": "add", "path": "/list/x", "value": 1}],
     "error in add for path: '/list/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid "
     "syntax"),
    ([{"op": "remove", "path": "/list/-3"}],
     "error in remove for path: '/list/-3': Unable to access invalid index: -3: invalid index referenced"),
    ([{"op": "spin", "path": "/n"}], "Unexpected kind: spin"),
    ([{}], "Unexpected kind: None"),
    ([{"op": "add", "path": "n", "value": 1}], "'path' must be a JSON pointer, got 'n'"),
    ([{"op": "add", "path": "/n/x", "value": 1}],
     'add operation does not apply: doc is missing path: "/n/x": missing value'),
    ([{"op": "test", "path": "/n", "value": 2}], "testing value /n failed: test failed"),
    ([{"op": "test", "path": "/n", "value": True}], "testing value /n failed: test failed"),
    ([{"op": "test", "path": "/a/b", "value": 1}],
     "test operation does not apply: is missing path: /a/b: missing value"),
    ([{"op": "move", "from": "/list", "path": "/list/0"}],
     "move operation does not apply: doc is missing destination path: /list/0: missing value"),
    ([{"op": "move", "from": "/a", "path": "/n"}],
     "error in move for path: 'a': Unable to remove nonexistent key: a: missing value"),
    ([{"op": "copy", "from": "/a/b", "path": "/n"}],
     "copy operation does not apply: doc is missing from path: /a/b: missing value"),
    ([{"op": "copy", "from": "/a", "path": "/n"}],
     "error in copy for from: 'a': unable to get nonexistent key: a: missing value"),
    ([{"op": "remove", "path": ""}], 'remove operation does not apply: doc is missing path: "": missing value'),
    ([{"op": "replace", "path": "", "value": 3}], "the patch leaves no object"),
]  # fmt: skip


@pytest.mark.parametrize(("ops", "wrong"), REFUSED, ids=[row[1] for row in REFUSED])
def test_an_operation_that_cannot_be_carried_out_is_told_in_the_librarys_words(ops: Any, wrong: str) -> None:
    target = {"list": [1, 2], "n": 1}
    with pytest.raises(Inapplicable) as refused:
        json_patch(target, ops)
    assert str(refused.value) == wrong
    assert target == {"list": [1, 2], "n": 1}


@pytest.mark.parametrize("ops", [{}, [3]])
def test_a_document_that_is_no_json_patch_is_a_bad_request(ops: Any) -> None:
    with pytest.raises(BadRequest):
        json_patch({}, ops)


def test_a_patch_cannot_blow_an_object_up_by_copying() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(Invalid, match="accumulated size increase of copy"):
        json_patch({"a": [1, 2, 3]}, doubling)
    with pytest.raises(RequestEntityTooLarge):
        json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)


RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize("target,patch,expected", RFC_7396)
def test_merge_patch(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


def test_a_merge_patch_must_be_an_object_and_leaves_its_inputs_as_they_are() -> None:
    with pytest.raises(BadRequest):
        merge_patch({"a": 1}, [1])
    target, patch = {"kept": {"x": [1]}, "gone": 1}, {"new": {"y": [2]}, "kept": {"z": 1}, "gone": None}
    assert merge_patch(target, patch) == {"kept": {"x": [1], "z": 1}, "new": {"y": [2]}}
    assert target == {"kept": {"x": [1]}, "gone": 1}
    assert patch == {"new": {"y": [2]}, "kept": {"z": 1}, "gone": None}
