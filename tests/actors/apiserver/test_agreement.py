"""What must agree whatever happens: pages and lists, replayed watches and lists, and an answer in every form."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from steersman.cluster.api.protobuf.codec import decode
from steersman.cluster.meta import yamlio

ONE, ALL = "/api/v1/namespaces/default/configmaps", "/api/v1/configmaps"
SELECTORS = (
    "", "labelSelector=a%3D1", "labelSelector=a+in+(1,2)", "labelSelector=!a", "labelSelector=a%21%3D1",
    "fieldSelector=metadata.name%3Dx3", "fieldSelector=metadata.name%21%3Dx3",
    "labelSelector=a&fieldSelector=metadata.namespace%3Dother",
)  # fmt: skip
MERGE = "application/merge-patch+json"
Objects = dict[tuple[str, str], Any]


def keyed(rows: Any) -> Objects:
    return {(row["metadata"]["namespace"], row["metadata"]["name"]): row for row in rows}


async def change(api: Any, rng: random.Random, step: int) -> None:
    """Writes something, or tries to."""
    namespace, name = rng.choice(["default", "other"]), f"x{rng.randrange(8)}"
    many = f"/api/v1/namespaces/{namespace}/configmaps"
    labels = {"a": str(rng.randrange(3))} if rng.random() < 0.7 else {}
    obj = {"metadata": {"name": name, "labels": labels}, "data": {"step": str(step)}}
    match rng.randrange(5):
        case 0 | 1:
            await api.call("POST", many, obj)
        case 2:
            await api.call("PUT", f"{many}/{name}", obj)
        case 3:
            patch = {"metadata": {"labels": {"a": rng.choice(["1", "2", None])}}}
            await api.call("PATCH", f"{many}/{name}", patch, content_type=MERGE)
        case 4:
            await api.call("DELETE", f"{many}/{name}")


async def replayed(watch: Any, state: Objects, until: int) -> Objects:
    """What a watch makes of a list, up to a bookmark of a revision, or an event of it."""
    seen = 0
    while seen < until:
        kind, obj = await watch.next()
        seen = int(obj["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            continue
        (key,) = keyed([obj])
        assert (key in state) is (kind != "ADDED"), (kind, key)
        if kind == "DELETED":
            del state[key]
        else:
            state[key] = obj
    return state


@pytest.mark.parametrize("seed", range(2))
async def test_lists_pages_and_watches_tell_the_same(api: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.watcher.BOOKMARK_S", 0.02)
    rng = random.Random(seed)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    lists, watches = [], []
    for step in range(150):
        await change(api, rng, step)
        if step % 10 == 0:
            target = f"{rng.choice([ONE, ALL])}?{rng.choice(SELECTORS)}"
            found = await api.ok("GET", target)
            revision, state = int(found["metadata"]["resourceVersion"]), keyed(found["items"])
            lists.append((target, revision, state))
            more = f"&watch=1&allowWatchBookmarks=true&resourceVersion={revision}"
            watches.append((target, dict(state), await api.watch(target + more)))
    for target, state, watch in watches:
        found = await api.ok("GET", target)
        async with asyncio.timeout(10):
            assert await replayed(watch, state, api.server.cache.revision) == keyed(found["items"]), target
        await watch.close()
    for target, revision, state in lists:
        for limit in (1, 3, 100):
            assert await paged(api, target, revision, limit) == list(state.values()), (target, limit)


async def paged(api: Any, target: str, revision: int, limit: int) -> list[Any]:
    rows: list[Any] = []
    where = f"resourceVersion={revision}&resourceVersionMatch=Exact"
    while where:
        page = await api.ok("GET", f"{target}&limit={limit}&{where}")
        assert int(page["metadata"]["resourceVersion"]) == revision and len(page["items"]) <= limit
        rows += page["items"]
        token = page["metadata"].get("continue", "")
        where = f"continue={token}" if token else ""
    return rows


def trimmed(value: Any) -> Any:
    """A tree without what protobuf does not tell from nothing."""
    if isinstance(value, dict):
        rest = {key: trimmed(item) for key, item in value.items()}
        return {key: item for key, item in rest.items() if item not in (None, {}, [], "")}
    return [trimmed(item) for item in value] if isinstance(value, list) else value


async def test_an_answer_says_the_same_in_every_form(api: Any) -> None:
    rng = random.Random(3)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    for step in range(30):
        await change(api, rng, step)
    for target in [f"{many}?{selector}" for many in (ONE, ALL) for selector in SELECTORS]:
        found = await api.ok("GET", target)
        assert yamlio.load((await api.call("GET", target, accept="application/yaml")).body) == found
        packed = decode((await api.call("GET", target, accept="application/vnd.kubernetes.protobuf")).body)
        rows = [{k: v for k, v in row.items() if k not in ("apiVersion", "kind")} for row in found["items"]]
        assert trimmed(packed) == trimmed({**found, "items": rows})
        metadata = [row["metadata"] for row in found["items"]]
        for shape, many in (("Table", "rows"), ("PartialObjectMetadataList", "items")):
            made = await api.ok("GET", target, accept=f"application/json;as={shape};g=meta.k8s.io;v=v1")
            assert [row.get("object", row)["metadata"] for row in made[many]] == metadata
