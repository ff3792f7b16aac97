"""The parameters of lists and watches, and the tokens of pages, in the words of k8s.io/apimachinery and apiserver."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from steersman.cluster.api.listoptions import ListOptions, decode_continue, encode_continue, read_list_options
from steersman.cluster.meta.errors import ApiError, BadRequest

EXACT_0 = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
NO_VERSION = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
NO_TOKEN = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
NEEDS_MATCH = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
NEEDS_INITIAL = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
MATCH, VERSION, INITIAL = "resourceVersionMatch", "resourceVersion", "sendInitialEvents"

#: (watch, parameters, causes)
INVALID: dict[str, tuple[bool, dict[str, str], list[tuple[str, str]]]] = {
    "a match without version": (False, {MATCH: "NotOlderThan"}, [(MATCH, NO_VERSION)]),
    "a match in a continued list": (
        False, {MATCH: "Exact", VERSION: "5", "continue": "x"}, [(MATCH, NO_TOKEN)],
    ),
    "no such match": (
        False, {MATCH: "About", VERSION: "5"},
        [(MATCH, 'Unsupported value: "About": supported values: "Exact", "NotOlderThan", ""')],
    ),
    "exactly whatever": (False, {MATCH: "Exact", VERSION: "0"}, [(MATCH, EXACT_0)]),
    "several mistakes": (
        False, {MATCH: "About", "continue": "x"},
        [
            (MATCH, NO_VERSION), (MATCH, NO_TOKEN),
            (MATCH, 'Unsupported value: "About": supported values: "Exact", "NotOlderThan", ""'),
        ],
    ),
    "a list with initial events": (
        False, {INITIAL: "false"}, [(INITIAL, "Forbidden: sendInitialEvents is forbidden for list")],
    ),
    "initial events without match": (True, {INITIAL: "true"}, [(MATCH, NEEDS_MATCH)]),
    "no initial events without match": (True, {INITIAL: "false", VERSION: "5"}, [(MATCH, NEEDS_MATCH)]),
    "initial events of exactly": (
        True, {INITIAL: "true", MATCH: "Exact"},
        [(MATCH, NEEDS_MATCH), (MATCH, 'Unsupported value: "Exact": supported values: "NotOlderThan"')],
    ),
    "a watch with a match": (True, {MATCH: "NotOlderThan", VERSION: "5"}, [(MATCH, NEEDS_INITIAL)]),
    "a watch that goes on": (
        True, {INITIAL: "true", MATCH: "NotOlderThan", "continue": "x"}, [(MATCH, NO_TOKEN)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_parameters_that_do_not_go_together_are_refused(case: str) -> None:
    watch, query, causes = INVALID[case]
    with pytest.raises(ApiError) as raised:
        read_list_options(query, watch=watch)
    status = raised.value.to_status()
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert [(row["field"], row["message"]) for row in status["details"]["causes"]] == causes
    lines = [f"{path}: {message}" for path, message in causes]
    shown = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    assert status["message"] == f'ListOptions.meta.k8s.io "" is invalid: {shown}'


_UINT = "invalid resource version: resourceVersion: Invalid value: {0}: strconv.ParseUint: parsing {0}: {1}"
UNREADABLE = {
    "a version that is no number": ({VERSION: "abc"}, _UINT.format('"abc"', "invalid syntax")),
    "a negative version": ({VERSION: "-1"}, _UINT.format('"-1"', "invalid syntax")),
    "a version beyond 64 bits": ({VERSION: "9" * 20}, _UINT.format(f'"{"9" * 20}"', "value out of range")),
    "a limit that is no number": ({"limit": "many"}, 'strconv.ParseInt: parsing "many": invalid syntax'),
    "an empty limit": ({"limit": ""}, 'strconv.ParseInt: parsing "": invalid syntax'),
    "a limit beyond 64 bits": ({"limit": "9" * 19}, f'strconv.ParseInt: parsing "{"9" * 19}": value out of range'),
    "a timeout that is no number": ({"timeoutSeconds": "1s"}, 'strconv.ParseInt: parsing "1s": invalid syntax'),
    "a version with a token": (
        {VERSION: "5", "continue": "x"}, "specifying resource version is not allowed when using continue",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_told_as_go_does(case: str) -> None:
    query, message = UNREADABLE[case]
    with pytest.raises(BadRequest) as raised:
        read_list_options(query, watch=False)
    assert raised.value.message == message


ASKED: dict[str, tuple[dict[str, str], ListOptions]] = {
    "nothing": ({}, ListOptions()),
    "a limit of less than nothing": ({"limit": "-5"}, ListOptions()),
    "whatever": ({VERSION: "0", "limit": "5"}, ListOptions(version=0, limit=5)),
    "a token and zero": ({VERSION: "0", "continue": "x"}, ListOptions(version=0, token="x")),
    "bookmarks": ({"allowWatchBookmarks": ""}, ListOptions(bookmarks=True)),
    "no bookmarks": ({"allowWatchBookmarks": "False"}, ListOptions()),
}


@pytest.mark.parametrize("case", ASKED)
def test_parameters_are_read(case: str) -> None:
    query, wanted = ASKED[case]
    assert read_list_options(query, watch=False) == wanted


EXACTLY = {
    "limit alone": ({"limit": "5"}, None),
    "a version": ({VERSION: "7"}, None),
    "a version and a limit": ({VERSION: "7", "limit": "5"}, 7),
    "not older, with a limit": ({VERSION: "7", "limit": "5", MATCH: "NotOlderThan"}, None),
    "exactly": ({VERSION: "7", MATCH: "Exact"}, 7),
    "whatever, with a limit": ({VERSION: "0", "limit": "5"}, None),
}


@pytest.mark.parametrize("case", EXACTLY)
def test_some_lists_are_of_one_revision(case: str) -> None:
    query, revision = EXACTLY[case]
    assert read_list_options(query, watch=False).exact == revision


def token(row: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(row)).decode().rstrip("=")


def test_a_token_is_the_one_of_kubernetes() -> None:
    made = encode_continue(12, "web-1")
    assert orjson.loads(base64.urlsafe_b64decode(made + "=" * (-len(made) % 4))) == {
        "v": "meta.k8s.io/v1", "rv": 12, "start": "web-1\0",
    }  # fmt: skip
    assert decode_continue(made) == (12, "web-1\0")
    assert decode_continue(encode_continue(-1, "default/web")) == (-1, "default/web\0")


V1 = "meta.k8s.io/v1"
TOKENS = {
    "x!": ": illegal base64 data at input byte 1",
    "abcde": ": illegal base64 data at input byte 4",
    token([]): ": json: cannot unmarshal array into Go value of type storage.continueToken",
    token(None): ": server does not recognize this encoded version ",
    "eyJ2": ": unexpected end of JSON input",
    token({}): ": server does not recognize this encoded version ",
    token({"v": "v2", "rv": 1, "start": "a"}): ": server does not recognize this encoded version v2",
    token({"v": V1, "rv": "1", "start": "a"}): ": json: cannot unmarshal string into Go struct field "
    "continueToken.rv of type int64",
    token({"v": V1, "rv": 1.5}): ": json: cannot unmarshal number 1.5 into Go struct field continueToken.rv "
    "of type int64",
    token({"v": V1, "rv": 1 << 63}): ": json: cannot unmarshal number 9223372036854775808 into Go struct field "
    "continueToken.rv of type int64",
    token({"v": True}): ": json: cannot unmarshal bool into Go struct field continueToken.v of type string",
    token({"v": V1, "start": "a"}): ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
    token({"v": V1, "rv": 1}): ": encoded start key empty (version meta.k8s.io/v1)",
    token({"v": V1, "rv": 1, "start": "../secrets/a"}): ": ../secrets/a",
}


@pytest.mark.parametrize("text", TOKENS)
def test_a_token_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode_continue(text)
    assert raised.value.message == f"invalid continue token: continue key is not valid{TOKENS[text]}"
