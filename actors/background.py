"""Tells whether a component's background work still runs: a task that failed is a bug, and must not go unseen."""

from __future__ import annotations

import asyncio


def failure_of(*tasks: asyncio.Task[None] | None) -> str:
    """Returns what ended one of these tasks unforeseen, in words; empty while all is well."""
    for task in tasks:
        if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
            return f"{task.get_name()} failed: {type(error).__name__}: {error}"
    return ""
