"""The store on three machines (network namespaces), its members as actors on Ray: what befalls them loses nothing.

Each test runs writers, readers and a watcher through one fault, and judges all that they saw. The machines, the
processes, the packets and the disk are real.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from steersman.actors import bringup
from steersman.actors.rpc.keeper import HeadAway, HeadClient
from steersman.actors.tls import context_of
from steersman.actors.watchman import Watchman
from tests.e2e.conftest import wait_for
from tests.e2e.hosts import SUBNET, FailingDisk, Machine, missing, run, slow_disk
from tests.e2e.storeload import Load
from tests.e2e.wire import TUN, Weather

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.root]

PORTS = "base=32500"
#: of writes, when a leader dies at default settings
OUTAGE_S_MAX = 1.5
#: longer than an election
PAUSE_S = 2.5
#: of a member's data: more than what it holds back
DISK_BYTES = 512 << 20
#: of a link between continents
WEATHER = Weather(delay_s=0.04, jitter_s=0.02, lost=0.02)


class Hosts:
    """A cluster on three machines."""

    def __init__(self, machines: list[Machine], disk: FailingDisk | None) -> None:
        self.machines = machines
        #: on which the last machine keeps its members' data
        self.disk = disk
        self.head = machines[0]
        self._loads = 0

    def members(self) -> list[Any]:
        """What `steer store members` shows; nothing while the store does not answer."""

        async def ask() -> list[Any]:
            client = HeadClient(bringup.read_site(self.head.data_dir))
            try:
                return list(await client.members())
            except HeadAway:
                return []
            finally:
                await client.close()

        return asyncio.run(ask())

    def pids(self) -> dict[str, int]:
        """Actor name to process; waits until each of them answers."""

        async def ask() -> dict[str, int] | None:
            site = bringup.read_site(self.head.data_dir)
            watchman = Watchman(site)
            try:
                replies = await watchman.statuses(bringup.actors_of(site))
            finally:
                await watchman.close()
            pids = {name: reply.pid for name, reply in replies.items() if reply is not None}
            return pids if len(pids) == len(replies) else None

        return dict(wait_for("an answer of every actor", lambda: asyncio.run(ask()), 30))

    def places(self) -> list[str]:
        """The addresses of the machines of the members that vote, answer and have applied everything."""
        return sorted(
            row.address.partition(":")[0] for row in self.members() if row.answers and not row.learner and row.lag == 0
        )

    def ids(self) -> dict[str, int]:
        """Address of a machine to the id of its member."""
        return {row.address.partition(":")[0]: row.member.id for row in self.members()}

    def spread(self) -> bool:
        return self.places() == [machine.address for machine in self.machines]

    def member_of(self, machine: Machine) -> str:
        """The name of the member there; waits while the head has no time to answer."""

        def found() -> str:
            rows = (row for row in self.members() if row.address.startswith(f"{machine.address}:"))
            return next((f"store-{row.member.slot}" for row in rows), "")

        return wait_for(f"the member of {machine.address}", found, 30)

    def leader(self) -> tuple[Machine, int]:
        """The leader's machine and process."""
        row = wait_for("a leader", lambda: next((row for row in self.members() if row.leads), None), 30)
        machine = next(m for m in self.machines if m.address == row.address.partition(":")[0])
        return machine, self.pids()[f"store-{row.member.slot}"]

    def others(self, machine: Machine) -> list[Machine]:
        return [other for other in self.machines if other is not machine]

    def load(self) -> Load:
        self._loads += 1
        where = self.head.json("status")["endpoints"]
        ca, cert, key = (Path(where["certificates"][name]) for name in ("ca", "cert", "key"))
        endpoints = [url.removeprefix("https://") for url in where["storeClients"]]
        return Load(endpoints, context_of(ssl.PROTOCOL_TLS_CLIENT, ca, cert, key), f"/e2e/{self._loads}")

    def survive(self, fault: Callable[[Load], None]) -> float:
        """Runs a fault under load; returns the outage of writes in seconds. Everybody is well again afterwards."""
        before = {name: pid for name, pid in self.pids().items() if not name.startswith("store-")}
        with self.load() as load:
            began = time.monotonic()
            fault(load)
            load.wait_for_writes(10)
            outage_s = load.outage_s(began)
        print(f"\n  outage {outage_s:.2f} s; {load.prove()}")
        wait_for("a whole group", self.spread, 90)
        after = {name: pid for name, pid in self.pids().items() if not name.startswith("store-")}
        assert after == before, "no other actor was restarted"
        return outage_s


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if reason := missing():
        pytest.skip(reason)
    directory, bridge = tmp_path_factory.mktemp("hosts"), f"st{os.getpid()}br"
    machines = [Machine(number, directory, "store-hosts") for number in (1, 2, 3)]
    disk = None
    try:
        if not FailingDisk.missing():
            disk = FailingDisk(machines[2].data_dir / "store", directory / "disk.img", DISK_BYTES)
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "addr", "add", f"{SUBNET}.254/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        for machine in machines:
            machine.make(bridge)
        head = machines[0]
        head.steer(
            "up", "--head", "--host", head.address, "--port", PORTS, "--replicas", "3", "--runtime", "none",
            "--controllers", "packed",
        )  # fmt: skip
        cluster = Hosts(machines, disk)
        for machine in machines[1:]:
            join(cluster, machine)
        wait_for("a member on every machine", cluster.spread, 150)
        yield cluster
    finally:
        for machine in reversed(machines):
            if machine.data_dir.exists():
                machine.steer("down", "--delete-data", "--force", check=False)
            subprocess.run(["ip", "netns", "del", machine.netns], check=False)
        subprocess.run(["ip", "link", "del", bridge], check=False)
        if disk is not None:
            disk.remove()


def join(hosts: Hosts, machine: Machine, words: Sequence[str] = ()) -> None:
    words = words or hosts.head.steer("token").split()[1:]
    machine.steer(*words, "--runtime", "none", "--node-name", f"node{machine.address[-1]}")


def steady(row: dict[str, object]) -> dict[str, object]:
    """What a member says of itself that does not change while it works."""
    return {name: value for name, value in row.items() if name not in ("lag", "sizeBytes")}


def test_members_spread_over_the_machines_as_these_join(hosts):
    rows = hosts.head.json("store", "members")
    assert sorted(row["address"].partition(":")[0] for row in rows) == [m.address for m in hosts.machines]
    assert {row["name"] for row in rows} == {name for name in hosts.pids() if name.startswith("store-")}
    elsewhere = hosts.machines[2].json("store", "members")
    assert [steady(row) for row in elsewhere] == [steady(row) for row in rows], "every machine can be asked"


def test_writes_go_on_soon_after_the_leader_was_killed(hosts):
    def kill(load: Load) -> None:
        _, pid = hosts.leader()
        os.kill(pid, signal.SIGKILL)

    assert hosts.survive(kill) < OUTAGE_S_MAX


def test_a_leader_that_stands_still_for_longer_than_an_election_does_no_harm_when_it_goes_on(hosts):
    def stop(load: Load) -> None:
        _, pid = hosts.leader()
        os.kill(pid, signal.SIGSTOP)
        try:
            load.wait_for_writes(5)
            time.sleep(PAUSE_S)
        finally:
            os.kill(pid, signal.SIGCONT)

    hosts.survive(stop)


@pytest.mark.parametrize("how", ["deaf_to", "parted_from"])
def test_a_leader_that_is_cut_off_answers_nothing_stale(hosts, how):
    """Its clients still reach it, in both directions."""

    def cut(load: Load) -> None:
        machine, _ = hosts.leader()
        with getattr(machine, how)(hosts.others(machine)):
            load.wait_for_writes(5)

    hosts.survive(cut)


def test_lost_packets_are_only_slow(hosts):
    def lose(load: Load) -> None:
        with ExitStack() as stack:
            for machine in hosts.machines:
                stack.enter_context(machine.lossy(5))
            load.wait_for_writes(30)

    hosts.survive(lose)


def test_a_leader_behind_a_slow_and_lossy_wire_is_only_slow(hosts):
    if not TUN.exists():
        pytest.skip(f"needs {TUN}, which makes the wire")

    def delay(load: Load) -> None:
        machine, _ = hosts.leader()
        with machine.behind(WEATHER):
            assert machine.round_trip_s() >= 2 * (WEATHER.delay_s - WEATHER.jitter_s)
            load.wait_for_writes(30)

    hosts.survive(delay)


def test_a_leader_with_a_slow_disk_is_only_slow(hosts):
    def slow(load: Load) -> None:
        machine, pid = hosts.leader()
        with slow_disk(machine.data_dir, pid, 20) as why_not:
            if why_not:
                pytest.skip(why_not)
            load.wait_for_writes(10)

    hosts.survive(slow)


def test_a_leader_whose_disk_fails_ends_says_why_and_comes_back_when_the_disk_does(hosts):
    disk = hosts.disk
    if disk is None:
        pytest.skip(FailingDisk.missing())
    machine = hosts.machines[2]
    name = hosts.member_of(machine)
    hosts.head.steer("store", "transfer", name)
    wait_for("the member leads", lambda: hosts.leader()[0] is machine, 20)

    def detail() -> str:
        return next(row["detail"] for row in hosts.head.json("status")["actors"] if row["name"] == name)

    def fail(load: Load) -> None:
        disk.fail()
        try:
            load.wait_for_writes(10)
            wait_for("its status says why", lambda: "Read-only file system" in detail(), 20)
            # a write that is under way when the journal ends fails as an error of the device
            log = (machine.data_dir / "logs" / f"{name}.log").read_text()
            assert re.search(rf"the disk failed: \[Errno ({errno.EROFS}|{errno.EIO})\]", log), log
        finally:
            disk.repair()

    assert hosts.survive(fail) < OUTAGE_S_MAX


def test_a_member_that_is_removed_is_followed_by_a_new_one(hosts):
    before = hosts.ids()

    def remove(load: Load) -> None:
        machine = hosts.machines[1]
        former = before[machine.address]
        done = hosts.head.steer("store", "remove", hosts.member_of(machine))
        assert "of node2 has left the store" in done
        wait_for("another member in its place", lambda: hosts.ids().get(machine.address, former) != former, 60)

    hosts.survive(remove)
    after = hosts.ids()
    assert [address for address in after if after[address] != before[address]] == [hosts.machines[1].address]


def test_a_leader_is_replaced_on_another_machine_and_its_place_taken_again_when_that_leaves(hosts):
    fourth = Machine(4, hosts.head.data_dir.parent, "store-hosts")
    fourth.make(hosts.head.bridge)

    def move(load: Load) -> None:
        join(hosts, fourth)
        machine, _ = hosts.leader()
        words = ("store", "replace", hosts.member_of(machine), "--node")
        assert "has a member of the store already" in hosts.head.steer(*words, "node2", check=False, errors=True)
        hosts.head.steer(*words, "node4")
        there = sorted(m.address for m in (*hosts.others(machine), fourth))
        wait_for("a member on the fourth machine instead", lambda: hosts.places() == there, 30)
        load.wait_for_writes(10)
        fourth.steer("down", "--delete-data")

    try:
        hosts.survive(move)
    finally:
        if fourth.data_dir.exists():
            fourth.steer("down", "--delete-data", "--force", check=False)
        run("ip", "netns", "del", fourth.netns)


def test_a_machine_that_loses_power_returns_and_catches_up(hosts):
    machine = hosts.machines[2]
    hosts.head.steer("store", "transfer", hosts.member_of(machine))

    def crash(load: Load) -> None:
        machine.crash()
        load.wait_for_writes(50)
        refusal = hosts.machines[1].steer("down", "--delete-data", check=False, errors=True)
        assert "cannot do without this machine" in refusal and "only 1 of the 2 other voters answer" in refusal
        join(hosts, machine)

    hosts.survive(crash)


def test_by_force_a_machine_goes_down_though_the_store_stands_still_until_it_is_back(hosts):
    _, second, third = hosts.machines
    words = hosts.head.steer("token").split()[1:]
    with hosts.load() as load:
        pass
    third.crash()
    done = second.steer("down", "--force")
    assert "still counts on this machine" in done and "`steer join` brings it back" in done
    assert not second.pids()

    def told() -> bool:
        return "no leader of the store answers" in hosts.head.steer("store", "members", check=False, errors=True)

    wait_for("a store that says that nobody leads", told, 30)
    for machine in (second, third):
        join(hosts, machine, words)
    wait_for("a whole group", hosts.spread, 90)
    with hosts.load() as after:
        assert after.read(load.final) == load.final
    print(f"\n  {load.prove()}; {after.prove()}")


@pytest.mark.parametrize("how", ["crash", "down"])
def test_after_a_power_cut_everywhere_or_all_were_stopped_the_machines_find_together_again(hosts, how):
    """The head, which goes first, needs the others for a quorum, and they need it; none has an API server to ask."""
    words = hosts.head.steer("token").split()[1:]
    with hosts.load() as load:
        load.wait_for_writes(5)
    for machine in hosts.machines:
        if how == "crash":
            machine.crash()
        else:
            assert "is down." in machine.steer("down")
            assert not machine.pids()
    with ThreadPoolExecutor() as pool:
        coming = [pool.submit(hosts.head.steer, "up")]
        coming += [pool.submit(join, hosts, machine, words) for machine in hosts.machines[1:]]
        for work in coming:
            work.result()
    wait_for("a whole group", hosts.spread, 90)
    with hosts.load() as after:
        after.wait_for_writes(5)
        assert after.read(load.final) == load.final, "what was acknowledged before is there"
    print(f"\n  {load.prove()}; {after.prove()}")


def test_a_backup_restored_after_the_members_have_spread_begins_on_the_head_and_spreads_anew(hosts, tmp_path):
    """Of the other machines one was stopped as well, the other one waits for the head."""
    head, second, _ = hosts.machines
    backup = str(tmp_path / "cluster.backup")
    words = head.steer("token").split()[1:]
    head.steer("create", "configmap", "kept")
    head.steer("backup", backup)
    head.steer("create", "configmap", "lost")
    former = hosts.ids()
    head.steer("down")
    second.steer("down")
    assert "Restored" in head.steer("restore", "--force", backup)
    head.steer("up")
    join(hosts, second, words)
    wait_for("a whole group", hosts.spread, 90)
    ids = hosts.ids()
    assert all(ids[machine.address] != former[machine.address] for machine in hosts.machines[1:]), "both are new"
    head.steer("create", "configmap", "afterwards")
    names = {row["metadata"]["name"] for row in second.json("get", "configmaps")["items"]}
    assert {"kept", "afterwards"} <= names and "lost" not in names


def test_members_leave_with_their_machine_and_go_where_they_are_told(hosts):
    first, second, third = hosts.machines

    def leave(load: Load) -> None:
        third.steer("down", "--delete-data")
        wait_for("three members on two machines", lambda: len(hosts.places()) == 3, 90)

    with hosts.load() as load:
        leave(load)
        hosts.head.steer("store", "transfer", hosts.member_of(second))
    print(f"\n  {load.prove()}")
    assert set(hosts.places()) == {first.address, second.address}
    assert "nobody" in hosts.head.steer("store", "add", "--node", "nobody", check=False, errors=True)
