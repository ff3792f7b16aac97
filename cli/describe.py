"""`steer describe`: fetches an object with what belongs to it, and prints it in words."""

from __future__ import annotations

from collections.abc import Sequence

import click

from steersman.cli.completers import complete_targets
from steersman.cli.describing import cluster, pods, workloads
from steersman.cli.describing.sheet import Sheet
from steersman.cli.events import last_seen, seen_text
from steersman.cli.kinds import Target
from steersman.cli.objects import Selection, listed, select
from steersman.cli.session import Session, api_command
from steersman.cluster.meta.errors import ApiError, NotFound, not_found
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import ENDPOINT_SLICES, EVENTS, LEASES, PODS, REPLICA_SETS, Resource
from steersman.cluster.meta.selectors import from_dict

EXAMPLES = """
steer describe pod web-1
steer describe deployment/web service/web
steer describe pods -l app=web
steer describe node n1
steer describe -f web.yaml
"""
_CHUNK = 500


@api_command("describe", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE [NAME_PREFIX...]", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Describe what these manifests name.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("--show-events/--no-show-events", default=True, help="Print the events too (default).")
async def describe(
    session: Session,
    what: tuple[str, ...],
    files: tuple[str, ...],
    selector: str,
    everywhere: bool,
    show_events: bool,
) -> None:
    """Show objects in words, with what belongs to them and their events.

    A name that no object has is taken as the beginning of names."""
    printed = 0
    for resource, obj in await _objects(session, what, files, selector, everywhere):
        sheet = Sheet()
        await _fill(session, sheet, resource, obj)
        if show_events:
            await _events(session, sheet, resource, obj)
        if printed:
            click.echo("\n")
        printed += 1
        click.echo(sheet.text())
    if not printed:
        where = "" if everywhere else f" in {session.namespace} namespace"
        click.echo(f"No resources found{where}.", err=True)


async def _objects(
    session: Session, what: Sequence[str], files: Sequence[str], selector: str, everywhere: bool
) -> list[tuple[Resource, Obj]]:
    if files:
        places = await select(session, Selection(files=files))
        return [(p.resource, await session.client.get(p.resource, p.name, p.namespace)) for p in places]
    found: list[tuple[Resource, Obj]] = []
    for target in (await session.kinds()).targets(what):
        if target.names:
            for name in target.names:
                found += await _by_name(session, target, name)
        else:
            chosen = Selection(label_selector=selector, everywhere=everywhere)
            found += [(target.resource, obj) async for obj in listed(session, target.resource, chosen)]
    return found


async def _by_name(session: Session, target: Target, name: str) -> list[tuple[Resource, Obj]]:
    resource = target.resource
    try:
        return [(resource, await session.client.get(resource, name, session.scope(resource)))]
    except NotFound:
        rows = [obj async for obj in listed(session, resource, Selection())]
        found = [(resource, obj) for obj in rows if obj["metadata"]["name"].startswith(name)]
        if not found:
            raise not_found(resource.plural, name, resource.group) from None
        return found


async def _fill(session: Session, sheet: Sheet, resource: Resource, obj: Obj) -> None:
    space = obj["metadata"].get("namespace")
    match resource.group, resource.kind:
        case "", "Pod":
            pods.pod(sheet, obj)
        case "apps", "Deployment":
            workloads.deployment(sheet, obj, await _selected(session, REPLICA_SETS, obj))
        case "apps", "ReplicaSet" | "StatefulSet" | "DaemonSet":
            workloads.replicated(sheet, obj, await _selected(session, PODS, obj))
        case "batch", "Job":
            workloads.job(sheet, obj)
        case "", "Service":
            of_service = f"kubernetes.io/service-name={obj['metadata']['name']}"
            cluster.service(sheet, obj, await _list(session, ENDPOINT_SLICES, space, labels=of_service))
        case "", "Node":
            name = obj["metadata"]["name"]
            on_node = await _list(session, PODS, None, fields=f"spec.nodeName={name}")
            cluster.node(sheet, obj, on_node, await _lease(session, name))
        case "", "Secret":
            cluster.secret(sheet, obj)
        case "", "ConfigMap":
            cluster.config_map(sheet, obj)
        case _:
            cluster.anything(sheet, obj)


async def _selected(session: Session, resource: Resource, obj: Obj) -> list[Obj]:
    selector = str(from_dict(obj["spec"].get("selector")))
    return await _list(session, resource, obj["metadata"].get("namespace"), labels=selector)


async def _list(
    session: Session, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
) -> list[Obj]:
    """The objects that belong to the one described; none where the user may not see them."""
    try:
        found = await session.client.list(
            resource, namespace, label_selector=labels, field_selector=fields, limit=_CHUNK
        )
    except ApiError as error:
        if error.code in (403, 404):
            return []
        raise
    return found.items


async def _lease(session: Session, node: str) -> Obj | None:
    try:
        return await session.client.get(LEASES, node, "kube-node-lease")
    except ApiError as error:
        if error.code in (403, 404):
            return None
        raise


async def _events(session: Session, sheet: Sheet, resource: Resource, obj: Obj) -> None:
    metadata = obj["metadata"]
    about = f"involvedObject.kind={resource.kind},involvedObject.name={metadata['name']}"
    if metadata.get("uid") and resource.kind != "Node":
        about += f",involvedObject.uid={metadata['uid']}"
    rows = await _list(session, EVENTS, metadata.get("namespace") or None, fields=about)
    if not rows:
        sheet.field("Events", "<none>")
        return
    with sheet.section("Events"):
        table = []
        for event in sorted(rows, key=last_seen):
            source = event.get("source") or {}
            sender = source.get("component") or event.get("reportingComponent") or ""
            message = " ".join(str(event.get("message") or "").split())
            table.append([event.get("type", ""), event.get("reason", ""), seen_text(event), sender, message])
        sheet.table(["Type", "Reason", "Age", "From", "Message"], table)


COMMANDS = [describe]
