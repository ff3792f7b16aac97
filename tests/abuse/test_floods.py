"""Floods of requests: by one user, by nobody, with tokens that are none."""

from __future__ import annotations

import asyncio
import base64

import orjson
from tests.abuse.conftest import MAPS, Abuse
from tests.abuse.victim import Victim
from tests.abuse.wire import Wire, wires

#: holds a seat for as long as the server waits for a revision that never comes
WAITS = f"{MAPS}?resourceVersion=99999999999"


async def test_one_user_who_floods_is_told_to_wait_and_keeps_nobody_from_their_turn(
    victim: Victim, abuse: Abuse
) -> None:
    """The flow's queues hold 300 and its level has about 100 seats; jane shares that, a node has its own."""
    served: list[float] = []

    async def node_asks(wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            status, _, _ = await wire.call("GET", "/api/v1/nodes/n1")
            assert status == 404
            served.append(loop.time() - began)
            await asyncio.sleep(0.1)

    async with (
        abuse(growth_mib=60),
        wires(victim.port, victim.tls("node")) as (node,),
        wires(victim.port, victim.tls("mallory"), 500) as flood,
    ):
        asking = asyncio.create_task(node_asks(node))
        calls = [asyncio.create_task(wire.call("GET", WAITS)) for wire in flood]
        answers = []
        async with asyncio.timeout(20):
            for call in asyncio.as_completed(calls):
                answers.append(await call)
                if len(answers) > 150 and len(served) > 10:
                    break
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        asking.cancel()
        (outcome,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {429, 504} and statuses.count(429) > 50
        refused = next(row for row in answers if row[0] == 429)
        assert refused[1]["retry-after"] == "1" and "x-kubernetes-pf-flowschema-uid" in refused[1]
        assert len(served) > 5 and sorted(served)[len(served) // 2] < 1.0


async def test_tokens_that_are_none_are_refused_and_forgotten(victim: Victim, abuse: Abuse) -> None:
    def token(number: int) -> str:
        issuer = "https://kubernetes.default.svc.cluster.local"
        claims = {"iss": issuer, "sub": "system:serviceaccount:default:default", "n": number, "x": "y" * 20_000}
        parts = ({"alg": "ES256", "kid": "none"}, claims)
        body = ".".join(base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in parts)
        return f"{body}.{'A' * 86}"

    async def guess(wire: Wire, first: int) -> None:
        for number in range(first, first + 100):
            text = token(number) if number % 2 else f"abcdef.{number:016d}"
            status, headers, _ = await wire.call("GET", MAPS, authorization=f"Bearer {text}")
            assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="kubernetes"')

    async with abuse(growth_mib=60), wires(victim.port, victim.tls(), 8) as guessing:
        await asyncio.gather(*(guess(wire, 1000 * number) for number, wire in enumerate(guessing)))


async def test_names_that_nobody_knows_do_not_fill_the_metrics(victim: Victim, abuse: Abuse) -> None:
    async def ask(wire: Wire, first: int) -> None:
        for number in range(first, first + 800):
            status, _, _ = await wire.call("GET", f"/apis/group-{number}/v1/kinds-{number}/a/b{number}")
            assert status == 403

    async with abuse(growth_mib=60), wires(victim.port, victim.tls("nobody"), 8) as asking:
        await asyncio.gather(*(ask(wire, 1000 * number) for number, wire in enumerate(asking)))
    async with wires(victim.port, victim.tls("admin"), limit=1 << 24) as (admin,):
        status, _, page = await admin.call("GET", "/metrics")
        assert status == 200 and b"group-7" not in page and len(page) < 1 << 20
