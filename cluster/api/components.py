"""Component statuses: how the store, the scheduler and the controllers are, by what an API server can see of them.

Kubernetes calls their health ports. Here the store is asked, and the others are known by the leases by which one of
several acts, or by what their own process says of them.

Source: k8s.io/kubernetes/pkg/registry/core/componentstatus
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.times import parse_time

#: label of a lease: whose it is
COMPONENT = "component"
SCHEDULER, CONTROLLER_MANAGER = "kube-scheduler", "kube-controller-manager"
#: status to the component whose leases tell of it
BY_LEASE = {"scheduler": SCHEDULER, "controller-manager": CONTROLLER_MANAGER}


def fault_of(component: str, leases: Iterable[Obj], now: float) -> str:
    """What the leases of a namespace say is wrong with a component; empty where nothing is.

    Args:
        now: Unix seconds.
    """
    found = [lease for lease in leases if labels_of(lease).get(COMPONENT) == component]
    if not found:
        return f"no lease tells of a {component}"
    lost = [lease["metadata"]["name"] for lease in found if not _is_held(lease.get("spec") or {}, now)]
    return f"nobody holds the lease {', '.join(sorted(lost))}" if lost else ""


def _is_held(spec: Obj, now: float) -> bool:
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return False
    return now - parse_time(spec["renewTime"]) <= (spec.get("leaseDurationSeconds") or 0)


def component_status(name: str, fault: str) -> Obj:
    """The ComponentStatus of a component with which something is wrong, or (empty) nothing."""
    condition = {"type": "Healthy", "status": "False" if fault else "True", "message": fault or "ok"}
    return {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition]}
