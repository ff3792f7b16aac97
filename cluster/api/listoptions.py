"""What a list or watch asks for beside its selectors: how fresh, how much, from where; and the tokens of its pages.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions; the rules and words are those of
k8s.io/apimachinery/pkg/apis/meta/internalversion and k8s.io/apiserver/pkg/storage.
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from steersman.cluster.api.rules.fields import bad, forbidden, unsupported
from steersman.cluster.api.syntax import Malformed, name_of, read_json
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import BadRequest, Cause
from steersman.cluster.meta.parameters import is_true, whole_number

EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_UINT64_MAX = (1 << 64) - 1
_TOKEN_VERSION = "meta.k8s.io/v1"
#: of a token: its fields, what they are in Go, and what they are when they are left out
_TOKEN_FIELDS = (("v", "string", ""), ("rv", "int64", 0), ("start", "string", ""))
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The checked parameters of a list or watch.

    Args:
        version: the number of the `resourceVersion`; None when there is none.
        match: `resourceVersionMatch`; empty when there is none.
        token: where an earlier page ended.
        limit: objects at most; 0 for all.
        initial: `sendInitialEvents`; None when the client says nothing of it.
        timeout_s: after which a watch ends; 0 for the server's choice.
    """

    version: int | None = None
    match: str = ""
    token: str = ""
    limit: int = 0
    initial: bool | None = None
    bookmarks: bool = False
    timeout_s: int = 0

    @property
    def exact(self) -> int | None:
        """The revision that a list is to show; None when it may be newer.

        A version with a limit and no match means exactly that version, as it did before there were matches.
        """
        if self.version and (self.match == EXACT or (self.limit and not self.match)):
            return self.version
        return None


def read_list_options(query: Mapping[str, str], *, watch: bool) -> ListOptions:
    """Returns what the query of a list or watch asks for.

    Raises:
        BadRequest: a parameter cannot be read. Invalid: parameters do not go together.
    """
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    initial = is_true(query["sendInitialEvents"]) if "sendInitialEvents" in query else None
    limit, timeout_s = (whole_number(query[key]) if key in query else 0 for key in ("limit", "timeoutSeconds"))
    token = query.get("continue", "")
    causes = (_watch_causes if watch else _list_causes)(version, match, token, initial)
    if causes:
        raise errors.invalid("ListOptions", "", causes, "meta.k8s.io")
    if token and not watch and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    return ListOptions(
        version=revision_of(version) if version else None,
        match=match,
        token=token,
        limit=max(0, limit),
        initial=initial,
        bookmarks="allowWatchBookmarks" in query and is_true(query["allowWatchBookmarks"]),
        timeout_s=max(0, timeout_s),
    )


def _list_causes(version: str, match: str, token: str, initial: bool | None) -> list[Cause]:
    causes, path = [], "resourceVersionMatch"
    if match:
        if not version:
            causes.append(forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if token:
            causes.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
        if match not in (EXACT, NOT_OLDER):
            causes.append(unsupported(path, match, (EXACT, NOT_OLDER, ""), in_order=True))
        if match == EXACT and version == "0":
            causes.append(forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if initial is not None:
        causes.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _watch_causes(_version: str, match: str, token: str, initial: bool | None) -> list[Cause]:
    causes, path = [], "resourceVersionMatch"
    if initial is not None and match != NOT_OLDER:
        causes.append(forbidden(path, f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}"))
    if match:
        if initial is None:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            causes.append(forbidden(path, text))
        if match != NOT_OLDER:
            causes.append(unsupported(path, match, (NOT_OLDER,)))
        if token:
            causes.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    return causes


def revision_of(version: str) -> int:
    """The number in a resourceVersion; raises BadRequest."""
    if version.isascii() and version.isdigit():
        if len(version) <= 20 and (number := int(version)) <= _UINT64_MAX:
            return number
        wrong = "value out of range"
    else:
        wrong = "invalid syntax"
    cause = bad("resourceVersion", version, f"strconv.ParseUint: parsing {json.dumps(version)}: {wrong}")
    raise BadRequest(f"invalid resource version: {cause.field}: {cause.message}")


# ---- continue tokens


def encode_continue(revision: int, key: str) -> str:
    """The token with which a list goes on behind `key`.

    Args:
        revision: of the list; -1 to go on with whatever is newest then.
        key: of the last object shown, below that of the list.
    """
    row = orjson.dumps({"v": _TOKEN_VERSION, "rv": revision, "start": f"{key}\0"})
    return base64.urlsafe_b64encode(row).decode().rstrip("=")


def decode_continue(token: str) -> tuple[int, str]:
    """Returns (revision, the first key that may be shown, below that of the list); raises BadRequest."""
    version, revision, start = _fields(token)
    if version != _TOKEN_VERSION:
        raise _bad_token(f": server does not recognize this encoded version {version}")
    if not revision:
        raise _bad_token(f": incorrect encoded start resourceVersion (version {_TOKEN_VERSION})")
    if not start:
        raise _bad_token(f": encoded start key empty (version {_TOKEN_VERSION})")
    key = start if start.startswith("/") else f"/{start}"
    if posixpath.normpath(key) != key:
        raise _bad_token(f": {start}")
    return revision, key[1:]


def _fields(token: str) -> tuple[str, int, str]:
    """What a token says, as far as it can be read: its version, the revision and the start."""
    index = next((index for index, letter in enumerate(token) if letter not in _BASE64), -1)
    if index < 0 and len(token) % 4 == 1:
        index = len(token) - 1
    if index >= 0:
        raise _bad_token(f": illegal base64 data at input byte {index}")
    try:
        row = read_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, Malformed) as error:
        raise _bad_token(f": {error}") from None
    if row is not None and not isinstance(row, dict):
        raise _bad_token(f": json: cannot unmarshal {name_of(row)} into Go value of type storage.continueToken")
    version, revision, start = (_field(row or {}, *wanted) for wanted in _TOKEN_FIELDS)
    return version, revision, start


def _field(row: Mapping[str, Any], key: str, go_type: str, zero: Any) -> Any:
    """A field of a token, as Go reads it."""
    value = row.get(key)
    if value is None:
        return zero
    is_whole = type(value) is int and -(2**63) <= value < 2**63
    if not (isinstance(value, str) if go_type == "string" else is_whole):
        sort = f"number {value}" if go_type == "int64" and name_of(value) == "number" else name_of(value)
        raise _bad_token(f": json: cannot unmarshal {sort} into Go struct field continueToken.{key} of type {go_type}")
    return value


def _bad_token(detail: str) -> BadRequest:
    return BadRequest(f"invalid continue token: continue key is not valid{detail}")
