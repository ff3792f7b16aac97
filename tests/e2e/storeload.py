"""Writers, readers and a watcher of the store, in a thread of their own, and what their history must prove."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from steersman.actors.store.client import StoreClient
from steersman.cluster.store.values import Put, Range, Txn, Unavailable
from tests.sim.linearizable import Action, Moment, Verdict, judge

WRITERS, READERS = 3, 2
#: between two operations of one writer or reader: so many that an outage shows, so few that the judge is quick
PAUSE_S = 0.02


class Load:
    """While it is entered, clients use registers below a prefix, one writer each; afterwards `prove` judges them.

    Args:
        endpoints: `host:port` of members.
        tls: with a certificate that the store lets in.
        prefix: of keys that nobody used before.
    """

    def __init__(self, endpoints: list[str], tls: ssl.SSLContext, prefix: str) -> None:
        self._endpoints, self._tls, self._prefix = endpoints, tls, prefix
        self.history: list[Action] = []
        #: when the writes of each writer were acknowledged
        self.acknowledged_at: list[list[float]] = [[] for _ in range(WRITERS)]
        #: (key, value, revision) as the watcher saw them
        self.seen: list[tuple[bytes, bytes, int]] = []
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="store-load", daemon=True)
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[StoreClient] = []
        #: what was in the registers at the end
        self.final: dict[bytes, bytes] = {}
        self._final_revision = 0

    def __enter__(self) -> Load:
        self._thread.start()
        try:
            self.wait_for_writes(5)
        except BaseException:
            self._ending.set()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(60)
        if error is None and self._failure is not None:
            raise self._failure

    def wait_for_writes(self, count: int, deadline_s: float = 30.0) -> None:
        """Returns when every writer has had so many more writes acknowledged."""
        goals = [len(times) + count for times in self.acknowledged_at]
        end = time.monotonic() + deadline_s
        while any(len(times) < goal for times, goal in zip(self.acknowledged_at, goals, strict=True)):
            assert self._failure is None, self._failure
            assert time.monotonic() < end, f"no {count} writes a writer in {deadline_s:.0f} s through {self._endpoints}"
            time.sleep(0.02)

    def outage_s(self, since: float) -> float:
        """Returns the longest time between two acknowledged writes of one writer after a moment."""
        gaps = [0.0]
        for times in self.acknowledged_at:
            late = [max(moment, since) for moment in times]
            gaps += [after - before for before, after in itertools.pairwise(late)]
        return max(gaps)

    def read(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Returns what is in other registers, as one of the clients reads it."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._read_all(list(keys)), self._loop).result(30)

    async def _read_all(self, keys: list[bytes]) -> dict[bytes, bytes]:
        found = [await self._clients[0].range(Range(key=key)) for key in keys]
        return {key: result.kvs[0].value for key, result in zip(keys, found, strict=True) if result.kvs}

    # in the thread

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        clients = self._clients = [
            StoreClient(self._endpoints, self._tls, timeout_s=15.0) for _ in range(WRITERS + READERS + 1)
        ]
        for client in clients:
            await client.start()
        revision = (await clients[-1].range(Range(key=self._key(0)))).revision
        watch = asyncio.create_task(self._watch(clients[-1], revision + 1))
        try:
            work = [self._write(clients[number], number) for number in range(WRITERS)]
            work += [self._read(clients[WRITERS + number]) for number in range(READERS)]
            await asyncio.gather(*work)
            await self._finish(clients[0])
            async with asyncio.timeout(20):
                while not self.seen or self.seen[-1][2] < self._final_revision:  # noqa: ASYNC110  (no event for it)
                    await asyncio.sleep(0.02)
        except BaseException as error:
            self._failure = error
        finally:
            watch.cancel()
            await asyncio.gather(watch, *(client.stop() for client in clients), return_exceptions=True)

    def _now(self) -> Moment:
        return (time.monotonic(), next(self._numbers))

    def _key(self, number: int) -> bytes:
        return f"{self._prefix}/{number}".encode()

    async def _act(self, action: Action, work: Callable[[], Awaitable[Any]]) -> Any:
        """Records an operation; its outcome stays open when the client cannot tell it."""
        self.history.append(action)
        with suppress(Unavailable):
            result = await work()
            action.returned = self._now()
            return result
        return None

    async def _write(self, client: StoreClient, number: int) -> None:
        key = self._key(number)
        for count in itertools.count(1):
            if self._ending.is_set():
                return
            value = b"%d" % count
            put = Txn(success=(Put(key=key, value=value),))
            if await self._act(Action(writes={key: value}, called=self._now()), lambda put=put: client.txn(put)):
                self.acknowledged_at[number].append(time.monotonic())
            await asyncio.sleep(PAUSE_S)

    async def _read(self, client: StoreClient) -> None:
        for number in itertools.cycle(range(WRITERS)):
            if self._ending.is_set():
                return
            key = self._key(number)
            action = Action(called=self._now())
            with suppress(Unavailable):
                found = await client.range(Range(key=key))
                action.returned = self._now()
                action.seen = {key: found.kvs[0].value if found.kvs else None}
                self.history.append(action)
            await asyncio.sleep(PAUSE_S)

    async def _finish(self, client: StoreClient) -> None:
        """Writes once more, so that the watcher knows when it has seen all, and reads what is there in the end."""
        self._final_revision = (await client.txn(Txn(success=(Put(key=self._key(WRITERS), value=b"end"),)))).revision
        for number in range(WRITERS):
            key = self._key(number)
            action = Action(called=self._now())
            found = await client.range(Range(key=key))
            action.returned, action.seen = self._now(), {key: found.kvs[0].value}
            self.history.append(action)
            self.final[key] = found.kvs[0].value

    async def _watch(self, client: StoreClient, revision: int) -> None:
        prefix = self._prefix.encode()
        async for batch in client.watch(prefix + b"/", prefix + b"0", revision):
            self.seen += [(event.kv.key, event.kv.value, event.kv.mod_revision) for event in batch.events]

    # afterwards

    def prove(self) -> str:
        """Asserts that nothing acknowledged was lost, nothing read was stale and nothing watched was lost, doubled or
        out of order; returns how much there was."""
        verdict, part = judge(self.history)
        assert verdict is Verdict.LINEARIZABLE, f"{verdict}: {part[-20:]}"
        revisions = [revision for _, _, revision in self.seen]
        assert revisions == sorted(set(revisions)), "the watcher saw changes twice or out of order"
        watched: dict[bytes, list[bytes]] = {}
        for key, value, _ in self.seen:
            watched.setdefault(key, []).append(value)
        for key, values in self.final.items():
            acknowledged = {v for a in self.history if a.returned for k, v in a.writes.items() if k == key}
            lost = acknowledged - set(watched[key])
            assert not lost, f"{len(lost)} acknowledged writes of {key!r} were not seen by the watcher: {sorted(lost)}"
            assert len(set(watched[key])) == len(watched[key])
            assert watched[key][-1] == values
        unknown = sum(1 for action in self.history if action.returned is None)
        return f"{len(self.history)} operations ({unknown} of unknown outcome), {len(self.seen)} watched changes"
