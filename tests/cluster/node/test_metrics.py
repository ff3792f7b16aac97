"""What a node tells a scraper."""

from __future__ import annotations

from steersman.cluster.node.metrics import resource_metrics, running_metrics

TIME = "2026-01-01T00:00:00Z"
CPU = {"time": TIME, "usageCoreNanoSeconds": 1_500_000_000}
MEMORY = {"time": TIME, "workingSetBytes": 4096}
SUMMARY = {
    "node": {"nodeName": "n1", "cpu": CPU, "memory": MEMORY},
    "pods": [
        {
            "podRef": {"name": "web", "namespace": "a"}, "cpu": CPU, "memory": MEMORY,
            "containers": [{"name": "c", "startTime": TIME, "cpu": CPU, "memory": MEMORY}],
        }
    ],
}  # fmt: skip


def test_resources_are_those_of_the_summary_with_the_time_they_were_measured() -> None:
    page = resource_metrics(SUMMARY)
    assert [line for line in page.splitlines() if line[0] != "#"] == [
        'container_cpu_usage_seconds_total{container="c",namespace="a",pod="web"} 1.5 1767225600000',
        'container_memory_working_set_bytes{container="c",namespace="a",pod="web"} 4096 1767225600000',
        'container_start_time_seconds{container="c",namespace="a",pod="web"} 1767225600',
        "node_cpu_usage_seconds_total 1.5 1767225600000",
        "node_memory_working_set_bytes 4096 1767225600000",
        'pod_cpu_usage_seconds_total{namespace="a",pod="web"} 1.5 1767225600000',
        'pod_memory_working_set_bytes{namespace="a",pod="web"} 4096 1767225600000',
        "resource_scrape_error 0",
    ]
    assert "# TYPE container_cpu_usage_seconds_total counter\n" in page


def test_what_runs_is_counted_by_state() -> None:
    status = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}, {"state": {"terminated": {}}}]}
    page = running_metrics("n1", [{"status": status}, {"status": {"phase": "Pending"}}])
    assert [line for line in page.splitlines() if line[0] != "#"] == [
        'kubelet_node_name{node="n1"} 1',
        'kubelet_running_containers{container_state="exited"} 1',
        'kubelet_running_containers{container_state="running"} 1',
        "kubelet_running_pods 1",
    ]
