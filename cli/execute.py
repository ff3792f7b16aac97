"""`steer exec` and `steer attach`."""

from __future__ import annotations

import sys

import click

from steersman.actors.ports import ExecRequest
from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.pods import container_of, pod_of
from steersman.cli.session import Session, api_command
from steersman.cli.terminal import converse
from steersman.cluster.meta.objects import Obj

EXEC_EXAMPLES = """
steer exec web-1 -- ls /
steer exec -it web-1 -- sh                 # a shell
steer exec deployment/web -c sidecar -- date
cat dump.sql | steer exec -i db-1 -- psql
"""
ATTACH_EXAMPLES = """
steer attach web-1
steer attach web-1 -c shell -it
"""


@api_command("exec", examples=EXEC_EXAMPLES)
@click.argument("what", metavar="POD|TYPE/NAME", shell_complete=complete_targets)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARG...]")
@click.option("-c", "--container", metavar="NAME", help="Container of the pod.")
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but what the command prints.")
async def execute(
    session: Session, what: str, command: tuple[str, ...], container: str | None, stdin: bool, tty: bool, quiet: bool
) -> None:
    """Run a command in a container; its exit code becomes this command's."""
    if not command:
        raise failed("you must specify at least one command for the container: steer exec POD -- COMMAND")
    request = await _request(session, what, container, quiet=quiet, command=command, stdin=stdin, tty=tty)
    await converse(await session.client.exec(request), stdin=stdin, tty=request.tty)


@api_command("attach", examples=ATTACH_EXAMPLES)
@click.argument("what", metavar="POD|TYPE/NAME", shell_complete=complete_targets)
@click.option("-c", "--container", metavar="NAME", help="Container of the pod.")
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="The container has a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but what the container prints.")
async def attach(session: Session, what: str, container: str | None, stdin: bool, tty: bool, quiet: bool) -> None:
    """Attach to what a container's main process prints, and with -i to what it reads."""
    request = await _request(session, what, container, quiet=quiet, command=(), stdin=stdin, tty=tty)
    if not quiet and sys.stdin.isatty() and stdin:
        click.echo("If you don't see a command prompt, try pressing enter.", err=True)
    await converse(await session.client.attach(request), stdin=stdin, tty=request.tty)


async def _request(
    session: Session,
    what: str,
    container: str | None,
    *,
    quiet: bool,
    command: tuple[str, ...],
    stdin: bool,
    tty: bool,
) -> ExecRequest:
    pod: Obj = await pod_of(session, what)
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        name = pod["metadata"]["name"]
        raise failed(f"cannot enter a container of a completed pod; the current phase of {name} is {phase}")
    if tty and stdin and not sys.stdin.isatty():
        click.echo("Unable to use a TTY - input is not a terminal or the right kind of file", err=True)
        tty = False
    return ExecRequest(
        namespace=pod["metadata"].get("namespace", session.namespace),
        pod=pod["metadata"]["name"],
        container=container_of(pod, container, quiet=quiet),
        command=command,
        stdin=stdin,
        stdout=True,
        stderr=not tty,
        tty=tty,
    )


COMMANDS = [execute, attach]
