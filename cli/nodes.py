"""`steer cordon`, `steer uncordon` and `steer drain`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.session import FIELD_MANAGER, Session, api_command
from steersman.cli.waiting import DURATION, deadline, until_gone
from steersman.cluster.meta.errors import NotFound, TooManyRequests
from steersman.cluster.meta.objects import Obj, annotations_of, controller_of
from steersman.cluster.meta.resources import NODES, PODS

CORDON_EXAMPLES = "steer cordon n1\nsteer cordon -l zone=a"
DRAIN_EXAMPLES = """
steer drain n1 --ignore-daemonsets
steer drain n1 --ignore-daemonsets --delete-emptydir-data --timeout=5m
steer drain n1 --force          # pods that nothing will replace, too
"""
#: a refused eviction is asked for again after this time
_AGAIN_S = 5.0
#: pods whose end is watched at the same time; all are asked to go at once
_EVICTIONS_MAX = 64
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Sorted:
    """The pods of a node: those to evict, those left alone, and why the drain must not begin."""

    evict: list[Obj]
    left: list[str]
    refused: list[str]


@api_command("cordon", examples=CORDON_EXAMPLES)
@click.argument("names", nargs=-1, metavar="NODE...")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
async def cordon(session: Session, names: tuple[str, ...], selector: str) -> None:
    """Mark nodes as unschedulable: no new pods go there."""
    for name in await _nodes(session, names, selector):
        await _set_unschedulable(session, name, True)


@api_command("uncordon", examples="steer uncordon n1")
@click.argument("names", nargs=-1, metavar="NODE...")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
async def uncordon(session: Session, names: tuple[str, ...], selector: str) -> None:
    """Mark nodes as schedulable again."""
    for name in await _nodes(session, names, selector):
        await _set_unschedulable(session, name, False)


async def _nodes(session: Session, names: tuple[str, ...], selector: str) -> list[str]:
    if bool(names) == bool(selector):
        raise failed("name nodes, or choose them with -l")
    if names:
        return [name.removeprefix("node/").removeprefix("nodes/") for name in names]
    found = await session.client.list(NODES, label_selector=selector)
    return [node["metadata"]["name"] for node in found.items]


async def _set_unschedulable(session: Session, name: str, wanted: bool) -> None:
    word = "cordoned" if wanted else "uncordoned"
    node = await session.client.get(NODES, name)
    if bool(node["spec"].get("unschedulable")) == wanted:
        click.echo(f"node/{name} already {word}")
        return
    patch = {"spec": {"unschedulable": True if wanted else None}}
    await session.client.patch(NODES, name, patch, kind="strategic", field_manager=FIELD_MANAGER)
    click.echo(f"node/{name} {word}")


@api_command("drain", examples=DRAIN_EXAMPLES)
@click.argument("names", nargs=-1, metavar="NODE...", shell_complete=complete_targets)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Nodes with these labels.")
@click.option("--ignore-daemonsets", is_flag=True, help="Leave pods of DaemonSets, which would come back anyway.")
@click.option("--delete-emptydir-data", is_flag=True, help="Evict pods whose emptyDir data is lost with them.")
@click.option("--force", is_flag=True, help="Evict pods that no controller replaces.")
@click.option("--grace-period", type=int, default=-1, metavar="SECONDS", help="Instead of the pods' own.")
@click.option("--timeout", type=DURATION, default=0.0, metavar="TIME", help="Wait no longer than this; 0 for ever.")
@click.option("--pod-selector", default="", metavar="SELECTOR", help="Only pods with these labels.")
@click.option("--disable-eviction", is_flag=True, help="Delete, ignoring disruption budgets.")
async def drain(
    session: Session,
    names: tuple[str, ...],
    selector: str,
    ignore_daemonsets: bool,
    delete_emptydir_data: bool,
    force: bool,
    grace_period: int,
    timeout: float,
    pod_selector: str,
    disable_eviction: bool,
) -> None:
    """Cordon nodes and evict their pods, respecting disruption budgets."""
    for name in await _nodes(session, names, selector):
        await _set_unschedulable(session, name, True)
        pods = await session.client.list(PODS, label_selector=pod_selector, field_selector=f"spec.nodeName={name}")
        rows = sort_pods(pods.items, ignore_daemonsets=ignore_daemonsets, lose_data=delete_emptydir_data, force=force)
        if rows.refused:
            raise failed(f"unable to drain node {name}: it stays cordoned\n  " + "\n  ".join(rows.refused))
        if rows.left:
            click.echo(f"Warning: ignoring DaemonSet-managed Pods: {', '.join(rows.left)}", err=True)
        async with deadline(timeout, f"node {name} to be empty"):
            room = asyncio.Semaphore(_EVICTIONS_MAX)
            await asyncio.gather(*(_evict(session, pod, grace_period, disable_eviction, room) for pod in rows.evict))
        click.echo(f"node/{name} drained")


def sort_pods(pods: list[Obj], *, ignore_daemonsets: bool, lose_data: bool, force: bool) -> Sorted:
    """Decides what a drain does with each pod, as kubectl's filters do."""
    rows = Sorted([], [], [])
    for pod in pods:
        metadata = pod["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        owner = controller_of(pod)
        finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if _MIRROR in annotations_of(pod):
            continue
        if owner and owner["kind"] == "DaemonSet" and not finished:
            rows.left.append(name)
            if not ignore_daemonsets:
                rows.refused.append(f"{name} belongs to a DaemonSet (use --ignore-daemonsets to leave it)")
            continue
        local = any("emptyDir" in volume for volume in pod["spec"].get("volumes") or ())
        if local and not lose_data and not finished:
            rows.refused.append(f"{name} has data in an emptyDir (use --delete-emptydir-data to lose it)")
        if owner is None and not force and not finished:
            rows.refused.append(f"{name} has no controller that would replace it (use --force to lose it)")
        rows.evict.append(pod)
    return rows


async def _evict(session: Session, pod: Obj, grace_period: int, by_deletion: bool, room: asyncio.Semaphore) -> None:
    metadata = pod["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    grace_s = None if grace_period < 0 else grace_period
    click.echo(f"evicting pod {namespace}/{name}")
    while True:
        try:
            if by_deletion:
                await session.client.delete(PODS, name, namespace, grace_s=grace_s)
            else:
                await _post_eviction(session, name, namespace, grace_s)
            break
        except NotFound:
            return
        except TooManyRequests as error:
            click.echo(f"error when evicting pods/{name!r} (will retry after 5s): {error.message}", err=True)
            await asyncio.sleep(_AGAIN_S)
    async with room:
        await until_gone(session, PODS, namespace, name, metadata.get("uid", ""))
    click.echo(f"pod/{name} evicted")


async def _post_eviction(session: Session, name: str, namespace: str, grace_s: int | None) -> None:
    eviction: Obj = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
    }
    if grace_s is not None:
        eviction["deleteOptions"] = {"gracePeriodSeconds": grace_s}
    await session.client.create(PODS, eviction, namespace, name=name, subresource="eviction")


COMMANDS = [cordon, uncordon, drain]
