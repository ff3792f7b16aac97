"""Columns of certificate requests, flow schemas, priority levels, aggregated APIs and webhook configurations."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, name, rows, sub
from steersman.cluster.meta.objects import Obj, condition
from steersman.cluster.meta.times import human_duration

_NONE = "<none>"


def request_state(request: Obj) -> str:
    """`Pending`, `Approved`, `Denied`, with `,Failed` and `,Issued` as they come."""
    said = {row.get("type") for row in rows(request, "status", "conditions")}
    word = next((kind for kind in ("Denied", "Approved") if kind in said), "Pending")
    failed = ",Failed" if "Failed" in said else ""
    return word + failed + (",Issued" if sub(request, "status").get("certificate") else "")


def _request(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    seconds = spec.get("expirationSeconds")
    asked = _NONE if seconds is None else human_duration(seconds)
    signer = spec.get("signerName") or _NONE
    return [name(obj), age(obj, now), signer, spec.get("username", ""), asked, request_state(obj)]


def _schema(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    dangling = condition(obj, "Dangling")
    return [
        name(obj),
        sub(spec, "priorityLevelConfiguration").get("name", ""),
        spec.get("matchingPrecedence", 0),
        sub(spec, "distinguisherMethod").get("type") or _NONE,
        age(obj, now),
        "?" if dangling is None else dangling.get("status", ""),
    ]


def _level(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    limited = sub(spec, "limited")
    shares = limited.get("nominalConcurrencyShares", _NONE)
    queuing = sub(limited, "limitResponse", "queuing")
    dealt = [queuing.get(key, _NONE) for key in ("queues", "handSize", "queueLengthLimit")]
    return [name(obj), spec.get("type", ""), shares, *dealt, age(obj, now)]


def _service(obj: Obj, now: float) -> list[Any]:
    service, available = sub(obj, "spec", "service"), condition(obj, "Available")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    word = "Unknown" if available is None else available.get("status", "")
    if available is not None and word != "True":
        word += f" ({available.get('reason', '')})"
    return [name(obj), where, word, age(obj, now)]


def _hooks(obj: Obj, now: float) -> list[Any]:
    return [name(obj), len(rows(obj, "webhooks")), age(obj, now)]


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(text) for text in names)


_FLOWS = "flowcontrol.apiserver.k8s.io"
_HOOKS = Columns((Name, Column("Webhooks", type="integer"), Age), _hooks)
_QUEUES = _columns("Type", "NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit")
COLUMNS = {
    ("certificates.k8s.io", "CertificateSigningRequest"): Columns(
        (Name, Age, *_columns("SignerName", "Requestor", "RequestedDuration", "Condition")), _request
    ),
    (_FLOWS, "FlowSchema"): Columns(
        (Name, *_columns("PriorityLevel", "MatchingPrecedence", "DistinguisherMethod"), Age, Column("MissingPL")),
        _schema,
        order=lambda obj: (sub(obj, "spec").get("matchingPrecedence", 0), name(obj)),
    ),
    (_FLOWS, "PriorityLevelConfiguration"): Columns((Name, *_QUEUES, Age), _level),
    ("apiregistration.k8s.io", "APIService"): Columns((Name, *_columns("Service", "Available"), Age), _service),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _HOOKS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _HOOKS,
}
