"""Leader election by a Lease: of several equal components one acts at a time.

A holder that could not renew stops acting before another may begin. Time is measured by each candidate's own clock from
the moment it saw the lease change, so that clocks need not agree.
Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from steersman.actors.client import Client
from steersman.actors.ports import Now
from steersman.cluster.api.components import COMPONENT
from steersman.cluster.meta.errors import AlreadyExists, ApiError, Conflict, NotFound
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import LEASES
from steersman.cluster.meta.times import format_micro_time

#: a lease not renewed for so long may be taken by another
LEASE_S = 15
#: a holder that could not renew for so long stops acting
RENEW_DEADLINE_S = 10.0
RETRY_S = 3.0
NAMESPACE = "kube-system"


class Leadership:
    """Holds, or tries to hold, one Lease.

    Args:
        identity: names this candidate; no two incarnations may share one.
        component: label of the lease, by which API servers know whose it is.
    """

    def __init__(self, client: Client, name: str, identity: str, component: str, now: Now, rng: random.Random) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._labels = {COMPONENT: component}
        self._now = now
        self._rng = rng
        self._renewed_at = float("-inf")
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        #: set while this candidate may act
        self.leading = asyncio.Event()

    @property
    def valid(self) -> bool:
        """Whether a write may be sent now; to be asked right before each."""
        return self.leading.is_set() and self._time() - self._renewed_at < RENEW_DEADLINE_S

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lease {self._name}")

    async def stop(self) -> None:
        """Stops acting and lets go of the lease, so that another takes over at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.leading.is_set():
            self.leading.clear()
            with contextlib.suppress(ApiError, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._release()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RENEW_DEADLINE_S / 2):
                    held = await self._try()
            except (ApiError, OSError, TimeoutError):
                held = self._time() - self._renewed_at < RENEW_DEADLINE_S - RETRY_S
            if held:
                self.leading.set()
            else:
                self.leading.clear()
            await asyncio.sleep(RETRY_S * self._rng.uniform(0.9, 1.1))

    async def _try(self) -> bool:
        """Takes or renews the lease; returns whether it is ours."""
        started = self._time()
        stamp = format_micro_time(self._now())
        try:
            lease = await self._client.get(LEASES, self._name, NAMESPACE)
        except NotFound:
            with contextlib.suppress(AlreadyExists):
                await self._client.create(LEASES, self._fresh(stamp))
                self._renewed_at = started
                return True
            return False
        spec: Obj = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not self._expired(lease):
            return False
        changed = holder != self._identity
        lease["metadata"]["labels"] = {**labels_of(lease), **self._labels}
        lease["spec"] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_S,
            "acquireTime": stamp if changed else spec.get("acquireTime", stamp),
            "renewTime": stamp,
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + int(changed),
        }
        try:
            await self._client.update(LEASES, lease)
        except Conflict:
            return False
        self._renewed_at = started
        return True

    def _expired(self, lease: Obj) -> bool:
        spec = lease["spec"]
        record = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
        if record != self._seen:
            self._seen, self._seen_at = record, self._time()
        return self._time() - self._seen_at > (spec.get("leaseDurationSeconds") or LEASE_S)

    def _fresh(self, stamp: str) -> Obj:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": NAMESPACE, "labels": self._labels},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_S,
                "acquireTime": stamp,
                "renewTime": stamp,
                "leaseTransitions": 0,
            },
        }

    async def _release(self) -> None:
        lease = await self._client.get(LEASES, self._name, NAMESPACE)
        if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            lease["spec"]["holderIdentity"] = ""
            lease["spec"]["leaseDurationSeconds"] = 1
            await self._client.update(LEASES, lease)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
