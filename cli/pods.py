"""Which pod and container a command means: `web-1`, `pod/web-1`, `deployment/web`, `service/web`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from steersman.cli.errors import failed
from steersman.cli.session import Session
from steersman.cluster.meta.objects import Obj, annotations_of, is_pod_active, is_pod_ready
from steersman.cluster.meta.resources import PODS, Resource
from steersman.cluster.meta.selectors import from_dict, from_map

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


async def pod_of(session: Session, word: str) -> Obj:
    """Returns the pod named, or the best pod behind a workload or service.

    Raises:
        Failed: there is no such pod.
        ApiError: NotFound for the object named.
    """
    if "/" not in word:
        return await session.client.get(PODS, word, session.namespace)
    kind, name = (await session.kinds()).one([word])
    if kind.resource.plural == "pods" and not kind.resource.group:
        return await session.client.get(PODS, name, session.namespace)
    owner = await session.client.get(kind.resource, name, session.namespace)
    pods = await pods_behind(session, kind.resource, owner)
    if not pods:
        raise failed(f"no pods found behind {word}; `steer describe {word}` may tell why")
    return best(pods)


async def pods_behind(session: Session, resource: Resource, owner: Obj) -> list[Obj]:
    """The pods that a workload or service selects.

    Raises:
        Failed: objects of this kind select no pods.
    """
    selector = (owner.get("spec") or {}).get("selector")
    if not selector:
        raise failed(f"{resource.kind} {owner['metadata']['name']!r} selects no pods")
    plain = resource.kind in ("Service", "ReplicationController")
    text = str(from_map(selector) if plain else from_dict(selector))
    return (await session.client.list(PODS, session.namespace, label_selector=text)).items


def best(pods: Sequence[Obj]) -> Obj:
    """The pod to talk to: active before finished, ready before not, older before younger."""

    def rank(pod: Obj) -> tuple[bool, bool, bool, str, str]:
        running = (pod.get("status") or {}).get("phase") == "Running"
        metadata = pod["metadata"]
        created = metadata.get("creationTimestamp", "")
        return not is_pod_active(pod), not running, not is_pod_ready(pod), created, metadata["name"]

    return min(pods, key=rank)


def containers_of(pod: Obj, *, init: bool = True) -> list[str]:
    """Names of the pod's containers, init and ephemeral ones after the main ones."""
    spec = pod["spec"]
    parts = ("containers", "initContainers", "ephemeralContainers") if init else ("containers",)
    return [row["name"] for part in parts for row in spec.get(part) or ()]


def container_of(pod: Obj, wanted: str | None, *, quiet: bool = False) -> str:
    """Returns the container wanted, or the default one, which is announced when there are several.

    Raises:
        Failed: the pod has no container of that name.
    """
    names = containers_of(pod)
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in names:
            raise failed(f"container {wanted} is not valid for pod {name}; choose one of: {', '.join(names)}")
        return wanted
    chosen = annotations_of(pod).get(_DEFAULT_CONTAINER, "")
    if chosen not in names:
        chosen = names[0]
        if len(names) > 1 and not quiet:
            click.echo(f'Defaulted container "{chosen}" out of: {", ".join(names)}', err=True)
    return chosen
