"""Named string formats.

Source: k8s.io/apiserver/pkg/cel/library/format.go
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from steersman.cluster.api.cel.overload import function, method, reads_second
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import NONE, Opaque, Optional
from steersman.cluster.api.schema.formats import FORMATS as STRING_FORMATS
from steersman.cluster.meta.names import (
    label_1035_errors,
    label_1123_errors,
    label_value_errors,
    qualified_name_errors,
    subdomain_errors,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Format(Opaque):
    type: ClassVar[Type] = Type("kubernetes.NamedFormat")
    name: str


def _prefix(rule: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The rule for the beginning of a name: a dash at its end is none of the whole name."""
    return lambda text: rule(text[:-1] + "a" if text.endswith("-") else text)


def _format(name: str, detail: str) -> Callable[[str], list[str]]:
    return lambda text: [] if STRING_FORMATS[name](text) else [detail]


_UUID = re.compile(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
_RULES: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": label_1123_errors,
    "dns1123Subdomain": subdomain_errors,
    "dns1035Label": label_1035_errors,
    "qualifiedName": qualified_name_errors,
    "dns1123LabelPrefix": _prefix(label_1123_errors),
    "dns1123SubdomainPrefix": _prefix(subdomain_errors),
    "dns1035LabelPrefix": _prefix(label_1035_errors),
    "labelValue": label_value_errors,
    "uri": _format("uri", "invalid URI"),
    "uuid": lambda text: [] if _UUID.match(text) else ["does not match the UUID format"],
    "byte": _format("byte", "invalid base64"),
    "date": _format("date", "invalid date"),
    "datetime": _format("datetime", "invalid datetime"),
}


def _named(name: str) -> Optional:
    return Optional(Format(name)) if name in _RULES else NONE


def _validate(form: Format, text: str) -> Optional:
    found = _RULES[form.name](text)
    return Optional(found) if found else NONE


FUNCTIONS = (
    function("format.named", "string -> optional_type(kubernetes.NamedFormat)", _named),
    method("validate", "kubernetes.NamedFormat, string -> optional_type(list(string))", _validate, reads_second),
    *(function(f"format.{name}", "-> kubernetes.NamedFormat", partial(Format, name)) for name in _RULES),
)
