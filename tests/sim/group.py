"""The members of a simulated store: each a machine with a disk, on which processes come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tests.sim.disk import Disk, Lanes
from tests.sim.network import Network
from tests.sim.process import Process

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.disk import DataDamaged, DiskFailure
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.cluster.store.values import Unavailable, WatchBatch

T = TypeVar("T")

FOUNDERS = (1, 2, 3)
#: clocks run at most so much too fast or too slow
DRIFT_MAX = 0.04
SETTINGS = ReplicaSettings(
    tick_s=0.02, heartbeat_ticks=2, election_ticks=10, request_timeout_s=0.8, snapshot_entries=25, kept_entries=8,
    retention_s=0.0,
)  # fmt: skip
#: of a file of the log: small, so that logs rotate in a short story
SEGMENT_BYTES = 3000
DIRECTORY = Path("/data")
RESERVE_BYTES = 4000


class Machine:
    """One member: its disk, and the process that runs on it now.

    Attributes:
        replica: None while none serves.
        refusal: why the last start failed; None when it did not.
        leaves: its removal from the group has been asked for.
        rotten: a file of its disk is not what was written.
    """

    def __init__(self, member: int, group: Group, peers: Mapping[int, str]) -> None:
        self.member, self.peers = member, peers
        self.disk = Disk(group.rng)
        self.disk.on_power_loss = self.crash
        self.process: Process | None = None
        self.replica: Replica | None = None
        self.refusal: Exception | None = None
        self.leaves = self.rotten = False
        self._group = group
        self._past: list[Process] = []

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.alive

    def crash(self) -> None:
        if self.process is not None:
            self.process.die()

    def rot(self) -> Path | None:
        """Crashes, and turns a bit of a snapshot or of a segment that is no longer written; None when there is none."""
        self.crash()
        segments, snapshots = (
            [DIRECTORY / kind / name for name in self.disk.names(DIRECTORY / kind)] for kind in ("wal", "snap")
        )
        files = [*segments[:-2], *(path for path in snapshots if path.suffix == ".snap")]
        if not files:
            return None
        file = self._group.rng.choice(files)
        self.disk.rot(file, self._group.rng.randrange(self.disk.size(file)))
        self.rotten = True
        return file

    @property
    def may_refuse(self) -> bool:
        """Whether its last start failed for a reason that is none of the store's mistakes."""
        if isinstance(self.refusal, DataDamaged):
            return self.rotten
        return self.leaves or isinstance(self.refusal, OSError)

    def _died(self, process: Process) -> None:
        self._past.append(process)
        self.process = self.replica = None
        self.disk.crash()

    def bugs(self) -> list[BaseException]:
        """What no process may come across."""
        return [bug for process in (*self._past, self.process) if process is not None for bug in process.bugs]

    async def start(self) -> None:
        """Returns when the member serves, or has refused to, or has died of it."""
        group = self._group
        rate = 1 + group.rng.uniform(-DRIFT_MAX, DRIFT_MAX)
        process = Process(group.world, group.rng, rate=rate, on_death=self._died)
        self.process, self.refusal = process, None
        replica = group.make(self, process)
        try:
            await process.spawn(replica.start)
        except (DiskFailure, OSError) as error:
            self.refusal = error
            process.die()
        else:
            self.replica = replica


class Group:
    """The members and what joins them.

    Attributes:
        answered: called with the member that has answered a client, before the client knows.
    """

    def __init__(self, world: VirtualTimeLoop, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.network = Network(rng)
        self._settings = replace(SETTINGS, reads=rng.choice(("lease", "read-index")))
        self.machines = {
            member: Machine(member, self, {founder: f"m{founder}" for founder in FOUNDERS}) for member in FOUNDERS
        }
        #: those that were removed
        self.former: list[Machine] = []
        self.answered: Callable[[Machine], None] = lambda _: None

    def make(self, machine: Machine, process: Process) -> Replica:
        member = machine.member
        return Replica(
            name=f"s{member}", member_id=member, peers=machine.peers,
            disk=FileDisk(
                DIRECTORY, files=machine.disk, workers=Lanes(process), segment_bytes=SEGMENT_BYTES,
                reserve_bytes=RESERVE_BYTES,
            ),
            transport=self.network.transport(member, process), rng=random.Random(self.rng.random()),
            settings=self._settings,
        )  # fmt: skip

    def next_member(self) -> int:
        """Returns an id that no member has had."""
        return len(self.machines) + len(self.former) + 1

    def install(self, member: int, peers: Mapping[int, str]) -> None:
        """Sets up a machine for a member that was added; whoever looks after machines starts it."""
        self.machines[member] = Machine(member, self, peers)

    def retire(self, machine: Machine) -> None:
        """Takes a machine away whose member was removed."""
        machine.crash()
        self.former.append(self.machines.pop(machine.member))

    def up(self) -> list[Machine]:
        return [machine for _, machine in sorted(self.machines.items()) if machine.replica is not None]

    def leader(self) -> Machine | None:
        """The member that believes to lead in the newest term."""
        leading = [
            machine
            for machine in self.up()
            if (replica := machine.replica) is not None and replica.failure is None and replica.is_leader
        ]
        return max(leading, key=lambda machine: machine.replica.status().term, default=None)  # type: ignore[union-attr]

    async def call(self, member: int, work: Callable[[Replica], Awaitable[T]]) -> T:
        """A client's call: the way there, the work in the member's process, the way back.

        Raises:
            Unavailable: no answer came; whether the work was done is unknown.
        """
        network, machine = self.network, self.machines.get(member)
        await asyncio.sleep(network.delay())
        if machine is None:
            raise Unavailable("the machine is gone")
        process, replica = machine.process, machine.replica
        if process is None or replica is None:
            raise Unavailable("nobody answers")

        async def ask() -> T:
            return await work(replica)

        try:
            async with asyncio.timeout(1.5):
                result = await process.spawn(ask)
        except (ConnectionResetError, TimeoutError) as error:
            raise Unavailable(str(error)) from None
        self.answered(machine)
        await asyncio.sleep(network.delay())
        return result

    async def open_watch(self, member: int, key: bytes, end: bytes, start: int) -> Callable[[], Awaitable[WatchBatch]]:
        """Opens a watch at a member; what is returned waits for the next batch, and raises Unavailable at its death."""

        async def opened(replica: Replica) -> AsyncIterator[WatchBatch]:
            return replica.watch(key, end, start)

        stream = await self.call(member, opened)
        machine = self.machines.get(member)
        process = machine.process if machine is not None else None

        async def following() -> WatchBatch:
            return await anext(stream)

        async def following_here() -> WatchBatch:
            if process is None:
                raise Unavailable("the process died")
            try:
                return await process.spawn(following)
            except ConnectionResetError as error:
                raise Unavailable(str(error)) from None

        return following_here
