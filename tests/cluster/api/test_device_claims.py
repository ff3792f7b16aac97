"""What a claim of devices may ask for where, and what becomes of what drivers said of devices that it lost."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.errors import Invalid
from steersman.cluster.meta.objects import Obj

NEEDS_LABEL = (
    "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the "
    "containing namespace"
)
RESULT = {"request": "gpu", "driver": "d", "pool": "p"}


def claim(**exactly: Any) -> Obj:
    request = {"name": "gpu", "exactly": {"deviceClassName": "gpu", **exactly}}
    return {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}}


def label(api: Any, value: str) -> None:
    api.create("namespaces", {"metadata": {"name": "ns", "labels": {"resource.kubernetes.io/admin-access": value}}})


def refused(call: Any, *args: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        call(*args)
    return [f"{cause.field}: {cause.message}" for cause in caught.value.causes]


def test_admin_access_needs_a_namespace_that_is_labelled_for_it(api: Any) -> None:
    label(api, "false")
    wanted = claim(adminAccess=True)
    template = {"metadata": {"name": "t"}, "spec": {"spec": wanted["spec"]}}
    expected = [f"spec.devices.requests[0].adminAccess: {NEEDS_LABEL}"]
    assert refused(api.create, "resourceclaims", wanted, "ns") == expected
    assert refused(api.create, "resourceclaimtemplates", template, "ns") == expected
    made = api.create("resourceclaims", claim(adminAccess=False), "ns")
    results = [{**RESULT, "device": "x"}, {**RESULT, "device": "y", "adminAccess": True}]
    given = {**made, "status": {"allocation": {"devices": {"results": results}}}}
    assert refused(api.update, "resourceclaims", given, "status") == [
        f"status.allocation.devices.results[1].adminAccess: {NEEDS_LABEL}"
    ]


def test_admin_access_is_given_in_a_labelled_namespace(api: Any) -> None:
    label(api, "true")
    made = api.create("resourceclaims", claim(adminAccess=True), "ns")
    api.create("resourceclaimtemplates", {"metadata": {"name": "t"}, "spec": {"spec": made["spec"]}}, "ns")


def test_what_drivers_said_of_devices_goes_with_them(api: Any) -> None:
    made = api.create("resourceclaims", claim())
    results = [{**RESULT, "device": "x"}]
    said = [{"driver": "d", "pool": "p", "device": "x"}]
    status = {"allocation": {"devices": {"results": results}}, "devices": said}
    given = api.update("resourceclaims", {**made, "status": status}, "status")
    assert given["status"]["devices"] == said
    freed = api.update("resourceclaims", {**given, "status": {"devices": said}}, "status")
    assert "devices" not in freed["status"]
