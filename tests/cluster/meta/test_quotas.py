"""What objects count for in quotas."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from steersman.cluster.meta import quotas

COUNT, GPU, FPGA = (
    "count/resourceclaims.resource.k8s.io",
    "gpu.deviceclass.resource.k8s.io/devices",
    "fpga.deviceclass.resource.k8s.io/devices",
)


def exactly(name: str, **more: Any) -> Any:
    return {"exactly": {"deviceClassName": name, **more}}


@pytest.mark.parametrize(
    ("requests", "devices"),
    [
        ([], {}),
        ([exactly("gpu")], {GPU: 1}),
        ([exactly("gpu", count=2), exactly("gpu"), exactly("fpga")], {GPU: 3, FPGA: 1}),
        ([exactly("gpu", allocationMode="All")], {GPU: 32}),
        ([{"firstAvailable": [{"deviceClassName": "gpu", "count": 2}, {"deviceClassName": "gpu", "count": 5},
                              {"deviceClassName": "fpga"}]}], {GPU: 5, FPGA: 1}),
    ],
)  # fmt: skip
def test_a_claim_counts_the_devices_of_each_class_that_it_may_get(requests: Any, devices: Any) -> None:
    claim = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}}
    wanted = {COUNT: Decimal(1), **{key: Decimal(count) for key, count in devices.items()}}
    assert quotas.usage("resource.k8s.io", "resourceclaims", claim) == wanted
    assert quotas.kind_of(GPU) == quotas.kind_of(COUNT) == ("resource.k8s.io", "resourceclaims")
