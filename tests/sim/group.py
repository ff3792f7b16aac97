"""The members of a simulated store: each a machine with a disk, on which processes come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from tests.sim.disk import Disk, Lanes
from tests.sim.faults import Fault, Faults
from tests.sim.history import Broken
from tests.sim.network import Network
from tests.sim.process import Place, Process

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.disk import DataDamaged, DataDirForeign, DiskFailure
from steersman.actors.store.filedisk import FileDisk
from steersman.actors.store.replica import REMOVED, Replica
from steersman.actors.store.settings import ReplicaSettings
from steersman.cluster.store.values import Unavailable, WatchBatch

T = TypeVar("T")
Reads = Literal["lease", "read-index"]

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
        rotten: the file of its disk that is not what was written; None when all are.
        dies_at: the point at which its next process dies; None for never.
        past: the processes that have died on it.
    """

    def __init__(self, member: int, group: Group, peers: Mapping[int, str]) -> None:
        self.member, self.peers = member, peers
        self.disk = Disk(group.rng, group.faults)
        self.process: Process | None = None
        self.replica: Replica | None = None
        self.refusal: Exception | None = None
        self.leaves = False
        self.rotten: Path | None = None
        self.dies_at: int | None = None
        self._group = group
        self.past: list[Process] = []
        #: of its disk, when the present process began
        self._troubles_before = 0

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.alive

    def crash(self) -> None:
        if self.process is not None:
            self._group.faults[Fault.DEATH] += 1
            self.process.die()

    def rot(self) -> Path | None:
        """Crashes, and turns a bit of a snapshot or of a segment that is no longer written; returns which.

        None is returned when there is no such file.
        """
        self.crash()
        files = [*self.files("wal")[:-2], *self.files("snap")]
        if not files:
            return None
        self.rotten = self._group.rng.choice(files)
        self.disk.rot(self.rotten, self._group.rng.randrange(8 * self.disk.size(self.rotten)))
        return self.rotten

    def files(self, kind: Literal["wal", "snap"]) -> list[Path]:
        """Its segments or snapshots, in order."""
        names = self.disk.names(DIRECTORY / kind)
        return [DIRECTORY / kind / name for name in names if name.endswith(f".{kind}")]

    @property
    def trouble(self) -> str | None:
        """Why its replica goes on no more, or did not start; None when it is well."""
        if self.refusal is not None:
            return str(self.refusal)
        return self.replica.failure if self.replica is not None else None

    @property
    def is_excused(self) -> bool:
        """Whether its trouble comes from something that was done to it, and from nothing else."""
        told, name = self.trouble or "", f"s{self.member}"
        if isinstance(self.refusal, ConnectionResetError):
            return not self.is_up  # it died while it started
        if isinstance(self.refusal, DataDamaged | DataDirForeign):
            return self.rotten is not None and str(self.rotten) in told
        if told == REMOVED.format(name):
            return self.leaves
        is_of_disk = isinstance(self.refusal, OSError) or told.startswith(f"store member {name}: the disk failed: ")
        return is_of_disk and self.disk.troubles > self._troubles_before

    def _died(self, process: Process) -> None:
        self.past.append(process)
        self.process = self.disk.process = self.replica = None
        self.disk.crash()
        self._group.died(self)

    def bugs(self) -> list[BaseException]:
        """What no process may come across."""
        return [bug for process in (*self.past, self.process) if process is not None for bug in process.bugs]

    async def start(self) -> None:
        """Returns when the member serves, or has refused to, or has died of it.

        Raises:
            Broken: damage of its disk went unnoticed.
        """
        group = self._group
        rate = 1 + group.rng.uniform(-DRIFT_MAX, DRIFT_MAX)
        process = Process(group.world, group.rng, group.faults, rate=rate, on_death=self._died)
        self.process = self.disk.process = process
        process.points_left, self.dies_at = self.dies_at, None
        self.refusal, self._troubles_before = None, self.disk.troubles
        replica = group.make(self, process)
        try:
            await process.spawn(replica.start)
        except (DiskFailure, OSError) as error:
            self.refusal = error
            process.die()
        else:
            if self.rotten is not None and self.disk.exists(self.rotten):
                raise Broken(f"member {self.member} starts although {self.rotten} is not what was written")
            self.replica = replica


class Group:
    """The members and what joins them.

    Args:
        reads: `lease` or `read-index`; drawn by chance where not given.

    Attributes:
        settings, segment_bytes: of all members that are started from now on.
        answered: called with the member that has answered a client, before the client knows.
        died: called with a member whose process has died.
    """

    def __init__(self, world: VirtualTimeLoop, rng: random.Random, *, reads: Reads | None = None) -> None:
        self.world, self.rng = world, rng
        self.faults = Faults()
        self.network = Network(rng, self.faults)
        self.segment_bytes = SEGMENT_BYTES
        self.settings = replace(SETTINGS, reads=reads or rng.choice(("lease", "read-index")))
        self.machines = {
            member: Machine(member, self, {founder: f"m{founder}" for founder in FOUNDERS}) for member in FOUNDERS
        }
        #: those that were removed
        self.former: list[Machine] = []
        self.answered: Callable[[Machine], None] = lambda _: None
        self.died: Callable[[Machine], None] = lambda _: None

    def make(self, machine: Machine, process: Process) -> Replica:
        member = machine.member
        return Replica(
            name=f"s{member}", member_id=member, peers=machine.peers,
            disk=FileDisk(
                DIRECTORY, files=machine.disk, workers=Lanes(process), segment_bytes=self.segment_bytes,
                reserve_bytes=RESERVE_BYTES,
            ),
            transport=self.network.transport(member, process), rng=random.Random(self.rng.random()),
            settings=self.settings,
        )  # fmt: skip

    def next_member(self) -> int:
        """Returns an id that no member has had."""
        return len(self.machines) + len(self.former) + 1

    def install(self, member: int, peers: Mapping[int, str]) -> None:
        """Sets up a machine for a member that was added; whoever looks after machines starts it."""
        self.machines[member] = Machine(member, self, peers)

    def retire(self, machine: Machine) -> None:
        """Takes a machine away whose member was removed."""
        if machine.process is not None:
            machine.process.die()
        self.former.append(self.machines.pop(machine.member))
        self.faults[Fault.MEMBER_REPLACED] += 1

    def close(self) -> None:
        """Ends everything, so that nothing goes on when nobody looks."""
        for machine in self.machines.values():
            if machine.process is not None:
                machine.process.die()
        self.world.close()

    @property
    def died_at(self) -> set[Place]:
        """Each `await` in which a process died."""
        machines = (*self.former, *self.machines.values())
        return {place for machine in machines for process in machine.past for place in process.died_at}

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
