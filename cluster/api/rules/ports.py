"""Rules of port numbers and port names, wherever they stand."""

from __future__ import annotations

import re
from typing import Any

from steersman.cluster.api.rules.fields import bad, bad_all
from steersman.cluster.meta.errors import Cause

_LETTER = re.compile(r"[a-z]")
_PORT_NAME = re.compile(r"^[-a-z0-9]+\Z")


def port_or_name(path: str, port: Any) -> list[Cause]:
    """The rules of a port given by number or by name."""
    if isinstance(port, str):
        return bad_all(path, port, port_name_errors(port))
    return port_number(path, port if port is not None else 0)


def is_port(port: Any) -> bool:
    return isinstance(port, int) and 1 <= port <= 65535


def port_number(path: str, port: Any) -> list[Cause]:
    return [] if is_port(port) else [bad(path, port, "must be between 1 and 65535, inclusive")]


def port_name_errors(name: str) -> list[str]:
    """What breaks the rule of an IANA service name; empty when nothing does."""
    errors = []
    if len(name) > 15:
        errors.append("must be no more than 15 characters")
    if not _PORT_NAME.match(name):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _LETTER.search(name):
        errors.append("must contain at least one letter (a-z)")
    if "--" in name:
        errors.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors
