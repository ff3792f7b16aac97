"""Which pod to try next: active pods by priority and age, those that wait out a back-off, and those no node can take.

A refused pod returns when something happens that could help it: each plugin that refused names the changes that
concern it. Time is a parameter, of a clock that nobody sets.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/#queue-sort
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from steersman.cluster.sched.pods import PodInfo

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 10.0
#: a refused pod is tried again after so long, whatever has happened
UNSCHEDULABLE_MAX_S = 300.0


class Change(Enum):
    """What happened in the cluster."""

    NODE_ADDED = "node added"
    NODE_CHANGED = "node changed"
    POD_PLACED = "pod placed"
    POD_REMOVED = "pod removed"
    POD_LABELS = "pod labels changed"
    NAMESPACE = "namespace changed"
    OTHER = "other"


_NODE = frozenset((Change.NODE_ADDED, Change.NODE_CHANGED))
#: plugin -> changes after which a pod that it refused may be accepted
HELPS: dict[str, frozenset[Change]] = {
    "NodeUnschedulable": _NODE,
    "NodeName": frozenset((Change.NODE_ADDED,)),
    "TaintToleration": _NODE,
    "NodeAffinity": _NODE,
    "NodePorts": _NODE | {Change.POD_REMOVED},
    "NodeResourcesFit": _NODE | {Change.POD_REMOVED},
    "PodTopologySpread": _NODE | {Change.POD_PLACED, Change.POD_REMOVED, Change.POD_LABELS},
    "InterPodAffinity": _NODE | {Change.POD_PLACED, Change.POD_REMOVED, Change.POD_LABELS, Change.NAMESPACE},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A pod in the queue: how often it was refused and which plugins did it."""

    pod: PodInfo
    added: float
    attempts: int = 0
    plugins: frozenset[str] = frozenset()
    refused_at: float = 0.0

    @property
    def backoff_until(self) -> float:
        if not self.attempts:
            return 0.0
        return self.refused_at + min(BACKOFF_FIRST_S * 2.0 ** min(self.attempts - 1, 16), BACKOFF_MAX_S)


class Queue:
    """Pending pods.

    A uid stands in one place: `active`, `backoff` (refused, something happened since: tried again when its back-off is
    over or nothing else is active), `penalty` (its binding failed: waits in any case), `unschedulable`, `gated`, or in
    `flight` (taken).
    """

    def __init__(self) -> None:
        #: uid -> (place, entry)
        self._where: dict[str, tuple[str, Entry]] = {}
        #: entries in place `unschedulable`, longest refused first
        self._parked: dict[str, Entry] = {}
        #: rows (sort key, stamp, uid); a row whose stamp is not the uid's present one is stale
        self._heaps: dict[str, list[tuple[tuple[float, float], int, str]]] = {
            "active": [],
            "backoff": [],
            "penalty": [],
        }
        self._stamps: dict[str, int] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, uid: str) -> bool:
        return uid in self._where

    def counts(self) -> dict[str, int]:
        """How many pods stand in each place."""
        found = {"active": 0, "backoff": 0, "penalty": 0, "unschedulable": 0, "gated": 0, "flight": 0}
        for where, _ in self._where.values():
            found[where] += 1
        return found

    def put(self, pod: PodInfo, now: float) -> None:
        """Adds a pending pod, or learns its new state; one whose spec changed is tried again."""
        known = self._where.get(pod.uid)
        if pod.gated:
            self._place("gated", Entry(pod=pod, added=known[1].added if known else now))
        elif known is None or known[0] == "gated":
            self._place("active", Entry(pod=pod, added=now))
        elif known[0] == "unschedulable" and known[1].pod.pod_class is not pod.pod_class:
            self._place("backoff", replace(known[1], pod=pod))
        elif known[0] == "active" and known[1].pod.pod_class.priority != pod.pod_class.priority:
            self._place("active", replace(known[1], pod=pod))
        else:
            self._where[pod.uid] = (known[0], replace(known[1], pod=pod))
            if pod.uid in self._parked:
                self._parked[pod.uid] = self._where[pod.uid][1]

    def remove(self, uid: str) -> None:
        """Forgets a pod: it is bound or gone."""
        self._where.pop(uid, None)
        self._stamps.pop(uid, None)
        self._parked.pop(uid, None)

    def take(self, count: int, now: float) -> list[PodInfo]:
        """Returns the next pods to try: the first and those of its class right behind it, at most `count`."""
        self._wake(now)
        heap = self._heaps["active"] if self._head("active") else self._heaps["backoff"]
        taken: list[PodInfo] = []
        while heap and len(taken) < count:
            _, stamp, uid = heap[0]
            if self._stamps.get(uid) != stamp:
                heapq.heappop(heap)
                continue
            entry = self._where[uid][1]
            if taken and entry.pod.pod_class is not taken[0].pod_class:
                break
            heapq.heappop(heap)
            self._place("flight", entry)
            taken.append(entry.pod)
        return taken

    def refused(self, uid: str, plugins: Iterable[str], now: float, *, retry: bool = False) -> None:
        """Parks a pod in flight until something helps it.

        Args:
            plugins: those that refused it; none means that any change may help.
            retry: something that may help has happened since it was taken.
        """
        found = self._where.get(uid)
        if found is not None:
            entry = replace(found[1], attempts=found[1].attempts + 1, refused_at=now, plugins=frozenset(plugins))
            self._place("backoff" if retry else "unschedulable", entry)

    def failed(self, uid: str, now: float) -> None:
        """Takes back a pod whose binding failed: it is tried again after its back-off."""
        found = self._where.get(uid)
        if found is not None:
            self._place("penalty", replace(found[1], attempts=found[1].attempts + 1, refused_at=now))

    def moved(self, change: Change) -> None:
        """Something happened: the refused pods that it may help are tried again."""
        for entry in [entry for entry in self._parked.values() if _helps(change, entry.plugins)]:
            self._place("backoff", entry)

    def retry(self, uid: str) -> None:
        """Tries a parked pod again (its nomination was taken away)."""
        if uid in self._parked:
            self._place("backoff", self._parked[uid])

    def ready(self, now: float) -> bool:
        """Whether `take` would return something."""
        self._wake(now)
        return self._head("active") or self._head("backoff")

    def next_wake(self) -> float | None:
        """When to look again though nothing happens, by the clock of `now`; or None."""
        times = [self._heaps["penalty"][0][0][0]] if self._head("penalty") else []
        if self._parked:
            times.append(next(iter(self._parked.values())).refused_at + UNSCHEDULABLE_MAX_S)
        return min(times, default=None)

    def _head(self, place: str) -> bool:
        """Drops stale rows from the top of a heap; whether a row is left."""
        heap = self._heaps[place]
        while heap and self._stamps.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        return bool(heap)

    def _wake(self, now: float) -> None:
        for place in ("backoff", "penalty"):
            while self._head(place) and self._heaps[place][0][0][0] <= now:
                self._place("active", self._where[self._heaps[place][0][2]][1])
        while self._parked:
            oldest = next(iter(self._parked.values()))
            if now - oldest.refused_at < UNSCHEDULABLE_MAX_S:
                break
            self._place("active", oldest)

    def _place(self, where: str, entry: Entry) -> None:
        uid = entry.pod.uid
        self._where[uid] = (where, entry)
        self._stamps.pop(uid, None)
        self._parked.pop(uid, None)
        if where == "unschedulable":
            self._parked[uid] = entry
        if where not in self._heaps:
            return
        self._counter += 1
        self._stamps[uid] = self._counter
        key = (-float(entry.pod.pod_class.priority), entry.added) if where == "active" else (entry.backoff_until, 0.0)
        heapq.heappush(self._heaps[where], (key, self._counter, uid))


def _helps(change: Change, plugins: frozenset[str]) -> bool:
    return not plugins or change is Change.OTHER or any(change in HELPS.get(name, ()) for name in plugins)
