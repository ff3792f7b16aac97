"""Small rules that the kinds of dynamic resource allocation share: names, bounded lists, what drivers are handed.

Source: k8s.io/kubernetes/pkg/apis/resource/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, required, too_long, too_many
from steersman.cluster.api.rules.metadata import validate_unique
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

EFFECTS = ("NoExecute", "NoSchedule", "None")
_POOL_BYTES_MAX = 253
_BINDING_MAX = 4
_IDENTIFIER_BYTES_MAX = 32
_IDENTIFIER_DETAIL = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    "or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"
)

Rule = Callable[[str, Any], list[Cause]]


def listed(path: str, rows: Sequence[Any], limit: int, rule: Rule) -> list[Cause]:
    """The rules of a list: of its length, or else of each row."""
    if len(rows) > limit:
        return [too_many(path, len(rows), limit)]
    return [cause for index, row in enumerate(rows) for cause in rule(f"{path}[{index}]", row)]


def set_of(path: str, rows: Sequence[Any], limit: int, rule: Rule, key: Callable[[Any], Any]) -> list[Cause]:
    """As `listed`, of rows that differ in what `key` gives."""
    causes = listed(path, rows, limit, rule)
    return causes if len(rows) > limit else causes + validate_unique(path, (key(row) for row in rows))


def mapped(path: str, rows: Mapping[str, Any], limit: int, name_rule: Rule, rule: Rule) -> list[Cause]:
    """The rules of a map: of its size, or else of each name and value."""
    if len(rows) > limit:
        return [too_many(path, len(rows), limit)]
    return [cause for name, row in rows.items() for cause in (*name_rule(path, name), *rule(f"{path}[{name}]", row))]


def name_of(row: Obj) -> str:
    found: str = row.get("name", "")
    return found


def label(path: str, name: str) -> list[Cause]:
    """The rules of a DNS label."""
    return bad_all(path, name, label_1123_errors(name))


def name_label(path: str, name: str) -> list[Cause]:
    """The rules of a required DNS label."""
    return label(path, name) if name else [required(path)]


def pool_name(path: str, name: str) -> list[Cause]:
    """The rules of a pool's name: DNS names divided by slashes."""
    if not name:
        return [required(path)]
    causes = [too_long(path, _POOL_BYTES_MAX)] if len(name) > _POOL_BYTES_MAX else []
    for part in name.split("/"):
        causes += bad_all(path, part, subdomain_errors(part))
    return causes


def device_id(path: str, row: Obj) -> list[Cause]:
    """The rules of what names a device: its driver, its pool, and its name there."""
    causes = driver_name(f"{path}.driver", row.get("driver", ""))
    causes += pool_name(f"{path}.pool", row.get("pool", ""))
    return causes + label(f"{path}.device", row.get("device", ""))


def qualified(path: str, name: str) -> list[Cause]:
    """The rules of attribute and capacity names: a C identifier, perhaps after a domain and a slash."""
    parts = name.split("/")
    if len(parts) > 2:
        return [bad(path, name, "must not contain more than one slash")]
    causes: list[Cause] = []
    if len(parts) == 2:
        causes += driver_name(path, parts[0]) if parts[0] else [bad(path, "", "the domain must not be empty")]
        if not parts[1]:
            return [*causes, bad(path, "", "the name must not be empty")]
    return causes + _identifier(path, parts[-1])


def _identifier(path: str, text: str) -> list[Cause]:
    causes = [too_long(path, _IDENTIFIER_BYTES_MAX)] if len(text) > _IDENTIFIER_BYTES_MAX else []
    return causes if text.isascii() and text.isidentifier() else [*causes, bad(path, text, _IDENTIFIER_DETAIL)]


def fully_qualified(path: str, name: str) -> list[Cause]:
    """The rules of an attribute's name with its domain."""
    causes = qualified(path, name)
    if "/" not in name:
        causes.append(bad(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
    return causes


def raw_object(path: str, value: Any, bytes_max: int) -> list[Cause]:
    """The rules of what a driver is handed, or tells, as it is."""
    if value is None:
        return [required(path)]
    if len(orjson.dumps(value)) > bytes_max:
        return [too_long(path, bytes_max)]
    return [] if isinstance(value, Mapping) else [bad(path, "<value omitted>", "must be a valid JSON object")]


def binding_conditions(path: str, row: Obj) -> list[Cause]:
    """The rules of the conditions that a device must have to be bound, and of those that say that it fails."""
    good, wrong = row.get("bindingConditions") or [], row.get("bindingFailureConditions") or []
    first, second = f"{path}.bindingConditions", f"{path}.bindingFailureConditions"
    causes = listed(first, good, _BINDING_MAX, _label_name) + listed(second, wrong, _BINDING_MAX, _label_name)
    causes += validate_unique(first, good)
    for index, name in enumerate(wrong):
        if name in wrong[:index]:
            causes.append(duplicate(f"{second}[{index}]", name))
        if name in good:
            detail = "bindingFailureConditions must not overlap with bindingConditions"
            causes.append(bad(f"{second}[{index}]", name, detail))
    if wrong and not good:
        causes.append(bad(first, None, "bindingConditions are required to use bindingFailureConditions"))
    if good and not wrong:
        causes.append(bad(second, None, "bindingFailureConditions are required to use bindingConditions"))
    return causes


def _label_name(path: str, name: str) -> list[Cause]:
    return bad_all(path, name, qualified_name_errors(name))
