"""Who a container's process is and what it may do: the pod's security context under the container's.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.cluster.node.values import Image, RuntimeFailure, SecurityContext


def security_context(pod: Mapping[str, Any], container: Mapping[str, Any]) -> SecurityContext:
    """Returns the effective security context; the container's fields win over the pod's."""
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    groups = [*(of_pod.get("supplementalGroups") or ())]
    if of_pod.get("fsGroup") is not None:
        groups.append(of_pod["fsGroup"])
    capabilities = own.get("capabilities") or {}
    privileged = bool(own.get("privileged"))
    return SecurityContext(
        run_as_user=own.get("runAsUser", of_pod.get("runAsUser")),
        run_as_group=own.get("runAsGroup", of_pod.get("runAsGroup")),
        supplemental_groups=tuple(dict.fromkeys(groups)),
        privileged=privileged,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False and not privileged,
        capabilities_add=tuple(capabilities.get("add") or ()),
        capabilities_drop=tuple(capabilities.get("drop") or ()),
    )


def check_non_root(pod: Mapping[str, Any], container: Mapping[str, Any], image: Image) -> None:
    """Refuses a container that must not run as root but would.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`, in the kubelet's words.
    """
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    if not own.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
        return
    where = f'(pod: "{pod["metadata"]["name"]}_{pod["metadata"].get("namespace", "")}({pod["metadata"]["uid"]})", '
    where += f"container: {container['name']})"
    user = own.get("runAsUser", of_pod.get("runAsUser"))
    if user is not None:
        if user == 0:
            raise RuntimeFailure("CreateContainerConfigError", f"container's runAsUser breaks non-root policy {where}")
        return
    named = image.user.partition(":")[0]
    if named in ("", "0", "root"):
        raise RuntimeFailure(
            "CreateContainerConfigError", f"container has runAsNonRoot and image will run as root {where}"
        )
    if not named.isdigit():
        raise RuntimeFailure(
            "CreateContainerConfigError",
            f"container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root "
            + where,
        )
