"""`steer logs`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import click

from steersman.actors.ports import LogRequest
from steersman.cli.completers import complete_targets
from steersman.cli.errors import Failed, failed, sentence
from steersman.cli.output import is_terminal
from steersman.cli.pods import container_of, containers_of, pod_of, pods_behind
from steersman.cli.session import Session, api_command
from steersman.cli.waiting import DURATION
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PODS
from steersman.cluster.meta.times import parse_time

EXAMPLES = """
steer logs web-1
steer logs deployment/web -f --tail=20       # of one of its pods, and go on
steer logs -l app=web --prefix               # of all pods with a label
steer logs web-1 -c sidecar --since=10m --timestamps
steer logs web-1 -p                          # of the container before its restart
"""
#: logs followed at the same time
STREAMS_MAX = 20
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_yellow")


@api_command("logs", examples=EXAMPLES)
@click.argument("what", required=False, metavar="[POD|TYPE/NAME]", shell_complete=complete_targets)
@click.argument("container_name", required=False, metavar="[CONTAINER]")
@click.option("-c", "--container", metavar="NAME", help="Container of the pod.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's previous run.")
@click.option("--tail", type=int, default=None, metavar="N", help="The last N lines; -1 for all.")
@click.option("--since", type=DURATION, metavar="TIME", help="Newer than 5s, 2m, 3h.")
@click.option("--since-time", metavar="TIME", help="Newer than an RFC 3339 time.")
@click.option("--limit-bytes", type=int, metavar="N", help="At most N bytes.")
@click.option("--timestamps", is_flag=True, help="Put a time before each line.")
@click.option("--all-containers", is_flag=True, help="Of all containers of the pods.")
@click.option("--all-pods", is_flag=True, help="Of all pods of a workload.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Of all pods with these labels.")
@click.option("--prefix", is_flag=True, help="Put pod and container before each line.")
@click.option("--ignore-errors", is_flag=True, help="Go on when a log cannot be read.")
async def logs(
    session: Session,
    what: str | None,
    container_name: str | None,
    container: str | None,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: float | None,
    since_time: str | None,
    limit_bytes: int | None,
    timestamps: bool,
    all_containers: bool,
    all_pods: bool,
    selector: str,
    prefix: bool,
    ignore_errors: bool,
) -> None:
    """Print the logs of containers."""
    if bool(what) == bool(selector):
        raise failed("name a pod or TYPE/NAME, or choose pods with -l")
    if since is not None and since_time:
        raise failed("at most one of --since and --since-time may be given")
    pods = await _pods(session, what, selector, all_pods)
    container = container or container_name
    if tail is None and selector:
        tail = 10
    requests = []
    for pod in pods:
        names = containers_of(pod) if all_containers else [container_of(pod, container, quiet=len(pods) > 1)]
        for name in names:
            requests.append(
                LogRequest(
                    namespace=pod["metadata"].get("namespace", session.namespace),
                    pod=pod["metadata"]["name"],
                    container=name,
                    follow=follow,
                    previous=previous,
                    timestamps=timestamps,
                    tail_lines=None if tail is None or tail < 0 else tail,
                    limit_bytes=limit_bytes,
                    since_s=since,
                    since_time=_moment(since_time),
                )
            )
    if follow and len(requests) > STREAMS_MAX:
        raise failed(f"you are attempting to follow {len(requests)} log streams, but the maximum is {STREAMS_MAX}")
    await _print_all(session, requests, prefix=prefix, follow=follow, ignore_errors=ignore_errors)


async def _pods(session: Session, what: str | None, selector: str, all_pods: bool) -> list[Obj]:
    if selector:
        found = (await session.client.list(PODS, session.namespace, label_selector=selector)).items
        if not found:
            click.echo(f"No resources found in {session.namespace} namespace.", err=True)
        return found
    if all_pods and what and "/" in what:
        kind, name = (await session.kinds()).one([what])
        owner = await session.client.get(kind.resource, name, session.namespace)
        return await pods_behind(session, kind.resource, owner)
    return [await pod_of(session, what or "")]


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        raise failed(f"{text!r} is no RFC 3339 time such as 2026-01-02T03:04:05Z") from None


async def _print_all(
    session: Session, requests: list[LogRequest], *, prefix: bool, follow: bool, ignore_errors: bool
) -> None:
    bad: list[str] = []

    async def one(index: int, request: LogRequest) -> None:
        head = b""
        if prefix:
            text = f"[pod/{request.pod}/{request.container}] "
            head = (click.style(text, fg=_COLOURS[index % len(_COLOURS)]) if is_terminal() else text).encode()
        try:
            await _copy(session.client.logs(request), head)
        except ApiError as error:
            bad.append(sentence(error))
            Failed(sentence(error)).show()

    if follow:
        await asyncio.gather(*(one(i, request) for i, request in enumerate(requests)))
    else:
        for i, request in enumerate(requests):
            await one(i, request)
    if bad and not ignore_errors:
        raise Failed("")


async def _copy(pieces: AsyncIterator[bytes], head: bytes) -> None:
    """Writes a log to standard output; with a head before each line, only whole lines."""
    out = sys.stdout.buffer
    rest = b""
    async for piece in pieces:
        if not head:
            out.write(piece)
        else:
            *lines, rest = (rest + piece).split(b"\n")
            out.write(b"".join(head + line + b"\n" for line in lines))
        out.flush()
    if rest:
        out.write(head + rest + b"\n")
        out.flush()


COMMANDS = [logs]
