"""Commands about the members of the cluster's store: where they are, and moving them.

They talk to the keeper of the head, which makes every change: it goes on when the command has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from steersman.cli.lifecycle import data_dir_option, data_dir_path, fail, name_option

if TYPE_CHECKING:
    from steersman.actors.rpc.keeper import HeadClient

#: how often a command looks whether the group is as it should be
_LOOK_S = 0.5


def _with_head(name: str | None, data_dir: str | None, work: Callable[[HeadClient], Awaitable[Any]]) -> Any:
    """Returns what a piece of work with the head's keeper returns; ends the command with what the keeper refuses."""
    from steersman.actors import bringup
    from steersman.actors.rpc.keeper import HeadAway, HeadClient

    async def call() -> Any:
        head = HeadClient(site)
        try:
            return await work(head)
        finally:
            await head.close()

    try:
        site = bringup.read_site(data_dir_path(name, data_dir))
    except bringup.BringUpFailed as error:
        fail(str(error))
    if site.config.embedded:
        fail("an embedded cluster has its store in its one process: nothing can be moved")
    try:
        return asyncio.run(call())
    except HeadAway as error:
        fail(str(error))


def _change(name: str | None, data_dir: str | None, wait_s: float, **change: Any) -> None:
    from steersman.pb import keeper_pb2

    async def work(head: HeadClient) -> str:
        done = await head.change(keeper_pb2.ChangeRequest(**change))
        click.echo(done)
        return await _settled(head, wait_s)

    if waiting := _with_head(name, data_dir, work):
        _give_up(waiting, wait_s)


def _give_up(waiting: str, wait_s: float) -> NoReturn:
    fail(f"after {wait_s:.0f} s {waiting}; the head goes on, look with `steer store members`")


async def _settled(head: HeadClient, wait_s: float) -> str:
    """Waits until no member is on its way in or out; returns what still is."""
    end = asyncio.get_running_loop().time() + wait_s
    while True:
        rows = await head.members()
        waiting = [f"{row.member.host}'s new member has no vote yet" for row in rows if row.learner]
        waiting += [f"store-{row.member.slot} has not left yet" for row in rows if row.retiring]
        if not waiting or asyncio.get_running_loop().time() > end:
            return "; ".join(waiting) if wait_s else ""
        await asyncio.sleep(_LOOK_S)


_wait_option = click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
    help="Seconds to wait until the group is as it should be; 0 for not at all.",
)  # fmt: skip


@click.group(
    epilog="""\b
Examples:
  steer store members                          who holds the cluster's state, and how far each is
  steer store replace store-1 --node blue      move a member to another machine
"""
)
def store() -> None:
    """Look after the members of the store.

    They spread over the machines by themselves as these join. What is left to you is a machine that will not come back:
    remove its member, and the group grows back to its number on a machine that has none.
    """


@store.command(
    epilog="""\b
Examples:
  steer store members            a line per member
  steer store members -o json    for scripts
"""
)
@name_option
@data_dir_option
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="Form of the output.")
def members(name: str | None, data_dir: str | None, output: str) -> None:
    """Show each member: id, name, node, address, role, lag and size."""
    import json

    rows = [_row(state) for state in _with_head(name, data_dir, lambda head: head.members())]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    head = ("ID", "NAME", "NODE", "ADDRESS", "ROLE", "LAG", "SIZE")
    table = [head, *((*list(row.values())[:5], str(row["lag"]), f"{row['sizeBytes'] / 2**20:.1f}Mi") for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _row(state: Any) -> dict[str, Any]:
    role = "leader" if state.leads else "learner" if state.learner else "follower"
    if not state.answers:
        role = "does not answer"
    return {
        "id": f"{state.member.id:x}", "name": f"store-{state.member.slot}", "node": state.member.host,
        "address": state.address, "role": f"{role}, leaving" if state.retiring else role, "lag": state.lag,
        "sizeBytes": state.size_bytes, "learner": state.learner,
    }  # fmt: skip


@store.command(
    epilog="""\b
Examples:
  steer store add --node blue    a learner first; it gets its vote when it has caught up
"""
)
@name_option
@data_dir_option
@_wait_option
@click.option("--node", required=True, help="The machine that is to hold it.")
def add(name: str | None, data_dir: str | None, wait_s: float, node: str) -> None:
    """Add a member on a machine; if another machine then holds more than one, one of those leaves."""
    _change(name, data_dir, wait_s, add_on=node)


@store.command(
    epilog="""\b
Examples:
  steer store remove store-2    of a machine that will not come back
"""
)
@name_option
@data_dir_option
@_wait_option
@click.argument("member")
def remove(name: str | None, data_dir: str | None, wait_s: float, member: str) -> None:
    """Take a member (name or id) out of the group, which then grows back to its number where it can."""
    _change(name, data_dir, wait_s, remove=member)


@store.command(
    epilog="""\b
Examples:
  steer store replace store-1 --node blue
"""
)
@name_option
@data_dir_option
@_wait_option
@click.argument("member")
@click.option("--node", required=True, help="The machine that is to hold the new one.")
def replace(name: str | None, data_dir: str | None, wait_s: float, member: str, node: str) -> None:
    """Add a member on a machine, and let another (name or id) go when the new one has its vote."""
    from steersman.pb import keeper_pb2

    _change(name, data_dir, wait_s, replace=keeper_pb2.Replace(member=member, on=node))


@store.command(
    epilog="""\b
Examples:
  steer store transfer store-0    before its present leader's machine is worked on
"""
)
@name_option
@data_dir_option
@click.argument("member")
def transfer(name: str | None, data_dir: str | None, member: str) -> None:
    """Have a member (name or id) lead."""
    _change(name, data_dir, 0, transfer_to=member)


COMMANDS: list[click.Command] = [store]
