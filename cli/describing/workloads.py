"""Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs in words."""

from __future__ import annotations

import time
from collections.abc import Sequence

from steersman.cli.describing.pods import template
from steersman.cli.describing.sheet import Sheet, conditions, head, moment
from steersman.cluster.api.columns.batch import job_duration
from steersman.cluster.api.columns.column import selector_text
from steersman.cluster.meta.objects import Obj, annotations_of, controller_of

_REVISION = "deployment.kubernetes.io/revision"


def deployment(sheet: Sheet, obj: Obj, replica_sets: Sequence[Obj]) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(sheet, obj)
    sheet.field("Selector", selector_text(spec.get("selector")))
    counts = [
        (spec.get("replicas", 1), "desired"),
        (status.get("updatedReplicas", 0), "updated"),
        (status.get("replicas", 0), "total"),
        (status.get("availableReplicas", 0), "available"),
        (status.get("unavailableReplicas", 0), "unavailable"),
    ]
    sheet.field("Replicas", " | ".join(f"{number} {word}" for number, word in counts))
    strategy = spec.get("strategy") or {}
    sheet.field("StrategyType", strategy.get("type", ""))
    sheet.field("MinReadySeconds", spec.get("minReadySeconds", 0))
    if rolling := strategy.get("rollingUpdate"):
        sheet.field(
            "RollingUpdateStrategy",
            f"{rolling.get('maxUnavailable')} max unavailable, {rolling.get('maxSurge')} max surge",
        )
    if spec.get("paused"):
        sheet.field("Paused", True)
    template(sheet, obj)
    conditions(sheet, obj)
    mine = [row for row in replica_sets if (controller_of(row) or {}).get("uid") == obj["metadata"].get("uid")]
    newest = annotations_of(obj).get(_REVISION)
    new = [row for row in mine if annotations_of(row).get(_REVISION) == newest]
    old = [row for row in mine if row not in new and (row["spec"].get("replicas") or 0) > 0]
    sheet.field("OldReplicaSets", "\n".join(map(_replica_set_line, old)) or "<none>")
    sheet.field("NewReplicaSet", "\n".join(map(_replica_set_line, new)) or "<none>")


def _replica_set_line(row: Obj) -> str:
    status = row.get("status") or {}
    return f"{row['metadata']['name']} ({status.get('replicas', 0)}/{row['spec'].get('replicas', 0)} replicas created)"


def pod_counts(pods: Sequence[Obj]) -> str:
    """`2 Running / 1 Waiting / 0 Succeeded / 0 Failed`."""
    phases = [(pod.get("status") or {}).get("phase") for pod in pods]
    words = (("Running", "Running"), ("Waiting", "Pending"), ("Succeeded", "Succeeded"), ("Failed", "Failed"))
    return " / ".join(f"{phases.count(phase)} {word}" for word, phase in words)


def replicated(sheet: Sheet, obj: Obj, pods: Sequence[Obj]) -> None:
    """A ReplicaSet, StatefulSet or DaemonSet."""
    spec, status = obj["spec"], obj.get("status") or {}
    head(sheet, obj)
    sheet.field("Selector", selector_text(spec.get("selector")))
    if "replicas" in spec:
        sheet.field("Replicas", f"{status.get('replicas', 0)} current / {spec['replicas']} desired")
    if "desiredNumberScheduled" in status:
        sheet.field("Desired Number of Nodes Scheduled", status["desiredNumberScheduled"])
        sheet.field("Number of Nodes with Available Pods", status.get("numberAvailable", 0))
    sheet.field("Pods Status", pod_counts(pods))
    template(sheet, obj)
    conditions(sheet, obj)


def job(sheet: Sheet, obj: Obj) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(sheet, obj, created=False)
    sheet.field("Selector", selector_text(spec.get("selector")))
    sheet.field("Parallelism", spec.get("parallelism", 1))
    sheet.field("Completions", spec.get("completions", "<unset>"))
    sheet.optional("Completion Mode", spec.get("completionMode"))
    sheet.field("Suspend", bool(spec.get("suspend")))
    sheet.field("Backoff Limit", spec.get("backoffLimit", 6))
    sheet.optional("Active Deadline Seconds", spec.get("activeDeadlineSeconds"))
    sheet.optional("Start Time", moment(status.get("startTime")))
    sheet.optional("Completed At", moment(status.get("completionTime")))
    sheet.optional("Duration", job_duration(obj, time.time()))
    words = (("active", "Active"), ("succeeded", "Succeeded"), ("failed", "Failed"))
    counts = [f"{status.get(key, 0)} {word}" for key, word in words]
    sheet.field("Pods Statuses", " / ".join(counts))
    template(sheet, obj)
    conditions(sheet, obj)
