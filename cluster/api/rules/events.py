"""Events: one stored form, the core one, seen through two groups.

Source: k8s.io/kubernetes/pkg/apis/core/validation/events.go and pkg/apis/events/v1/conversion.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, bad_all, immutable, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
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
    controller = obj.get("reportingComponent", "")
    source = (obj.get("source") or {}).get("component") or controller
    about = obj.get("involvedObject") or {}
    return {**_fields(obj, about, "involvedObject"), "reportingComponent": controller, "source": source}


def new_fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of an Event of `events.k8s.io`."""
    about, controller = obj.get("regarding") or {}, obj.get("reportingController", "")
    source = (obj.get("deprecatedSource") or {}).get("component") or controller
    return {**_fields(obj, about, "regarding"), "reportingController": controller, "source": source}


def _fields(obj: Obj, about: Obj, prefix: str) -> dict[str, str]:
    meta = obj["metadata"]
    found = {
        f"{prefix}.{key}": about.get(key, "")
        for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        **found,
        "reason": obj.get("reason", ""),
        "type": obj.get("type", ""),
    }


#: what a newer event says once and for all, by the name of the core form
_FIXED = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime",
    "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip
_WORDS_MAX = 128
_MESSAGE_MAX = 1024


def validate_core(obj: Obj) -> list[Cause]:
    return _rules(obj, "reportingComponent")


def _rules(obj: Obj, controller_field: str) -> list[Cause]:
    """The rules of both groups, on the core form; an event with a time of its own must say who it is from."""
    namespace, wanted = obj["metadata"].get("namespace", ""), (obj.get("involvedObject") or {}).get("namespace", "")
    is_new = bool(obj.get("eventTime"))
    causes: list[Cause] = []
    if wanted:
        agrees = is_new or wanted == namespace
    else:
        agrees = namespace in (("default", "kube-system") if is_new else ("default", ""))
    if not agrees:
        causes.append(bad("involvedObject.namespace", wanted, "does not match event.namespace"))
    if is_new:
        controller = obj.get("reportingComponent", "")
        if not controller:
            causes.append(required(controller_field))
        causes += bad_all(controller_field, controller, qualified_name_errors(controller))
        for key in ("reportingInstance", "action", "reason"):
            if not obj.get(key):
                causes.append(required(key))
            elif len(obj[key]) > _WORDS_MAX:
                causes.append(bad(key, "", f"can have at most {_WORDS_MAX} characters"))
        if len(obj.get("message", "")) > _MESSAGE_MAX:
            causes.append(bad("message", "", f"can have at most {_MESSAGE_MAX} characters"))
    return causes


def validate_new(obj: Obj) -> list[Cause]:
    event = to_core(obj)
    causes = _rules(event, "reportingController") + _series(event)
    if not event.get("eventTime"):
        causes.append(required("eventTime"))
    return causes


def _series(event: Obj) -> list[Cause]:
    series = event.get("series")
    if series is None:
        return []
    causes = [] if series.get("count", 0) >= 2 else [bad("series.count", "", "should be at least 2")]
    return causes if series.get("lastObservedTime") else [*causes, required("series.lastObservedTime")]


def validate_create_new(obj: Obj) -> list[Cause]:
    """What only a new event of the newer group can break: it has left the fields of the older one behind."""
    event = to_core(obj)
    causes: list[Cause] = []
    if event.get("type") not in ("Normal", "Warning"):
        causes.append(bad("type", "", f"has invalid value: {event.get('type', '')}"))
    for key in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if event.get(key):
            causes.append(bad(key, "", "needs to be unset"))
    return causes


def validate_update_new(new: Obj, old: Obj) -> list[Cause]:
    after, before = to_core(new), to_core(old)
    causes: list[Cause] = []
    for key in _FIXED:
        causes += immutable(key, after.get(key), before.get(key))
    return causes
