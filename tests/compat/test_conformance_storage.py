"""What the conformance suite asks of the objects of storage: volumes, claims, classes, drivers.

Source: kubernetes/test/e2e/storage/*.go
"""

from __future__ import annotations

from typing import Any

import pytest

STRATEGIC = "application/strategic-merge-patch+json"
STORAGE = "/apis/storage.k8s.io/v1"


def test_the_lifecycle_of_a_volume_and_its_claim(house: Any, space: str) -> None:
    volumes, claims = "/api/v1/persistentvolumes", f"/api/v1/namespaces/{space}/persistentvolumeclaims"
    labels = {"e2e-pv-pool": space}
    pv = {"metadata": {"generateName": "pv-", "labels": labels}, "spec": {
        "persistentVolumeReclaimPolicy": "Retain", "capacity": {"storage": "1Gi"}, "storageClassName": space,
        "accessModes": ["ReadWriteOnce"], "csi": {"driver": "e2e.example.com", "volumeHandle": "e2e"}}}  # fmt: skip
    pvc = {"metadata": {"generateName": "pvc-", "labels": labels}, "spec": {
        "storageClassName": space, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    for _ in range(2):
        pv_name = house.ok("POST", volumes, pv)["metadata"]["name"]
        pvc_name = house.ok("POST", claims, pvc)["metadata"]["name"]
        selected = f"labelSelector=e2e-pv-pool%3D{space}"
        assert len(house.ok("GET", f"{volumes}?{selected}")["items"]) == 1
        assert len(house.ok("GET", claims)["items"]) == 1
        for one in (f"{volumes}/{pv_name}", f"{claims}/{pvc_name}"):
            found = house.ok("PATCH", one, {"metadata": {"labels": {"e": "patched"}}}, content_type=STRATEGIC)
            assert found["metadata"]["labels"]["e"] == "patched"
            found = house.ok("GET", one)
            assert found["metadata"]["finalizers"]
            found["metadata"]["labels"]["e"] = "updated"
            assert house.ok("PUT", one, found)["metadata"]["labels"]["e"] == "updated"
        house.ok("DELETE", f"{claims}/{pvc_name}" if _ else f"{claims}?{selected}")
        house.gone(f"{claims}/{pvc_name}")
        house.ok("DELETE", f"{volumes}/{pv_name}" if _ else f"{volumes}?{selected}")
        house.gone(f"{volumes}/{pv_name}")


def test_the_status_of_a_volume_and_its_claim_is_patched_and_updated(house: Any, space: str) -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "csi": {"driver": "e2e.example.com", "volumeHandle": "e2e"}}  # fmt: skip
    house.ok("POST", "/api/v1/persistentvolumes", {"metadata": {"name": space}, "spec": spec})
    one = f"/api/v1/persistentvolumes/{space}"
    found = house.ok("PATCH", f"{one}/status", {"status": {"message": "StatusPatched", "reason": "E2E patchedStatus"}})
    assert (found["status"]["message"], found["status"]["reason"]) == ("StatusPatched", "E2E patchedStatus")
    found = house.ok("GET", f"{one}/status")
    found["status"]["message"] = "StatusUpdated"
    assert house.ok("PUT", f"{one}/status", found)["status"]["message"] == "StatusUpdated"
    house.ok("DELETE", one)
    many = f"/api/v1/namespaces/{space}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    house.ok("POST", many, {"metadata": {"name": "claim"}, "spec": spec})
    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set from e2e"}
    found = house.ok("PATCH", f"{many}/claim/status", {"status": {"conditions": [condition]}}, content_type=STRATEGIC)
    assert found["status"]["conditions"][0]["type"] == "StatusPatched"
    found["status"]["conditions"].append({**condition, "type": "StatusUpdated"})
    found = house.ok("PUT", f"{many}/claim/status", found)
    assert [row["type"] for row in found["status"]["conditions"]] == ["StatusPatched", "StatusUpdated"]


CLASSES: dict[str, Any] = {
    "storageclasses": {"provisioner": "e2e-fake-provisioner", "reclaimPolicy": "Delete", "parameters": {"a": "b"}},
    "volumeattributesclasses": {"driverName": "e2e-fake-driver", "parameters": {"foo": "bar"}},
    "csidrivers": {"spec": {"volumeLifecycleModes": ["Ephemeral"]}},
    "volumeattachments": {
        "spec": {"attacher": "e2e.example.com", "nodeName": "e2e", "source": {"persistentVolumeName": "e2e"}}},
    "csinodes": {"spec": {"drivers": [{"name": "e2e.example.com", "nodeID": "e2e"}]}},
}  # fmt: skip


@pytest.mark.parametrize("plural", CLASSES)
def test_the_lifecycle_of_a_class_of_storage(house: Any, plural: str) -> None:
    many, name = f"{STORAGE}/{plural}", f"e2e-{plural}"
    for round_ in ("first", "second"):
        house.ok("POST", many, {"metadata": {"name": name, "labels": {"e2e": plural}}, **CLASSES[plural]})
        found = house.ok("PATCH", f"{many}/{name}", {"metadata": {"labels": {name: "patched"}}}, content_type=STRATEGIC)
        assert found["metadata"]["labels"][name] == "patched"
        found["metadata"]["labels"][name] = "updated"
        assert house.ok("PUT", f"{many}/{name}", found)["metadata"]["labels"][name] == "updated"
        assert len(house.ok("GET", f"{many}?labelSelector={name}%3Dupdated")["items"]) == 1
        house.ok("DELETE", f"{many}/{name}" if round_ == "first" else f"{many}?labelSelector={name}%3Dupdated")
        house.gone(f"{many}/{name}")


def test_a_class_of_attributes_stays_while_a_claim_has_it(house: Any, space: str) -> None:
    many, claims = f"{STORAGE}/volumeattributesclasses", f"/api/v1/namespaces/{space}/persistentvolumeclaims"
    held, free = f"{space}-held", f"{space}-free"
    for name in (held, free):
        house.ok("POST", many, {"metadata": {"name": name}, **CLASSES["volumeattributesclasses"]})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    house.ok("POST", claims, {"metadata": {"name": "claim"}, "spec": {**spec, "volumeAttributesClassName": held}})
    for name in (held, free):
        house.ok("DELETE", f"{many}/{name}")
    house.gone(f"{many}/{free}")
    found = house.ok("GET", f"{many}/{held}")["metadata"]
    assert (found["finalizers"], "deletionTimestamp" in found) == (["kubernetes.io/vac-protection"], True)
    house.ok("DELETE", f"{claims}/claim")
    house.gone(f"{many}/{held}")


def test_the_status_of_an_attachment_is_read_patched_and_updated(house: Any) -> None:
    many = f"{STORAGE}/volumeattachments"
    body = {"metadata": {"name": "e2e-status"}, **CLASSES["volumeattachments"]}
    assert house.ok("POST", many, {**body, "status": {"attached": True}})["status"] == {"attached": False}
    found = house.ok("PATCH", f"{many}/e2e-status/status", {"status": {"attached": True}})
    assert found["status"] == {"attached": True}
    found["status"]["attachmentMetadata"] = {"e2e": "updated"}
    assert house.ok("PUT", f"{many}/e2e-status/status", found)["status"]["attachmentMetadata"] == {"e2e": "updated"}
    house.ok("DELETE", f"{many}/e2e-status")
