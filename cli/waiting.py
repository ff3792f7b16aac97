"""Waiting until an object is as wanted, by watching it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import click

from steersman.cli.errors import failed
from steersman.cli.session import Session
from steersman.cluster.meta.errors import Expired
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource
from steersman.cluster.meta.times import human_duration

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: a pause before a watch that ended at once is asked for again
_AGAIN_S = 0.2


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`30s`, `5m`, `1h30m` or plain seconds, as a number of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text, total, number = str(value), 0.0, ""
        try:
            return float(text)
        except ValueError:
            pass
        rest = text.removeprefix("-")
        if not rest:
            self.fail("a duration is missing; write 30s, 5m or 1h", param, ctx)
        while rest:
            digits = len(rest) - len(rest.lstrip("0123456789."))
            number, rest = rest[:digits], rest[digits:]
            unit = next((u for u in _UNITS if rest.startswith(u)), None)
            if not number or unit is None:
                self.fail(f"{text!r} is no duration; write 30s, 5m or 1h", param, ctx)
            total += float(number) * _UNITS[unit]
            rest = rest[len(unit) :]
        return -total if text.startswith("-") else total


DURATION = Duration()


async def states(session: Session, resource: Resource, scope: str | None, name: str) -> AsyncIterator[Obj | None]:
    """Yields the object now and after each change; None while there is none."""
    selector = f"metadata.name={name}"
    while True:
        page = await session.client.list(resource, scope, field_selector=selector)
        yield page.items[0] if page.items else None
        version = page.resource_version
        with contextlib.suppress(Expired):
            while True:
                events = session.client.watch(resource, scope, resource_version=version, field_selector=selector)
                async for kind, obj in events:
                    version = obj["metadata"].get("resourceVersion", version)
                    if kind != "BOOKMARK":
                        yield None if kind == "DELETED" else obj
                await asyncio.sleep(_AGAIN_S)


async def until(
    session: Session, resource: Resource, scope: str | None, name: str, reached: Callable[[Obj | None], bool]
) -> Obj | None:
    """Returns the object as soon as it is as wanted."""
    async with contextlib.aclosing(states(session, resource, scope, name)) as found:  # type: ignore[type-var]
        async for obj in found:
            if reached(obj):
                return obj
    return None


async def until_gone(session: Session, resource: Resource, scope: str | None, name: str, uid: str) -> None:
    """Returns when the object with this uid is no more."""
    await until(session, resource, scope, name, lambda obj: obj is None or obj["metadata"].get("uid") != uid)


@contextlib.asynccontextmanager
async def deadline(timeout_s: float | None, what: str) -> AsyncIterator[None]:
    """Ends the command when the time is up; 0 or None waits for ever."""
    try:
        async with asyncio.timeout(timeout_s or None):
            yield
    except TimeoutError:
        raise failed(f"timed out after {human_duration(timeout_s or 0)} waiting for {what}") from None
