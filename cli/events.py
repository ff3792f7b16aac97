"""`steer events`."""

from __future__ import annotations

import time
from typing import Any

import click

from steersman.cli.completers import complete_targets
from steersman.cli.output import aligned, columns_of_terminal, parse_format, print_lines, print_object, print_table
from steersman.cli.session import Session, api_command
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import EVENTS
from steersman.cluster.meta.times import human_duration, parse_time

EXAMPLES = """
steer events                         # of the namespace, oldest first
steer events --for=pod/web-1         # about one object
steer events -A --types=Warning
steer events -w
"""
_HEADINGS = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]


@api_command("events", examples=EXAMPLES)
@click.option("--for", "about", metavar="TYPE/NAME", help="About this object only.", shell_complete=complete_targets)
@click.option("--types", default="", metavar="TYPE,…", help="Of these types only: Normal, Warning.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing new events.")
@click.option("--no-headers", is_flag=True, help="Leave the heading out.")
@click.option("-o", "--output", metavar="FORM", help="json, yaml or name.")
async def events(
    session: Session,
    about: str | None,
    types: str,
    everywhere: bool,
    watch: bool,
    no_headers: bool,
    output: str | None,
) -> None:
    """List events in the order in which they happened last."""
    form = parse_format(output)
    selector = ""
    if about:
        kind, name = (await session.kinds()).one([about])
        selector = f"involvedObject.kind={kind.resource.kind},involvedObject.name={name}"
    wanted = {text.strip().lower() for text in types.split(",") if text.strip()}
    scope = None if everywhere else session.namespace
    found = await session.client.list(EVENTS, scope, field_selector=selector)
    items = sorted((e for e in found.items if _wanted(e, wanted)), key=last_seen)
    if not form.is_table:
        whole = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        print_object(whole, form, lambda obj: f"event/{obj['metadata']['name']}")
        return
    headings = (["NAMESPACE"] if everywhere else []) + _HEADINGS
    rows = [_row(event, everywhere) for event in items]
    if rows or watch:
        print_table(headings, rows, no_headers=no_headers)
    else:
        click.echo("No events found" + ("." if everywhere else f" in {session.namespace} namespace."), err=True)
    if watch:
        widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings) - 1)]
        version = found.resource_version
        async for kind_of_change, event in session.client.watch(
            EVENTS, scope, resource_version=version, field_selector=selector
        ):
            if kind_of_change in ("ADDED", "MODIFIED") and _wanted(event, wanted):
                lines = aligned([_row(event, everywhere)], widths=[*widths, 0], fit=columns_of_terminal())
                print_lines(lines, heading=False)


def _wanted(event: Obj, types: set[str]) -> bool:
    return not types or str(event.get("type", "")).lower() in types


def last_seen(event: Obj) -> float:
    """When an event happened last, in seconds since the epoch; 0 when it does not say."""
    series = (event.get("series") or {}).get("lastObservedTime")
    for text in (series, event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp")):
        if text:
            return parse_time(text)
    created = event["metadata"].get("creationTimestamp")
    return parse_time(created) if created else 0.0


def count(event: Obj) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def seen_text(event: Obj) -> str:
    """`3m (x5 over 20m)`."""
    now = time.time()
    last = human_duration(now - last_seen(event))
    first = event.get("firstTimestamp") or event.get("eventTime")
    if count(event) > 1 and first:
        return f"{last} (x{count(event)} over {human_duration(now - parse_time(first))})"
    return last


def _row(event: Obj, with_namespace: bool) -> list[str]:
    about: dict[str, Any] = event.get("involvedObject") or {}
    target = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    message = " ".join(str(event.get("message") or "").split())
    row = [seen_text(event), event.get("type", ""), event.get("reason", ""), target, message]
    return [about.get("namespace", ""), *row] if with_namespace else row


COMMANDS = [events]
