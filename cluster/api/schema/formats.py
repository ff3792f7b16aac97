"""The string formats that schemas of custom resources may ask for.

Source: https://github.com/go-openapi/strfmt, as far as Kubernetes takes it
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from urllib.parse import urlsplit

from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.times import parse_time

_UUID = re.compile(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
_MAC = re.compile(r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$")
_DURATION = re.compile(r"^[+-]?(\d+(\.\d+)?(ns|us|µs|μs|ms|s|m|h|d|w)\s?)+$|^0$")
_COLOR = re.compile(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")


def _reads(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, AddressValueError, binascii.Error):
            return False
        return True

    return check


def _uri(text: str) -> None:
    if not urlsplit(text).scheme:
        raise ValueError(text)


#: format name to whether a text has it; formats that are not here are not checked
FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _reads(lambda text: base64.b64decode(text, validate=True)),
    "cidr": _reads(ip_network),
    "date": _reads(date.fromisoformat),
    "date-time": _reads(parse_time),
    "datetime": _reads(parse_time),
    "duration": lambda text: bool(_DURATION.match(text)),
    "email": lambda text: bool(_EMAIL.match(text)),
    "hexcolor": lambda text: bool(_COLOR.match(text)),
    "hostname": lambda text: not subdomain_errors(text.lower()),
    "ipv4": _reads(IPv4Address),
    "ipv6": _reads(IPv6Address),
    "k8s-short-name": lambda text: not label_1123_errors(text),
    "k8s-long-name": lambda text: not subdomain_errors(text),
    "mac": lambda text: bool(_MAC.match(text)),
    "uri": _reads(_uri),
    "uuid": lambda text: bool(_UUID.match(text)),
    "uuid3": lambda text: bool(_UUID.match(text)),
    "uuid4": lambda text: bool(_UUID.match(text)),
    "uuid5": lambda text: bool(_UUID.match(text)),
}
