"""The newest kubectl on this machine against an API server on real TLS."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: web}}
spec:
  nodeName: n1
  containers:
    - {name: main, image: "example.com/web:1", ports: [{containerPort: 80}]}
"""


def run_pod(remote: Any, name: str) -> None:
    """A pod that counts as running: its node has said so."""
    remote.kubectl("apply", "-f", "-", stdin=POD % name)
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    remote.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def test_config_maps_are_created_shown_applied_and_deleted(remote: Any) -> None:
    assert "created" in remote.kubectl("create", "configmap", "one", "--from-literal=a=1")
    assert "one" in remote.kubectl("get", "configmap", "one")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {b: '%s'}\n"
    assert "created" in remote.kubectl("apply", "-f", "-", stdin=manifest % "1")
    assert "configured" in remote.kubectl("apply", "-f", "-", stdin=manifest % "2")
    assert "unchanged" in remote.kubectl("apply", "-f", "-", stdin=manifest % "2")
    assert remote.kubectl("get", "configmap", "two", "-o", "jsonpath={.data.b}") == "2"
    other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    assert "conflict" in remote.kubectl(*other, stdin=manifest % "3", fails=True)
    for value in "34":
        assert "serverside-applied" in remote.kubectl("apply", "--server-side", "-f", "-", stdin=manifest % value)
    assert "already exists" in remote.kubectl("create", "configmap", "one", fails=True)
    assert "deleted" in remote.kubectl("delete", "configmap", "one", "two")
    assert "NotFound" in remote.kubectl("get", "configmap", "one", fails=True)


def test_pods_are_applied_shown_described_labelled_and_deleted(remote: Any) -> None:
    run_pod(remote, "web")
    assert "Running" in remote.kubectl("get", "pods")
    assert "n1" in remote.kubectl("get", "pods", "-o", "wide")
    assert "example.com/web:1" in remote.kubectl("describe", "pod", "web")
    remote.kubectl("label", "pod", "web", "tier=front")
    remote.kubectl("annotate", "pod", "web", "note=x")
    assert remote.kubectl("get", "pods", "-l", "tier=front", "-o", "name") == "pod/web\n"
    assert remote.kubectl("get", "pods", "--field-selector", "spec.nodeName=n2", "-o", "name") == ""
    assert "deleted" in remote.kubectl("delete", "pod", "web", "--grace-period=0", "--force")


@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_logs_exec_and_copied_input_go_through_to_the_node(remote: Any, oldest: bool) -> None:
    run_pod(remote, "talker")
    assert remote.kubectl("logs", "talker", "--tail=2") == "line 0\nline 1\n"
    assert remote.kubectl("exec", "talker", "--", "echo", "hello", "you", oldest=oldest) == "echo hello you\n"
    assert remote.kubectl("exec", "-i", "talker", "--", "cat", stdin="some input", oldest=oldest) == "SOME INPUT"
    assert "exit code 3" in remote.kubectl("exec", "talker", "--", "false", fails=True, oldest=oldest)
    assert "not valid for pod" in remote.kubectl("logs", "talker", "-c", "nobody", fails=True)
    remote.kubectl("delete", "pod", "talker", "--grace-period=0", "--force")


@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_a_port_is_forwarded(remote: Any, oldest: bool) -> None:
    run_pod(remote, "server")
    path = remote.oldest_kubectl_path if oldest else remote.kubectl_path
    process = subprocess.Popen(
        [path, "--kubeconfig", remote.kubeconfig("admin"), "port-forward", "pod/server", ":80"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("127.0.0.1:")[1].split(" ")[0])
        for path in ("a", "b"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                assert answer.read() == f"you sent GET /{path} HTTP/1.1".encode()
    finally:
        process.terminate()
        process.wait(10)
    remote.kubectl("delete", "pod", "server", "--grace-period=0", "--force")


def test_deployments_are_scaled_explained_and_rolled_out(remote: Any) -> None:
    remote.kubectl("create", "deployment", "d", "--image=example.com/web:1", "--replicas=2")
    assert "scaled" in remote.kubectl("scale", "deployment", "d", "--replicas=5")
    assert remote.kubectl("get", "deployment", "d", "-o", "jsonpath={.spec.replicas}") == "5"
    assert "image updated" in remote.kubectl("set", "image", "deployment/d", "*=example.com/web:2")
    assert "restarted" in remote.kubectl("rollout", "restart", "deployment/d")
    assert "paused" in remote.kubectl("rollout", "pause", "deployment/d")
    assert "strategy" in remote.kubectl("explain", "deployment.spec")
    assert "FIELD: image" in remote.kubectl("explain", "pod.spec.containers.image")
    assert '"image"' in remote.kubectl("patch", "deployment", "d", "--dry-run=server", "-o", "json", "-p", "{}")
    remote.kubectl("delete", "deployment", "d")


def test_discovery_lists_kinds_with_their_short_names(remote: Any) -> None:
    found = remote.kubectl("api-resources", "--no-headers")
    assert "deploy" in found and "crd,crds" in found and "poddisruptionbudgets" in found
    assert "apps/v1" in remote.kubectl("api-versions")
    assert "v1.36" in remote.kubectl("version")
    assert "ok" in remote.kubectl("get", "--raw", "/readyz")


def test_a_custom_kind_is_served_at_once_and_goes_with_its_definition(remote: Any) -> None:
    schema = {
        "type": "object",
        "description": "A widget",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {
                        "type": "integer",
                        "maximum": 5,
                        "description": "How large it is",
                        "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "it may only grow"}],
                    }
                },
            }
        },
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {
                    "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                }
            ],
        },
    }  # fmt: skip
    remote.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    remote.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    remote.kubectl("apply", "-f", "-", stdin=json.dumps(widget))
    assert remote.kubectl("get", "wd", "--no-headers").split() == ["w", "3"]
    explained = remote.kubectl("explain", "widgets.spec")
    assert "size\t<integer>" in explained and "How large it is" in explained
    assert "DESCRIPTION:\n    A widget" in remote.kubectl("explain", "widgets")
    odd = remote.kubectl("apply", "-f", "-", stdin=json.dumps({**widget, "spec": {"odd": 9}}), fails=True)
    assert 'strict decoding error: unknown field "spec.odd"' in odd
    shrunk = remote.kubectl("apply", "-f", "-", stdin=json.dumps({**widget, "spec": {"size": 2}}), fails=True)
    assert "spec.size: Invalid value: 2: it may only grow" in shrunk
    too_big = remote.kubectl("apply", "-f", "-", stdin=json.dumps({**widget, "spec": {"size": 9}}), fails=True)
    assert "spec.size" in too_big and "less than or equal to 5" in too_big
    remote.kubectl("delete", "crd", "widgets.example.com", "--timeout=20s")
    assert "could not find the requested resource" in remote.kubectl("get", "widgets", fails=True)


def test_what_a_user_may_not_do_is_refused_in_kubernetes_words(remote: Any) -> None:
    refused = remote.kubectl("get", "pods", user="jane", fails=True)
    assert (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"'
        in refused
    )
    remote.kubectl("create", "rolebinding", "jane-views", "--clusterrole=view", "--user=jane")
    remote.kubectl("get", "pods", user="jane")
    assert remote.kubectl("auth", "can-i", "list", "pods", user="jane") == "yes\n"
    assert "pods" in remote.kubectl("auth", "can-i", "--list", user="jane")
    assert "jane" in remote.kubectl("auth", "whoami", user="jane")
    assert "yes" in remote.kubectl("auth", "can-i", "get", "pods", "--as=jane")
    remote.kubectl("delete", "rolebinding", "jane-views")


def test_a_service_account_token_is_issued_and_accepted(remote: Any) -> None:
    remote.kubectl("create", "serviceaccount", "robot")
    token = remote.kubectl("create", "token", "robot", "--duration=20m").strip()
    server = f"https://127.0.0.1:{remote.port}"
    words = ["--server", server, "--token", token, "--insecure-skip-tls-verify", "auth", "whoami"]
    done = subprocess.run(
        [remote.kubectl_path, "--kubeconfig", "/dev/null", *words], capture_output=True, text=True, timeout=30
    )
    assert "system:serviceaccount:default:robot" in done.stdout, done.stderr
    remote.kubectl("delete", "serviceaccount", "robot")


def test_a_watch_shows_changes_as_rows(remote: Any) -> None:
    process = subprocess.Popen(
        [remote.kubectl_path, "--kubeconfig", remote.kubeconfig("admin"), "get", "configmaps", "-w", "--no-headers"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        remote.kubectl("create", "configmap", "seen", "--from-literal=a=1")
        assert process.stdout is not None
        line = process.stdout.readline()
        while "seen" not in line:
            line = process.stdout.readline()
        assert line.split()[:2] == ["seen", "1"]
    finally:
        process.terminate()
        process.wait(10)
    remote.kubectl("delete", "configmap", "seen")


def test_nobody_without_a_name_gets_beyond_health_and_version(remote: Any) -> None:
    context = ssl._create_unverified_context()

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(
                f"https://127.0.0.1:{remote.port}{path}", context=context, timeout=10
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    assert [status(p) for p in ("/healthz", "/livez", "/readyz", "/version")] == [200] * 4
    assert [status(p) for p in ("/api", "/api/v1/pods", "/metrics", "/openapi/v3", "/nothing")] == [401] * 5


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01garbage", b""])
def test_a_client_that_speaks_no_tls_does_not_disturb_the_server(remote: Any, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", remote.port), timeout=5) as plain:
        plain.sendall(sent)
    assert "default" in remote.kubectl("get", "namespaces")


def test_groups_that_one_acts_in_may_have_commas_in_their_names(remote: Any) -> None:
    words = (
        "--as",
        "bob",
        "--as-group",
        "cn=devs,dc=org",
        "--as-group",
        "ops",
        "-o",
        "jsonpath={.status.userInfo.groups}",
    )
    assert json.loads(remote.kubectl("auth", "whoami", *words)) == ["cn=devs,dc=org", "ops", "system:authenticated"]
    extra = remote.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.extra}")
    assert json.loads(extra)["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")
