"""Starts one container: image, environment, mounts, create, start, postStart; and hears its last words.

Source: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go (startContainer)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from steersman.actors.nodeagent.handlers import Target
from steersman.actors.nodeagent.host import Host
from steersman.actors.nodeagent.mounting import container_mounts
from steersman.actors.ports import monotonic
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.containers import (
    FALLBACK_LOG_BYTES_MAX,
    FALLBACK_LOG_LINES_MAX,
    TERMINATION_MESSAGE_BYTES_MAX,
    container_spec,
    find_container,
    target_id,
    termination_path,
)
from steersman.cluster.node.environment import Surroundings, environment, wanted
from steersman.cluster.node.images import Credentials, credentials_for, full_reference, must_pull, parse_pull_secret
from steersman.cluster.node.security import check_non_root
from steersman.cluster.node.values import ContainerStatus, Image, RuntimeFailure

#: how long a postStart hook may take
POST_START_DEADLINE_S = 600.0


async def ensure_image(host: Host, pod: Obj, container: Obj, newer_than: float) -> Image:
    """Returns the container's image, fetched if its policy says so.

    Raises:
        RuntimeFailure: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
    """
    reference, name = container["image"], container["name"]
    full = full_reference(reference)
    present = await host.runtime.image(full) or await host.runtime.image(reference)
    if not must_pull(container, present is not None):
        assert present is not None
        message = f'Container image "{reference}" already present on machine and can be accessed by the pod'
        host.event(pod, "Normal", "Pulled", message, name)
        return present
    auths = credentials_for(reference, await _pull_secrets(host, pod, newer_than))
    host.event(pod, "Normal", "Pulling", f'Pulling image "{reference}"', name)
    began = monotonic()
    try:
        image = await host.pull(full, auths)
    except RuntimeFailure as failure:
        host.event(pod, "Warning", "Failed", f'Failed to pull image "{reference}": {failure.message}', name)
        raise
    took = f"{monotonic() - began:.3g}s"
    message = f'Successfully pulled image "{reference}" in {took} ({took} including waiting). '
    host.event(pod, "Normal", "Pulled", f"{message}Image size: {image.size_bytes} bytes.", name)
    return image


async def _pull_secrets(host: Host, pod: Obj, newer_than: float) -> list[Credentials]:
    """The logins in the pod's pull secrets; one that is missing is passed over, as the kubelet does."""
    namespace = pod["metadata"]["namespace"]
    found: list[Credentials] = []
    names = [row.get("name", "") for row in pod["spec"].get("imagePullSecrets") or ()]
    if not names:
        account = await host.materials.get(
            "ServiceAccount", namespace, pod["spec"].get("serviceAccountName") or "default", newer_than
        )
        names = [row.get("name", "") for row in (account or {}).get("imagePullSecrets") or ()]
    for name in names:
        secret = await host.materials.get("Secret", namespace, name, newer_than)
        if secret is not None:
            found += parse_pull_secret(secret)
        else:
            message = (
                f"Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed."
            )
            host.event(pod, "Warning", "FailedToRetrieveImagePullSecret", message)
    return found


async def create(
    host: Host,
    pod: Obj,
    container: Obj,
    attempt: int,
    *,
    sandbox_id: str,
    image: Image,
    ips: tuple[str, ...],
    paths: Mapping[str, str],
    newer_than: float,
) -> str:
    """Creates the container; returns its id.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`, `CreateContainerError`.
    """
    check_non_root(pod, container, image)
    namespace = pod["metadata"]["namespace"]
    around = Surroundings(
        ips=ips,
        host_ip=host.config.address,
        configuration=await host.materials.configuration(namespace, wanted(container), newer_than),
        services=await host.materials.services(namespace, newer_than),
        allocatable=host.config.allocatable(),
    )
    variables = environment(pod, container, around)
    mounts = await container_mounts(host, pod, container, attempt, paths=paths, environment=variables)
    spec = container_spec(
        pod,
        container,
        attempt,
        image=image,
        environment=variables,
        mounts=mounts,
        config=host.config,
        target=target_id(container, host.view.containers(pod["metadata"]["uid"])),
    )
    container_id = await host.runtime.create_container(sandbox_id, spec)
    host.event(pod, "Normal", "Created", "Container created", container["name"])
    return container_id


async def post_start(host: Host, pod: Obj, container: Obj, container_id: str, pod_ip: str) -> bool:
    """Runs the postStart hook; False when it failed, and the container has to go."""
    handler = (container.get("lifecycle") or {}).get("postStart")
    if not handler:
        return True
    target = Target(container_id=container_id, container=container, pod_ip=pod_ip)
    answer = await host.handlers.hook(handler, target, POST_START_DEADLINE_S)
    if not answer.success:
        host.event(pod, "Warning", "FailedPostStartHook", _hook_failure("PostStart", answer.output), container["name"])
    return bool(answer.success)


def _hook_failure(hook: str, output: str) -> str:
    return f"{hook}Hook failed: {output}" if output else f"{hook}Hook failed"


async def pre_stop(host: Host, pod: Obj, status: ContainerStatus, pod_ip: str, deadline_s: float) -> None:
    """Runs the preStop hook, for at most `deadline_s`; its failure is told and changes nothing."""
    container = find_container(pod, status.name)
    handler = ((container or {}).get("lifecycle") or {}).get("preStop")
    if container is None or not handler:
        return
    target = Target(container_id=status.id, container=container, pod_ip=pod_ip)
    answer = await host.handlers.hook(handler, target, deadline_s)
    if not answer.success:
        host.event(pod, "Warning", "FailedPreStopHook", _hook_failure("PreStop", answer.output), status.name)


async def termination_message(host: Host, pod: Obj, status: ContainerStatus) -> str:
    """Returns what the container left in its termination message file, or the end of its log if it asked for that."""
    container = find_container(pod, status.name) or {}
    path = termination_path(status.name, status.attempt)
    try:
        data = await host.volumes.read_pod_file(status.pod_uid, path, TERMINATION_MESSAGE_BYTES_MAX)
        if data or container.get("terminationMessagePolicy") != "FallbackToLogsOnError" or status.exit_code == 0:
            return data.decode(errors="replace")
        lines: deque[bytes] = deque(maxlen=FALLBACK_LOG_LINES_MAX)
        async for _, _, line in host.runtime.log_lines(status.id, follow=False):
            lines.append(line)
    except RuntimeFailure:
        return ""
    return b"".join(lines)[-FALLBACK_LOG_BYTES_MAX:].decode(errors="replace")
