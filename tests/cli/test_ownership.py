"""Field ownership as users meet it: through the real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from steersman.cli.apply import set_by_hand
from steersman.cluster.meta.errors import Cause

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


def test_a_manifest_overrides_what_was_set_by_hand_and_says_so(steer: Steer) -> None:
    steer("create", "-f", "-", stdin=DEPLOYMENT)
    steer("scale", "deploy/web", "--replicas=5")
    steer("set", "image", "deploy/web", "web=web:9")
    changed = DEPLOYMENT.replace("web:1", "web:2")
    difference = steer.result("diff", "-f", "-", stdin=changed).stdout
    assert "image: web:9" in difference and "replicas: 5" in difference
    done = steer.result("apply", "-f", "-", stdin=changed)
    assert done.exit_code == 0 and "configured" in done.stdout
    assert "set by hand" in done.stderr and ".spec.replicas" in done.stderr and "image" in done.stderr
    shown = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}"
    assert steer("get", "deploy", "web", "-o", shown) == "2 web:2"
    assert steer.result("apply", "-f", "-", stdin=changed).stderr == ""


def test_fields_of_other_appliers_are_left_to_them(steer: Steer) -> None:
    steer("apply", "-f", "-", "--field-manager=mesh", stdin=DEPLOYMENT)
    refused = steer.fails("apply", "-f", "-", stdin=DEPLOYMENT.replace("web:1", "web:2"))
    assert 'conflict with "mesh"' in refused and "--force-conflicts" in refused


@pytest.mark.parametrize(
    ("managers", "wanted"),
    [
        (['"kubectl-client-side-apply" using apps/v1 at T'], True),
        (['"kubectl" with subresource "scale" using apps/v1 at T', '"steer" using apps/v1'], True),
        (['"steer" using apps/v1', '"steersman" with subresource "scale" using apps/v1'], False),
        (['"kubectl"'], False),
        ([], False),
    ],
    ids=["kubectl apply", "two people", "a controller", "another server-side apply", "no conflict of fields"],
)
def test_only_people_are_overridden(managers: list[str], wanted: bool) -> None:
    causes = [Cause(".spec", f"conflict with {name}", "FieldManagerConflict") for name in managers]
    assert set_by_hand(causes) is wanted
