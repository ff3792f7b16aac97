"""What the conformance suite asks of kubectl where it needs no running containers, and of the cluster as a whole.

Source: kubernetes/test/e2e/kubectl/kubectl.go, kubernetes/test/e2e/architecture/conformance.go
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

PORT = {"name": "agnhost-server", "containerPort": 80}
PAUSE = {"containers": [{"name": "agnhost", "image": "pause:1", "ports": [PORT]}]}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")


def kubectl(house: Any, *words: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", str(house.cluster.kubeconfig), *words], input=stdin, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def controller(house: Any, space: str) -> str:
    """A ReplicationController with its pod; returns the pod's name."""
    template = {"metadata": {"labels": {"app": "agnhost"}}, "spec": PAUSE}
    spec = {"replicas": 1, "selector": {"app": "agnhost"}, "template": template}
    core = f"/api/v1/namespaces/{space}"
    house.ok("POST", f"{core}/replicationcontrollers", {"metadata": {"name": "agnhost-primary"}, "spec": spec})
    house.until(f"{core}/replicationcontrollers/agnhost-primary", lambda found: (
        (found.get("status") or {}).get("readyReplicas") == 1))  # fmt: skip
    name: str = house.ok("GET", f"{core}/pods")["items"][0]["metadata"]["name"]
    return name


@needs_kubectl
def test_the_control_plane_is_shown_as_running(house: Any) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", kubectl(house, "cluster-info"))
    assert re.match(r"Kubernetes control plane is running at https://127\.0\.0\.1:\d+", shown)


@needs_kubectl
def test_controllers_pods_and_nodes_are_described(house: Any, space: str) -> None:
    pod = controller(house, space)
    shown = kubectl(house, "describe", "pod", pod, "-n", space)
    for words in (r"Name:\s+agnhost-primary-", rf"Namespace:\s+{space}", r"Node:\s+\S+/", r"Labels:\s+app=agnhost",
                  r"Status:\s+Running", r"IP:\s+\d", r"Controlled By:\s+ReplicationController/agnhost-primary",
                  r"Image:\s+pause:1", r"State:\s+Running", r"QoS Class:\s+BestEffort"):  # fmt: skip
        assert re.search(words, shown), words
    shown = kubectl(house, "describe", "rc", "agnhost-primary", "-n", space)
    for words in (r"Name:\s+agnhost-primary", r"Selector:\s+app=agnhost", r"Replicas:\s+1 current / 1 desired",
                  r"Pods Status:\s+1 Running / 0 Waiting / 0 Succeeded / 0 Failed", r"Pod Template:", r"Events:",
                  r"SuccessfulCreate"):  # fmt: skip
        assert re.search(words, shown), words
    spec = {"selector": {"app": "agnhost"}, "ports": [{"port": 6379, "targetPort": "agnhost-server"}]}
    house.ok("POST", f"/api/v1/namespaces/{space}/services", {"metadata": {"name": "agnhost-primary"}, "spec": spec})
    shown = kubectl(house, "describe", "service", "agnhost-primary", "-n", space)
    for words in (r"Type:\s+ClusterIP", r"IP:\s+\d", r"Port:\s+<unset>\s+6379/TCP", r"TargetPort:\s+agnhost-server/TCP",
                  r"Session Affinity:\s+None"):  # fmt: skip
        assert re.search(words, shown), words
    node = house.ok("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    shown = kubectl(house, "describe", "node", node)
    for words in ("Name:", "Labels:", "Annotations:", "CreationTimestamp:", "Conditions:", "Addresses:", "Capacity:",
                  "Kubelet Version:", "Pods:"):  # fmt: skip
        assert re.search(words, shown), words
    assert re.search(rf"Name:\s+{space}", kubectl(house, "describe", "namespace", space))


@needs_kubectl
def test_labels_and_annotations_are_set_and_taken_away(house: Any, space: str) -> None:
    pod = controller(house, space)
    kubectl(house, "label", "pods", pod, "testing-label=testing-label-value", "-n", space)
    assert "testing-label-value" in kubectl(house, "get", "pod", pod, "-L", "testing-label", "-n", space)
    kubectl(house, "label", "pods", pod, "testing-label-", "-n", space)
    assert "testing-label-value" not in kubectl(house, "get", "pod", pod, "-L", "testing-label", "-n", space)
    kubectl(house, "patch", "pod", pod, "-n", space, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    found = house.ok("GET", f"/api/v1/namespaces/{space}/pods/{pod}")
    assert found["metadata"]["annotations"]["x"] == "y"


@needs_kubectl
def test_a_pod_is_changed_for_a_try_alone(house: Any, space: str) -> None:
    kubectl(house, "run", "e2e-test-httpd-pod", "--image=httpd:1", "--labels=run=e2e", "-n", space)
    patch = '{"spec":{"containers":[{"name": "e2e-test-httpd-pod","image": "busybox:1"}]}}'
    kubectl(house, "patch", "pod", "e2e-test-httpd-pod", "-p", patch, "--dry-run=server", "-n", space)
    found = house.ok("GET", f"/api/v1/namespaces/{space}/pods/e2e-test-httpd-pod")
    assert found["spec"]["containers"][0]["image"] == "httpd:1"
    kubectl(house, "delete", "pods", "e2e-test-httpd-pod", "-n", space)


@contextlib.contextmanager
def proxy(house: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = ["kubectl", "--kubeconfig", str(house.cluster.kubeconfig), "proxy", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def versions(connection: socket.socket) -> list[str]:
    """What `/api` names over a connection to a proxy."""
    with connection:
        connection.sendall(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    body = answer.partition(b"\r\n\r\n")[2]
    found: list[str] = orjson.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["versions"]
    return found


@needs_kubectl
def test_a_proxy_listens_on_a_port_or_a_socket(house: Any, tmp_path: Path) -> None:
    with proxy(house, "-p", "0", "--disable-filter") as process:
        assert process.stdout is not None
        started = re.search(r"Starting to serve on 127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert started is not None
        assert versions(socket.create_connection(("127.0.0.1", int(started[1])), 10)) == ["v1"]
    path = str(tmp_path / "test")
    with proxy(house, f"--unix-socket={path}") as process:
        assert process.stdout is not None and path in process.stdout.readline()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(path)
        assert versions(connection) == ["v1"]


def test_two_nodes_at_least_take_pods(house: Any) -> None:
    nodes = house.ok("GET", "/api/v1/nodes")["items"]
    assert len([row for row in nodes if not (row.get("spec") or {}).get("taints")]) >= 2


def test_a_service_has_its_endpoints_soon(house: Any, space: str) -> None:
    controller(house, space)
    core = f"/api/v1/namespaces/{space}"
    waits = []
    for number in range(20):
        spec = {"selector": {"app": "agnhost"}, "ports": [{"port": 80}]}
        began = time.monotonic()
        house.ok("POST", f"{core}/services", {"metadata": {"name": f"latency-svc-{number}"}, "spec": spec})
        house.until(f"{core}/endpoints/latency-svc-{number}", lambda found: found and found.get("subsets"))
        waits.append(time.monotonic() - began)
    assert sorted(waits)[10] < 20 and max(waits) < 50
