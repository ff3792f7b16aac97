"""A whole cluster in this process, asked as the conformance suite asks one: over the API, as an administrator."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from steersman import testing
from steersman.actors.embedded import ADMIN
from steersman.actors.http.messages import Request, Response
from steersman.actors.ports import User

#: how long a state may be waited for
WAIT_S_MAX = 30.0
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class Watch:
    """The events of a watch, one at a time."""

    def __init__(self, house: House, stream: Any) -> None:
        self._house = house
        self._stream = stream
        self._lines: list[bytes] = []

    def next(self) -> tuple[str, Any]:
        async def read() -> None:
            async with asyncio.timeout(WAIT_S_MAX):
                while not self._lines:
                    self._lines = (await self._stream.__anext__()).splitlines()

        if not self._lines:
            self._house.cluster.run(read())
        event = orjson.loads(self._lines.pop(0))
        return event["type"], event["object"]

    def until(self, kind: str, wanted: Callable[[Any], bool] = lambda _obj: True) -> Any:
        """Passes over events until one of a kind has the object that is wanted; returns it."""
        while True:
            found, obj = self.next()
            if found == kind and wanted(obj):
                return obj

    def close(self) -> None:
        self._house.cluster.run(self._stream.aclose())


class House:
    """A cluster, and how it is asked."""

    def __init__(self, cluster: testing.Cluster) -> None:
        self.cluster = cluster
        #: the namespaces that the present test made
        self.spaces: list[str] = []
        self._numbers = itertools.count()

    def call(self, method: str, target: str, body: Any = None, *, user: User = ADMIN, **headers: str) -> Response:
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        names.setdefault("content-type", MERGE if method == "PATCH" else "application/json")
        request = Request(method, target, {"user-agent": "e2e/1", **names}, data, user)
        return self.cluster.run(self.cluster.embedded.api(request))

    def ok(self, method: str, target: str, body: Any = None, **more: Any) -> Any:
        """The decoded answer, which must be a success."""
        response = self.call(method, target, body, **more)
        assert isinstance(response.body, bytes)
        assert response.status < 300, f"{method} {target}: {response.body.decode()}"
        return orjson.loads(response.body)

    def refused(self, code: int, method: str, target: str, body: Any = None, **more: Any) -> Any:
        """The decoded Status, which must have this code."""
        response = self.call(method, target, body, **more)
        assert isinstance(response.body, bytes)
        assert response.status == code, f"{method} {target}: {response.status} {response.body.decode()}"
        found = orjson.loads(response.body)
        assert found["kind"] == "Status" and found["code"] == code
        return found

    def watch(self, target: str) -> Watch:
        response = self.call("GET", target)
        assert response.status == 200, response.body
        return Watch(self, response.body)

    def until(self, target: str, wanted: Callable[[Any], Any]) -> Any:
        """Waits until what a target shows is as wanted (None: it is not there); returns it."""
        deadline = time.monotonic() + WAIT_S_MAX
        while True:
            response = self.call("GET", target)
            assert isinstance(response.body, bytes)
            found = orjson.loads(response.body) if response.status == 200 else None
            if (found is not None or response.status == 404) and wanted(found):
                return found
            assert time.monotonic() < deadline, f"{target} stays {found}"
            time.sleep(0.02)

    def gone(self, target: str) -> None:
        """Waits until nothing is at a target."""
        self.until(target, lambda found: found is None)

    def namespace(self, **meta: Any) -> str:
        """A new namespace whose service account is there; returns its name."""
        name = f"e2e-{next(self._numbers)}"
        self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name, **meta}})
        self.spaces.append(name)
        self.until(f"/api/v1/namespaces/{name}/serviceaccounts/default", lambda found: found is not None)
        return name


@pytest.fixture(scope="session")
def shared() -> Iterator[House]:
    with testing.cluster(nodes=2) as cluster:
        yield House(cluster)


@pytest.fixture
def house(shared: House) -> Iterator[House]:
    """The cluster that all tests share; what a test leaves there goes with its namespaces: a node holds 110 pods."""
    yield shared
    while shared.spaces:
        shared.call("DELETE", f"/api/v1/namespaces/{shared.spaces.pop()}")


@pytest.fixture
def space(house: House) -> str:
    """A namespace of the test's own."""
    return house.namespace()
