"""Which APIServices there are without anybody's doing, in which order groups are listed, and whether one is available.

Source: k8s.io/kubernetes/pkg/controlplane (priorities, crdregistration), k8s.io/kube-aggregator/pkg/controllers
(autoregister, status), k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steersman.cluster.meta.objects import Obj, condition, with_condition
from steersman.cluster.meta.versions import version_order

GROUP = "apiregistration.k8s.io"
#: says that this server keeps an APIService as it should be: from the start on, or for as long as it runs
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"
AVAILABLE = "Available"

#: of built-in groups' versions: how early the group is listed, and the version within it
PRIORITIES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("", "v1"): (18000, 1),
    ("apps", "v1"): (17800, 15),
    ("events.k8s.io", "v1"): (17750, 15),
    ("authentication.k8s.io", "v1"): (17700, 15),
    ("authorization.k8s.io", "v1"): (17600, 15),
    ("autoscaling", "v1"): (17500, 15),
    ("autoscaling", "v2"): (17500, 30),
    ("batch", "v1"): (17400, 15),
    ("certificates.k8s.io", "v1"): (17300, 15),
    ("networking.k8s.io", "v1"): (17200, 15),
    ("policy", "v1"): (17100, 15),
    ("rbac.authorization.k8s.io", "v1"): (17000, 15),
    ("storage.k8s.io", "v1"): (16800, 15),
    ("apiextensions.k8s.io", "v1"): (16700, 15),
    ("admissionregistration.k8s.io", "v1"): (16700, 15),
    ("scheduling.k8s.io", "v1"): (16600, 15),
    ("coordination.k8s.io", "v1"): (16500, 15),
    ("node.k8s.io", "v1"): (16300, 15),
    ("discovery.k8s.io", "v1"): (16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1"): (16100, 21),
    ("resource.k8s.io", "v1"): (15900, 15),
}
_CUSTOM = (1000, 100)


def service_name(group: str, version: str) -> str:
    return f"{version}.{group}"


def _local(group: str, version: str, priority: tuple[int, int], managed: str) -> Obj:
    spec = {"version": version, "groupPriorityMinimum": priority[0], "versionPriority": priority[1]}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "APIService",
        "metadata": {"name": service_name(group, version), "labels": {AUTOMANAGED: managed}},
        "spec": {**spec, "group": group} if group else spec,
    }


def built_in(served: Iterable[tuple[str, str]]) -> list[Obj]:
    """The APIServices of what this server serves, but for what Kubernetes does not know: others may serve that."""
    return [_local(*row, PRIORITIES[row], ON_START) for row in sorted(served) if row in PRIORITIES]


def custom(definitions: Iterable[Obj]) -> dict[str, Obj]:
    """The APIServices of CustomResourceDefinitions, by name."""
    found = {}
    for definition in definitions:
        spec = definition.get("spec") or {}
        for row in spec.get("versions") or ():
            address = spec.get("group", ""), row.get("name", "")
            if row.get("served") and address not in PRIORITIES:
                found[service_name(*address)] = _local(*address, _CUSTOM, ALWAYS)
    return found


def managed_as(service: Obj) -> str:
    """`onstart`, `true`, or empty for an APIService that is somebody else's."""
    value = (service["metadata"].get("labels") or {}).get(AUTOMANAGED, "")
    return value if value in (ON_START, ALWAYS) else ""


def is_remote(spec: Obj) -> bool:
    """Whether another server serves the group and version; the core group and that of APIServices stay here."""
    return bool(spec.get("service")) and spec.get("group", "") not in ("", GROUP)


def is_as(present: Obj, wanted: Obj) -> bool:
    """Whether an APIService says what it should."""
    return bool(present.get("spec") == wanted["spec"])


# ---- order

Address = tuple[str, str]


class Order:
    """The order in which groups and versions are listed: by the priorities that APIServices give them."""

    def __init__(self, services: Iterable[Obj] = ()) -> None:
        self._groups: dict[str, int] = {}
        self._versions: dict[Address, int] = {}
        for service in services:
            spec = service.get("spec") or {}
            group, priority = spec.get("group", ""), spec.get("groupPriorityMinimum", 0)
            self._groups[group] = max(priority, self._groups.get(group, 0))
            self._versions[group, spec.get("version", "")] = spec.get("versionPriority", 0)

    def of_group(self, group: str) -> tuple[int, int, str]:
        """A key to sort groups by; the one of APIServices, which has none itself, comes before all but core."""
        if group in self._groups:
            return 1 if group else 0, -self._groups[group], group
        return (0, 1, "") if group == GROUP else (2, 0, group)

    def of_version(self, group: str, version: str) -> tuple[int, tuple[int, int, int, str]]:
        """A key to sort the versions of a group by."""
        return -self._versions.get((group, version), 0), version_order(version)


#: what is listed before any APIService is known
BY_DEFAULT = Order(built_in(PRIORITIES))


# ---- availability


@dataclass(frozen=True, slots=True)
class Availability:
    """Args: status: `True`, `False` or `Unknown`; the rest as of the condition."""

    status: str
    reason: str
    message: str


LOCAL = Availability("True", "Local", "Local APIServices are always available")
PASSED = Availability("True", "Passed", "all checks passed")


def unreachable(spec: Obj, service: Obj | None, slices: Sequence[Obj]) -> Availability | None:
    """Why nobody can serve an APIService, as its Service stands; None when somebody can be asked.

    Args:
        spec: of the APIService; slices: the EndpointSlices of the Service.
    """
    name, namespace, port = (spec["service"].get(key) for key in ("name", "namespace", "port"))
    place = f'service/{name} in "{namespace}"'
    if service is None:
        return Availability("False", "ServiceNotFound", f"{place} is not present")
    if (service["spec"].get("type") or "ClusterIP") != "ClusterIP":
        return None
    row = next((row for row in service["spec"].get("ports") or () if row.get("port") == port), None)
    if row is None:
        return Availability("False", "ServicePortError", f"{place} is not listening on port {port}")
    if not slices:
        return Availability("False", "EndpointsNotFound", f"cannot find endpointslices for {place}")
    port_name = row.get("name") or ""
    if not any(_serves(part, port_name) for part in slices):
        text = f'endpointslices for {place} have no addresses with port name "{port_name}"'
        return Availability("False", "MissingEndpoints", text)
    return None


def _serves(part: Obj, port_name: str) -> bool:
    ready = any((row.get("conditions") or {}).get("ready") is not False for row in part.get("endpoints") or ())
    return ready and any((row.get("name") or "") == port_name for row in part.get("ports") or ())


def failed(url: str, why: str) -> Availability:
    """The verdict on a server that did not answer as it should."""
    return Availability("False", "FailedDiscoveryCheck", f"failing or missing response from {url}: {why}")


def is_available(service: Obj) -> bool:
    row = condition(service, AVAILABLE)
    return row is not None and row.get("status") == "True"


def with_availability(service: Obj, found: Availability, now: float) -> Obj:
    """The status that an APIService should have."""
    status = dict(service.get("status") or {})
    rows = status.get("conditions") or []
    status["conditions"] = with_condition(
        rows, AVAILABLE, found.status, now, reason=found.reason, message=found.message
    )
    return status
