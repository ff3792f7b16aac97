"""A container of a pod as the runtime needs it: everything resolved, nothing left to look up.

Source: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.names import stable_hash
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.node.config import SIMULATION_PREFIX, NodeConfig
from steersman.cluster.node.expansion import expand
from steersman.cluster.node.resources import container_resources
from steersman.cluster.node.security import security_context
from steersman.cluster.node.values import ContainerSpec, ContainerState, ContainerStatus, Image, Mount, RuntimeFailure

TERMINATION_MESSAGE_PATH = "/dev/termination-log"
#: bytes kept of a termination message, and of logs standing in for one (80 lines at most)
TERMINATION_MESSAGE_BYTES_MAX = 4096
FALLBACK_LOG_BYTES_MAX = 2048
FALLBACK_LOG_LINES_MAX = 80


def containers_of(pod: Mapping[str, Any]) -> Iterator[Obj]:
    """Yields init, main and ephemeral containers, in this order."""
    spec = pod["spec"]
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()
    yield from spec.get("ephemeralContainers") or ()


def find_container(pod: Mapping[str, Any], name: str) -> Obj | None:
    return next((row for row in containers_of(pod) if row["name"] == name), None)


def field_path(pod: Mapping[str, Any], name: str) -> str:
    """Returns the container's place in the pod, as events name it: `spec.containers{web}`."""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        if any(row["name"] == name for row in pod["spec"].get(group) or ()):
            return f"spec.{group}{{{name}}}"
    return ""


def spec_hash(container: Mapping[str, Any]) -> str:
    """Returns a short name for what makes a running container outdated when it changes: its name and image."""
    return stable_hash(f"{container['name']}\n{container['image']}")


def termination_path(container: str, attempt: int) -> str:
    """Returns the pod-relative path of a container's termination message file."""
    return f"containers/{container}/{attempt}/termination-log"


def simulation(pod: Mapping[str, Any], container: str) -> tuple[tuple[str, str], ...]:
    """Returns the simulated behaviour from the annotations `simulated.steersman/NAME` and `.../CONTAINER.NAME`."""
    general: dict[str, str] = {}
    own: dict[str, str] = {}
    names = {row["name"] for row in containers_of(pod)}
    for key, value in annotations_of(pod).items():
        if not key.startswith(SIMULATION_PREFIX):
            continue
        head, dot, rest = key.removeprefix(SIMULATION_PREFIX).partition(".")
        if dot and head in names:
            if head == container:
                own[rest] = value
        else:
            general[key.removeprefix(SIMULATION_PREFIX)] = value
    return tuple(sorted({**general, **own}.items()))


def target_id(container: Mapping[str, Any], rows: Iterable[ContainerStatus]) -> str:
    """Returns the id of the container whose processes an ephemeral container wants to see, empty if of none.

    Args:
        rows: the pod's containers.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`: that container does not run.
    """
    name = container.get("targetContainerName")
    if not name:
        return ""
    for row in rows:
        if row.name == name and row.state is ContainerState.RUNNING:
            return row.id
    raise RuntimeFailure("CreateContainerConfigError", f"unable to find target container {name}")


def container_spec(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    attempt: int,
    *,
    image: Image,
    environment: tuple[tuple[str, str], ...],
    mounts: tuple[Mount, ...],
    config: NodeConfig,
    target: str = "",
) -> ContainerSpec:
    """Returns the runtime's orders for one container; commands and arguments have their `$(VAR)` replaced."""
    variables = dict(environment)
    meta = pod["metadata"]
    return ContainerSpec(
        pod_uid=meta["uid"],
        pod_name=meta["name"],
        namespace=meta.get("namespace", ""),
        name=container["name"],
        attempt=attempt,
        image=image.id,
        image_ref=container["image"],
        command=tuple(expand(text, variables) for text in container.get("command") or ()),
        args=tuple(expand(text, variables) for text in container.get("args") or ()),
        env=environment,
        working_dir=container.get("workingDir") or "",
        mounts=mounts,
        resources=container_resources(pod, container, quantity.whole(config.capacity.get("memory", 0))),
        security=security_context(pod, container),
        tty=bool(container.get("tty")),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        target=target,
        spec_hash=spec_hash(container),
        simulation=simulation(pod, container["name"]),
    )
