"""One story of a store's group: a seed tells what clients ask, what breaks and when; in the end all is judged.

python -m tests.sim --seed 17
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Callable, Sequence
from unittest import mock

from tests.sim.clients import Clients
from tests.sim.faults import Fault
from tests.sim.group import Group, Machine
from tests.sim.history import Broken, Witness
from tests.sim.judging import check
from tests.sim.process import THREAD_S
from tests.sim.replacing import Operator

from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.store.replica import Replica
from steersman.cluster.raft import leadership
from steersman.cluster.raft.leadership import LAGGING_BYTES_MAX
from steersman.cluster.store.snapshot import encode

#: how long things break
STORY_S = 3.0
#: of so many stories one replaces members
REPLACED_EVERY = 3
#: after the last repair: how long the members may need to agree, and every lease to end
PEACE_S = 20.0
#: more letters in a story are a storm
LETTERS_MAX = 15_000


class Story:
    """What happens under one seed."""

    def __init__(self, world: VirtualTimeLoop, seed: int, story_s: float = STORY_S) -> None:
        self._rng = random.Random(seed)
        self.world, self._story_s = world, story_s
        self.group = Group(world, self._rng)
        self.clients = Clients(self.group, self._rng)
        self._operator = Operator(self.group, self._rng, self._tell) if seed % REPLACED_EVERY == 0 else None
        #: how this story likes to break things: some faults often, others never
        self._weights = [self._rng.choice((0, 0, 1, 1, 4)) for _ in self._faults()]
        #: how much of the log a leader keeps for members that lag: little, so that they need snapshots, or plenty
        self._kept_bytes = self._rng.choice((0, 500, LAGGING_BYTES_MAX))
        self._over = False
        self.told: list[str] = []

    async def run(self) -> Witness:
        """Lives the story.

        Raises:
            Broken: a promise was broken; the message says which.
        """
        with mock.patch.object(leadership, "LAGGING_BYTES_MAX", self._kept_bytes):
            await self._live()
        return self._judge()

    async def _live(self) -> None:
        group, clients = self.group, self.clients
        await asyncio.gather(*(machine.start() for machine in group.machines.values()))
        async with asyncio.TaskGroup() as keepers, asyncio.TaskGroup() as watchers:
            supervisor = keepers.create_task(self._supervise())
            watchers.create_task(clients.watch(clients.watches[0]))
            async with asyncio.TaskGroup() as users:
                for work in clients.works():
                    users.create_task(work)
                users.create_task(self._disturb())
                if self._operator is not None:
                    users.create_task(self._operator.work())
                await asyncio.sleep(self._story_s)
                self._over = clients.over = True
                self._repair()
            clients.last_revision = await self._agree()
            supervisor.cancel()

    # what breaks

    def _faults(self) -> list[Callable[[], None]]:
        return [
            self._crash, self._crash_at_a_point, self._crash_at_a_disk_call, self._cut_all_power, self._part,
            self._part, self._lose_letters, self._heal, self._freeze, self._jump, self._slow_down, self._break_disk,
            self._fill_disk, self._freeze_the_leader, self._crash_at_an_answer, self._crash_in_a_snapshot,
            self._pause,
        ]  # fmt: skip

    async def _disturb(self) -> None:
        faults = self._faults()
        weights = self._weights if any(self._weights) else [1] * len(faults)
        while not self._over:
            await asyncio.sleep(self._rng.uniform(0, 0.5))
            if not self._over:
                self._rng.choices(faults, weights)[0]()

    def _tell(self, text: str) -> None:
        self.told.append(f"{self.world.time():7.3f} {text}")

    def _victim(self) -> Machine | None:
        """A member that runs, the leader more often than others."""
        leader, up = self.group.leader(), self.group.up()
        if leader is not None and self._rng.random() < 0.5:
            return leader
        return self._rng.choice(up) if up else None

    def _crash(self) -> None:
        if (machine := self._victim()) is not None:
            self._tell(f"crash {machine.member}")
            machine.crash()

    def _crash_at_a_point(self) -> None:
        if (machine := self._victim()) is not None and machine.process is not None:
            machine.process.points_left = self._rng.randrange(150)
            self._tell(f"crash {machine.member} in {machine.process.points_left} steps, letters and calls of its disk")

    def _crash_at_a_disk_call(self) -> None:
        if (machine := self._victim()) is not None:
            machine.disk.calls_left = self._rng.randrange(12)
            self._tell(f"crash {machine.member} in {machine.disk.calls_left} calls of its disk")

    def _crash_at_an_answer(self) -> None:
        """The leader, or all, just after something was acknowledged."""
        everybody = self._rng.random() < 0.3

        def answered(machine: Machine) -> None:
            self.group.answered = lambda _: None
            for victim in self.group.up() if everybody else dict.fromkeys((machine, self.group.leader() or machine)):
                self._tell(f"crash {victim.member} at an answer")
                victim.crash()

        self.group.answered = answered

    def _crash_in_a_snapshot(self) -> None:
        if (machine := self._victim()) is not None:
            self._tell(f"crash {machine.member} in its next snapshot or segment")
            machine.disk.doomed = (self._rng.choice((".snap.tmp", ".wal")), self._rng.randrange(8))

    def _cut_all_power(self) -> None:
        self._tell("crash all")
        self.group.faults[Fault.POWER_CUT] += 1
        for machine in self.group.up():
            machine.crash()

    def _part(self) -> None:
        if (machine := self._victim()) is not None:
            inward, outward = self._rng.choice(((True, True), (True, False), (False, True)))
            self._tell(f"cut off {machine.member} inward={inward} outward={outward}")
            self.group.network.isolate(machine.member, self.group.machines, inward=inward, outward=outward)

    def _lose_letters(self) -> None:
        network = self.group.network
        network.loss = self._rng.choice((0.0, 0.05, 0.3))
        network.repeats = self._rng.choice((0.0, 0.2))
        network.delay_s = self._rng.choice((0.003, 0.03, 0.15))
        network.blocks = self._rng.choice((None, None, self._rng.randrange(4)))
        self._tell(f"loss {network.loss} repeats {network.repeats} delay {network.delay_s}")

    def _heal(self) -> None:
        self._tell("heal the network")
        self.group.network.heal()

    def _freeze(self) -> None:
        if (machine := self._victim()) is not None and machine.process is not None:
            process, frozen_s = machine.process, self._rng.uniform(0.05, 0.8)
            self._tell(f"freeze {machine.member} for {frozen_s:.3f} s")
            process.freeze()
            self.world.call_later(frozen_s, process.thaw)

    def _freeze_the_leader(self) -> None:
        """Longer than an election takes, and sometimes than a lease."""
        leader = self.group.leader()
        if leader is not None and leader.process is not None:
            self._tell(f"freeze the leader, {leader.member}")
            leader.process.freeze()
            self.world.call_later(self._rng.uniform(0.4, 1.3), leader.process.thaw)

    def _pause(self) -> None:
        """As a virtual machine; only where no lease trusts the clocks to go on."""
        if (machine := self._victim()) is not None and machine.process is not None:
            reads_on_lease = self.group.settings.reads == "lease"
            process, paused_s = machine.process, self._rng.uniform(0.05, 2.0)
            self._tell(f"{'freeze' if reads_on_lease else 'pause'} {machine.member} for {paused_s:.3f} s")
            process.freeze(clock=not reads_on_lease)
            self.world.call_later(paused_s, process.thaw)

    def _jump(self) -> None:
        if (machine := self._victim()) is not None and machine.process is not None:
            offset_s = self._rng.choice((-3600.0, -2.0, -0.3, 0.3, 2.0, 3600.0))
            self._tell(f"the wall clock of {machine.member} jumps by {offset_s} s")
            machine.process.jump(offset_s)

    def _slow_down(self) -> None:
        if (machine := self._victim()) is not None and machine.process is not None:
            machine.process.thread_s = self._rng.choice((THREAD_S, 0.03, 0.2))
            self._tell(f"the disk of {machine.member} takes {machine.process.thread_s} s")

    def _break_disk(self) -> None:
        if (machine := self._victim()) is not None:
            kind = self._rng.choice(("write", "sync"))
            self._tell(f"the next {kind} of {machine.member} fails")
            machine.disk.error[kind] = OSError(errno.EIO, os.strerror(errno.EIO))

    def _fill_disk(self) -> None:
        if (machine := self._victim()) is not None:
            machine.disk.fill(self._rng.choice((0, self._rng.randrange(6000))))
            self._tell(f"the disk of {machine.member} is nearly full")
            self.world.call_later(0.5, machine.disk.spare)

    # what is mended

    async def _supervise(self) -> None:
        """Starts members again that died or failed, as their keepers do."""
        while True:
            await asyncio.sleep(self._rng.uniform(0, 0.2))
            if self.group.network.letters > LETTERS_MAX:
                raise Broken(f"{self.group.network.letters} letters were sent")
            for machine in list(self.group.machines.values()):
                await self._look_after(machine)

    async def _look_after(self, machine: Machine) -> None:
        if machine.trouble is not None and machine.is_up:
            self._excuse(machine)
            machine.crash()
        if not machine.is_up and (self._over or self._rng.random() < 0.5):
            self._tell(f"start {machine.member}")
            await machine.start()
            if machine.refusal is not None:
                self._excuse(machine)

    def _excuse(self, machine: Machine) -> None:
        self._tell(f"{machine.member} failed: {machine.trouble}")
        if not machine.is_excused:
            raise Broken(f"member {machine.member} goes on no more, though nothing happened to it: {machine.trouble}")

    def _repair(self) -> None:
        self._tell("peace")
        self.group.network.heal()
        self.group.answered = lambda _: None
        for machine in self.group.machines.values():
            machine.disk.spare()
            if machine.process is not None:
                machine.process.points_left = None
                machine.process.thread_s = THREAD_S
                machine.process.thaw()

    async def _agree(self) -> int:
        """Waits until all members have applied the same, every lease and alarm has ended; returns the revision."""
        try:
            async with asyncio.timeout(PEACE_S):
                while True:
                    await asyncio.sleep(0.1)
                    replicas = [machine.replica for machine in self.group.machines.values()]
                    if self._are_equal(replicas) and self._leases_are_over():
                        assert replicas[0] is not None
                        return replicas[0].revision
        except TimeoutError:
            raise Broken(f"the members do not agree within {PEACE_S} s of peace") from None

    def _are_equal(self, replicas: Sequence[Replica | None]) -> bool:
        places = set()
        for replica in replicas:
            if replica is None or replica.failure is not None or not replica.leader:
                return False
            status = replica.status()
            if not status.config.voters == tuple(sorted(self.group.machines)) == tuple(sorted(status.names)):
                return False  # a member, or its name, is still to be told
            if status.alarms or status.disk_full:
                return False  # the end of an alarm is still to come
            places.add((status.commit_index, status.applied_index, status.leader))
        return len(places) == 1

    def _leases_are_over(self) -> bool:
        replica = self.group.up()[0].replica
        return replica is not None and not replica.snapshot()[1].header.leases

    # the end

    def _judge(self) -> Witness:
        group, clients = self.group, self.clients
        for machine in (*group.former, *group.machines.values()):
            for bug in machine.bugs():
                raise Broken(f"member {machine.member} came across {bug!r}") from bug
        digests = {member: digest(machine.replica) for member, machine in group.machines.items() if machine.replica}
        if len(set(digests.values())) != 1:
            raise Broken(f"the members hold different states: {digests}")
        return check(clients.operations, clients.watches, clients.leases, clients.past)


def digest(replica: Replica) -> str:
    """Of a member's whole state."""
    return hashlib.sha256(b"".join(encode(replica.snapshot()[1]))).hexdigest()


def live(story: Story) -> None:
    """Lives a story to its end.

    Raises:
        Broken: a promise was broken; a note tells what had happened.
    """
    try:
        story.world.run_until_complete(story.run())
    except BaseException as group:
        error = _innermost(group)
        error.add_note("\n".join(story.told))
        raise error from error.__cause__
    finally:
        story.group.close()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
