from __future__ import annotations

import json
from typing import TYPE_CHECKING

from steersman.cluster.meta import yamlio

if TYPE_CHECKING:
    from tests.cli.conftest import Steer


WEB = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  level: debug
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: web:1
        ports:
        - containerPort: 80
"""
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.sea.example.com}
spec:
  group: sea.example.com
  names: {kind: Ship, plural: ships, singular: ship, shortNames: [sh]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {masts: {type: integer, minimum: 1}}
    additionalPrinterColumns:
    - {name: Masts, type: integer, jsonPath: .spec.masts}
---
apiVersion: sea.example.com/v1
kind: Ship
metadata: {name: victory}
spec: {masts: 3}
"""


def test_created_unchanged_configured(steer: Steer) -> None:
    path = steer.file(WEB)
    assert steer("apply", "-f", path).splitlines() == ["configmap/settings created", "deployment.apps/web created"]
    assert steer("apply", "-f", path).splitlines() == ["configmap/settings unchanged", "deployment.apps/web unchanged"]
    assert steer("apply", "-f", "-", stdin=WEB.replace("debug", "info")).splitlines() == [
        "configmap/settings configured",
        "deployment.apps/web unchanged",
    ]
    assert steer("get", "cm", "settings", "-o", "jsonpath={.data.level}") == "info"


def test_what_the_manifest_no_longer_names_is_removed(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=WEB.replace("level: debug", "level: debug\n  extra: x"))
    steer("apply", "-f", "-", stdin=WEB)
    assert json.loads(steer("get", "cm", "settings", "-o", "json"))["data"] == {"level": "debug"}


def test_a_dry_run_changes_nothing(steer: Steer) -> None:
    assert "configmap/settings created (server dry run)" in steer("apply", "-f", "-", "--dry-run=server", stdin=WEB)
    assert "NotFound" in steer.fails("get", "cm", "settings")
    steer("apply", "-f", "-", stdin=WEB)
    changed = steer("apply", "-f", "-", "--dry-run=server", stdin=WEB.replace("debug", "info")).splitlines()
    assert changed == [
        "configmap/settings configured (server dry run)",
        "deployment.apps/web unchanged (server dry run)",
    ]


def test_a_conflict_names_the_other_manager_and_the_way_out(steer: Steer) -> None:
    steer("apply", "-f", "-", "--field-manager=mesh", stdin=WEB.replace("replicas: 2", "replicas: 7"))
    error = steer.fails("apply", "-f", "-", stdin=WEB)
    assert "Apply failed with 1 conflict" in error and ".spec.replicas" in error and "--force-conflicts" in error
    assert "deployment.apps/web configured" in steer("apply", "-f", "-", "--force-conflicts", stdin=WEB)
    assert steer("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"


def test_a_refused_field_is_named_with_file_and_line(steer: Steer) -> None:
    path = steer.file(WEB.replace("replicas: 2", "replicas: -2"))
    error = steer.fails("apply", "-f", path)
    assert f"error: {path}:13: spec.replicas: Invalid value: -2" in error
    assert "configmap/settings" in steer("get", "cm", "-o", "name"), "the others are applied all the same"


def test_an_unknown_field_is_named_with_its_line(steer: Steer) -> None:
    path = steer.file(WEB.replace("        image: web:1", "        imagee: web:1"))
    error = steer.fails("apply", "-f", path)
    assert f"{path}:22:" in error and "imagee" in error


def test_a_wrong_type_is_told(steer: Steer) -> None:
    error = steer.fails("apply", "-f", "-", stdin=WEB.replace("replicas: 2", "replicas: two"))
    assert "replicas" in error and "standard input" in error


def test_malformed_manifests_are_told_with_file_and_line(steer: Steer) -> None:
    cases = [
        ("a: [1\nb: 2\n", ":2:"),
        ("a: 1\n  b: 2\n", ":2:"),
        ("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: x\n", ":4:"),
        ("apiVersion: v1\nmetadata: {name: x}\n", ":1: kind is not set"),
        ("apiVersion: v1\nkind: Pod\n", "metadata is not set"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {}\n", ':3:1: not valid YAML: key "kind" is already set'),
        ("", "the manifests are empty"),
        ("apiVersion: v9\nkind: Spaceship\nmetadata: {name: x}\n", ':2: no matches for kind "Spaceship"'),
    ]
    for text, expected in cases:
        path = steer.file(text, "bad.yaml")
        error = steer.fails("apply", "-f", path)
        assert expected in error and error.startswith("error: "), (text, error)
    assert "cannot read" in steer.fails("apply", "-f", str(steer.directory / "nope.yaml"))
    (steer.directory / "binary.yaml").write_bytes(b"a: 1\nb: \xff\xfe\n")
    assert "binary.yaml:2: not valid UTF-8" in steer.fails("apply", "-f", str(steer.directory / "binary.yaml"))


def test_a_namespace_that_contradicts_the_option_is_refused(steer: Steer) -> None:
    text = WEB.replace("name: settings", "name: settings\n  namespace: elsewhere")
    error = steer.fails("apply", "-n", steer.namespace, "-f", steer.file(text))
    assert 'the namespace from the provided object "elsewhere" does not match' in error and ":5:" in error


def test_directories_lists_and_json_are_read(steer: Steer) -> None:
    folder = steer.directory / "all"
    (folder / "deeper").mkdir(parents=True)
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{i}"}} for i in (1, 2)]
    (folder / "list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent="\t"))
    (folder / "deeper" / "more.yml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c3}\n")
    (folder / "notes.txt").write_text("not a manifest")
    assert steer("apply", "-f", str(folder)).splitlines() == ["configmap/c1 created", "configmap/c2 created"]
    assert "configmap/c3 created" in steer("apply", "-R", "-f", str(folder))


def test_a_kind_and_its_objects_are_applied_together(steer: Steer) -> None:
    assert steer("apply", "-f", "-", stdin=CRD).splitlines()[-1] == "ship.sea.example.com/victory created"
    assert steer("get", "sh").splitlines()[1].split() == ["victory", "3"]
    assert "masts" in steer.fails("apply", "-f", "-", stdin=CRD.replace("masts: 3}", "masts: 0}"))


def test_diff_shows_changes_and_tells_by_exit_code(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=WEB)
    assert steer("diff", "-f", "-", stdin=WEB) == ""
    done = steer.result("diff", "-f", "-", stdin=WEB.replace("image: web:1", "image: web:2"))
    assert done.exit_code == 1
    assert "-      - image: web:1\n+      - image: web:2" in done.stdout
    new = steer.result("diff", "-f", "-", stdin=WEB.replace("name: settings", "name: fresh"))
    assert new.exit_code == 1 and "+kind: ConfigMap" in new.stdout
    assert "replicas" in steer.fails("diff", "-f", "-", stdin=WEB.replace("replicas: 2", "replicas: -2"), code=2)


def test_applied_objects_are_printed_in_other_forms(steer: Steer) -> None:
    assert steer("apply", "-f", "-", "-o", "name", stdin=WEB).split() == ["configmap/settings", "deployment.apps/web"]
    text = steer("apply", "-f", "-", "-o", "yaml", stdin=WEB.partition("---")[0])
    assert yamlio.load(text)["data"] == {"level": "debug"}
