"""One request on its way through the API server: what it asks, who asks, and its query as a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_plus, urlencode

from steersman.actors.http.messages import Request
from steersman.actors.ports import User
from steersman.cluster.api.rules import options
from steersman.cluster.auth.attributes import Attributes, plain
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.parameters import is_true
from steersman.cluster.meta.remembered import remembered
from steersman.cluster.meta.selectors import FieldSelector, LabelSelector, SelectorError, parse_fields, parse_labels
from steersman.cluster.meta.times import duration_s
from steersman.cluster.meta.warningheaders import TOTAL_CHARS_MAX

#: parameters that are read, as of Go's servers
PARAMETERS_MAX = 10_000
#: in a parameter that Go's servers leave out: what separates none any more, and what encodes nothing
_UNREADABLE = re.compile(";|%(?![0-9A-Fa-f]{2})")
#: verbs and subresources of requests that last as long as their client likes
_LASTING_VERBS = frozenset({"proxy", "watch"})
_LASTING_PARTS = frozenset({"attach", "exec", "log", "portforward", "proxy"})
#: a client that would wait longer waits as long as others
_LIMIT_S_MAX = 60.0


class Query(dict[str, str]):
    """A decoded query: the first value of each parameter, and `all` of them."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []
        if text:
            for part in text.split("&", PARAMETERS_MAX)[:PARAMETERS_MAX]:
                key, _, value = part.partition("=")
                if "%" in part or "+" in part or ";" in part:
                    if _UNREADABLE.search(part):
                        continue
                    key, value = unquote_plus(key), unquote_plus(value)
                if key:
                    self.pairs.append((key, value))
                    self.setdefault(key, value)

    def encoded(self) -> str:
        """The query as another server is to be asked, who might read the same text otherwise."""
        return urlencode(sorted(self.pairs, key=lambda pair: pair[0]))

    def every(self, key: str) -> list[str]:
        return [value for name, value in self.pairs if name == key]

    def flag(self, key: str, default: bool = False) -> bool:
        return is_true(self[key]) if key in self else default

    def number(self, key: str) -> int | None:
        """Raises BadRequest when it is there and no whole number that is not negative."""
        text = self.get(key, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise BadRequest(f'{key}: Invalid value: "{text}": must be a non-negative integer')
        return int(text)

    def integer(self, key: str) -> int | None:
        """Raises BadRequest, as Go's conversion does, when it is there and no whole number."""
        text = self.get(key, "")
        if not text:
            return None
        if re.fullmatch(r"[-+]?[0-9]{1,18}", text) is None:
            raise BadRequest(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
        return int(text)

    def dry_run(self) -> bool:
        return "All" in self.every("dryRun")

    def field_validation(self) -> str:
        return self.get("fieldValidation", "") or "Warn"


def time_limit_s(query: Query, attributes: Attributes) -> float | None:
    """The seconds that a client waits by its `timeout`; None where it says nothing, or the request is meant to last.

    Source: k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go

    Raises:
        BadRequest: it is no duration.
    """
    text = query.get("timeout", "")
    if not text or attributes.verb in _LASTING_VERBS or attributes.subresource in _LASTING_PARTS:
        return None
    try:
        limit_s = duration_s(text)
    except ValueError as error:
        raise BadRequest(f"invalid timeout specified in the request URL - {error}") from None
    return limit_s if 0 < limit_s < _LIMIT_S_MAX else None


@remembered(4096)
def labels_of(text: str) -> LabelSelector:
    """The parsed `labelSelector`; raises BadRequest."""
    try:
        return parse_labels(text)
    except SelectorError as error:
        raise BadRequest(str(error)) from None


@remembered(4096)
def fields_of(text: str) -> FieldSelector:
    """The parsed `fieldSelector`; raises BadRequest."""
    try:
        return parse_fields(text)
    except SelectorError as error:
        raise BadRequest(str(error)) from None


@dataclass(slots=True)
class Call:
    """A request that has been read and whose user is known.

    Args:
        warnings: texts that the answer carries in `Warning` headers.
        annotations: of the audit event.
        is_kept: the audit event holds the object of the request.
    """

    request: Request
    attributes: Attributes
    query: Query
    user: User
    warnings: dict[str, None] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    is_kept: bool = False

    @property
    def header(self) -> dict[str, str]:
        return self.request.headers

    @property
    def path(self) -> str:
        """The percent-encoded path as it was understood."""
        return plain(self.request.target.partition("?")[0])

    def warn(self, *texts: str) -> None:
        """Takes each warning once, however often a write is decided."""
        for text in texts:
            if len(self.warnings) >= TOTAL_CHARS_MAX:
                return
            self.warnings[text] = None

    def annotate(self, key: str, value: str) -> None:
        self.annotations[key] = value

    def told(self) -> dict[str, Callable[[str], None] | Callable[[str, str], None]]:
        """What takes the remarks of a write, by their names in its context."""
        more = {"annotate_object": self.annotate} if self.is_kept else {}
        return {"warn": self.warn, "annotate": self.annotate, **more}

    def check_options(self, sort: str, *, applies: bool = False) -> None:
        """Refuses options of a write, of the sort `CreateOptions` or another, that make no sense; raises Invalid."""
        query = self.query
        if query:
            options.check(
                sort, manager=query.get("fieldManager", ""), dry=query.every("dryRun"),
                validation=query.get("fieldValidation", ""), applies=applies, forces="force" in query,
            )  # fmt: skip
        elif applies:
            options.check(sort, manager="", applies=True)

    def field_manager(self) -> str:
        """The explicit field manager, else what can be printed of the first word of the user agent."""
        return self.query.get("fieldManager", "") or options.default_manager(self.header.get("user-agent", ""))
