"""The rules of CustomResourceDefinitions.

Paths are those of Kubernetes, whose server looks at a form in which what all versions have in common stands beside
them: the schema of a definition with one version is at `spec.validation.openAPIV3Schema`.

Source: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from steersman.cluster.api.custom.naming import APPROVAL, approval, is_established
from steersman.cluster.api.custom.paths import PathError, field_schema
from steersman.cluster.api.custom.schema_rules import schema_causes
from steersman.cluster.api.custom.shape import misfits
from steersman.cluster.api.rules.clients import validate_client
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, immutable, one_of, required, too_many
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1035_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

SELECTABLE_FIELDS_MAX = 8
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_WARNING_CHARS_MAX = 256


def validate_crd(obj: Obj) -> list[Cause]:
    """Every broken rule of a definition, but for those of its schemas."""
    spec = obj["spec"]
    names, group = spec.get("names") or {}, spec.get("group", "")
    causes = _group(obj, group, f"{names.get('plural', '')}.{group}")
    causes += one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    if spec.get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        causes.append(bad("spec.preserveUnknownFields", True, detail))
    causes += _names(names) + _versions(spec) + _conversion(spec["conversion"])
    state = approval(obj)
    where = f"metadata.annotations[{APPROVAL}]"
    if state is not None and state[0] == "Missing":
        causes.append(required(where, state[1]))
    elif state is not None and state[0] == "Invalid":
        causes.append(bad(where, (obj["metadata"].get("annotations") or {}).get(APPROVAL), state[1]))
    return causes


def _group(obj: Obj, group: str, wanted: str) -> list[Cause]:
    causes: list[Cause] = []
    if not group:
        causes.append(required("spec.group"))
    elif errors := subdomain_errors(group):
        causes.append(bad("spec.group", group, ",".join(errors)))
    elif "." not in group:
        causes.append(bad("spec.group", group, "should be a domain with at least one dot"))
    if obj["metadata"].get("name") != wanted:
        detail = 'must be spec.names.plural+"."+spec.group'
        causes.append(bad("metadata.name", obj["metadata"].get("name", ""), detail))
    return causes


def _names(names: Obj) -> list[Cause]:
    path = "spec.names"
    causes = [required(f"{path}.{key}") for key in ("plural", "singular", "kind", "listKind") if not names.get(key)]
    return causes + _name_forms(names, path)


def _name_forms(names: Obj, path: str) -> list[Cause]:
    """The rules of names that are there."""
    causes: list[Cause] = []
    for key in ("plural", "singular"):
        if names.get(key) and (errors := label_1035_errors(names[key])):
            causes.append(bad(f"{path}.{key}", names[key], ",".join(errors)))
    for key in ("kind", "listKind"):
        if names.get(key) and (errors := label_1035_errors(names[key].lower())):
            detail = f"may have mixed case, but should otherwise match: {','.join(errors)}"
            causes.append(bad(f"{path}.{key}", names[key], detail))
    for key in ("shortNames", "categories"):
        for index, name in enumerate(names.get(key) or ()):
            if errors := label_1035_errors(name):
                causes.append(bad(f"{path}.{key}[{index}]", name, ",".join(errors)))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(bad(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))
    return causes


# ---- versions


def _versions(spec: Obj) -> list[Cause]:
    versions = spec.get("versions") or []
    causes: list[Cause] = []
    for index, row in enumerate(versions):
        path, name = f"spec.versions[{index}]", row.get("name", "")
        if errors := label_1035_errors(name):
            causes.append(bad(f"{path}.name", name, ",".join(errors)))
        if (row.get("schema") or {}).get("openAPIV3Schema") is None:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        causes += _deprecation(row, f"{path}.deprecationWarning")
    for path, rows in _places(versions, "subresources"):
        causes += _scale(rows.get("scale"), f"{path}.scale")
    for path, rows in _places(versions, "additionalPrinterColumns"):
        for index, column in enumerate(rows):
            causes += _column(column, f"{path}[{index}]")
    if len({row.get("name") for row in versions}) != len(versions):
        causes.append(bad("spec.versions", versions, "must contain unique version names"))
    if sum(bool(row.get("storage")) for row in versions) != 1:
        causes.append(bad("spec.versions", versions, "must have exactly one version marked as storage version"))
    return causes


def _places(versions: list[Obj], key: str) -> list[tuple[str, Any]]:
    """Where something stands for Kubernetes: above the versions when they all have the same."""
    found = [(index, row[key]) for index, row in enumerate(versions) if row.get(key)]
    if found and len(found) == len(versions) and all(value == found[0][1] for _, value in found):
        return [(f"spec.{key}", found[0][1])]
    return [(f"spec.versions[{index}].{key}", value) for index, value in found]


def _deprecation(row: Obj, path: str) -> list[Cause]:
    warning = row.get("deprecationWarning")
    if warning is None:
        return []
    if not row.get("deprecated"):
        return [bad(path, warning, "can only be set for deprecated versions")]
    details = []
    if len(warning) > _WARNING_CHARS_MAX:
        details.append(f"must be <= {_WARNING_CHARS_MAX} characters long")
    if not warning:
        details.append("must not be an empty string")
    for index, char in enumerate(warning):
        if not char.isprintable():
            what = "non-printable character found at index"
            details.append(f"must only contain printable UTF-8 characters; {what} {index}")
            break
    return bad_all(path, warning, details)


def _scale(scale: Obj | None, path: str) -> list[Cause]:
    if scale is None:
        return []
    causes: list[Cause] = []
    for key, roots in (("specReplicasPath", ("spec",)), ("statusReplicasPath", ("status",)),
                       ("labelSelectorPath", ("spec", "status"))):  # fmt: skip
        text = scale.get(key, "")
        if not text:
            causes += [required(f"{path}.{key}")] if key != "labelSelectorPath" else []
        elif not text.startswith("."):
            causes.append(bad(f"{path}.{key}", text, "must be a simple json path starting with ."))
        elif not text.startswith(tuple(f".{root}." for root in roots)):
            under = "either .spec or .status" if len(roots) > 1 else f".{roots[0]}"
            causes.append(bad(f"{path}.{key}", text, f"should be a json path under {under}"))
    return causes


def _column(column: Obj, path: str) -> list[Cause]:
    causes = [] if column.get("name") else [required(f"{path}.name")]
    kind, form, place = column.get("type", ""), column.get("format", ""), column.get("jsonPath", "")
    listed = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        causes.append(required(f"{path}.type", listed))
    elif kind not in _COLUMN_TYPES:
        causes.append(bad(f"{path}.type", kind, listed))
    if form and form not in _COLUMN_FORMATS:
        causes.append(bad(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    if not place:
        causes.append(required(f"{path}.JSONPath"))
    elif not place.startswith("."):
        causes.append(bad(f"{path}.JSONPath", place, "must be a simple json path starting with ."))
    return causes


# ---- schemas


def validate_schemas(obj: Obj) -> list[Cause]:
    """Every broken rule of the schemas of a new definition, and of what refers to them."""
    return _schemas(obj["spec"], {})


def _schemas(spec: Obj, before: Mapping[str, Any]) -> list[Cause]:
    """Args: before: by version, the schemas that need no second look."""
    versions = spec.get("versions") or []
    causes: list[Cause] = []
    for path, schema in _places(versions, "schema"):
        users = [row for row in versions if row.get("schema") == schema]
        root = schema.get("openAPIV3Schema")
        if not isinstance(root, Mapping) or any(before.get(row.get("name")) == schema for row in users):
            continue
        where = path.replace("spec.schema", "spec.validation")
        has_status = any("status" in (row.get("subresources") or {}) for row in users)
        wrong = misfits(root, f"{where}.openAPIV3Schema")
        causes += wrong or schema_causes(f"{where}.openAPIV3Schema", root, has_status=has_status)
    if causes:
        return causes
    for path, fields in _places(versions, "selectableFields"):
        row = next(row for row in versions if row.get("selectableFields") == fields)
        causes += _selectable(fields, (row.get("schema") or {}).get("openAPIV3Schema") or {}, path)
    return causes


def _selectable(fields: list[Obj], schema: Mapping[str, Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, ...]] = set()
    for index, row in enumerate(fields):
        where, text = f"{path}[{index}].jsonPath", row.get("jsonPath", "")
        if not text:
            causes.append(required(where))
            continue
        try:
            names, found = field_schema(text, schema, brackets=False)
        except PathError as error:
            causes.append(bad(where, text, f"is an invalid path: {error}"))
            continue
        if names[:1] == ["metadata"]:
            causes.append(bad(where, text, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            detail = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with "
                "formats are allowed."
            )
            causes.append(bad(where, text, detail))
        if tuple(names) in seen:
            causes.append(duplicate(where, text))
        seen.add(tuple(names))
    if len(seen) > SELECTABLE_FIELDS_MAX:
        causes.append(too_many(path, len(seen), SELECTABLE_FIELDS_MAX))
    return causes


# ---- conversion


def _conversion(conversion: Obj) -> list[Cause]:
    path = "spec.conversion"
    causes = one_of(f"{path}.strategy", conversion.get("strategy"), ("None", "Webhook"))
    webhook = conversion.get("webhook")
    config = (webhook or {}).get("clientConfig")
    where, versions = f"{path}.webhookClientConfig", (webhook or {}).get("conversionReviewVersions") or []
    if conversion.get("strategy") != "Webhook":
        detail = "should not be set when strategy is not set to Webhook"
        causes += [forbidden(where, detail)] if config is not None else []
        return causes + ([forbidden(f"{path}.conversionReviewVersions", detail)] if versions else [])
    if config is None:
        causes.append(required(where, "required when strategy is set to Webhook"))
    else:
        causes += validate_client(where, config)
    return causes + _review_versions(versions, f"{path}.conversionReviewVersions")


def _bundle_causes(new: Obj, old: Obj) -> list[Cause]:
    """A bundle may be wrong until the definition is established, and where it was wrong: others write it later."""
    after, before = _bundle(new), _bundle(old)
    if not after or _is_pem(after) or not is_established(old) or (before and not _is_pem(before)):
        return []
    detail = "unable to load root certificates: unable to parse bytes as PEM block"
    return [bad("spec.conversion.webhookClientConfig.caBundle", after, detail)]


def _bundle(crd: Obj) -> str:
    webhook = ((crd.get("spec") or {}).get("conversion") or {}).get("webhook") or {}
    found: str = (webhook.get("clientConfig") or {}).get("caBundle") or ""
    return found


def _is_pem(text: str) -> bool:
    try:
        return b"-----BEGIN CERTIFICATE-----" in base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False


def _review_versions(versions: list[str], path: str) -> list[Cause]:
    if not versions:
        return [required(path)]
    causes: list[Cause] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(bad(f"{path}[{index}]", version, "duplicate version"))
        else:
            causes += bad_all(f"{path}[{index}]", version, label_1035_errors(version))
    if not {"v1", "v1beta1"} & set(versions):
        causes.append(bad(path, versions, "must include at least one of v1, v1beta1"))
    return causes


# ---- changes


def validate_crd_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new["spec"], old.get("spec") or {}
    causes: list[Cause] = []
    if is_established(old):
        causes += immutable("spec.scope", spec.get("scope"), before.get("scope"))
        causes += immutable("spec.names.kind", spec["names"].get("kind"), (before.get("names") or {}).get("kind"))
    causes += immutable("spec.group", spec.get("group"), before.get("group"))
    causes += immutable("spec.names.plural", spec["names"].get("plural"), (before.get("names") or {}).get("plural"))
    known = {row.get("name"): row.get("schema") for row in before.get("versions") or ()}
    causes += _bundle_causes(new, old) + _schemas(spec, known)
    return causes + _stored(new, (new.get("status") or {}).get("storedVersions") or ())


def validate_crd_status(new: Obj, _old: Obj) -> list[Cause]:
    return _name_forms((new.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")


def _stored(crd: Obj, stored: Any) -> list[Cause]:
    causes: list[Cause] = []
    versions = crd["spec"].get("versions") or ()
    for row in versions:
        if row.get("storage") and row.get("name") not in stored:
            causes.append(
                bad("status.storedVersions", list(stored), f"must have the storage version {row.get('name')}")
            )
    names = [row.get("name") for row in versions]
    for index, name in enumerate(stored):
        if name not in names:
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{name} and removes {name} from status.storedVersions"
            )
            causes.append(bad(f"status.storedVersions[{index}]", name, detail))
    return causes
