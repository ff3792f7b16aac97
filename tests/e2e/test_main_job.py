"""The main job, in the order a user would do it, on one cluster: each test builds on those before it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from steersman.actors import bringup
from tests.e2e.conftest import LiveCluster, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.root]
MANIFEST = Path(__file__).with_name("shop.yaml")
NODE_PORT = "http://127.0.0.1:30180/"


class Load:
    """One request after the other, each on a connection of its own; every answer or failure is kept."""

    def __init__(self, url: str) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=30) as answer:
                    self.answers.append(answer.read().decode())
            except OSError as error:
                self.failures.append(f"{time.monotonic():.3f} {error}")
            time.sleep(0.005)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def container_ids(live: LiveCluster) -> dict[str, str]:
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"]
        for pod in live.pods("app in (web,client)")
    }


def restart_counts(live: LiveCluster) -> dict[str, int]:
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in live.pods("app")}


NAME_ITEM = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}


def test_a_manifest_is_applied_and_becomes_ready(live):
    live.kubectl("apply", "-f", str(MANIFEST))
    live.kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=60s")
    live.kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod/client", "--timeout=60s")
    assert live.get("deployment", "-n", "shop", "web")["status"]["readyReplicas"] == 3


def test_the_service_answers_by_name_from_a_pod_and_by_node_port_from_the_host(live):
    for name in ("web", "web.shop", "web.shop.svc.cluster.local"):
        answer = live.kubectl("exec", "-n", "shop", "client", "--", "wget", "-q", "-O-", f"http://{name}/")
        assert "v1" in answer
    with urllib.request.urlopen(NODE_PORT, timeout=5) as answer:
        assert b"v1" in answer.read()


def test_configuration_reaches_the_container(live):
    script = "echo $GREETING $TOKEN $POD_NAME; cat /etc/settings/banner.txt /etc/key/token; touch /scratch/x && echo ok"
    pod = live.pods("app=web")[0]["metadata"]["name"]
    words = live.kubectl("exec", "-n", "shop", pod, "--", "sh", "-c", script).split()
    assert words == ["welcome", "s3cret", pod, "from", "a", "file", "s3cretok"]


def test_a_rolling_update_under_load_loses_no_request(live):
    with Load(NODE_PORT) as load:
        live.kubectl("set", "image", "-n", "shop", "deployment/web", "web=localhost/web:v2")
        live.kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=120s")
        wait_for("an answer of the new version", lambda: load.answers and "v2" in load.answers[-1])
        wait_for("the end of the old pods", lambda: len(live.pods("app=web")) == 3)
    assert load.failures == []
    assert len(load.answers) > 100
    assert any("v1" in answer for answer in load.answers)


def test_undo_brings_the_old_version_back(live):
    assert "2" in live.kubectl("rollout", "history", "-n", "shop", "deployment/web")
    live.kubectl("rollout", "undo", "-n", "shop", "deployment/web")
    live.kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=120s")
    deployment = live.get("deployment", "-n", "shop", "web")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/web:v1"


def test_scaling_changes_the_number_of_pods(live):
    for count in (5, 2):
        live.kubectl("scale", "-n", "shop", "deployment/web", f"--replicas={count}")
        live.kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=60s")
        wait_for(f"{count} pods", lambda count=count: len(live.pods("app=web")) == count)


def test_logs_are_followed_while_they_are_written(live):
    script = "until [ -e /tmp/go ]; do sleep 0.1; done; for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"
    live.kubectl(
        "run", "talker", "-n", "shop", "--image=localhost/web:v1", "--restart=Never", "--command", "--",
        "sh", "-c", f"echo line 0; {script}",
    )  # fmt: skip
    live.kubectl("wait", "-n", "shop", "pod/talker", "--for=jsonpath={.status.phase}=Running", "--timeout=30s")
    follow = [live.binary, "logs", "-n", "shop", "-f", "talker"]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True, env=live.environment) as process:
        assert process.stdout.readline() == "line 0\n"
        live.kubectl("exec", "-n", "shop", "talker", "--", "touch", "/tmp/go")
        assert process.stdout.read() == "".join(f"line {i}\n" for i in range(1, 6)), "it ends with the container"
    assert live.kubectl("logs", "-n", "shop", "--tail=1", "talker").strip() == "line 5"


def test_exec_gives_streams_and_exit_codes(live):
    assert live.kubectl("exec", "-n", "shop", "-i", "client", "--", "cat", stdin="to and fro\n") == "to and fro\n"
    assert "exit code 3" in live.kubectl("exec", "-n", "shop", "client", "--", "sh", "-c", "exit 3", check=False)
    assert "not found" in live.kubectl("exec", "-n", "shop", "client", "--", "no-such-command", check=False).lower()


def test_port_forward_reaches_a_pod(live):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [live.binary, "port-forward", "-n", "shop", "service/web", f"{port}:80"],
        stdout=subprocess.PIPE, env=live.environment,
    )  # fmt: skip
    try:
        assert b"Forwarding" in process.stdout.readline()
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert b"v1" in answer.read()
    finally:
        process.terminate()
        process.wait(10)


def test_files_are_copied_in_and_out(live, tmp_path):
    source, back = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(os.urandom(300_000))
    live.kubectl("cp", "-n", "shop", str(source), "client:/tmp/in.bin")
    live.kubectl("cp", "-n", "shop", "client:/tmp/in.bin", str(back))
    assert back.read_bytes() == source.read_bytes()


def test_a_killed_container_is_restarted_with_back_off(live):
    pod = live.pods("app=web")[0]["metadata"]["name"]

    def restarts() -> int:
        return live.get("pod", "-n", "shop", pod)["status"]["containerStatuses"][0]["restartCount"]

    live.kubectl("exec", "-n", "shop", pod, "--", "sh", "-c", "kill -9 $(pidof httpd); kill -TERM 1", check=False)
    wait_for("the first restart", lambda: restarts() == 1)
    live.kubectl("wait", "-n", "shop", f"pod/{pod}", "--for=condition=Ready", "--timeout=60s")
    live.kubectl("exec", "-n", "shop", pod, "--", "sh", "-c", "kill -9 $(pidof httpd); kill -TERM 1", check=False)

    def waiting() -> bool:
        state = live.get("pod", "-n", "shop", pod)["status"]["containerStatuses"][0]["state"]
        return state.get("waiting", {}).get("reason") == "CrashLoopBackOff" or restarts() == 2

    wait_for("the back-off", waiting)
    wait_for("the second restart", lambda: restarts() == 2)


def test_a_container_of_another_user_reads_its_image_and_configuration_and_writes_its_volume(live):
    script = "cat /conf/*; echo; echo kept > /data/kept; cat /data/kept; id -u"
    pod = {
        "metadata": {"name": "somebody", "namespace": "shop"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "conf", "downwardAPI": {"items": [NAME_ITEM]}}],
            "containers": [{
                "name": "main", "image": "localhost/web:v1", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/conf"}],
            }],
        },
    }  # fmt: skip
    live.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
    live.kubectl("wait", "-n", "shop", "--for=jsonpath={.status.phase}=Succeeded", "pod/somebody", "--timeout=60s")
    assert live.kubectl("logs", "-n", "shop", "somebody").split() == ["somebody", "kept", "1000"]


def test_a_job_runs_to_completion(live):
    live.kubectl("create", "job", "-n", "shop", "sum", "--image=localhost/web:v1", "--", "sh", "-c", "echo $((40 + 2))")
    live.kubectl("wait", "-n", "shop", "--for=condition=Complete", "job/sum", "--timeout=60s")
    assert live.kubectl("logs", "-n", "shop", "job/sum").strip() == "42"


def test_steer_drives_the_same_cluster(live):
    assert "web" in live.steer("get", "deployments", "-n", "shop")
    assert "successfully rolled out" in live.steer("rollout", "status", "-n", "shop", "deployment/web")
    status = live.status()
    assert status["healthy"]
    assert {"store-0", "apiserver-0", "scheduler", "controller-deployment"} <= {row["name"] for row in status["actors"]}


def test_containers_serve_on_while_all_of_ray_is_dead_and_are_adopted_again(live):
    before = container_ids(live)
    restarts = {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in live.pods("app")
    }
    pids = [row["pid"] for row in live.status()["actors"]]
    keeper = int((live.data_dir / "run" / "keeper.pid").read_text())
    with Load(NODE_PORT) as load:
        os.kill(keeper, signal.SIGKILL)
        for pid in [*pids, *bringup.ray_host(bringup.read_site(live.data_dir)).pids()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("the end of the actors", lambda: not any(is_alive(pid) for pid in pids))
        time.sleep(1)
        live.up()
    assert load.failures == []
    assert container_ids(live) == before
    assert restart_counts(live) == restarts
    live.kubectl("exec", "-n", "shop", "client", "--", "true")


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_draining_the_node_evicts_its_pods(live):
    node = live.get("nodes")["items"][0]["metadata"]["name"]
    live.kubectl(
        "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s", deadline_s=90
    )
    assert all(pod["status"]["phase"] == "Pending" for pod in live.pods("app=web"))
    events = ("get", "events", "-n", "shop", "--field-selector=reason=FailedScheduling", "-o", "yaml")
    wait_for("an event that says why", lambda: "unschedulable" in live.kubectl(*events))
    live.kubectl("uncordon", node)
    live.kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=60s")


def test_deleting_the_namespace_leaves_nothing(live):
    ids = [value.split("//")[1] for value in container_ids(live).values()]
    assert ids
    live.kubectl("delete", "namespace", "shop", "--timeout=90s", deadline_s=100)
    assert "not found" in live.kubectl("get", "namespace", "shop", check=False)
    for kind in ("pods", "deployments", "replicasets", "services", "secrets", "configmaps", "endpointslices", "jobs"):
        assert live.get(kind, "-n", "shop")["items"] == []

    def rest() -> list[str]:
        lines = Path("/proc/mounts").read_text().splitlines()
        mounts = [line for line in lines if any(part in line for part in ids)]
        running = [name for name in os.listdir("/proc") if name.isdigit() and names_one_of(int(name), ids)]
        return mounts + running

    wait_for("an empty machine", lambda: not rest(), 20)


def names_one_of(pid: int, ids: list[str]) -> bool:
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return any(part in line for part in ids)
    return False


def test_down_leaves_no_process_mount_namespace_or_rule(live):
    live.steer("down", "--delete-data")
    marker = str(live.data_dir)
    assert marker not in Path("/proc/mounts").read_text()
    assert not live.data_dir.exists()
    assert (
        f"steersman-{live.name}"
        not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    )
    left = [name for name in os.listdir("/proc") if name.isdigit() and names_one_of(int(name), [marker])]
    assert left == []
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "ste-" not in links
