"""What the shell offers while a command is being typed: kinds, and names of objects when a cluster answers quickly."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from click.shell_completion import CompletionItem

#: completion must never make the prompt wait
TIMEOUT_S = 2.0


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes `TYPE NAME` and `TYPE/NAME`."""
    given: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    try:
        words = asyncio.run(_within(_words(ctx, given, incomplete)))
    except Exception:  # a shell's completion has nowhere to report an error: it offers nothing
        return []
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


async def _within(work: Any) -> list[str]:
    async with asyncio.timeout(TIMEOUT_S):
        found: list[str] = await work
    return found


async def _words(ctx: click.Context, given: tuple[str, ...], incomplete: str) -> list[str]:
    from steersman.cli.options import NAMES, settings
    from steersman.cli.session import Session, connect

    chosen = settings(ctx, {name: ctx.params.get(name) for name in NAMES})
    session = Session(connect, chosen)
    try:
        kinds = await session.kinds()
        kind, slash, _ = incomplete.partition("/")
        if not given and not slash:
            return sorted({row.resource.plural for row in kinds.all if "get" in row.verbs})
        resource = kinds.find(kind if slash else given[0]).resource
        found = await session.client.list(resource, session.scope(resource), limit=500)
        return [f"{kind}/" * bool(slash) + obj["metadata"]["name"] for obj in found.items]
    finally:
        await session.close()
