"""Columns of the core group's small kinds, of Lease and of PriorityClass."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import (
    Age,
    Column,
    Columns,
    CreatedAt,
    Name,
    age,
    name,
    rows,
    since,
    sub,
    wide,
)
from steersman.cluster.meta.objects import Obj


def _component_status(obj: Obj, _now: float) -> list[Any]:
    health: Obj = next((row for row in rows(obj, "conditions") if row.get("type") == "Healthy"), {})
    said = ("Healthy" if health["status"] == "True" else "Unhealthy") if health else "Unknown"
    return [name(obj), said, health.get("message", ""), health.get("error", "")]


def _config_map(obj: Obj, now: float) -> list[Any]:
    return [name(obj), len(sub(obj, "data")) + len(sub(obj, "binaryData")), age(obj, now)]


def _secret(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj.get("type", ""), len(sub(obj, "data")), age(obj, now)]


def _service_account(obj: Obj, now: float) -> list[Any]:
    return [name(obj), len(rows(obj, "secrets")), age(obj, now)]


def event_target(event: Obj) -> str:
    """`pod/web-1` of the object an event is about."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    kind = str(about.get("kind", "")).lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def event_source(event: Obj) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    component = source.get("component") or event.get("reportingComponent") or event.get("reportingController") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _event(obj: Obj, now: float) -> list[Any]:
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    series = obj.get("series")
    if series:
        last, count = series.get("lastObservedTime") or last, series.get("count") or count
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return [
        since(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        event_target(obj),
        about.get("fieldPath", ""),
        event_source(obj),
        str(obj.get("message") or obj.get("note") or "").strip(),
        since(first, now),
        count,
        name(obj),
    ]


def _lease(obj: Obj, now: float) -> list[Any]:
    return [name(obj), sub(obj, "spec").get("holderIdentity") or "", age(obj, now)]


def _quota(obj: Obj, now: float) -> list[Any]:
    status = obj.get("status") or {}
    used = sub(status, "used")
    requests: list[str] = []
    limits: list[str] = []
    for key, hard in sorted(sub(status, "hard").items()):
        (limits if key.startswith("limits.") else requests).append(f"{key}: {used.get(key, '0')}/{hard}")
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _created_at(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _priority_class(obj: Obj, now: float) -> list[Any]:
    policy = obj.get("preemptionPolicy") or "PreemptLowerPriority"
    return [name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), age(obj, now), policy]


_EVENTS = (
    Column("Last Seen"),
    Column("Type"),
    Column("Reason"),
    Column("Object"),
    *wide("Subobject", "Source"),
    Column("Message"),
    *wide("First Seen", "Count"),
    Column("Name", priority=1, format="name"),
)
_PRIORITY = (Column("Value", type="integer"), Column("Global-Default", type="boolean"))
_HEALTH = (Name, Column("Status"), Column("Message"), Column("Error"))
COLUMNS = {
    ("", "ComponentStatus"): Columns(_HEALTH, _component_status),
    ("", "ConfigMap"): Columns((Name, Column("Data"), Age), _config_map),
    ("", "Secret"): Columns((Name, Column("Type"), Column("Data"), Age), _secret),
    ("", "ServiceAccount"): Columns((Name, Column("Secrets"), Age), _service_account),
    ("", "Event"): Columns(_EVENTS, _event),
    ("events.k8s.io", "Event"): Columns(_EVENTS, _event),
    ("coordination.k8s.io", "Lease"): Columns((Name, Column("Holder"), Age), _lease),
    ("", "ResourceQuota"): Columns((Name, Column("Request"), Column("Limit"), Age), _quota),
    ("", "LimitRange"): Columns((Name, CreatedAt), _created_at),
    ("scheduling.k8s.io", "PriorityClass"): Columns(
        (Name, *_PRIORITY, Age, Column("PreemptionPolicy")), _priority_class
    ),
}
