"""Watches from every start, in every form and over every wire, as the API's documentation promises them."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import orjson
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.actors.ports import User

MAPS = "/api/v1/namespaces/default/configmaps"
WATCHED = f"{MAPS}?watch=1&labelSelector=own"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
END = {"k8s.io/initial-events-end": "true"}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"own": "yes"}}, "data": data}


def version(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def write(api: Any, *wanted: str) -> int:
    return max([version(await api.ok("POST", MAPS, config_map(name))) for name in wanted])


async def seen(watch: Any, count: int) -> list[tuple[str, str]]:
    """The next events: type, and name or the mark of the end of the first state."""
    found = [await watch.next() for _ in range(count)]
    return [
        (kind, "end" if obj["metadata"].get("annotations") == END else obj["metadata"].get("name", ""))
        for kind, obj in found
    ]


MATCH = "resourceVersionMatch=NotOlderThan"
#: what a watch tells of the objects `a` and `b`, and of `c`, which is created afterwards
STARTS = {
    "": ["a", "b", "c"],
    "&allowWatchBookmarks=true": ["a", "b", "end", "c"],
    "&resourceVersion=0": ["a", "b", "c"],
    "&resourceVersion=0&allowWatchBookmarks=true": ["a", "b", "end", "c"],
    f"&sendInitialEvents=true&{MATCH}": ["a", "b", "c"],
    f"&sendInitialEvents=true&{MATCH}&allowWatchBookmarks=true": ["a", "b", "end", "c"],
    f"&sendInitialEvents=true&{MATCH}&allowWatchBookmarks=true&resourceVersion=0": ["a", "b", "end", "c"],
    f"&sendInitialEvents=true&{MATCH}&allowWatchBookmarks=true&resourceVersion=FIRST": ["a", "b", "end", "c"],
    f"&sendInitialEvents=false&{MATCH}&allowWatchBookmarks=true": ["c"],
    f"&sendInitialEvents=false&{MATCH}&resourceVersion=0": ["c"],
    f"&sendInitialEvents=false&{MATCH}&resourceVersion=FIRST": ["b", "c"],
    "&resourceVersion=FIRST&allowWatchBookmarks=true": ["b", "c"],
    "&resourceVersion=LAST": ["c"],
}


@pytest.mark.parametrize("query", STARTS)
async def test_a_watch_begins_where_it_is_asked_to(api: Any, query: str) -> None:
    first, last = await write(api, "a"), await write(api, "b")
    await api.ok("GET", MAPS)  # so that the server knows of both
    watch = await api.watch(WATCHED + query.replace("FIRST", str(first)).replace("LAST", str(last)))
    made = await write(api, "c")
    wanted = STARTS[query]
    found = []
    for name in wanted:
        kind, obj = await watch.next()
        found.append("end" if obj["metadata"].get("annotations") == END else obj["metadata"]["name"])
        assert kind == ("BOOKMARK" if name == "end" else "ADDED")
        assert name != "end" or last <= version(obj) < made
        assert name != "end" or set(obj) == {"kind", "apiVersion", "metadata"}
    assert found == wanted
    await watch.close()


async def test_a_watch_of_a_version_to_come_tells_what_happens_behind_it(api: Any) -> None:
    now = await write(api, "a")
    async with asyncio.timeout(2):
        watch = await api.watch(f"{WATCHED}&resourceVersion={now + 2}")
    assert api.server.watches.open == 1
    for name in "bcde":
        await write(api, name)
    assert await seen(watch, 2) == [("ADDED", "d"), ("ADDED", "e")]
    await watch.close()
    late = await api.watch(f"{WATCHED}&resourceVersion={now + 999}")
    await late.close()
    assert api.server.watches.open == 0 and not api.server.watches._early


async def test_a_state_that_is_not_here_in_time_is_told_as_an_event(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.cache.REACH_S", 0.01)
    watch = await api.watch(f"{WATCHED}&sendInitialEvents=true&{MATCH}&resourceVersion=999999")
    kind, status = await watch.next()
    assert (kind, status["code"], status["details"]["retryAfterSeconds"]) == ("ERROR", 504, 1)
    assert status["message"].startswith("Timeout: Too large resource version: 999999, current: ")
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_a_forgotten_version_is_told_in_the_words_that_clients_look_for(api: Any) -> None:
    last = await write(api, "a", "b")
    shelf = api.server.cache.shelf("/registry/core/configmaps/")
    shelf.floor = last
    for accept in ("application/json", TABLE):
        kind, status = await (await api.watch(f"{WATCHED}&resourceVersion={last - 1}", accept=accept)).next()
        assert kind == "ERROR" and status == {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
            "message": f"too old resource version: {last - 1} ({last})",
        }  # fmt: skip


async def test_a_watch_goes_on_at_another_server_and_at_one_that_has_just_begun(api: Any, make_api: Any) -> None:
    start = await write(api, "a")
    await write(api, "b")
    await api.ok("DELETE", f"{MAPS}/a")
    other = await make_api(api.store)
    watch = await other.watch(f"{WATCHED}&resourceVersion={start}")
    await write(api, "c")
    assert await seen(watch, 3) == [("ADDED", "b"), ("DELETED", "a"), ("ADDED", "c")]
    await watch.close()
    await other.server.stop()


async def test_watches_of_the_same_objects_see_the_same_in_the_same_order(api: Any) -> None:
    first = await api.watch(WATCHED)

    async def writer(name: str) -> None:
        await write(api, name)
        for n in range(3):
            await api.ok("PATCH", f"{MAPS}/{name}", {"data": {"n": str(n)}}, content_type=MERGE)
        await api.ok("DELETE", f"{MAPS}/{name}")

    await asyncio.gather(*map(writer, "abcd"))
    events = [await first.next() for _ in range(20)]
    versions = [version(obj) for _, obj in events]
    assert versions == sorted(set(versions))
    for index in range(0, 20, 3):
        later = await api.watch(f"{WATCHED}&resourceVersion={versions[index]}")
        assert [version((await later.next())[1]) for _ in range(19 - index)] == versions[index + 1 :]
        await later.close()
    await first.close()


async def test_a_deleted_object_is_shown_as_it_was_at_the_version_of_its_end(api: Any) -> None:
    await write(api, "a")
    watch = await api.watch(f"{WATCHED}&sendInitialEvents=false&{MATCH}")
    await api.ok("DELETE", f"{MAPS}/a")
    after = await write(api, "b")
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["name"], obj["metadata"]["labels"]) == ("DELETED", "a", {"own": "yes"})
    assert version(obj) == after - 1
    await watch.close()


# ---- which requests are watches


@pytest.mark.parametrize("query", ["watch", "watch=1", "watch=true", "watch=True", "watch=yes"])
async def test_a_list_is_watched_when_it_says_so(api: Any, query: str) -> None:
    await write(api, "a")
    watch = await api.watch(f"{MAPS}?labelSelector=own&{query}")
    assert await seen(watch, 1) == [("ADDED", "a")]
    await watch.close()


@pytest.mark.parametrize("query", ["watch=0", "watch=false", "watch=FALSE"])
async def test_a_list_is_a_list_when_it_says_so(api: Any, query: str) -> None:
    assert (await api.ok("GET", f"{MAPS}?{query}"))["kind"] == "ConfigMapList"


async def test_one_object_is_watched_by_selector_or_by_the_older_path(api: Any) -> None:
    older = MAPS.replace("/v1/", "/v1/watch/")
    await write(api, "a", "b")
    targets = [f"{MAPS}?watch=1&fieldSelector=metadata.name%3Db", f"{older}/b",
               f"{older}/b?fieldSelector=metadata.name%3Db"]  # fmt: skip
    watches = [await api.watch(target) for target in targets]
    await api.ok("PATCH", f"{MAPS}/a", {"data": {"n": "1"}}, content_type=MERGE)
    await api.ok("DELETE", f"{MAPS}/b")
    for watch in watches:
        assert await seen(watch, 2) == [("ADDED", "b"), ("DELETED", "b")]
        await watch.close()
    everything = await api.watch(f"{older}?labelSelector=own")
    assert await seen(everything, 1) == [("ADDED", "a")]
    await everything.close()
    assert (await api.ok("GET", f"{MAPS}/a?watch=1"))["kind"] == "ConfigMap", "an object is got, not watched"
    status = await api.refused(400, "GET", f"{older}/b?fieldSelector=metadata.name%3Da")
    assert status["message"] == "fieldSelector metadata.name doesn't match requested name"
    assert (await api.refused(405, "POST", older, {}))["reason"] == "MethodNotAllowed"


# ---- bookmarks


async def test_a_bookmark_never_runs_ahead_of_changes_that_wait_to_be_converted(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.watcher.BOOKMARK_S", 0.02)
    start = await write(api, "a")
    watch = await api.watch(f"{WATCHED}&resourceVersion={start}&allowWatchBookmarks=true")
    shelf = api.server.cache.shelf("/registry/core/configmaps/")
    shelf.told = start + 1
    for n in range(3):
        await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": f"s{n}"}})
    kind, obj = await watch.next()
    assert (kind, version(obj)) == ("BOOKMARK", start + 1)
    await api.ok("GET", MAPS)  # so that the server knows of all three
    shelf.told = None
    kind, obj = await watch.next()
    assert (kind, version(obj)) == ("BOOKMARK", start + 3)
    await watch.close()


# ---- over a WebSocket


class Socket:
    """A browser's end of a watch."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = Connection(ConnectionType.CLIENT)
        self._messages: list[Any] = []

    @classmethod
    async def open(cls, port: int, target: str, protocols: str, accept: str = "*/*") -> tuple[Socket, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [
            f"GET {target} HTTP/1.1", "host: x", "connection: Upgrade", "upgrade: websocket",
            f"accept: {accept}", "sec-websocket-version: 13",
            f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
            *([f"sec-websocket-protocol: {protocols}"] if protocols else []),
        ]  # fmt: skip
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return cls(reader, writer), (await reader.readuntil(b"\r\n\r\n")).decode()

    async def next(self) -> Any:
        """The next message: text as it is, None for the end."""
        async with asyncio.timeout(10):
            while not self._messages:
                self._connection.receive_data(await self._reader.read(65536) or None)
                self._messages += self._connection.events()
        message = self._messages.pop(0)
        assert isinstance(message, TextMessage | CloseConnection)
        return message.data if isinstance(message, TextMessage) else None

    def close(self) -> None:
        self._writer.write(self._connection.send(CloseConnection(code=1000)))

    def drop(self) -> None:
        self._writer.close()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("", ""),
        ("base64.binary.k8s.io", "base64.binary.k8s.io"),
        ("base64url.bearer.authorization.k8s.io.Zm9v, base64.binary.k8s.io", "base64.binary.k8s.io"),
    ],
)
async def test_a_browser_watches_over_a_websocket(api: Any, offered: str, chosen: str) -> None:
    async def as_admin(request: Request) -> Response:
        request.user = User("admin", ("system:masters",))
        return await api.server(request)

    await write(api, "a", "b")
    server = HttpServer(as_admin, host="127.0.0.1", port=0)
    await server.start()
    socket, head = await Socket.open(server.port, WATCHED, offered)
    assert head.startswith("HTTP/1.1 101") and (f"Sec-WebSocket-Protocol: {chosen}\r\n" in head) is bool(chosen)
    lines = [await socket.next() for _ in range(2)]
    assert [orjson.loads(line)["object"]["metadata"]["name"] for line in lines] == ["a", "b"]
    await write(api, "c")
    assert orjson.loads(await socket.next())["type"] == "ADDED"
    api.server.cache.shelf("/registry/core/configmaps/").floor = 5
    ended, _ = await Socket.open(server.port, f"{WATCHED}&resourceVersion=4", offered)
    assert orjson.loads(await ended.next())["object"]["code"] == 410
    assert await ended.next() is None, "the end is a close of the socket"
    dropped, _ = await Socket.open(server.port, WATCHED, offered)
    assert api.server.watches.open == 2
    packed, head = await Socket.open(server.port, WATCHED, offered, "application/vnd.kubernetes.protobuf")
    assert head.startswith("HTTP/1.1 406"), "a message is a line of text"
    packed.drop()
    socket.close()
    dropped.drop()
    async with asyncio.timeout(5):
        while api.server.watches.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await server.stop()
