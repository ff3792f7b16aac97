"""What a node tells a scraper in Prometheus' text format: the resources in use, from its summary, and what runs.

Source: k8s.io/kubernetes/pkg/kubelet/metrics/collectors/resource_metrics.go, k8s.io/kubernetes/pkg/kubelet/metrics
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import parse_time

_RESOURCES = {
    "container_cpu_usage_seconds_total": ("counter", "Cumulative cpu time consumed by the container in core-seconds"),
    "container_memory_working_set_bytes": ("gauge", "Current working set of the container in bytes"),
    "container_start_time_seconds": ("gauge", "Start time of the container since unix epoch in seconds"),
    "node_cpu_usage_seconds_total": ("counter", "Cumulative cpu time consumed by the node in core-seconds"),
    "node_memory_working_set_bytes": ("gauge", "Current working set of the node in bytes"),
    "pod_cpu_usage_seconds_total": ("counter", "Cumulative cpu time consumed by the pod in core-seconds"),
    "pod_memory_working_set_bytes": ("gauge", "Current working set of the pod in bytes"),
    "resource_scrape_error": ("gauge", "1 if there was an error while getting container metrics, 0 otherwise"),
}
_STATES = {"running": "running", "terminated": "exited", "waiting": "created"}

#: name, labels, value, and when it was measured, as text in RFC 3339
_Sample = tuple[str, Mapping[str, str], float, str]


def resource_metrics(summary: Obj) -> str:
    """The page `/metrics/resource` of a `stats/summary`."""
    samples = list(_samples(summary))
    lines = []
    for name, (kind, text) in _RESOURCES.items():
        rows = [row for row in samples if row[0] == name]
        if rows:
            lines += [f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}"]
            lines += [_line(*row) for row in rows]
    return "\n".join(lines) + "\n"


def _samples(summary: Obj) -> Iterator[_Sample]:
    yield from _usage("node", {}, summary.get("node") or {})
    for pod in summary.get("pods") or ():
        reference = pod.get("podRef") or {}
        labels = {"namespace": reference.get("namespace", ""), "pod": reference.get("name", "")}
        yield from _usage("pod", labels, pod)
        for container in pod.get("containers") or ():
            named = {"container": container.get("name", ""), **labels}
            yield from _usage("container", named, container)
            if started := container.get("startTime"):
                yield "container_start_time_seconds", named, parse_time(started), ""
    yield "resource_scrape_error", {}, 0, ""


def _usage(of: str, labels: Mapping[str, str], row: Obj) -> Iterator[_Sample]:
    cpu, memory = row.get("cpu") or {}, row.get("memory") or {}
    if "usageCoreNanoSeconds" in cpu:
        yield f"{of}_cpu_usage_seconds_total", labels, cpu["usageCoreNanoSeconds"] / 1e9, cpu.get("time", "")
    if "workingSetBytes" in memory:
        yield f"{of}_memory_working_set_bytes", labels, memory["workingSetBytes"], memory.get("time", "")


def _line(name: str, labels: Mapping[str, str], value: float, time: str) -> str:
    text = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    moment = f" {int(parse_time(time) * 1000)}" if time else ""
    return f"{name}{f'{{{text}}}' if text else ''} {value:.15g}{moment}"


def running_metrics(node: str, pods: Iterable[Obj]) -> str:
    """The page `/metrics` of a node with these pods."""
    running, states = 0, Counter[str]()
    for pod in pods:
        status = pod.get("status") or {}
        running += status.get("phase") == "Running"
        for row in status.get("containerStatuses") or ():
            states.update(_STATES[state] for state in row.get("state") or () if state in _STATES)
    lines = [
        "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.",
        "# TYPE kubelet_node_name gauge",
        f'kubelet_node_name{{node="{node}"}} 1',
        "# HELP kubelet_running_containers [ALPHA] Number of containers currently running",
        "# TYPE kubelet_running_containers gauge",
        *(f'kubelet_running_containers{{container_state="{state}"}} {states[state]}' for state in sorted(states)),
        "# HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox",
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {running}",
    ]
    return "\n".join(lines) + "\n"
