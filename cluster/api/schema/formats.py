"""The string formats that schemas of custom resources may ask for.

Source: https://github.com/go-openapi/strfmt, as far as Kubernetes takes it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.times import parse_time

_UUID = r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_BASE64 = r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
#: of six, eight or twenty bytes
_MAC = r"(?i)[0-9a-f]{2}([:-])([0-9a-f]{2}\1){4}(([0-9a-f]{2}\1){2}(([0-9a-f]{2}\1){12})?)?[0-9a-f]{2}"
_DOTTED_MAC = r"(?i)([0-9a-f]{4}\.){2}(([0-9a-f]{4}\.)(([0-9a-f]{4}\.){6})?)?[0-9a-f]{4}"
_DURATION = re.compile(r"^[+-]?(\d+(\.\d+)?(ns|us|µs|μs|ms|s|m|h|d|w)\s?)+$|^0$")
_COLOR = re.compile(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")


def _reads(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _like(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(pattern)
    return lambda text: expression.fullmatch(text) is not None


def _network(text: str) -> None:
    address, slash, size = text.partition("/")
    if not (slash and size.isascii() and size.isdecimal() and "%" not in address):
        raise ValueError(text)
    ip_network(text, strict=False)


def _day(text: str) -> None:
    if len(text) != len("2006-01-02") or text[4] + text[7] != "--":
        raise ValueError(text)
    date.fromisoformat(text)


_is_mac, _is_dotted_mac = _like(_MAC), _like(_DOTTED_MAC)
_is_ipv6 = _reads(IPv6Address)
#: format name to whether a text has it; formats that are not here are not checked
FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _like(_BASE64),
    "cidr": _reads(_network),
    "date": _reads(_day),
    "date-time": _reads(parse_time),
    "datetime": _reads(parse_time),
    "duration": lambda text: bool(_DURATION.match(text)),
    "email": lambda text: bool(_EMAIL.match(text)),
    "hexcolor": lambda text: bool(_COLOR.match(text)),
    "hostname": lambda text: not subdomain_errors(text.lower()),
    "ipv4": _reads(IPv4Address),
    "ipv6": lambda text: "%" not in text and _is_ipv6(text),
    "k8s-short-name": lambda text: not label_1123_errors(text),
    "k8s-long-name": lambda text: not subdomain_errors(text),
    "mac": lambda text: _is_mac(text) or _is_dotted_mac(text),
    "ssn": _like(r"[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}"),
    "uri": _like(r"\*|(/|[A-Za-z][A-Za-z0-9+.-]*:)[^\x00-\x1f\x7f]*"),
    "uuid": _like(_UUID % ("[0-9a-f]", "[0-9a-f]")),
    "uuid3": _like(_UUID % ("3", "[0-9a-f]")),
    "uuid4": _like(_UUID % ("4", "[89ab]")),
    "uuid5": _like(_UUID % ("5", "[89ab]")),
}
#: type to the formats that Kubernetes knows for it, without their dashes; a schema without a type is taken for a string
_KNOWN: Mapping[str, frozenset[str]] = {
    "string": frozenset({
        *(name.replace("-", "") for name in FORMATS),
        "bsonobjectid", "creditcard", "isbn", "isbn10", "isbn13", "password", "quantity", "rgbcolor",
    }),
    "integer": frozenset({"int32", "int64"}),
    "number": frozenset({"float", "double"}),
}  # fmt: skip
_SCHEMAS, _LISTS = ("not", "items", "additionalProperties"), ("allOf", "anyOf", "oneOf")


def unrecognized(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yields the formats in a schema that nothing is checked for, as Kubernetes does not know them for the type."""
    form, type_ = schema.get("format"), schema.get("type") or "string"
    if form and (form.replace("-", "") if type_ == "string" else form) not in _KNOWN.get(type_, ()):
        yield form
    below = [schema.get(key) for key in _SCHEMAS]
    below += [child for key in _LISTS for child in schema.get(key) or ()]
    below += (schema.get("properties") or {}).values()
    for child in below:
        if isinstance(child, Mapping):
            yield from unrecognized(child)
