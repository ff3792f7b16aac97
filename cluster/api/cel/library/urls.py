"""URLs.

Source: k8s.io/apiserver/pkg/cel/library/urls.go
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, method, reads_text
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque
from steersman.cluster.meta.gotext import quoted

_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")


@dataclass(frozen=True, slots=True)
class Url(Opaque):
    type: ClassVar[Type] = Type("kubernetes.URL")
    parts: SplitResult


def _url(text: str) -> Url:
    wrong = ""
    if any(ord(char) < 0x20 or char == "\x7f" for char in text):
        wrong = "net/url: invalid control character in URL"
    else:
        try:
            parts = urlsplit(text)
        except ValueError:
            wrong = "invalid URI for request"
    if not wrong:
        wrong = _wrong_in(parts, text)
    if wrong:
        raise EvaluationError(f"URL parse error during conversion from string: parse {quoted(text)}: {wrong}")
    return Url(parts)


def _wrong_in(parts: SplitResult, text: str) -> str:
    """What Go does not take, in its words; empty for what is a URL."""
    if not text:
        return "empty url"
    if not (parts.scheme or text.startswith("/") or text == "*"):
        return "invalid URI for request"
    host = parts.netloc.rpartition("@")[2]
    if " " in host:
        return 'invalid character " " in host name'
    port = host.rpartition("]")[2].rpartition(":")
    if port[1] and not (port[2].isascii() and (port[2].isdigit() or not port[2])):
        return f"invalid port {quoted(':' + port[2])} after host"
    bad = _BAD_ESCAPE.search(parts.path)
    return f"invalid URL escape {quoted(bad[0])}" if bad else ""


def _is_url(text: str) -> bool:
    try:
        _url(text)
    except EvaluationError:
        return False
    return True


def _host(url: Url) -> str:
    return url.parts.netloc.rpartition("@")[2].replace("%25", "%")


def _hostname(url: Url) -> str:
    host = _host(url)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _port(url: Url) -> str:
    return _host(url).rpartition("]")[2].rpartition(":")[2] if ":" in _host(url).rpartition("]")[2] else ""


def _query(url: Url) -> dict[str, list[str]]:
    return parse_qs(url.parts.query, keep_blank_values=True)


_U = "kubernetes.URL"
FUNCTIONS = (
    function("url", f"string -> {_U}", _url, reads_text),
    function("isURL", "string -> bool", _is_url, reads_text),
    method("getScheme", f"{_U} -> string", lambda url: url.parts.scheme),
    method("getHost", f"{_U} -> string", _host),
    method("getHostname", f"{_U} -> string", _hostname),
    method("getPort", f"{_U} -> string", _port),
    method("getEscapedPath", f"{_U} -> string", lambda url: quote(url.parts.path, safe="/%:@!$&'()*+,;=~")),
    method("getQuery", f"{_U} -> map(string, list(string))", _query),
)
