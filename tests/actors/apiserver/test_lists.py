"""How fresh gets and lists are, and how a list is read in pages: the semantics of resourceVersion and continue."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steersman.cluster.store.values import Range, Unavailable, WatchBatch

MAPS = "/api/v1/namespaces/default/configmaps"
ALL_MAPS = "/api/v1/configmaps"
TEMPLATES = "/api/v1/namespaces/default/podtemplates"
OWN = "labelSelector=own"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"own": "yes"}}, "data": data}


def names(found: dict[str, Any]) -> list[str]:
    return [row["metadata"]["name"] for row in found["items"]]


def version(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def write(api: Any, *wanted: str) -> int:
    """Creates config maps; returns the revision of the last one."""
    return max([version(await api.ok("POST", MAPS, config_map(name))) for name in wanted])


# ---- how fresh


async def test_a_list_is_as_old_as_it_is_asked_to_be(api: Any) -> None:
    first = await write(api, "a", "b")
    await api.ok("DELETE", f"{MAPS}/a")
    last = await write(api, "c", "d")
    cases = {
        "": (["b", "c", "d"], None),
        "resourceVersion=0": (["b", "c", "d"], None),
        "resourceVersion=0&limit=1": (["b", "c", "d"], None),
        "resourceVersion=0&resourceVersionMatch=NotOlderThan": (["b", "c", "d"], None),
        f"resourceVersion={first}": (["b", "c", "d"], None),
        f"resourceVersion={first}&resourceVersionMatch=NotOlderThan": (["b", "c", "d"], None),
        f"resourceVersion={first}&resourceVersionMatch=NotOlderThan&limit=9": (["b", "c", "d"], None),
        f"resourceVersion={first}&resourceVersionMatch=Exact": (["a", "b"], first),
        f"resourceVersion={first}&limit=9": (["a", "b"], first),
        f"resourceVersion={first}&limit=1": (["a"], first),
        f"resourceVersion={last}&resourceVersionMatch=Exact": (["b", "c", "d"], last),
    }
    for query, (wanted, revision) in cases.items():
        found = await api.ok("GET", f"{MAPS}?{OWN}&{query}")
        assert names(found) == wanted, query
        assert version(found) == revision if revision else version(found) >= last, query
    for query in ("", "?resourceVersion=0", f"?resourceVersion={first}"):
        assert version(await api.ok("GET", f"{MAPS}/d{query}")) == last


@pytest.mark.parametrize(
    ("query", "again_s"),
    [
        ("resourceVersion=999999", 1),
        ("resourceVersion=999999&resourceVersionMatch=NotOlderThan", 1),
        ("resourceVersion=999999&resourceVersionMatch=Exact", 0),
        ("resourceVersion=999999&limit=5", 0),
    ],
)
async def test_a_version_that_does_not_exist_yet_is_told(
    api: Any, query: str, again_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.cache.REACH_S", 0.01)
    response = await api.call("GET", f"{MAPS}?{query}")
    status = await api.refused(504, "GET", f"{MAPS}?{query}")
    current = api.server.cache.revision
    assert status["message"] == f"Timeout: Too large resource version: 999999, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    assert (status["reason"], status["details"]["causes"]) == ("Timeout", [cause])
    assert status["details"].get("retryAfterSeconds", 0) == again_s
    assert response.headers.get("retry-after", "0") == str(again_s)


async def test_what_one_server_has_written_another_shows(api: Any, make_api: Any) -> None:
    other = await make_api(api.store)
    for n in range(20):
        writer, reader = (api, other) if n % 2 else (other, api)
        made = await writer.ok("POST", MAPS, config_map(f"c{n:02}"))
        assert await reader.ok("GET", f"{MAPS}/c{n:02}") == made
        assert names(await reader.ok("GET", f"{MAPS}?{OWN}"))[-1] == f"c{n:02}"
        await writer.ok("DELETE", f"{MAPS}/c{n:02}")
        assert names(await reader.ok("GET", f"{MAPS}?{OWN}")) == []
    await other.server.stop()


# ---- in pages


async def test_pages_show_one_revision_while_it_is_written(api: Any) -> None:
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    total, rng = 40, random.Random(5)
    for n in range(total):
        await api.ok("POST", TEMPLATES, {"metadata": {"name": f"t-{n:04}"}, **spec})
    for writes in (False, True):
        found: list[str] = []
        token, revision = "", 0
        while True:
            limit = rng.randint(1, total // 10)
            page = await api.ok("GET", f"{TEMPLATES}?limit={limit}&continue={token}")
            assert len(page["items"]) <= limit and (revision or version(page)) == version(page)
            found, revision = found + names(page), version(page)
            meta = page["metadata"]
            if "continue" not in meta:
                assert "remainingItemCount" not in meta
                break
            assert len(found) + meta["remainingItemCount"] == total
            token = meta["continue"]
            if writes:
                await api.ok("DELETE", f"{TEMPLATES}/{found[-1]}")
                await api.ok("POST", TEMPLATES, {"metadata": {"name": f"{found[-1]}-new"}, **spec})
        assert found == [f"t-{n:04}" for n in range(total)]
    assert any(name.endswith("-new") for name in names(await api.ok("GET", f"{TEMPLATES}?limit=400")))


@pytest.mark.parametrize("target", [MAPS, ALL_MAPS])
@pytest.mark.parametrize("selector", [OWN, "fieldSelector=metadata.name!%3Dzz"])
async def test_pages_of_a_selection_tell_no_remaining_count(api: Any, target: str, selector: str) -> None:
    await write(api, *"abcde", "zz")
    page = await api.ok("GET", f"{target}?{selector}&limit=2")
    names_found = names(page)
    while "continue" in page["metadata"]:
        assert "remainingItemCount" not in page["metadata"]
        await api.ok("PUT", f"{MAPS}/a", config_map("a", n=page["metadata"]["continue"]))
        page = await api.ok("GET", f"{target}?{selector}&limit=2&continue={page['metadata']['continue']}")
        names_found += names(page)
    assert [name for name in names_found if len(name) == 1] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("target", [MAPS, ALL_MAPS])
async def test_a_forgotten_page_comes_with_a_token_that_goes_on_with_what_is_now(api: Any, target: str) -> None:
    await write(api, *"abcdef")
    first = await api.ok("GET", f"{target}?{OWN}&limit=2")
    token = first["metadata"]["continue"]
    await api.ok("DELETE", f"{MAPS}/c")
    last = await write(api, "bb", "g")
    await api.store.compact(last)
    status = await api.refused(410, "GET", f"{target}?{OWN}&limit=2&continue={token}")
    assert status["reason"] == "Expired"
    assert status["message"].startswith(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response"
    )
    token = status["metadata"]["continue"]
    await write(api, "h")
    second = await api.ok("GET", f"{target}?{OWN}&limit=3&continue={token}")
    assert names(second) == ["bb", "d", "e"] and version(second) > last
    await api.ok("DELETE", f"{MAPS}/f")
    third = await api.ok("GET", f"{target}?{OWN}&limit=9&continue={second['metadata']['continue']}")
    assert names(third) == ["f", "g", "h"] and version(third) == version(second), "the rest is consistent again"
    status = await api.refused(410, "GET", f"{target}?resourceVersion={version(first)}&resourceVersionMatch=Exact")
    assert status["message"] == "The resourceVersion for the provided list is too old."


async def test_a_page_survives_compaction_where_nothing_has_changed(api: Any) -> None:
    await write(api, *"abc")
    page = await api.ok("GET", f"{MAPS}?limit=2")
    secret = await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}})
    await api.store.compact(version(secret))
    rest = await api.ok("GET", f"{MAPS}?limit=2&continue={page['metadata']['continue']}")
    assert version(rest) == version(page) and names(page) + names(rest) == ["a", "b", "c"]


# ---- when the store is away


class Broken:
    """A store that can be made to answer nothing, and to have forgotten what its watch asks for."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_away = self.is_deaf = False
        self.watches = 0
        self._watching: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def range(self, request: Range) -> Any:
        if self.is_away:
            raise Unavailable("no leader")
        return await self._store.range(request)

    async def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        self.watches += 1
        if self.is_away or self.is_deaf:
            raise Unavailable("no leader")
        async for batch in self._store.watch(key, range_end, start_revision):
            if self.is_away or self.is_deaf:
                raise Unavailable("no leader")
            yield batch


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_without_the_store_what_is_known_is_shown_to_those_alone_whom_it_suffices(
    make_store: Any, make_api: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.cache.RETRY_S", 0.01)
    monkeypatch.setattr("steersman.actors.apiserver.cache.RETRY_MAX_S", 0.02)
    plain = make_store(lambda: 0.0)
    await plain.start()
    store = Broken(plain)
    api, other = await make_api(store), await make_api(plain)
    await write(other, "a")
    assert names(await api.ok("GET", f"{MAPS}?{OWN}")) == ["a"]
    heard: list[tuple[str, str]] = []
    shelf = api.server.cache.shelf("/registry/core/configmaps/")
    shelf.listeners.append(lambda event: heard.append((event.type, event.entry.key)))
    watch = await api.watch(f"{MAPS}?watch=1&{OWN}&resourceVersion={api.server.cache.revision}")
    caplog.clear()
    store.is_away = True
    await write(other, "b")
    await other.ok("DELETE", f"{MAPS}/a")
    await plain.compact(await write(other, "c"))
    await until(lambda: store.watches > 5)
    for query in ("resourceVersion=0", f"resourceVersion={version(await other.ok('GET', f'{MAPS}/b')) - 1}"):
        assert names(await api.ok("GET", f"{MAPS}?{OWN}&{query}")) == ["a"]
    with monkeypatch.context() as hurried:
        hurried.setattr("steersman.actors.apiserver.cache.FRESH_S", 0.05)
        for target in (MAPS, f"{MAPS}/a", f"{MAPS}?watch=1"):
            assert (await api.refused(504, "GET", target))["reason"] == "Timeout"
    assert len([row for row in caplog.records if "cannot be followed" in row.message]) == 1
    store.is_away = False
    assert names(await api.ok("GET", f"{MAPS}?{OWN}")) == ["b", "c"]
    assert sorted(heard) == [("ADDED", "default/b"), ("ADDED", "default/c"), ("DELETED", "default/a")]
    with pytest.raises(StopAsyncIteration):
        await watch.next()
    made = await api.ok("POST", MAPS, config_map("d"))
    await until(lambda: heard[-1] == ("ADDED", "default/d"))
    assert version(made) == api.server.cache.revision and "is followed again" in caplog.text
    for server in (api.server, other.server, plain):
        await server.stop()


async def test_a_server_that_cannot_follow_the_store_says_how_far_behind_it_is(
    make_store: Any, make_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_store(lambda: 0.0)
    await plain.start()
    store = Broken(plain)
    api, other = await make_api(store), await make_api(plain)
    await write(other, "a")
    await api.ok("GET", f"{MAPS}/a")
    store.is_deaf = True
    newest = await write(other, "b")
    with monkeypatch.context() as hurried:
        hurried.setattr("steersman.actors.apiserver.cache.FRESH_S", 0.05)
        for target in (MAPS, f"{MAPS}/b", f"{MAPS}?limit=1"):
            status = await api.refused(504, "GET", target)
            current = api.server.cache.revision
            assert status["message"] == f"Timeout: Too large resource version: {newest}, current: {current}"
            assert current < newest and status["details"]["retryAfterSeconds"] == 1
        kind, status = await (await api.watch(f"{MAPS}?watch=1")).next()
        assert (kind, status["code"]) == ("ERROR", 504)
    assert names(await api.ok("GET", f"{MAPS}?{OWN}&resourceVersion=0")) == ["a"]
    store.is_deaf = False
    assert names(await api.ok("GET", f"{MAPS}?{OWN}")) == ["a", "b"]
    for server in (api.server, other.server, plain):
        await server.stop()
