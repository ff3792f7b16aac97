"""Field ownership as users meet it: through the real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cli.conftest import Steer

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "web:1"}
"""


def owners(steer: Steer) -> dict[tuple[str, str, str], Any]:
    obj = json.loads(steer("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    rows = obj["metadata"]["managedFields"]
    return {(row["manager"], row["operation"], row.get("subresource", "")): row["fieldsV1"] for row in rows}


def test_an_applied_status_is_nobodys(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=DEPLOYMENT + "status: {replicas: 9}\n")
    assert "f:status" not in owners(steer)["steer", "Apply", ""]
    assert steer("get", "deploy", "web", "-o", "jsonpath={.status.replicas}") == ""


def test_scaling_is_owned_through_its_subresource(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=DEPLOYMENT)
    steer("scale", "deploy/web", "--replicas=5")
    found = owners(steer)
    assert found["steer", "Update", "scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in found["steer", "Apply", ""]["f:spec"]


def test_two_managers_share_a_list_of_containers(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=DEPLOYMENT)
    side = DEPLOYMENT.replace('{name: web, image: "web:1"}', '{name: side, image: "side:1"}')
    steer("apply", "-f", "-", "--field-manager=mesh", stdin=side)
    names = "jsonpath={.spec.template.spec.containers[*].name}"
    assert sorted(steer("get", "deploy", "web", "-o", names).split()) == ["side", "web"]
    steer("apply", "-f", "-", stdin=DEPLOYMENT.replace("web:1", "web:2"))
    assert sorted(steer("get", "deploy", "web", "-o", names).split()) == ["side", "web"]
    nothing = "\n".join(side.splitlines()[:-1]).replace("containers:", "containers: []")
    steer("apply", "-f", "-", "--field-manager=mesh", stdin=nothing)
    assert steer("get", "deploy", "web", "-o", names) == "web"


def test_defaults_belong_to_nobody_after_an_apply(steer: Steer) -> None:
    steer("apply", "-f", "-", stdin=DEPLOYMENT)
    assert set(owners(steer)["steer", "Apply", ""]["f:spec"]) == {"f:replicas", "f:selector", "f:template"}
