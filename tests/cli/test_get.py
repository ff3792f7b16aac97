from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from steersman.cluster.meta import yamlio

if TYPE_CHECKING:
    from tests.cli.conftest import Steer


def pod(name: str, **labels: str) -> str:
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": f"{name}:1"}]},
    }
    return json.dumps(obj)


def test_objects_are_listed_as_the_servers_table(steer: Steer) -> None:
    steer("create", "-f", "-", stdin=pod("a", app="web"))
    lines = steer("get", "pods").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[:4] == ["a", "0/1", "Pending", "0"]
    assert steer("get", "pods", "--no-headers").split() == steer("get", "po/a").splitlines()[1].split()
    wide = steer("get", "pod", "a", "-o", "wide").splitlines()[0]
    assert wide.split()[5:] == ["IP", "NODE", "NOMINATED", "NODE", "READINESS", "GATES"]


def test_several_kinds_and_categories_are_printed_one_after_the_other(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i")
    steer("create", "configmap", "settings")
    out = steer("get", "deploy,cm,secrets")
    assert "deployment.apps/web" in out and "configmap/settings" in out and "\n\n" in out
    assert "deployment.apps/web" in steer("get", "all")
    assert steer("get", "deploy/web", "cm/settings", "-o", "name").splitlines() == [
        "deployment.apps/web",
        "configmap/settings",
    ]


def test_selectors_choose(steer: Steer) -> None:
    for name, tier in (("a", "front"), ("b", "back"), ("c", "back")):
        steer("create", "-f", "-", stdin=pod(name, tier=tier))
    assert steer("get", "pods", "-l", "tier=back", "-o", "name").split() == ["pod/b", "pod/c"]
    assert steer("get", "pods", "-l", "tier notin (back)", "-o", "name").split() == ["pod/a"]
    assert steer("get", "pods", "--field-selector=metadata.name!=b", "-o", "name").split() == ["pod/a", "pod/c"]
    assert steer("get", "pods", "-L", "tier", "--no-headers").splitlines()[0].split()[-1] == "front"
    assert "tier=front" in steer("get", "pods", "a", "--show-labels")
    assert "found '==', expected: ','" in steer.fails("get", "pods", "-l", "a==b==c")


def test_forms_of_output(steer: Steer) -> None:
    steer("create", "-f", "-", stdin=pod("a"))
    one = json.loads(steer("get", "pod", "a", "-o", "json"))
    assert one["kind"] == "Pod" and "managedFields" not in one["metadata"]
    assert "managedFields" in json.loads(steer("get", "pod", "a", "-o", "json", "--show-managed-fields"))["metadata"]
    many = yamlio.load(steer("get", "pods", "-o", "yaml"))
    assert many["kind"] == "List" and [row["kind"] for row in many["items"]] == ["Pod"]
    assert steer("get", "pod", "a", "-o", "jsonpath={.spec.containers[0].image}") == "a:1"
    assert steer("get", "pods", "-o", "jsonpath={.items[*].metadata.name}") == "a"
    columns = steer("get", "pods", "-o", "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,X:.nope")
    assert [line.split() for line in columns.splitlines()] == [["NAME", "IMAGE", "X"], ["a", "a:1", "<none>"]]
    assert "allowed formats are" in steer.fails("get", "pods", "-o", "xml")
    assert "jsonpath" in steer.fails("get", "pods", "-o", "jsonpath={.items[")


def test_rows_are_sorted_by_a_field(steer: Steer) -> None:
    for name, value in (("a", "3"), ("b", "10"), ("c", "7")):
        steer("create", "configmap", name, f"--from-literal=n={value}")
    text = steer("get", "cm", "--sort-by={.data.n}", "-o", "name").split()
    assert text == ["configmap/b", "configmap/a", "configmap/c"]
    rows = steer("get", "cm", "--sort-by=.metadata.name", "--no-headers").splitlines()
    assert [row.split()[0] for row in rows] == ["a", "b", "c"]


def test_what_is_missing_is_told(steer: Steer) -> None:
    assert steer.fails("get", "pod", "nope") == 'Error from server (NotFound): pods "nope" not found\n'
    assert steer("get", "pod", "nope", "--ignore-not-found") == ""
    result = steer.result("get", "pods")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"No resources found in {steer.namespace} namespace.\n"
    steer("create", "configmap", "here")
    both = steer.result("get", "cm", "here", "gone")
    assert both.exit_code == 1 and "here" in both.stdout and '"gone" not found' in both.stderr


def test_unknown_kinds_and_commands_are_told_with_a_hint(steer: Steer) -> None:
    error = steer.fails("get", "deploymentz")
    assert 'the server doesn\'t have a resource type "deploymentz"' in error and "deployment" in error
    assert "Did you mean" in steer.fails("gett", "pods")
    assert "You must specify the type of resource" in steer.fails("get")
    assert "No such option" in steer.fails("get", "--frobnicate")


def test_forms_that_contradict_are_refused(steer: Steer) -> None:
    assert "selector" in steer.fails("get", "pod", "a", "-l", "x=y")
    assert "by name across all namespaces" in steer.fails("get", "pod", "a", "-A")
    assert "TYPE/NAME" in steer.fails("get", "pod/a", "b")


def test_namespace_and_context_are_chosen_before_or_after_the_command(steer: Steer) -> None:
    assert "default" in steer("get", "sa", "-n", steer.namespace)
    assert "kube-dns" in steer("-n", "kube-system", "get", "svc")
    assert "in other namespace" in steer.result("get", "pods", "--context", "other").stderr
    assert 'context "nope" does not exist; known: c, other' in steer.fails("get", "pods", "--context", "nope")
    everywhere = steer("get", "svc", "-A").splitlines()
    assert everywhere[0].split()[0] == "NAMESPACE" and any(row.startswith("kube-system") for row in everywhere)


def test_a_cluster_that_does_not_answer_is_told_with_the_next_step(steer: Steer) -> None:
    path = steer.file(steer.kubeconfig.read_text().replace(f":{steer.server.port}", ":1"), "dead")
    error = steer.fails("get", "pods", "--kubeconfig", path)
    assert error.startswith("error: ") and "steer up" in error
    missing = steer.fails("get", "pods", "--kubeconfig", str(steer.directory / "nope"))
    assert "no kubeconfig found" in missing and "steer up" in missing


def test_raw_paths_are_printed_as_they_are(steer: Steer) -> None:
    assert json.loads(steer("get", "--raw", "/version"))["major"] == "1"


def test_a_watch_in_a_pipe_appends_rows_until_interrupted(steer: Steer) -> None:
    steer("create", "-f", "-", stdin=pod("first"))
    program = str(Path(sys.executable).parent / "steer")
    env = {"KUBECONFIG": str(steer.kubeconfig), "HOME": str(steer.directory), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([program, "get", "pods", "-w"], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().split()[0] == "NAME"
        assert process.stdout.readline().split()[0] == "first"
        steer("create", "-f", "-", stdin=pod("second"))
        assert process.stdout.readline().split()[:3] == ["second", "0/1", "Pending"]
        steer("delete", "pod", "first", "--now", "--no-wait")
        assert process.stdout.readline().split()[0] == "first"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
