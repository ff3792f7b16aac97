"""Mistakes with leases: one ends before its time."""

from __future__ import annotations

from typing import Any

from tests.sim.mistakes.patching import Patch, around

from steersman.actors.store.driver import Driver
from steersman.actors.store.leasekeeping import LeaseKeeper
from steersman.actors.store.replica import Replica
from steersman.actors.store.transport import LeaseAsk
from steersman.cluster.raft.core import Raft
from steersman.cluster.store.commands import Command, LeaseGrant, LeaseRevoke
from steersman.cluster.store.mvcc import Mvcc


def let_followers_end_leases(patch: Patch) -> None:
    """Every member keeps the time of the leases that it has applied, and ends them."""
    patch.setattr(LeaseKeeper, "follow", lambda _: None)

    def notice(original: Any, driver: Driver, core: Raft) -> None:
        original(driver, core)
        if not driver.leases.leads and core.leader:
            driver.leases.lead(driver.state)

    def expire(_original: Any, driver: Driver, _core: Raft) -> None:
        for lease in driver.leases.expired():
            driver.supervise(driver._submit_quietly(LeaseRevoke(lease)), f"lease-{lease}")

    around(patch, Driver, "_notice_role", notice)
    around(patch, Driver, "_expire_leases", expire)

    def tick(original: Any, driver: Driver, core: Raft) -> None:
        original(driver, core)
        driver._expire_leases(core)

    around(patch, Driver, "_on_tick", tick)


def give_leases_no_new_time_under_a_new_leader(patch: Patch) -> None:
    """Every member counts from the grant on; of the keep-alives only the leader knows."""

    def applied(_original: Any, keeper: LeaseKeeper, command: Command) -> None:
        match command:
            case LeaseGrant(lease=lease, ttl_s=ttl_s):
                keeper._deadlines.granted(lease, ttl_s, keeper._clock())
            case LeaseRevoke(lease=lease):
                keeper._deadlines.revoked(lease)

    def lead(original: Any, keeper: LeaseKeeper, state: Mvcc) -> None:
        counted = dict(keeper._deadlines._deadlines)
        original(keeper, state)
        keeper._deadlines._deadlines |= counted
        keeper._deadlines._heap = sorted((until, lease) for lease, (_, until) in keeper._deadlines._deadlines.items())

    around(patch, LeaseKeeper, "applied", applied)
    around(patch, LeaseKeeper, "lead", lead)
    patch.setattr(LeaseKeeper, "follow", lambda keeper: setattr(keeper, "leads", False))


def renew_leases_without_proof_of_leading(patch: Patch) -> None:
    async def ask(original: Any, replica: Replica, lease: int, *, renew: bool) -> Any:
        left_ms = replica._driver.leases.left_ms(lease, renew=renew)
        return left_ms if left_ms > 0 else await original(replica, lease, renew=renew)

    def answer(_original: Any, replica: Replica, ask: LeaseAsk) -> None:
        replica._driver.leases.answer(ask, replica._driver.leases.left_ms(ask.lease, renew=ask.renew))

    around(patch, Replica, "_ask_lease", ask)
    around(patch, Replica, "_answer_ask", answer)


def answer_leases_before_all_are_known(patch: Patch) -> None:
    def notice(original: Any, driver: Driver, core: Raft) -> None:
        original(driver, core)
        if core.is_leader and not driver.leases.leads:
            driver.leases.lead(driver.state)

    around(patch, Driver, "_notice_role", notice)
