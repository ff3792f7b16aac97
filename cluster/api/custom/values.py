"""An object against the schema of its definition: every rule that it breaks.

On an update, what has not changed may go on breaking rules ("ratcheting"), where the old value can be told: fields,
and items of lists with keys. Objects within objects are no exception: theirs hold always.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/validation/{validation,ratcheting}.go and
k8s.io/apiextensions-apiserver/pkg/registry/customresource/{strategy,status_strategy,validator}.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from steersman.cluster.api.cel import EvaluationError
from steersman.cluster.api.cel.library.regex import compiled
from steersman.cluster.api.cel.values import equal
from steersman.cluster.api.custom.correlation import MISSING, OldItems, list_keys, schema_below, unchanged
from steersman.cluster.api.custom.expressions import Rules, broken_rules
from steersman.cluster.api.rules.fields import bad, bad_all, required, show, too_many, unsupported
from steersman.cluster.api.rules.metadata import validate_metadata
from steersman.cluster.api.schema.formats import FORMATS
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1035_errors, path_segment_errors
from steersman.cluster.meta.objects import Obj

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_TYPE_KEYS = ("apiVersion", "kind", "metadata")
#: reasons after which expressions are not evaluated: they could meet values of other types than they were compiled for
_BLOCKING = {
    "FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
}  # fmt: skip


class _OfEmbedded(Cause):
    """What is wrong with an object within an object: no update forgives it, and no write of a status looks for it."""

    __slots__ = ()


_UNCHECKED = Cause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


def validate_custom(schema: Mapping[str, Any], rules: Rules | None, new: Obj, old: Any = MISSING) -> list[Cause]:
    """Every rule of a definition's schema that an object breaks; metadata has rules of its own beside these.

    Args:
        rules: the compiled `x-kubernetes-validations` of the schema.
        old: the object before the update; MISSING when it is new.
    """
    causes = _schema_causes(schema, new, MISSING)
    if causes and old is not MISSING:
        causes = [cause for cause in _schema_causes(schema, new, old) if not _is_repetition(cause)]
        causes += _new_repetitions(schema, new, old)
    return _with_rules(causes, rules, new, old)


def validate_custom_status(schema: Mapping[str, Any], rules: Rules | None, new: Obj, old: Obj) -> list[Cause]:
    """Every rule that an object breaks after a write of its status: of the schema, only what it says of the status."""
    causes = _schema_causes(schema, new, MISSING)
    if causes:
        causes = _status_causes(schema, new, old) + _new_repetitions(schema, new, old)
    return _with_rules(causes, rules, new, old)


def _with_rules(causes: list[Cause], rules: Rules | None, new: Obj, old: Any) -> list[Cause]:
    if rules is None:
        return causes
    if any(cause.reason in _BLOCKING for cause in causes):
        return [*causes, _UNCHECKED]
    return causes + broken_rules(rules, new, old)


def _new_repetitions(schema: Mapping[str, Any], new: Obj, old: Obj) -> list[Cause]:
    """The items that stand twice in a list; where any did before, an update may bring others."""
    found = [cause for cause in _schema_causes(schema, new, MISSING) if _is_repetition(cause)]
    return [] if found and any(map(_is_repetition, _schema_causes(schema, old, MISSING))) else found


def _is_repetition(cause: Cause) -> bool:
    return cause.reason == "FieldValueDuplicate"


def _schema_causes(schema: Mapping[str, Any], new: Obj, old: Any) -> list[Cause]:
    own = {key: value for key, value in new.items() if key not in _TYPE_KEYS}
    kept = tuple(key for key in schema.get("required", ()) if key not in _TYPE_KEYS)
    causes = validate_value({**schema, "required": kept}, own, "", old)
    named = (schema.get("properties") or {}).get("metadata")
    if named:
        before = _named(old) if old is not MISSING else MISSING
        causes += validate_value(named, _named(new), "metadata", before)
    return causes


def _named(obj: Obj) -> Obj:
    """What the schema of a definition can say of an object's metadata."""
    return {key: obj["metadata"][key] for key in ("name", "generateName") if obj["metadata"].get(key)}


def _status_causes(schema: Mapping[str, Any], new: Obj, old: Obj) -> list[Cause]:
    """What is wrong with a status; the texts name fields as seen from there."""
    named = (schema.get("properties") or {}).get("status")
    if not isinstance(named, Mapping) or "status" not in new:
        return []
    causes = _child(named, new["status"], "", old.get("status", MISSING))
    ruled = [cause for cause in causes if not (_is_repetition(cause) or isinstance(cause, _OfEmbedded))]
    return [rooted(cause, "status") for cause in ruled]


def rooted(cause: Cause, path: str) -> Cause:
    """What is wrong with a value that was looked at by itself, at the place where it stands; its text stays."""
    if cause.field in ("", "<nil>"):
        return replace(cause, field=path)
    return replace(cause, field=f"{path}{'' if cause.field.startswith('[') else '.'}{cause.field}")


def validate_value(schema: Mapping[str, Any], value: Any, path: str, old: Any = MISSING) -> list[Cause]:
    """Every rule of a schema that a value breaks; `old` is what stood there before, or MISSING."""
    if value is None and (schema.get("nullable") or not schema.get("type")):
        return []
    causes: list[Cause] = []
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            causes.append(_wrong_type(path, value, "integer,string"))
    elif schema.get("type") and not _is(value, schema["type"]):
        causes.append(_wrong_type(path, value, schema["type"]))
    if value is not None:
        causes += _combined(schema, value, path)
    if isinstance(value, str):
        causes += _string(schema, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        causes += _number(schema, value, path)
    elif isinstance(value, list):
        causes += _array(schema, value, path, old)
    if "enum" in schema and not any(equal(value, item) for item in schema["enum"]):
        listed = [item if isinstance(item, str) else show(item) for item in schema["enum"]]
        causes.append(unsupported(path, value, listed, in_order=True))
    if isinstance(value, dict):
        causes += _object(schema, value, path, old)
    return causes


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES.get(kind, (object,)))


def _wrong_type(path: str, value: Any, kind: str) -> Cause:
    seen = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    name = seen.get(type(value), "null")
    detail = f'{path} in body must be of type {kind}: "{name}"'
    return Cause(path or "<nil>", f'Invalid value: "{name}": {detail}', "FieldValueTypeInvalid")


def _combined(schema: Mapping[str, Any], value: Any, path: str) -> list[Cause]:
    causes: list[Cause] = []
    any_of = () if schema.get("x-kubernetes-int-or-string") else schema.get("anyOf") or ()
    if any_of:
        found = [validate_value(part, value, path) for part in any_of]
        if all(found):
            causes += [_at_large(path, "must validate at least one schema (anyOf)"), *_nearest(any_of, found, value)]
    if one_of := schema.get("oneOf") or ():
        found = [validate_value(part, value, path) for part in one_of]
        fitting = sum(not wrong for wrong in found)
        if fitting != 1:
            how_many = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            causes.append(_at_large(path, f"must validate one and only one schema (oneOf). {how_many}"))
            causes += [] if fitting else _nearest(one_of, found, value)
    if all_of := schema.get("allOf") or ():
        found = [validate_value(part, value, path) for part in all_of]
        causes += [cause for wrong in found for cause in wrong]
        if any(found):
            none = ". None validated" if all(found) else ""
            causes.append(_at_large(path, f"must validate all the schemas (allOf){none}"))
    if schema.get("not") and not validate_value(schema["not"], value, path):
        causes.append(_at_large(path, "must not validate the schema (not)"))
    return causes


def _at_large(path: str, detail: str) -> Cause:
    """What Kubernetes tells without a field."""
    return bad("<nil>", "", f"{show(path)} {detail}")


def _nearest(parts: Sequence[Mapping[str, Any]], found: Sequence[list[Cause]], value: Any) -> list[Cause]:
    """What is wrong with the alternative that knows most of a value; of several the first."""
    best = max(range(len(parts)), key=lambda index: (_known(parts[index], value), -index))
    return found[best]


def _known(schema: Mapping[str, Any], value: Any) -> int:
    """How many values a schema looks at."""
    below = 0
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        below = sum(_known(child, value[key]) for key, child in properties.items() if key in value)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        below = sum(_known(schema["items"], item) for item in value)
    return 1 + below


def _string(schema: Mapping[str, Any], value: str, path: str) -> list[Cause]:
    causes = []
    size = len(value)
    if size > schema.get("maxLength", size):
        causes.append(Cause(path, f"Too long: may not be more than {schema['maxLength']} bytes", "FieldValueTooLong"))
    if size < schema.get("minLength", 0):
        causes.append(bad(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if "pattern" in schema and not _fits(schema["pattern"], value):
        causes.append(bad(path, value, f"{path} in body should match '{schema['pattern']}'"))
    check = FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        causes.append(bad(path, value, f"{path} in body must be of type {schema['format']}: {show(value)}"))
    return causes


def _fits(pattern: str, value: str) -> bool:
    try:
        return compiled(pattern).search(value) is not None
    except EvaluationError:
        return True


def _number(schema: Mapping[str, Any], value: float, path: str) -> list[Cause]:
    causes = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(bad(path, value, f"{path} in body should be {word} {low}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.append(bad(path, value, f"{path} in body should be {word} {high}"))
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        causes.append(bad(path, value, f"{path} in body should be a multiple of {step}"))
    limit = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if limit and not -limit <= value < limit:
        causes.append(bad(path, value, f"{path} in body must be of type {schema['format']}: {show(value)}"))
    return causes


def _array(schema: Mapping[str, Any], value: list[Any], path: str, old: Any) -> list[Cause]:
    causes: list[Cause] = []
    size = len(value)
    if size > schema.get("maxItems", size):
        causes.append(too_many(path, size, schema["maxItems"]))
    if size < schema.get("minItems", 0):
        causes.append(bad(path, size, f"{path} in body should have at least {schema['minItems']} items"))
    keys = list_keys(schema)
    if keys or schema.get("x-kubernetes-list-type") == "set":
        causes += _repeated(value, path, keys)
    items = schema.get("items")
    if isinstance(items, Mapping):
        before = OldItems(keys, old)
        for index, item in enumerate(value):
            causes += _child(items, item, f"{path}[{index}]", before.of(item))
    return causes


def _identity(item: Any, keys: tuple[str, ...]) -> Any:
    return {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item


def _mark(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _repeated(value: list[Any], path: str, keys: tuple[str, ...]) -> list[Cause]:
    causes = []
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        own = _identity(item, keys)
        mark = _mark(own)
        if mark in seen:
            shown = mark.decode() if isinstance(own, (dict, list)) else show(own)
            causes.append(Cause(f"{path}[{index}]", f"Duplicate value: {shown}", "FieldValueDuplicate"))
        seen.add(mark)
    return causes


def _child(schema: Mapping[str, Any], value: Any, path: str, old: Any) -> list[Cause]:
    """What a value below breaks; when it is what it was, only what no update forgives."""
    if old is not MISSING and unchanged(schema, value, old):
        return [cause for cause in validate_value(schema, value, path) if isinstance(cause, _OfEmbedded)]
    return validate_value(schema, value, path, old)


def _object(schema: Mapping[str, Any], value: dict[str, Any], path: str, old: Any) -> list[Cause]:
    causes: list[Cause] = []
    size = len(value)
    if size > schema.get("maxProperties", size):
        causes.append(too_many(path, size, schema["maxProperties"]))
    if size < schema.get("minProperties", 0):
        causes.append(bad(path, size, f"{path} in body should have at least {schema['minProperties']} properties"))
    prefix = f"{path}." if path else ""
    for key in schema.get("required") or ():
        if key not in value:
            causes.append(required(f"{prefix}{key}"))
    if schema.get("x-kubernetes-embedded-resource"):
        causes += [_OfEmbedded(cause.field, cause.message, cause.reason) for cause in _embedded(value, path)]
    known = old if isinstance(old, dict) else {}
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    # of many alternatives each knows a few properties only, and is tried on all that there is
    ruled: Iterable[str] = value if isinstance(additional, Mapping) or len(value) <= len(properties) else properties
    for key in ruled:
        child = schema_below(schema, key)
        if child is not None and key in value:
            causes += _child(child, value[key], f"{prefix}{key}", known.get(key, MISSING))
    return causes


def _embedded(value: dict[str, Any], path: str) -> list[Cause]:
    """The rules of an object within an object."""
    causes = [required(f"{path}.{key}", "must not be empty") for key in ("apiVersion", "kind") if not value.get(key)]
    kind = value.get("kind")
    if isinstance(kind, str) and kind:
        for detail in label_1035_errors(kind.lower()):
            causes.append(bad(f"{path}.kind", kind, f"may have mixed case, but should otherwise match: {detail}"))
    meta = value.get("metadata")
    if isinstance(meta, dict):
        if meta.get("name"):
            causes += bad_all(f"{path}.metadata.name", meta["name"], path_segment_errors(meta["name"]))
        known = {**meta, "name": "a", "namespace": meta.get("namespace") or "a"}
        for cause in validate_metadata(known, True, lambda _name: [], plain_finalizers=True):
            causes.append(Cause(f"{path}.{cause.field}", cause.message, cause.reason))
    return causes
