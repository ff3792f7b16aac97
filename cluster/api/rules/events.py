"""Events: one stored form, the core one, seen through two groups.

Source: k8s.io/kubernetes/pkg/apis/core/validation/events.go and pkg/apis/events/v1/conversion.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

#: field of events.k8s.io/v1 to the field of the core form
_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_BACK = {core: new for new, core in _NAMES.items()}


def to_core(obj: Obj) -> Obj:
    """Returns the core form of an events.k8s.io/v1 Event."""
    found = {_NAMES.get(key, key): value for key, value in obj.items()}
    found["apiVersion"] = "v1"
    found.setdefault("source", {})
    return found


def from_core(obj: Obj) -> Obj:
    """Returns the events.k8s.io/v1 form of a core Event."""
    found = {_BACK.get(key, key): value for key, value in obj.items()}
    found["apiVersion"] = "events.k8s.io/v1"
    return found


def default_core(obj: Obj) -> None:
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", (obj.get("source") or {}).get("component", ""))
    obj.setdefault("reportingInstance", (obj.get("source") or {}).get("host", ""))


def core_fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of an Event."""
    return _fields(
        obj,
        obj.get("involvedObject") or {},
        "involvedObject",
        obj.get("source") or {},
        obj.get("reportingComponent", ""),
    )


def new_fields(obj: Obj) -> dict[str, str]:
    source = obj.get("deprecatedSource") or {}
    return _fields(obj, obj.get("regarding") or {}, "regarding", source, obj.get("reportingController", ""))


def _fields(obj: Obj, about: Obj, prefix: str, source: Obj, controller: str) -> dict[str, str]:
    meta = obj["metadata"]
    found = {
        f"{prefix}.{key}": about.get(key, "")
        for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    component = source.get("component") or controller
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        **found,
        "reason": obj.get("reason", ""),
        "reportingComponent": controller,
        "reportingController": controller,
        "source": component,
        "type": obj.get("type", ""),
    }


def _namespace(obj: Obj, about: Obj, path: str) -> list[Cause]:
    namespace, wanted = obj["metadata"].get("namespace", ""), about.get("namespace", "")
    if wanted and wanted != namespace:
        return [bad(f"{path}.namespace", wanted, "does not match event.namespace")]
    if not wanted and namespace not in ("default", "kube-system", ""):
        return [bad(f"{path}.namespace", wanted, "does not match event.namespace")]
    return []


def validate_core(obj: Obj) -> list[Cause]:
    return _namespace(obj, obj.get("involvedObject") or {}, "involvedObject")


def validate_new(obj: Obj) -> list[Cause]:
    causes = _namespace(obj, obj.get("regarding") or {}, "regarding")
    if not obj.get("eventTime"):
        causes.append(required("eventTime"))
    for key, limit in (("reportingController", 0), ("reportingInstance", 128), ("action", 128), ("reason", 128)):
        value = obj.get(key, "")
        if not value:
            causes.append(required(key))
        elif limit and len(value) > limit:
            causes.append(bad(key, "", f"can have at most {limit} characters"))
    if len(obj.get("note", "")) > 1024:
        causes.append(bad("note", "", "can have at most 1024 characters"))
    return causes
