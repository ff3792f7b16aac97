"""URLs.

Source: k8s.io/apiserver/pkg/cel/library/urls.go
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, method, reads_text
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque


@dataclass(frozen=True, slots=True)
class Url(Opaque):
    type: ClassVar[Type] = Type("kubernetes.URL")
    parts: SplitResult


def _url(text: str) -> Url:
    try:
        parts = urlsplit(text)
        wrong = any(ord(char) < 0x21 or char == "\x7f" for char in text) or (parts.port or 0) < 0
    except ValueError:
        wrong = True
    if wrong or not (parts.scheme or text.startswith("/")):
        raise EvaluationError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return Url(parts)


def _is_url(text: str) -> bool:
    try:
        _url(text)
    except EvaluationError:
        return False
    return True


def _host(url: Url) -> str:
    return url.parts.netloc.rpartition("@")[2]


def _hostname(url: Url) -> str:
    host = _host(url)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _port(url: Url) -> str:
    return "" if url.parts.port is None else str(url.parts.port)


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
