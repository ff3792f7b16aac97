"""`/livez`, `/readyz` and `/healthz`, as k8s.io/apiserver/pkg/server/healthz answers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.call import Call, Query
from steersman.actors.apiserver.health import Health
from steersman.actors.http.messages import Request
from steersman.actors.ports import User
from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.store.values import Range, RangeResult, Unavailable, WatchBatch

FIRST = ["[+]ping ok", "[+]log ok", "[+]etcd ok"]


@pytest.mark.parametrize("kind", ["healthz", "livez", "readyz"])
async def test_who_is_well_says_ok_and_more_to_who_asks(api: Any, kind: str) -> None:
    for target in (f"/{kind}", f"/{kind}/ping", f"/{kind}/etcd", f"/{kind}/poststarthook/rbac/bootstrap-roles"):
        answer = await api.call("GET", target)
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    lines = (await api.call("GET", f"/{kind}?verbose", user=None)).body.decode().split("\n")
    assert lines[:3] == FIRST and lines[-2:] == [f"{kind} check passed", ""]
    only_ready = ["[+]etcd-readiness ok", "[+]informer-sync ok", "[+]shutdown ok"]
    assert [line for line in only_ready if line in lines] == (only_ready if kind == "readyz" else [])
    assert (await api.call("GET", f"/{kind}/none")).status == 404
    assert (await api.call("GET", f"/{kind}/ping", user=None)).status == 403


async def test_checks_are_left_out_by_name_and_unknown_names_are_told(api: Any) -> None:
    answer = await api.call("GET", "/livez?verbose&exclude=etcd&exclude=none&exclude=etcd-readiness", user=None)
    lines = answer.body.decode().splitlines()
    assert answer.status == 200 and lines[2] == "[+]etcd excluded: ok"
    assert lines[-2:] == [
        'warn: some health checks cannot be excluded: no matches for "none","etcd-readiness"',
        "livez check passed",
    ]


async def test_a_server_is_ready_at_once_where_nothing_happens(api: Any, make_api: Any) -> None:
    revision = api.server.cache.revision
    await api.store.compact(revision)
    second = await make_api(api.store)
    assert second.server.cache.revision >= revision
    assert (await second.call("GET", "/readyz")).body == b"ok"
    second.server._documents.health.stopping = True
    assert (await second.call("GET", "/readyz/shutdown")).body == b"internal server error: process is shutting down\n"
    assert (
        (await second.call("GET", "/readyz"))
        .body.decode()
        .endswith("[-]shutdown failed: reason withheld\nreadyz check failed\n")
    )
    assert (await second.call("GET", "/livez")).body == b"ok"
    await second.server.stop()


class _Away:
    """A store that has gone."""

    async def range(self, request: Range) -> RangeResult:
        raise Unavailable("no leader")

    async def watch(self, key: bytes, end: bytes, start: int) -> AsyncIterator[WatchBatch]:
        raise Unavailable("no leader")
        yield


async def test_a_store_that_is_away_fails_each_of_them_and_the_reason_is_told_by_its_own_path_only() -> None:
    health = Health(WatchCache(_Away(), random.Random(1)), dict)  # type: ignore[arg-type]

    async def ask(kind: str, only: str = "", query: str = "") -> tuple[int, str]:
        call = Call(Request("GET", f"/{kind}"), Attributes("get", f"/{kind}"), Query(query), User("x"))
        answer = await health(call, kind, only)
        assert answer is not None and isinstance(answer.body, bytes)
        return answer.status, answer.body.decode()

    for kind in ("healthz", "livez", "readyz"):
        status, text = await ask(kind)
        assert status == 500 and "[-]etcd failed: reason withheld\n" in text and text.endswith(f"{kind} check failed\n")
        assert "no leader" not in text
    assert await ask("livez", query="exclude=etcd") == (200, "ok")
    assert await ask("readyz", "etcd-readiness") == (
        500,
        "internal server error: error getting data from etcd: no leader\n",
    )
