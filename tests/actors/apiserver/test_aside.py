"""Work beside the loop: what it may ask the loop for, and what becomes of it when nobody waits any longer."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import Any

import orjson
import pytest

from steersman.actors.apiserver.aside import aside, at_home
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.http.messages import Request
from steersman.actors.ports import User

here: ContextVar[str] = ContextVar("here", default="nowhere")


def _where() -> tuple[str, str]:
    return threading.current_thread().name, here.get()


async def test_work_is_done_elsewhere_and_what_it_asks_for_at_home_in_the_context_of_the_one_who_waits() -> None:
    token = here.set("there")
    try:
        there, home = await aside(lambda: (_where(), at_home(_where)))
    finally:
        here.reset(token)
    assert there[0].startswith("aside") and there[1] == "there"
    assert home == (threading.current_thread().name, "there")
    assert at_home(_where) == (threading.current_thread().name, "nowhere")


async def test_what_goes_wrong_at_home_is_told_to_the_work_and_to_the_one_who_waits() -> None:
    def work() -> None:
        at_home({}.__getitem__, "key")

    with pytest.raises(KeyError):
        await aside(work)


async def test_work_that_nobody_waits_for_is_not_answered_and_ends() -> None:
    begun, go_on, outcome = threading.Event(), threading.Event(), list[object]()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        try:
            outcome.append(at_home(_where))
        except CancelledError as error:
            outcome.append(error)

    waiting = asyncio.create_task(aside(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await aside(lambda: "next") == "next"
    assert len(outcome) == 1 and isinstance(outcome[0], CancelledError)


def test_under_virtual_time_it_is_done_at_once() -> None:
    loop = VirtualTimeLoop()
    try:
        assert loop.run_until_complete(aside(_where)) == (threading.current_thread().name, "nowhere")
    finally:
        loop.close()


@pytest.mark.parametrize("size_bytes", [10, 100_000], ids=["at home", "aside"])
async def test_a_write_of_a_transaction_sees_what_the_others_come_to(api: Any, size_bytes: int) -> None:
    """The pod's service account is looked up, its namespace's ranges of resources are listed."""
    limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "70m"}}]}
    pod = {"annotations": {"a": "x" * size_bytes}, "name": "p"}
    team = "/api/v1/namespaces/team"
    writes = {
        "/api/v1/namespaces": {"metadata": {"name": "team"}},
        f"{team}/serviceaccounts": {"metadata": {"name": "default"}},
        f"{team}/limitranges": {"metadata": {"name": "l"}, "spec": limits},
        f"{team}/pods": {"metadata": pod, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    user, headers = User("root", ("system:masters",)), {"content-type": "application/json"}
    requests = [Request("POST", target, headers, orjson.dumps(body), user) for target, body in writes.items()]
    made = [orjson.loads(body) for _, body in await api.server.transact(requests)]
    assert made[3]["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "70m"}}
    assert made[3]["spec"]["serviceAccountName"] == "default"
