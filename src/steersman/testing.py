"""A whole cluster inside a test, ready in a moment, without Ray, root or containers.

    with steersman.testing.cluster(nodes=3) as c:
        c.run(c.client.create(PODS, pod, "default"))
        subprocess.run(["kubectl", "--kubeconfig", c.kubeconfig, "get", "pods"])

    with steersman.testing.simulation(nodes=100, seed=7) as c:     # an hour of cluster time costs seconds
        c.run(asyncio.sleep(3600))
        print(c.history[-1])

`cluster` runs in real time on a thread of its own and listens on loopback; `simulation` runs under virtual time, only
while `run` is called, and gives the same `history` for the same program and seed. Pytest finds the fixture `cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from steersman.actors import collector, kubeconfig
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.client import Client
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.embedded import EmbeddedCluster, fresh_key, simulated_node
from steersman.actors.ports import Now
from steersman.actors.store.disk import MemoryDisk
from steersman.cluster.config import SimulatedNodes
from steersman.cluster.control.spec import ControlSettings
from steersman.cluster.store.values import WatchBatch
from steersman.runtime.pki import FRONT_PROXY, FRONT_PROXY_CA, Authority, Identity

T = TypeVar("T")

#: how long a call into a cluster in real time may take
_CALL_S_MAX = 120.0


class Cluster:
    """A running cluster.

    Attributes:
        client: an administrator's client; its calls go through `run`.
        embedded: the components.
        history: one line per change of the store: time, put or delete, key.
    """

    def __init__(self, embedded: EmbeddedCluster, loop: asyncio.AbstractEventLoop, kubeconfig: Path | None) -> None:
        self.embedded = embedded
        self.client: Client = embedded.client
        self.history: list[str] = []
        self._loop = loop
        self._kubeconfig = kubeconfig

    @property
    def kubeconfig(self) -> Path:
        """Path of an administrator's kubeconfig, for kubectl and other clients of a cluster in real time."""
        if self._kubeconfig is None:
            raise RuntimeError("a simulated cluster listens on no socket")
        return self._kubeconfig

    def run(self, work: Awaitable[T]) -> T:
        """Runs a coroutine inside the cluster and returns its result."""

        async def call() -> T:
            return await work

        if isinstance(self._loop, VirtualTimeLoop):
            return self._loop.run_until_complete(call())
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_CALL_S_MAX)

    async def record(self, now: Now) -> None:
        """Writes the history for as long as it runs."""
        async for batch in self.embedded.store.watch(b"/registry/", b"/registry0", 1):
            self.history.extend(_lines(batch, now()))


def _lines(batch: WatchBatch, now: float) -> Iterator[str]:
    for event in batch.events:
        what = "delete" if event.deleted else "put"
        yield f"{now:.3f} {what} {event.kv.key.decode()} {event.kv.mod_revision} {len(event.kv.value)}"


@contextlib.contextmanager
def cluster(
    *, nodes: int = 1, shape: SimulatedNodes | None = None, seed: int = 0, **behaviour: Any
) -> Iterator[Cluster]:
    """A cluster in real time with simulated nodes, listening on a free loopback port.

    Args:
        shape: CPUs, memory and pods of each node.
        behaviour: of the simulated runtime, as `start_delay_s=0.2`.
    """
    directory = Path(tempfile.mkdtemp(prefix="steersman-"))
    authority = Authority(directory)
    authority.ensure()
    serving = authority.issue(Identity(file="api", common_name="kube-apiserver", hosts=("127.0.0.1", "localhost")))
    proxies = Authority(directory, FRONT_PROXY_CA)
    proxies.ensure()
    proxy = proxies.issue(Identity(file=FRONT_PROXY, common_name=FRONT_PROXY))
    api = ApiServerConfig(
        port=0,
        grpc_port=0,
        tls_cert=serving.cert.read_bytes(),
        tls_key=serving.key.read_bytes(),
        client_ca=serving.ca.read_bytes(),
        client_ca_key=authority.key.read_bytes(),
        service_account_key=authority.service_account_key.read_bytes(),
        proxy_ca=proxies.ca.read_bytes(),
        proxy_cert=proxy.cert.read_bytes(),
        proxy_key=proxy.key.read_bytes(),
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="steersman", daemon=True)
    thread.start()
    embedded = _embedded(api, nodes, shape, seed, time.time, behaviour)
    running = Cluster(embedded, loop, directory / "kubeconfig")
    try:
        running.run(embedded.start())
        _write_kubeconfig(running.kubeconfig, authority, f"https://127.0.0.1:{embedded.api.port}")
        recording = asyncio.run_coroutine_threadsafe(running.record(time.time), loop)
        try:
            with collector.relaxed():
                yield running
        finally:
            recording.cancel()
    finally:
        running.run(embedded.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def simulation(
    *, nodes: int = 1, shape: SimulatedNodes | None = None, seed: int = 0, **behaviour: Any
) -> Iterator[Cluster]:
    """A cluster under virtual time: it runs only inside `run`, and the same seed gives the same history."""
    loop = VirtualTimeLoop()
    api = ApiServerConfig(port=None, service_account_key=fresh_key())
    embedded = _embedded(api, nodes, shape, seed, loop.now, behaviour)
    running = Cluster(embedded, loop, None)
    try:
        running.run(embedded.start())
        recording = loop.create_task(running.record(loop.now))
        try:
            with collector.relaxed():
                yield running
        finally:
            recording.cancel()
    finally:
        running.run(embedded.stop())
        loop.close()


def _embedded(
    api: ApiServerConfig, nodes: int, shape: SimulatedNodes | None, seed: int, now: Now, behaviour: dict[str, Any]
) -> EmbeddedCluster:
    rng = random.Random(seed)
    parts = [
        simulated_node(f"node-{index}", shape or SimulatedNodes(), api, now=now, rng=rng, **behaviour)
        for index in range(nodes)
    ]
    settings = ControlSettings(root_ca=api.client_ca.decode() or "a simulated cluster has no certificates")
    return EmbeddedCluster(api=api, disk=MemoryDisk(), nodes=parts, now=now, rng=rng, settings=settings)


def _write_kubeconfig(path: Path, authority: Authority, server: str) -> None:
    admin = authority.issue(Identity(file="admin", common_name="kubernetes-admin", organizations=("system:masters",)))
    path.write_text(kubeconfig.render("test", server, admin))
