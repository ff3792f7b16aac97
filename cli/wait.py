"""`steer wait`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click

from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.objects import Located, Selection, select
from steersman.cli.session import Session, api_command
from steersman.cli.waiting import DURATION, until
from steersman.cluster.meta.errors import NotFound, not_found
from steersman.cluster.meta.jsonpath import JsonPath, JsonPathError, printed, relaxed
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer wait pod/web-1 --for=condition=Ready --timeout=60s
steer wait deployment web --for=condition=Available
steer wait pods -l app=web --for=delete
steer wait pod/web-1 --for=jsonpath='{.status.phase}'=Running
"""

_FOR = "condition=NAME[=VALUE], jsonpath=PATH=VALUE, create or delete"
#: objects watched at the same time
_WATCHES_MAX = 64
#: whether an object is as wanted; None stands for one that is gone
Test = Callable[[Obj | None], bool]


@api_command("wait", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE NAME...", shell_complete=complete_targets)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Wait for what these manifests name.")
@click.option(
    "--for",
    "condition",
    required=True,
    metavar="CONDITION",
    help=_FOR,
)
@click.option("--timeout", type=DURATION, default=30.0, metavar="TIME", help="How long; negative for a week.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels.")
@click.option("--field-selector", default="", metavar="SELECTOR", help="By fields.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
async def wait(
    session: Session,
    what: tuple[str, ...],
    files: tuple[str, ...],
    condition: str,
    timeout: float,
    selector: str,
    field_selector: str,
    everything: bool,
    everywhere: bool,
) -> None:
    """Wait until objects meet a condition, exist or are gone."""
    reached = parse_condition(condition)
    chosen = Selection(
        words=what,
        files=files,
        label_selector=selector,
        field_selector=field_selector,
        all=everything,
        everywhere=everywhere,
    )
    found = await select(session, chosen)
    if not found:
        if condition == "delete":
            return
        raise failed("no matching resources found")
    limit = timeout if timeout >= 0 else 7 * 86400.0
    room = asyncio.Semaphore(_WATCHES_MAX)
    outcomes = await asyncio.gather(*(_one(session, where, condition, reached, limit, room) for where in found))
    late = [where for where, done in zip(found, outcomes, strict=True) if not done]
    if late:
        lines = [f"timed out waiting for the condition on {w.resource.plural}/{w.name}" for w in late]
        raise failed("\nerror: ".join(lines))


async def _one(
    session: Session, where: Located, condition: str, reached: Test, timeout_s: float, room: asyncio.Semaphore
) -> bool:
    """Waits for one object; False when the time is up."""
    if condition not in ("delete", "create"):
        await session.client.get(where.resource, where.name, where.namespace)

    def test(obj: Obj | None) -> bool:
        if obj is None and condition not in ("delete", "create"):
            raise not_found(where.resource.plural, where.name, where.resource.group)
        return reached(obj)

    try:
        async with asyncio.timeout(max(timeout_s, 0.05)), room:
            await until(session, where.resource, where.namespace, where.name, test)
    except TimeoutError:
        return False
    except NotFound:
        if condition != "delete":
            raise
    click.echo(f"{where.reference} {'deleted' if condition == 'delete' else 'condition met'}")
    return True


def parse_condition(text: str) -> Test:
    """Reads the value of `--for`.

    Raises:
        Failed: it has none of the known forms.
    """
    kind, _, rest = text.partition("=")
    match kind:
        case "delete":
            return lambda obj: obj is None
        case "create":
            return lambda obj: obj is not None
        case "condition" if rest:
            name, equals, value = rest.partition("=")
            return lambda obj: _has(obj, name, value if equals else "true")
        case "jsonpath" if rest:
            return _jsonpath(rest)
    raise failed(f"unrecognized condition: {text!r}; write condition=NAME, jsonpath=PATH=VALUE, create or delete")


def _has(obj: Obj | None, name: str, value: str) -> bool:
    status = (obj or {}).get("status") or {}
    seen = status.get("observedGeneration")
    if seen is not None and seen < ((obj or {})["metadata"].get("generation") or 0):
        return False
    rows = status.get("conditions") or ()
    return any(
        row.get("type", "").lower() == name.lower() and row.get("status", "").lower() == value.lower() for row in rows
    )


def _jsonpath(text: str) -> Test:
    close = text.rfind("}")
    path, equals, value = (
        (text[: close + 1], *text[close + 1 :].partition("=")[1:]) if close >= 0 else text.partition("=")
    )
    try:
        parsed = JsonPath(relaxed(path.strip("'\"")))
    except JsonPathError as error:
        raise failed(f"error parsing jsonpath {path}: {error}") from None
    wanted = value.strip("'\"")

    def test(obj: Obj | None) -> bool:
        found = parsed.values(obj) if obj is not None else []
        return bool(found) and (not equals or any(printed(item) == wanted for item in found))

    return test


COMMANDS = [wait]
