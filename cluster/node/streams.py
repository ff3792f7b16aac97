"""What streams say: log lines as asked for, the status that ends an exec, the statistics summary.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (log options),
k8s.io/apimachinery/pkg/util/remotecommand and https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.cluster.meta.errors import BadRequest, NotFound, not_found
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_micro_time, format_time
from steersman.cluster.node.containers import find_container
from steersman.cluster.node.values import ContainerState, ContainerStats, ContainerStatus


def choose_log(
    pod: Mapping[str, Any], name: str, containers: Iterable[ContainerStatus], *, previous: bool
) -> ContainerStatus:
    """Returns the generation of a container whose log is wanted.

    Raises:
        BadRequest: the pod has no such container, or there is no log yet, in the kubelet's words.
    """
    pod_name = pod["metadata"]["name"]
    if find_container(pod, name) is None:
        raise BadRequest(f"container {name} is not valid for pod {pod_name}")
    rows = [row for row in containers if row.name == name and row.state is not ContainerState.CREATED]
    rows.sort(key=lambda row: row.attempt, reverse=True)
    if previous:
        if len(rows) < 2:
            raise BadRequest(f'previous terminated container "{name}" in pod "{pod_name}" not found')
        return rows[1]
    if not rows:
        reason = _waiting_reason(pod, name)
        raise BadRequest(f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')
    return rows[0]


def _waiting_reason(pod: Mapping[str, Any], name: str) -> str:
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for row in status.get(field) or ():
            if row["name"] == name:
                reason = ((row.get("state") or {}).get("waiting") or {}).get("reason")
                if reason:
                    return str(reason)
    return "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"


def choose_running(pod: Mapping[str, Any], name: str, containers: Iterable[ContainerStatus]) -> ContainerStatus:
    """Returns the running generation of a container.

    Raises:
        BadRequest: the pod has no such container.
        NotFound: it does not run.
    """
    pod_name = pod["metadata"]["name"]
    if find_container(pod, name) is None:
        raise BadRequest(f"container {name} is not valid for pod {pod_name}")
    for row in containers:
        if row.name == name and row.state is ContainerState.RUNNING:
            return row
    raise NotFound(f'container not found ("{name}"): it is not running in pod "{pod_name}"')


def outlives_input(container: Mapping[str, Any]) -> bool:
    """Whether an attachment goes on once the client has said all; otherwise it ends then, and the container goes on.

    Source: containerd, internal/cri/io/container_io.go (`Attach`)
    """
    return bool(container.get("stdinOnce")) and not container.get("tty")


def no_such_pod(name: str) -> NotFound:
    return not_found("pods", name)


def log_line(moment: float, line: bytes, *, timestamps: bool) -> bytes:
    """Returns a line as it is sent, with its time in front if that was asked for."""
    if not timestamps:
        return line
    return format_micro_time(moment).replace("Z", "000Z ").encode() + line


def exec_status(exit_code: int) -> Obj:
    """Returns the `Status` that ends an exec: success, or the exit code as clients look for it."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


def failure_status(message: str) -> Obj:
    """Returns the `Status` that ends a conversation which broke off."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


def summary(
    node: str,
    pods: Iterable[Mapping[str, Any]],
    stats: Iterable[ContainerStats],
    before: Mapping[str, ContainerStats],
    now: float,
    *,
    images: Iterable[Mapping[str, Any]] = (),
) -> Obj:
    """Returns the kubelet's `stats/summary`.

    Args:
        before: the last statistics by container id, from which rates are made.
    """
    by_pod: dict[str, list[ContainerStats]] = {}
    for row in stats:
        by_pod.setdefault(row.pod_uid, []).append(row)
    rows = []
    total_ns = total_rate = total_memory = 0
    for pod in pods:
        meta = pod["metadata"]
        found = by_pod.get(meta["uid"], [])
        containers = [_container_summary(row, before.get(row.id), pod) for row in found]
        cpu = {
            "time": format_time(now),
            "usageNanoCores": sum(row["cpu"]["usageNanoCores"] for row in containers),
            "usageCoreNanoSeconds": sum(row["cpu"]["usageCoreNanoSeconds"] for row in containers),
        }
        memory = _memory_total(containers, now)
        total_ns += cpu["usageCoreNanoSeconds"]
        total_rate += cpu["usageNanoCores"]
        total_memory += memory["workingSetBytes"]
        rows.append(
            {
                "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
                "startTime": (pod.get("status") or {}).get("startTime"),
                "containers": containers,
                "cpu": cpu,
                "memory": memory,
            }
        )
    image_bytes = sum(int(row.get("sizeBytes") or 0) for row in images)
    return {
        "node": {
            "nodeName": node,
            "cpu": {"time": format_time(now), "usageNanoCores": total_rate, "usageCoreNanoSeconds": total_ns},
            "memory": {"time": format_time(now), "workingSetBytes": total_memory, "usageBytes": total_memory},
            "runtime": {"imageFs": {"time": format_time(now), "usedBytes": image_bytes}},
        },
        "pods": rows,
    }


def _container_summary(row: ContainerStats, before: ContainerStats | None, pod: Mapping[str, Any]) -> Obj:
    rate = 0
    if before is not None and row.timestamp > before.timestamp:
        rate = max(0, int((row.cpu_usage_ns - before.cpu_usage_ns) / (row.timestamp - before.timestamp)))
    return {
        "name": row.name,
        "startTime": (pod.get("status") or {}).get("startTime"),
        "cpu": {
            "time": format_time(row.timestamp),
            "usageNanoCores": rate,
            "usageCoreNanoSeconds": row.cpu_usage_ns,
        },
        "memory": {
            "time": format_time(row.timestamp),
            "usageBytes": row.memory_usage_bytes,
            "workingSetBytes": row.memory_working_set_bytes,
        },
    }


def _memory_total(containers: Iterable[Obj], now: float) -> Obj:
    rows = list(containers)
    return {
        "time": format_time(now),
        "usageBytes": sum(row["memory"]["usageBytes"] for row in rows),
        "workingSetBytes": sum(row["memory"]["workingSetBytes"] for row in rows),
    }
