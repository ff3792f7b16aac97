"""Small words of validation: the causes that every rule file writes, in Kubernetes' sentences.

Source: k8s.io/apimachinery/pkg/util/validation/field
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import orjson

from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.names import label_value_errors, path_segment_errors, qualified_name_errors
from steersman.cluster.meta.remembered import remembered

#: as Go writes them within JSON
_MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def show(value: Any) -> str:
    """Returns a value as Kubernetes quotes it in messages."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return orjson.dumps(value).decode().translate(_MARKUP) if isinstance(value, (dict, list)) else str(value)


def internal(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Returns a part of an object as Kubernetes shows one of its internal types: every field, by its name in Go."""
    return {f"{key[0].upper()}{key[1:]}": value.get(key) for key in keys}


def as_struct(row: Mapping[str, Any] | None, **names: str) -> dict[str, Any] | None:
    """Returns an object as Kubernetes shows a struct of its own: every field, by the name that it has in Go."""
    return None if row is None else {name: row.get(key, "") for name, key in names.items()}


def required(path: str, detail: str = "") -> Cause:
    return Cause(path, f"Required value: {detail}" if detail else "Required value", "FieldValueRequired")


def bad(path: str, value: Any, detail: str) -> Cause:
    return Cause(path, f"Invalid value: {show(value)}: {detail}", "FieldValueInvalid")


def bad_all(path: str, value: Any, details: Iterable[str]) -> list[Cause]:
    return [bad(path, value, detail) for detail in details]


def forbidden(path: str, detail: str) -> Cause:
    return Cause(path, f"Forbidden: {detail}", "FieldValueForbidden")


def duplicate(path: str, value: Any) -> Cause:
    return Cause(path, f"Duplicate value: {show(value)}", "FieldValueDuplicate")


def not_found(path: str, value: Any) -> Cause:
    return Cause(path, f"Not found: {show(value)}", "FieldValueNotFound")


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


def too_many(path: str, count: int, limit: int) -> Cause:
    return Cause(path, f"Too many: {count}: must have at most {limit} items", "FieldValueTooMany")


def unsupported(path: str, value: Any, supported: Sequence[str], *, in_order: bool = False) -> Cause:
    """The cause of a value that is none of those supported, which are told sorted or in an order of their own."""
    listed = ", ".join(show(item) for item in (supported if in_order else sorted(supported)))
    return Cause(path, f"Unsupported value: {show(value)}: supported values: {listed}", "FieldValueNotSupported")


def masked(name: str) -> str:
    """A name that others are made from, as its rules see it: what is appended to it may follow a dash."""
    return name[:-2] + "a" if len(name) > 1 and name.endswith("-") else name


def one_of(path: str, value: Any, supported: Sequence[str], *, in_order: bool = False) -> list[Cause]:
    """The cause of a value that is missing or not among those supported."""
    if not value:
        return [required(path)]
    return [] if value in supported else [unsupported(path, value, supported, in_order=in_order)]


def not_negative(path: str, value: int | None) -> list[Cause]:
    if value is None or value >= 0:
        return []
    return [bad(path, value, "must be greater than or equal to 0")]


def immutable(path: str, new: Any, old: Any) -> list[Cause]:
    return [] if new == old else [bad(path, new, "field is immutable")]


@remembered(8192)
def key_errors(key: str) -> tuple[str, ...]:
    """What breaks the rule of a label key; remembered, since the same few keys stand in most objects."""
    return tuple(qualified_name_errors(key))


def labels(path: str, found: Mapping[str, str]) -> list[Cause]:
    """The rules of label maps."""
    causes: list[Cause] = []
    for key, value in found.items():
        if errors := key_errors(key):
            causes += bad_all(path, key, errors)
        if errors_of_value := label_value_errors(value):
            causes += bad_all(path, value, errors_of_value)
    return causes


def label_selector(path: str, selector: Mapping[str, Any] | None, *, any_values: bool = False) -> list[Cause]:
    """The rules of a `LabelSelector`.

    Args:
        any_values: those in expressions need not be values of labels.
    """
    causes: list[Cause] = []
    if not selector:
        return causes
    for key, value in (selector.get("matchLabels") or {}).items():
        causes += bad_all(f"{path}.matchLabels", key, qualified_name_errors(key))
        causes += bad_all(f"{path}.matchLabels", value, label_value_errors(value))
    for index, row in enumerate(selector.get("matchExpressions") or ()):
        causes += _expression(f"{path}.matchExpressions[{index}]", row, any_values=any_values)
    return causes


def selects_no_label(selector: Mapping[str, Any] | None) -> bool:
    """Whether expressions of a selector ask for what is no value of a label."""
    rows = (selector or {}).get("matchExpressions") or ()
    return any(label_value_errors(value) for row in rows for value in row.get("values") or ())


def _expression(path: str, row: Mapping[str, Any], *, any_values: bool) -> list[Cause]:
    operator, values = row.get("operator", ""), row.get("values") or []
    causes: list[Cause] = []
    if operator in ("In", "NotIn"):
        if not values:
            causes.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden(f"{path}.values", detail))
    else:
        causes.append(bad(f"{path}.operator", operator, "not a valid selector operator"))
    causes += bad_all(f"{path}.key", row.get("key", ""), qualified_name_errors(row.get("key", "")))
    for index, value in enumerate(() if any_values else values):
        causes += bad_all(f"{path}.values[{index}]", value, label_value_errors(value))
    return causes


def segments(path: str, found: Mapping[str, Any], keys: Sequence[str]) -> list[Cause]:
    """The rules of fields that must be there and may stand in a path."""
    causes: list[Cause] = []
    for key in keys:
        value = found.get(key, "")
        causes += bad_all(f"{path}.{key}", value, path_segment_errors(value)) if value else [required(f"{path}.{key}")]
    return causes


def is_ip(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address in Kubernetes' eyes (no leading zeros, no zone)."""
    return ip_family(text) is not None


def ip_family(text: str) -> str | None:
    """Returns `IPv4`, `IPv6` or None when the text is no address."""
    parts = text.split(".")
    if len(parts) == 4 and all(
        p.isdecimal() and len(p) <= 3 and int(p) < 256 and (p == "0" or p[0] != "0") for p in parts
    ):
        return "IPv4"
    if ":" not in text:
        return None
    try:
        IPv6Address(text)
    except ValueError:
        return None
    return None if "%" in text else "IPv6"


IP_DETAIL = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_DETAIL = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_LEADING_ZEROS = re.compile(r"\b0+(?=[0-9])")


def parsed_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text means, leading zeros or not, or None."""
    plain = _LEADING_ZEROS.sub("", text) if "." in text else text
    return ip_address(plain) if is_ip(plain) else None


def ip_errors(text: str) -> list[str]:
    """What breaks the rules of an address that need not be in canonical form."""
    if parsed_ip(text) is None:
        return [IP_DETAIL]
    if not is_ip(text):
        return ["must not have leading 0s"]
    return ["must not be an IPv4-mapped IPv6 address"] if _is_mapped(ip_address(text)) else []


def canonical_ip_errors(text: str) -> list[str]:
    """What breaks the rules of an address in canonical form."""
    errors = ip_errors(text)
    if errors or str(ip_address(text)) == text:
        return errors
    return [f'must be in canonical form ("{ip_address(text)}")']


def ip(path: str, text: str, known: Container[str] = ()) -> list[Cause]:
    """The rules of an address; what is `known` has been taken before and only has to mean one."""
    errors = ip_errors(text)
    if errors and text in known and parsed_ip(text) is not None:
        return []
    return bad_all(path, text, errors)


def base_of(cidr: str) -> IPv4Address | IPv6Address | None:
    """The address that a range is written with, leading zeros or not; None for what is no range."""
    address, _, length = cidr.partition("/")
    found = parsed_ip(address)
    if found is None or not length.isdecimal() or int(length) > found.max_prefixlen:
        return None
    return found


def network_of(cidr: str) -> IPv4Network | IPv6Network:
    """The range that a text means, which must mean one."""
    return ip_network(f"{base_of(cidr)}/{int(cidr.partition('/')[2])}", strict=False)


def cidr(path: str, text: str, known: Container[str] = ()) -> list[Cause]:
    """The rules of a range of addresses that need not be in canonical form; a `known` one only has to mean a range."""
    found = base_of(text)
    if found is None:
        return [bad(path, text, CIDR_DETAIL)]
    if text in known:
        return []
    address, _, length = text.partition("/")
    if not is_ip(address) or length != str(int(length)):
        return [bad(path, text, "must not have leading 0s in IP or prefix length")]
    if _is_mapped(found):
        return [bad(path, text, "must not have an IPv4-mapped IPv6 address")]
    if ip_network(text, strict=False).network_address != found:
        return [bad(path, text, "must not have bits set beyond the prefix length")]
    return []


def canonical_cidr(path: str, text: str) -> list[Cause]:
    """The rules of a range of addresses in canonical form."""
    causes = cidr(path, text)
    if causes or str(ip_network(text)) == text:
        return causes
    return [bad(path, text, f'must be in canonical form ("{ip_network(text)}")')]


def _is_mapped(found: IPv4Address | IPv6Address) -> bool:
    return isinstance(found, IPv6Address) and found.ipv4_mapped is not None
