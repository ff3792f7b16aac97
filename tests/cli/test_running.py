"""What concerns pods that run: their node here only echoes."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from steersman.cluster.meta.resources import NODES, PODS

if TYPE_CHECKING:
    from tests.cli.conftest import Steer

Obj = dict[str, Any]


def start_pod(steer: Steer, name: str, *containers: str, **labels: str) -> None:
    """Makes a pod that its node says is running."""
    spec: Obj = {"nodeName": "n1", "containers": [{"name": c, "image": "i"} for c in containers or ("main",)]}
    spec["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    pod = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    made = steer.wait(steer.client.create(PODS, pod, steer.namespace))
    statuses = [
        {"name": row["name"], "ready": True, "restartCount": 0, "image": "i", "imageID": "", "state": {"running": {}}}
        for row in made["spec"]["containers"]
    ]
    conditions = [{"type": "Ready", "status": "True"}]
    made["status"] = {"phase": "Running", "containerStatuses": statuses, "conditions": conditions}
    steer.wait(steer.client.update(PODS, made, subresource="status"))


@pytest.fixture(autouse=True)
def _node(steer: Steer) -> None:
    steer.server.nodes.agents["n1"].requests.clear()
    steer.server.nodes.agents["n1"].received.clear()


def agent(steer: Steer) -> Any:
    return steer.server.nodes.agents["n1"]


def test_logs_of_one_pod(steer: Steer) -> None:
    start_pod(steer, "a")
    assert steer("logs", "a", "--tail=2") == "a line 0\na line 1\n"
    assert steer("logs", "pod/a", "-c", "main", "--since=10m", "--timestamps").count("\n") == 3
    request = agent(steer).requests[-1]
    assert (request.since_s, request.timestamps, request.container) == (600.0, True, "main")
    assert "previous terminated" in steer.fails("logs", "a", "-p")
    assert "container nope is not valid for pod a" in steer.fails("logs", "a", "-c", "nope")
    assert "not found" in steer.fails("logs", "nope")
    assert "name a pod" in steer.fails("logs")


def test_logs_of_several_pods_and_containers(steer: Steer) -> None:
    start_pod(steer, "a", "main", "side", app="web")
    start_pod(steer, "b", app="web")
    out = steer("logs", "-l", "app=web", "--prefix", "--tail=1", "--all-containers")
    assert sorted(out.splitlines()) == [
        "[pod/a/main] a line 0",
        "[pod/a/side] a line 0",
        "[pod/b/main] b line 0",
    ]
    result = steer.result("logs", "a", "--tail=1")
    assert 'Defaulted container "main" out of: main, side' in result.stderr


def test_logs_of_a_workload_come_from_a_running_pod(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i")
    assert "no pods found behind deployment/web" in steer.fails("logs", "deployment/web")
    start_pod(steer, "web-1", app="web")
    assert steer("logs", "deploy/web", "--tail=1") == "web-1 line 0\n"


def test_exec_passes_output_and_exit_code_on(steer: Steer) -> None:
    start_pod(steer, "a")
    result = steer.result("exec", "a", "--", "ls", "-l", "/srv")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ls -l /srv\n", "to stderr\n")
    assert steer.fails("exec", "a", "--", "false", code=3) == "command terminated with exit code 3\n"
    assert "you must specify at least one command" in steer.fails("exec", "a")


def test_exec_passes_input_on(steer: Steer) -> None:
    start_pod(steer, "a")
    program = str(Path(sys.executable).parent / "steer")
    words = [program, "--kubeconfig", str(steer.kubeconfig), "exec", "-i", "a", "--", "tr", "a-z", "A-Z"]
    done = subprocess.run(words, input=b"quiet words", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"QUIET WORDS"), done.stderr


def test_exec_refuses_a_finished_pod(steer: Steer) -> None:
    start_pod(steer, "a")
    steer("patch", "pod", "a", "--subresource=status", "--type=merge", "-p", "status: {phase: Succeeded}")
    assert "completed pod" in steer.fails("exec", "a", "--", "ls")


def test_attach_shows_what_the_process_prints(steer: Steer) -> None:
    start_pod(steer, "a")
    assert steer("attach", "a") == "\n"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        found: int = s.getsockname()[1]
        return found


FORWARDS = [("pod/a", "{}:8080"), ("service/web", "{}:80"), ("a", "{}:http")]


@pytest.mark.parametrize("what,ports", FORWARDS)
def test_ports_are_forwarded(steer: Steer, what: str, ports: str) -> None:
    start_pod(steer, "a", app="web")
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
    service += "spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n"
    steer("create", "-f", "-", stdin=service)
    port = free_port()
    program = str(Path(sys.executable).parent / "steer")
    words = [program, "--kubeconfig", str(steer.kubeconfig), "port-forward", what, ports.format(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"Forwarding from 127.0.0.1:{port} -> 8080\n"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"hello")
            assert connection.recv(100) == b"olleh"
        assert agent(steer).requests[-1] == (steer.namespace, "a", 8080)
    finally:
        process.terminate()
        process.wait()


def test_a_port_that_is_taken_or_unknown_is_told(steer: Steer) -> None:
    start_pod(steer, "a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"unable to listen on 127.0.0.1:{port}" in steer.fails("port-forward", "a", f"{port}:80")
    assert "no port named" in steer.fails("port-forward", "a", "8080:nope")
    assert "is no port number" in steer.fails("port-forward", "a", "x:80")


def test_files_are_copied_into_a_pod(steer: Steer) -> None:
    start_pod(steer, "a")
    (steer.directory / "site").mkdir()
    (steer.directory / "site" / "index.html").write_text("hello")
    steer("cp", str(steer.directory / "site"), "a:/srv")
    with tarfile.open(fileobj=io.BytesIO(bytes(agent(steer).received))) as archive:
        assert sorted(archive.getnames()) == ["site", "site/index.html"]
    assert agent(steer).requests[-1].command == ("tar", "xmf", "-", "-C", "/srv")
    agent(steer).received.clear()
    steer("cp", str(steer.directory / "site" / "index.html"), f"{steer.namespace}/a:/etc/page")
    with tarfile.open(fileobj=io.BytesIO(bytes(agent(steer).received))) as archive:
        assert archive.getnames() == ["page"]
    assert "does not exist" in steer.fails("cp", "/nope/x", "a:/srv")
    assert "must be in a pod" in steer.fails("cp", "x", "y")


def test_files_are_copied_out_of_a_pod_and_never_outside_the_target(steer: Steer) -> None:
    start_pod(steer, "a")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("www/a.txt", "www/sub/b.txt", "../evil", "www/../../evil2"):
            row = tarfile.TarInfo(name)
            row.size = 5
            archive.addfile(row, io.BytesIO(b"12345"))
    agent(steer).archive = buffer.getvalue()
    result = steer.result("cp", "a:/srv/www", str(steer.directory / "out"))
    assert result.exit_code == 0, result.output
    assert (steer.directory / "out" / "a.txt").read_text() == "12345"
    assert (steer.directory / "out" / "sub" / "b.txt").exists()
    assert not (steer.directory / "evil").exists() and not (steer.directory / "evil2").exists()
    assert "leads outside" in result.stderr


def test_wait_for_conditions_paths_and_deletion(steer: Steer) -> None:
    start_pod(steer, "a")
    assert steer("wait", "pod/a", "--for=condition=Ready") == "pod/a condition met\n"
    assert steer("wait", "pods", "--all", "--for=jsonpath={.status.phase}=Running") == "pod/a condition met\n"
    error = steer.fails("wait", "pod/a", "--for=condition=Initialized", "--timeout=200ms")
    assert error == "error: timed out waiting for the condition on pods/a\n"
    assert "not found" in steer.fails("wait", "pod/b", "--for=condition=Ready")
    assert steer("wait", "pod/b", "--for=delete") == "pod/b deleted\n"
    assert "no matching resources" in steer.fails("wait", "pods", "-l", "x=y", "--for=condition=Ready")
    assert "unrecognized condition" in steer.fails("wait", "pod/a", "--for=happiness")
    assert "is no duration" in steer.fails("wait", "pod/a", "--for=delete", "--timeout=soon")


def make_node(steer: Steer, name: str) -> None:
    if name not in steer("get", "nodes", "-o", "name"):
        steer.wait(steer.client.create(NODES, {"metadata": {"name": name}}))


def test_nodes_are_cordoned_and_drained(steer: Steer) -> None:
    make_node(steer, "n1")
    start_pod(steer, "bare", app="x")
    assert steer("cordon", "n1") == "node/n1 cordoned\n"
    assert steer("cordon", "n1") == "node/n1 already cordoned\n"
    assert "SchedulingDisabled" in steer("get", "nodes", "n1")
    error = steer.fails("drain", "n1", "--pod-selector=app=x")
    assert f"{steer.namespace}/bare has no controller that would replace it (use --force" in error
    steer("patch", "pod", "bare", "--subresource=status", "--type=merge", "-p", "status: {phase: Succeeded}")
    out = steer("drain", "n1", "--pod-selector=app=x", "--grace-period=0", "--timeout=20s")
    assert "pod/bare evicted" in out and "node/n1 drained" in out
    assert steer("uncordon", "n1") == "node/n1 uncordoned\n"


def test_images_are_loaded_into_nodes_and_listed(steer: Steer) -> None:
    make_node(steer, "n1")
    path = steer.directory / "web.tar"
    path.write_bytes(b"x" * 3_000_000)
    before = agent(steer).loaded
    assert steer("image", "load", str(path), "--node=n1") == "example.com/web:1 loaded into node/n1\n"
    assert agent(steer).loaded - before == 3_000_000
    assert steer("image", "ls", "-q", "--node=n1") == "example.com/web:1\n"
    row = steer("image", "ls", "--node=n1").splitlines()[1].split()
    assert row == ["example.com/web:1", "0123456789ab", "4.2MB", "n1"]
    assert "is no file" in steer.fails("image", "load", "/nope.tar")
    assert 'nodes "n9" not found' in steer.fails("image", "ls", "--node=n9")


def test_a_pod_in_words(steer: Steer) -> None:
    start_pod(steer, "a", "main", "side", app="web")
    event = {
        "metadata": {"name": "a.1", "namespace": steer.namespace},
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": steer.namespace},
        "type": "Warning",
        "reason": "Unhealthy",
        "message": "probe failed",
        "count": 3,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "source": {"component": "kubelet"},
    }
    from steersman.cluster.meta.resources import EVENTS

    uid = steer("get", "pod", "a", "-o", "jsonpath={.metadata.uid}")
    event["involvedObject"]["uid"] = uid  # type: ignore[index]
    steer.wait(steer.client.create(EVENTS, event, steer.namespace))
    text = steer("describe", "pod", "a")
    for part in ("Name:", "Labels:", "app=web", "Node:", "n1", "main:", "side:", "Ports:", "8080/TCP", "Conditions:"):
        assert part in text
    assert "Warning" in text and "Unhealthy" in text and "probe failed" in text and "(x3 over" in text
    assert "Unhealthy" in steer("events") and "pod/a" in steer("events", "--for=pod/a", "--types=warning")
    assert steer("events", "--types=Normal") == ""
    assert "Name:" in steer("describe", "pods", "-l", "app=web")
    assert "not found" in steer.fails("describe", "pod", "zzz")


def test_other_kinds_in_words(steer: Steer) -> None:
    make_node(steer, "n1")
    start_pod(steer, "web-1", app="web")
    steer("create", "deployment", "web", "--image=i")
    steer("create", "job", "once", "--image=i")
    steer("create", "cm", "settings", "--from-literal=level=debug")
    steer("create", "secret", "generic", "hush", "--from-literal=password=geheim")
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    )
    steer("create", "-f", "-", stdin=service)
    assert "StrategyType:" in steer("describe", "deploy", "web")
    assert "Pods Statuses:" in steer("describe", "job/once")
    assert "level:\n  ----\n  debug" in steer("describe", "cm", "settings")
    secret = steer("describe", "secret", "hush")
    assert "password:  6 bytes" in secret and "geheim" not in secret
    assert "80/TCP" in steer("describe", "svc", "web")
    node = steer("describe", "node", "n1")
    assert "Non-terminated Pods:" in node and "web-1" in node and "Allocated resources:" in node
    assert "Kind:" in steer("describe", "sa", "default")
