from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from steersman.cli.edit import merge_difference
from steersman.cluster.meta import yamlio

if TYPE_CHECKING:
    from tests.cli.conftest import Steer


def show(steer: Steer, *words: str) -> Any:
    return json.loads(steer("get", *words, "-o", "json"))


def test_create_refuses_what_exists(steer: Steer) -> None:
    assert steer("create", "configmap", "c", "--from-literal=a=1") == "configmap/c created\n"
    assert 'configmaps "c" already exists' in steer.fails("create", "configmap", "c")
    assert "name manifests with -f" in steer.fails("create")


def test_config_maps_and_secrets_are_made_of_literals_and_files(steer: Steer) -> None:
    (steer.directory / "app.conf").write_text("x = 1\n")
    (steer.directory / "blob").write_bytes(b"\xff\x00")
    (steer.directory / "env").write_text("# comment\nA=1\nB=two words\n")
    root = str(steer.directory)
    args = [f"--from-file={root}/app.conf", f"--from-file=b={root}/blob", f"--from-env-file={root}/env"]
    steer("create", "cm", "c", "--from-literal=k=v=w", *args)
    made = show(steer, "cm", "c")
    assert made["data"] == {"k": "v=w", "app.conf": "x = 1\n", "A": "1", "B": "two words"}
    assert made["binaryData"] == {"b": base64.b64encode(b"\xff\x00").decode()}
    steer("create", "secret", "generic", "s", "--from-literal=password=hush", *args[:1])
    secret = show(steer, "secret", "s")
    assert secret["type"] == "Opaque" and base64.b64decode(secret["data"]["password"]) == b"hush"
    assert "expected key=value" in steer.fails("create", "cm", "d", "--from-literal=novalue")
    assert "another key" in steer.fails("create", "cm", "d", "--from-literal=a=1", "--from-literal=a=2")
    assert "cannot read" in steer.fails("create", "cm", "d", "--from-file=/nope")


def test_registry_secrets(steer: Steer) -> None:
    words = ["--docker-server=localhost:5000", "--docker-username=me", "--docker-password=pw"]
    steer("create", "secret", "docker-registry", "hub", *words)
    secret = show(steer, "secret", "hub")
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert base64.b64decode(config["auths"]["localhost:5000"]["auth"]) == b"me:pw"


def test_workloads_from_flags(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=reg:5000/team/web:1", "-r", "2", "--port=80", "--", "serve", "-v")
    spec = show(steer, "deploy", "web")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert spec["replicas"] == 2 and container["name"] == "web" and container["command"] == ["serve", "-v"]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    steer("create", "job", "once", "--image=b", "--", "echo", "hi")
    assert show(steer, "job", "once")["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    steer("run", "shell", "--image=b", "--restart=Never", "--env=A=1", "--command", "--", "sleep", "9")
    pod = show(steer, "pod", "shell")
    assert pod["spec"]["containers"][0]["command"] == ["sleep", "9"] and pod["metadata"]["labels"] == {"run": "shell"}
    assert "--image" in steer.fails("create", "job", "none")


def test_a_client_dry_run_sends_nothing(steer: Steer) -> None:
    text = steer("create", "deployment", "web", "--image=i", "--dry-run=client", "-o", "yaml")
    assert yamlio.load(text)["kind"] == "Deployment"
    assert "NotFound" in steer.fails("get", "deploy", "web")
    assert steer("create", "-f", "-", stdin=text) == "deployment.apps/web created\n"


def test_generated_names_are_reported(steer: Steer) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}})
    assert steer("create", "-f", "-", stdin=text).startswith("configmap/c-")
    assert "use `steer create`" in steer.fails("apply", "-f", "-", stdin=text)


def test_delete_by_name_manifest_selector_and_all(steer: Steer) -> None:
    for name in "abcde":
        steer("create", "cm", name)
    steer("label", "cm", "b", "c", "x=y")
    assert steer("delete", "cm", "a") == 'configmap "a" deleted\n'
    assert steer("delete", "cm", "-l", "x=y").splitlines() == ['configmap "b" deleted', 'configmap "c" deleted']
    manifest = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}})
    assert steer("delete", "-f", steer.file(manifest)) == 'configmap "d" deleted\n'
    assert 'configmap "e" deleted' in steer("delete", "cm", "--all")
    assert "not found" in steer.fails("delete", "cm", "a")
    assert steer("delete", "cm", "a", "--ignore-not-found") == ""
    assert "no name was specified" in steer.fails("delete", "cm")


def test_delete_waits_until_the_object_is_gone(steer: Steer) -> None:
    text = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    steer("create", "-f", "-", stdin=json.dumps(text))
    late = steer.fails("delete", "cm", "held", "--timeout=300ms")
    assert "timed out" in late
    assert steer("delete", "cm", "held", "--wait=false", "--force=false") == 'configmap "held" deleted\n'
    steer("patch", "cm", "held", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    assert "NotFound" in steer.fails("get", "cm", "held")


def test_patches_of_three_types(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=web:1")
    change = '{"spec":{"template":{"spec":{"containers":[{"name":"web","tty":true}]}}}}'
    assert steer("patch", "deploy", "web", "-p", change) == "deployment.apps/web patched\n"
    container = show(steer, "deploy", "web")["spec"]["template"]["spec"]["containers"][0]
    assert container["tty"] is True and container["image"] == "web:1"
    assert steer("patch", "deploy", "web", "-p", change) == "deployment.apps/web patched (no change)\n"
    steer("patch", "deploy", "web", "--type=merge", "-p", "metadata: {labels: {a: b}}")
    steer("patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":4}]')
    assert show(steer, "deploy", "web")["spec"]["replicas"] == 4
    assert "exactly one of" in steer.fails("patch", "deploy", "web")
    assert "unable to parse" in steer.fails("patch", "deploy", "web", "-p", "{a: [")


def test_labels_and_annotations(steer: Steer) -> None:
    steer("create", "cm", "c")
    assert steer("label", "cm", "c", "a=1", "b=2") == "configmap/c labeled\n"
    assert "already has a value (1)" in steer.fails("label", "cm", "c", "a=3")
    assert steer("label", "cm/c", "a=3", "--overwrite") == "configmap/c labeled\n"
    assert steer("label", "cm", "c", "--list").splitlines() == ["a=3", "b=2"]
    assert steer("label", "cm", "c", "b-") == "configmap/c unlabeled\n"
    assert steer("label", "cm", "c", "a=3") == "configmap/c not labeled\n"
    assert steer("annotate", "cm", "c", "note=hello world") == "configmap/c annotated\n"
    metadata = show(steer, "cm", "c")["metadata"]
    assert metadata["labels"] == {"a": "3"} and metadata["annotations"] == {"note": "hello world"}
    assert "Invalid value" in steer.fails("label", "cm", "c", "bad=a b")
    assert "at least one" in steer.fails("label", "cm", "c")


def test_scale_and_set_image(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=web:1")
    assert steer("scale", "deploy/web", "--replicas=5") == "deployment.apps/web scaled\n"
    assert "Expected replicas to be 2, was 5" in steer.fails(
        "scale", "deploy/web", "--current-replicas=2", "--replicas=3"
    )
    assert steer("set", "image", "deploy/web", "web=web:2") == "deployment.apps/web image updated\n"
    assert steer("set", "image", "deploy", "web", "*=web:3") == "deployment.apps/web image updated\n"
    assert steer("set", "image", "deploy", "web", "*=web:3") == ""
    steer("set", "env", "deploy/web", "A=1", "B=2")
    steer("set", "env", "deploy/web", "A-")
    container = show(steer, "deploy", "web")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "web:3" and container["env"] == [{"name": "B", "value": "2"}]
    assert "no container" not in steer.fails("set", "image", "deploy/web", "nope=x")
    assert "replicas" in steer.fails("scale", "deploy/web", "--replicas=-1")


@pytest.mark.parametrize(
    "old,new,patch",
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": None}),
        ({"m": {"x": 1, "y": 2}}, {"m": {"x": 1}}, {"m": {"y": None}}),
        ({"l": [1, 2]}, {"l": [2]}, {"l": [2]}),
        ({}, {"m": {"x": 1}}, {"m": {"x": 1}}),
    ],
)
def test_the_difference_of_two_objects_as_a_merge_patch(old: Any, new: Any, patch: Any) -> None:
    assert merge_difference(old, new) == patch


def editor(steer: Steer, script: str) -> None:
    path = steer.directory / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    os.environ["KUBE_EDITOR"] = str(path)


def test_edit_sends_what_was_changed(steer: Steer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_EDITOR", "true")
    steer("create", "cm", "c", "--from-literal=level=debug")
    assert "no changes made" in steer.result("edit", "cm", "c").stderr
    editor(steer, 'sed -i "s/level: debug/level: info/" "$1"')
    assert steer("edit", "cm", "c") == "configmap/c edited\n"
    assert show(steer, "cm", "c")["data"] == {"level": "info"}


def test_edit_shows_a_refusal_and_asks_again(steer: Steer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_EDITOR", "true")
    steer("create", "deployment", "web", "--image=i")
    again = f'cp "$1" {steer.directory}/second; sed -i "s/replicas: -1/replicas: 4/" "$1"'
    once = 'sed -i "s/replicas: 1$/replicas: -1/" "$1"'
    editor(steer, f'if grep -q "is invalid" "$1"; then {again}; else {once}; fi')
    assert steer("edit", "deploy", "web") == "deployment.apps/web edited\n"
    assert "# Error from server (Invalid)" in (steer.directory / "second").read_text()
    assert show(steer, "deploy", "web")["spec"]["replicas"] == 4
