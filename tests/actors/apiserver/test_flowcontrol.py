"""Priority and fairness end to end: what the objects say is what happens to requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steersman.actors.apiserver import flowcontrol
from steersman.actors.ports import User
from steersman.cluster.auth.attributes import Attributes

FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"
JANE = User("jane", ("system:authenticated",))
LIST = Attributes("list", "", "", "v1", "pods")


async def until(test: Any) -> None:
    async with asyncio.timeout(10):
        while not await test():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_suggested_objects_are_there_and_say_that_they_fit_together(api: Any) -> None:
    async def told() -> bool:
        return all("status" in row for row in (await api.ok("GET", f"{FLOWS}/flowschemas"))["items"])

    await until(told)
    schemas = await api.ok("GET", f"{FLOWS}/flowschemas")
    assert len(schemas["items"]) == 13
    for schema in schemas["items"]:
        (condition,) = schema["status"]["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == ("Dangling", "False", "Found")
    assert len((await api.ok("GET", f"{FLOWS}/prioritylevelconfigurations"))["items"]) == 8


async def test_an_answer_names_its_flow(api: Any) -> None:
    schema = await api.ok("GET", f"{FLOWS}/flowschemas/global-default")
    level = await api.ok("GET", f"{FLOWS}/prioritylevelconfigurations/global-default")
    response = await api.call("GET", "/version", user=JANE)
    assert response.headers["x-kubernetes-pf-flowschema-uid"] == schema["metadata"]["uid"]
    assert response.headers["x-kubernetes-pf-prioritylevel-uid"] == level["metadata"]["uid"]


async def test_what_the_objects_say_decides_and_a_flood_is_told_to_come_back(api: Any) -> None:
    reject = {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}
    await api.ok("POST", f"{FLOWS}/prioritylevelconfigurations", {"metadata": {"name": "tiny"}, "spec": reject})
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "jane"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version", "/metrics"]}],
    }
    spec = {"priorityLevelConfiguration": {"name": "tiny"}, "matchingPrecedence": 3, "rules": [rule]}
    await api.ok("POST", f"{FLOWS}/flowschemas", {"metadata": {"name": "jane"}, "spec": spec})
    held = api.server._flows.enter(JANE, Attributes("get", "/version"))
    refused = await api.call("GET", "/version", user=JANE)
    assert refused.status == 429 and refused.headers["retry-after"] == "1"
    assert (await api.call("GET", "/metrics", user=JANE)).status == 429, "what is forbidden needs its turn, too"
    await api.ok("GET", "/version", user=User("bob", ("system:authenticated",)))
    api.server._flows.leave(held)
    await api.ok("GET", "/version", user=JANE)
    refused = await api.call("GET", "/metrics", user=JANE)
    assert refused.status == 403 and "x-kubernetes-pf-flowschema-uid" in refused.headers
    await api.ok("DELETE", f"{FLOWS}/prioritylevelconfigurations/tiny")
    response = await api.call("GET", "/version", user=JANE)
    default = await api.ok("GET", f"{FLOWS}/flowschemas/global-default")
    assert response.headers["x-kubernetes-pf-flowschema-uid"] == default["metadata"]["uid"]


async def test_who_waits_goes_on_in_turn_or_gives_up(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flows = api.server._flows
    held = [flows.enter(JANE, LIST) for _ in range(49)]
    patient, hurried = flows.enter(JANE, LIST), flows.enter(JANE, LIST)
    waiting, impatient = asyncio.create_task(flows.wait(patient)), asyncio.create_task(flows.wait(hurried))

    async def both_wait() -> bool:
        return len(flows._waiting) == 2

    await until(both_wait)
    table = await api.call("GET", "/debug/api_priority_and_fairness/dump_priority_levels")
    row = next(line for line in table.body.decode().splitlines() if line.startswith("global-default,"))
    assert [cell.strip() for cell in row.split(",")][4:6] == ["2", "49"]
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    flows.leave(held.pop())
    await waiting
    held.append(patient)
    monkeypatch.setattr(flowcontrol, "WAIT_S", 0.01)
    with pytest.raises(flowcontrol.TooManyRequests):
        await flows.wait(flows.enter(JANE, LIST))
    for ticket in held:
        flows.leave(ticket)
    level = flows.dispatcher.levels["global-default"]
    assert (level.seats, level.waiting, level.active) == (0, 0, 0)


async def test_mandatory_objects_come_back_and_own_changes_to_suggested_ones_stay(
    make_api: Any, make_store: Any
) -> None:
    store = make_store(lambda: 0.0)
    await store.start()
    api = await make_api(store)
    merge = {"content_type": "application/merge-patch+json"}
    levels = f"{FLOWS}/prioritylevelconfigurations"
    patch: Any = {"spec": {"limited": {"nominalConcurrencyShares": 77}}}
    refused = await api.refused(422, "PATCH", f"{levels}/catch-all", patch, **merge)
    assert "spec of 'catch-all' must equal the fixed value" in refused["message"]
    await api.ok("DELETE", f"{levels}/catch-all")
    patch["metadata"] = {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}
    await api.ok("PATCH", f"{levels}/system", patch, **merge)
    await api.server.stop()
    again = await make_api(store)
    shares = {
        row["metadata"]["name"]: row["spec"].get("limited", {}).get("nominalConcurrencyShares")
        for row in (await again.ok("GET", levels))["items"]
    }
    assert (shares["system"], shares["catch-all"]) == (77, 5)
    await again.server.stop()
    await store.stop()
