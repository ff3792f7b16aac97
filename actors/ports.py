"""The ports a component is given: each has a real implementer and an in-process one.

A component never looks for the clock, for chance, for the store or for a node by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from steersman.cluster.store.values import Range, RangeResult, Txn, TxnResult, WatchBatch

#: the wall clock: seconds since the Unix epoch, UTC; for dates that somebody reads, and it may be set at any time
Now = Callable[[], float]


def monotonic() -> float:
    """Seconds on the clock that waits are measured by: the event loop's, from an arbitrary beginning.

    No step of the wall clock moves it, and virtual time drives both alike.
    """
    return asyncio.get_running_loop().time()


class Component(Protocol):
    """What the launcher runs: on Ray as an actor, embedded as one of many on a loop.

    The constructor does no I/O; `start` returns when the component serves; `stop` returns when nothing of it is left.
    """

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of an exec, attach or port-forward conversation.

    Args:
        channel: as in `v5.channel.k8s.io`: 0 stdin, 1 stdout, 2 stderr, 3 error (a JSON `v1.Status`, ends the
            conversation), 4 resize (JSON `{"Width": w, "Height": h}`), 255 close (data is the one channel byte closed).
            A port-forward uses 0 (to the pod) and 1 (from the pod).
        data: the bytes.
    """

    channel: int
    data: bytes


class Channel(Protocol):
    """A two-way conversation with a container."""

    async def send(self, frame: Frame) -> None: ...

    async def receive(self) -> Frame | None:
        """Returns the next frame, or None when the other side has ended the conversation."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """Which log lines of a container are wanted (`PodLogOptions`)."""

    namespace: str
    pod: str
    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_s: float | None = None
    since_time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run in a container (`PodExecOptions`), or with no command an attach (`PodAttachOptions`)."""

    namespace: str
    pod: str
    container: str
    command: tuple[str, ...] = ()
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class NodeStreams(Protocol):
    """What the API server asks of one node's agent; over gRPC on Ray, direct when embedded.

    Every method raises `steersman.cluster.meta.errors.ApiError` (NotFound for an unknown pod or container, BadRequest
    for a container that is not running) before the first byte.
    """

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]: ...
    async def exec(self, request: ExecRequest) -> Channel: ...
    async def attach(self, request: ExecRequest) -> Channel: ...
    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel: ...
    async def stats(self) -> dict[str, Any]:
        """Returns the kubelet's `stats/summary` object."""
        ...

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        """Loads an OCI or docker-archive tar into the node's image store; returns the references it carries."""
        ...

    async def list_images(self) -> list[dict[str, Any]]:
        """Returns rows `{"names": [...], "id": "sha256:...", "sizeBytes": n}`."""
        ...


class NodeDirectory(Protocol):
    """Finds the agent of a node."""

    async def connect(self, node: str) -> NodeStreams:
        """Raises ServiceUnavailable when the node is unknown or its agent does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: the outcome of authentication."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stranger(User):
    """Somebody who shows a certificate that nobody vouches for: it is no user's, and its bearer is not just anybody."""


STRANGER = Stranger("")


class Store(Protocol):
    """The cluster's store: the leader's replica itself, or a client of the group.

    Every method may raise `steersman.cluster.store.values.StoreError`.
    """

    async def range(self, request: Range) -> RangeResult: ...
    async def txn(self, request: Txn) -> TxnResult:
        """Returns when the transaction is durable on a quorum and applied."""
        ...

    def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        """Yields every change in `[key, range_end)` from `start_revision` on, with previous values.

        With `start_revision=0` it begins after the present revision; the first batch (perhaps empty) says which
        revision has been reached. Progress (an empty batch) comes at least every 5 s while nothing changes.
        Raises `Compacted` when the revision is gone.
        """
        ...

    async def compact(self, revision: int) -> None: ...
    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int: ...
    async def lease_revoke(self, lease: int) -> None: ...
    async def lease_keep_alive(self, lease: int) -> int:
        """Returns the remaining time in seconds; raises LeaseNotFound."""
        ...

    def backup(self) -> AsyncIterator[bytes]:
        """Yields the pieces of a backup of the present state (see `actors.store.backup`)."""
        ...
