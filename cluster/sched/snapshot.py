"""The cluster as columns: one row per node, one array per property, changed in place as nodes and pods come and go.

It holds facts only; plugins read them. Derived arrays are remembered per pod class: those that follow from the nodes
alone until a node changes, those that follow from what runs on a row are refreshed for the rows that changed.
There is one writer, and nobody reads while it writes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.selectors import LabelSelector
from steersman.cluster.sched.labels import LabelColumns
from steersman.cluster.sched.node import NodeInfo, node_info
from steersman.cluster.sched.pods import HostPort, PodClass, PodInfo
from steersman.cluster.sched.tally import IntArray, Mask, Tally
from steersman.cluster.sched.terms import PodSelector, PodTerm, Taint

#: resources that every snapshot has, in the order of their rows in `allocatable` and `used`
CPU, MEMORY, EPHEMERAL, PODS = 0, 1, 2, 3
#: derived arrays kept at most; all are dropped beyond
MEMO_MAX = 4096
#: changed rows remembered; who lags further behind computes anew
LOG_MAX = 16384
#: tallies of selectors kept at most, the least recently used dropped first
TALLIES_MAX = 2048

Rows = NDArray[np.int64] | slice
ALL = slice(None)
LabelSet = tuple[str, tuple[tuple[str, str], ...]]


class _Labelled:
    """The pods of one namespace and label set: how many on each row, and which tallies count them."""

    def __init__(self, namespace: str, labels: Mapping[str, str]) -> None:
        self.namespace = namespace
        self.labels = labels
        #: row -> (all, those not terminating)
        self.rows: dict[int, tuple[int, int]] = {}
        self.tallies: list[tuple[bool, Tally]] = []


class Snapshot:
    """Nodes, the pods on them, and pods nominated to them."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        #: rows in use or free below it; arrays are seen up to here
        self.size = 0
        self._free: list[int] = []
        self.row_of: dict[str, int] = {}
        self.nodes: list[NodeInfo | None] = []
        self.pods_on: list[dict[str, PodInfo]] = []
        #: uid -> the pod as counted, and its row
        self.placed: dict[str, tuple[PodInfo, int]] = {}
        #: uid -> a pod of a node not (or no longer) known; counted when the node comes
        self._waiting: dict[str, PodInfo] = {}
        self.nominated: dict[str, tuple[PodInfo, str]] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}
        #: namespace -> service name -> its selector; for default spreading
        self.services: dict[str, dict[str, LabelSelector]] = {}
        #: changes when labels, taints, capacity or the set of nodes do
        self.generation = 0
        self.resources: dict[str, int] = {"cpu": CPU, "memory": MEMORY, "ephemeral-storage": EPHEMERAL, "pods": PODS}
        self._alive: Mask = np.zeros(capacity, bool)
        self._unschedulable: Mask = np.zeros(capacity, bool)
        self._allocatable: IntArray = np.zeros((4, capacity), np.int64)
        self._used: IntArray = np.zeros((4, capacity), np.int64)
        self._scored_used: IntArray = np.zeros((2, capacity), np.int64)
        self._taints: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.taint_sets: list[tuple[Taint, ...]] = [()]
        self._taint_ids: dict[tuple[Taint, ...], int] = {(): 0}
        #: priority -> what pods of exactly that priority use
        self._used_by_priority: dict[int, IntArray] = {}
        self.labels = LabelColumns(capacity)
        self._images: dict[str, tuple[Mask, int]] = {}
        self._ports: dict[HostPort, Tally] = {}
        self._labelled: dict[LabelSet, _Labelled] = {}
        self._tallies: OrderedDict[tuple[tuple[PodSelector, ...], bool], Tally] = OrderedDict()
        #: ("far", 0, term): pods with that required anti-affinity; ("near", w, term): pods that want it with weight w
        self.owners: dict[tuple[str, int, PodTerm], Tally] = {}
        self._owners_generation = 0
        self._owners_of: dict[LabelSet, tuple[int, list[tuple[str, int, PodTerm, Tally]]]] = {}
        self._memo: dict[tuple[str, PodClass], Any] = {}
        self._local: dict[tuple[str, PodClass], tuple[int, Any]] = {}
        self._log: list[int] = []
        self._log_start = 0

    # --- columns ---
    @property
    def alive(self) -> Mask:
        return self._alive[: self.size]

    @property
    def node_count(self) -> int:
        return len(self.row_of)

    @property
    def unschedulable(self) -> Mask:
        return self._unschedulable[: self.size]

    @property
    def taint_ids(self) -> NDArray[np.int32]:
        return self._taints[: self.size]

    @property
    def allocatable(self) -> IntArray:
        """`[resource, row]`; rows of `resources`."""
        return self._allocatable[:, : self.size]

    @property
    def used(self) -> IntArray:
        """`[resource, row]`: what the pods on each node asked for."""
        return self._used[:, : self.size]

    @property
    def scored_used(self) -> IntArray:
        """`[cpu milli or memory bytes, row]` with the defaults for containers that ask for nothing."""
        return self._scored_used[:, : self.size]

    def used_below(self, priority: int) -> IntArray:
        """`[resource, row]`: what pods of lower priority use."""
        found = np.zeros((len(self._used), self.size), np.int64)
        for level, used in self._used_by_priority.items():
            if level < priority:
                found[: len(used)] += used[:, : self.size]
        return found

    def image(self, name: str) -> tuple[Mask, int] | None:
        """Returns (rows that have the image, its size in bytes)."""
        found = self._images.get(name)
        return None if found is None else (found[0][: self.size], found[1])

    def port_counts(self) -> Mapping[HostPort, Tally]:
        return self._ports

    def topology(self, key: str) -> tuple[NDArray[np.int32], int]:
        """Returns (value id of each row or -1, number of value ids) of a label."""
        values, size = self.labels.column(key)
        return values[: self.size], size

    # --- derived arrays ---
    def memo(self, name: str, pod_class: PodClass, compute: Callable[[], Any]) -> Any:
        """Remembers what follows from the nodes and the class alone, until a node changes."""
        found = self._memo.get((name, pod_class))
        if found is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            found = self._memo[name, pod_class] = (compute(),)
        return found[0]

    def per_row(self, name: str, pod_class: PodClass, compute: Callable[[Rows], NDArray[Any]]) -> NDArray[Any]:
        """Remembers an array whose value on a row follows from that row alone; refreshes the rows that changed."""
        end = self._log_start + len(self._log)
        found = self._local.get((name, pod_class))
        if found is None or found[0] < self._log_start or len(found[1]) != self.size:
            if len(self._local) >= MEMO_MAX:
                self._local.clear()
            array = compute(ALL)
        else:
            array = found[1]
            changed = self._log[found[0] - self._log_start :]
            if len(changed) > self.size // 2:
                array = compute(ALL)
            elif changed:
                rows = np.array(sorted(set(changed)), np.int64)
                array[rows] = compute(rows)
        self._local[name, pod_class] = (end, array)
        return array

    def _touch(self, row: int) -> None:
        self._log.append(row)
        if len(self._log) > LOG_MAX:
            half = LOG_MAX // 2
            self._log_start += half
            del self._log[:half]

    def _nodes_changed(self) -> None:
        self.generation += 1
        self._memo.clear()
        self._local.clear()

    # --- nodes ---
    def set_node(self, node: Obj) -> bool:
        """Adds or changes a node; returns whether anything that matters to scheduling changed."""
        info = node_info(node)
        row = self.row_of.get(info.name)
        new = row is None
        if row is None:
            row = self.row_of[info.name] = self._new_row()
            self._alive[row] = True
        elif self.nodes[row] == info:
            return False
        self._set_images(row, self.nodes[row], info)
        self.nodes[row] = info
        self._write_node(row, info)
        if new:
            for pod in [pod for pod in self._waiting.values() if pod.node == info.name]:
                self.set_pod(pod)
        return True

    def _write_node(self, row: int, info: NodeInfo) -> None:
        self._nodes_changed()
        self._unschedulable[row] = info.unschedulable
        taint_id = self._taint_ids.setdefault(info.taints, len(self.taint_sets))
        if taint_id == len(self.taint_sets):
            self.taint_sets.append(info.taints)
        self._taints[row] = taint_id
        self.labels.set(row, info.labels)
        for name, _ in info.allocatable:
            if name not in self.resources:
                self._add_resource(name)
        self._allocatable[:, row] = 0
        for name, amount in info.allocatable:
            self._allocatable[self.resources[name], row] = amount

    def remove_node(self, name: str) -> None:
        """Forgets a node; its pods are counted again should it come back."""
        row = self.row_of.pop(name, None)
        if row is None:
            return
        for pod in list(self.pods_on[row].values()):
            self.set_pod(pod)
        self._set_images(row, self.nodes[row], None)
        self.nodes[row] = None
        self._alive[row] = False
        self._allocatable[:, row] = 0
        self.labels.set(row, {})
        self.labels.compact(self.size)
        self._free.append(row)
        self._nodes_changed()

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if self.size == self._capacity:
            self._grow()
        self.size += 1
        self.nodes.append(None)
        self.pods_on.append({})
        return self.size - 1

    def _grow(self) -> None:
        extra = self._capacity
        self._capacity += extra

        def wider(array: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([array, np.zeros((*array.shape[:-1], extra), array.dtype)], axis=-1)

        self._alive, self._unschedulable = wider(self._alive), wider(self._unschedulable)
        self._taints = wider(self._taints)
        self._allocatable, self._used = wider(self._allocatable), wider(self._used)
        self._scored_used = wider(self._scored_used)
        self._used_by_priority = {level: wider(used) for level, used in self._used_by_priority.items()}
        self._images = {name: (wider(rows), size) for name, (rows, size) in self._images.items()}
        self.labels.grow(self._capacity)
        for tally in (*self._ports.values(), *self._tallies.values(), *self.owners.values()):
            tally.grow(self._capacity)

    def _add_resource(self, name: str) -> None:
        self.resources[name] = len(self.resources)
        row = np.zeros((1, self._capacity), np.int64)
        self._allocatable = np.concatenate([self._allocatable, row])
        self._used = np.concatenate([self._used, row])
        self._used_by_priority = {level: np.concatenate([u, row]) for level, u in self._used_by_priority.items()}
        for info, at in self.placed.values():
            amount = dict(info.pod_class.requests).get(name, 0)
            self._used[-1, at] += amount
            self._used_by_priority[info.pod_class.priority][-1, at] += amount

    def _set_images(self, row: int, old: NodeInfo | None, new: NodeInfo | None) -> None:
        for name, _ in old.images if old else ():
            rows, size = self._images[name]
            rows[row] = False
            if not rows.any():
                del self._images[name]
        for name, size in new.images if new else ():
            rows, _ = self._images.get(name) or (np.zeros(self._capacity, bool), 0)
            rows[row] = True
            self._images[name] = (rows, size)

    # --- pods ---
    def set_pod(self, pod: PodInfo) -> None:
        """Counts a pod on its node (assumed or bound), or forgets it when it is finished or its node is unknown."""
        known = self.placed.get(pod.uid)
        if known is not None:
            if known[0] == pod and known[1] == self.row_of.get(pod.node):
                return
            self.remove_pod(pod.uid)
        row = self.row_of.get(pod.node)
        self._waiting.pop(pod.uid, None)
        if pod.finished or not pod.node:
            return
        if row is None:
            self._waiting[pod.uid] = pod
            return
        self.placed[pod.uid] = (pod, row)
        self.pods_on[row][pod.uid] = pod
        self._count(pod, row, 1)

    def remove_pod(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        found = self.placed.pop(uid, None)
        if found is not None:
            pod, row = found
            del self.pods_on[row][uid]
            self._count(pod, row, -1)

    def _count(self, pod: PodInfo, row: int, sign: int) -> None:
        pod_class = pod.pod_class
        used = self._used_by_priority.get(pod_class.priority)
        if used is None:
            used = self._used_by_priority[pod_class.priority] = np.zeros_like(self._used)
        for name, amount in (*pod_class.requests, ("pods", 1)):
            at = self.resources.get(name)
            if at is not None:
                self._used[at, row] += sign * amount
                used[at, row] += sign * amount
        self._scored_used[0, row] += sign * pod_class.scored_requests[0]
        self._scored_used[1, row] += sign * pod_class.scored_requests[1]
        for port in pod_class.ports:
            if port not in self._ports:
                self._ports[port] = Tally(self._capacity)
            self._ports[port].add(row, sign)
            if not self._ports[port].total:
                del self._ports[port]
        self._count_labels(pod, row, sign)
        self._count_owner(pod_class, row, sign)
        self._touch(row)

    def _count_labels(self, pod: PodInfo, row: int, sign: int) -> None:
        key = pod.pod_class.label_set
        labelled = self._labelled.get(key)
        if labelled is None:
            labelled = self._labelled[key] = _Labelled(pod.namespace, pod.pod_class.labels)
            for (who, living), tally in self._tallies.items():
                if self._means(who, labelled):
                    labelled.tallies.append((living, tally))
        living_change = 0 if pod.terminating else sign
        every, staying = labelled.rows.get(row, (0, 0))
        if every + sign:
            labelled.rows[row] = (every + sign, staying + living_change)
        else:
            del labelled.rows[row]
        for only_living, tally in labelled.tallies:
            change = living_change if only_living else sign
            if change:
                tally.add(row, change)
        if not labelled.rows:
            del self._labelled[key]

    def _means(self, who: tuple[PodSelector, ...], labelled: _Labelled) -> bool:
        return all(s.matches(labelled.namespace, labelled.labels, self.namespaces) for s in who)

    def _count_owner(self, pod_class: PodClass, row: int, sign: int) -> None:
        terms = [("far", 0, term) for term in pod_class.anti_affinity]
        terms += [("near", 0, term) for term in pod_class.affinity]
        terms += [("near", weight, term) for weight, term in pod_class.preferred_pods]
        for key in terms:
            tally = self.owners.get(key)
            if tally is None:
                tally = self.owners[key] = Tally(self._capacity)
                self._owners_generation += 1
            tally.add(row, sign)
            if not tally.total:
                del self.owners[key]
                self._owners_generation += 1

    # --- counts of pods ---
    def tally(self, who: tuple[PodSelector, ...], *, living: bool) -> Tally:
        """The pods that every one of these selectors means, per row; kept up to date while it is used.

        Args:
            living: leave out pods that are being deleted.
        """
        found = self._tallies.get((who, living))
        if found is not None:
            self._tallies.move_to_end((who, living))
            return found
        found = self._tallies[who, living] = Tally(self._capacity)
        for labelled in self._labelled.values():
            if self._means(who, labelled):
                labelled.tallies.append((living, found))
                for row, (every, staying) in labelled.rows.items():
                    found.add(row, staying if living else every)
        if len(self._tallies) > TALLIES_MAX:
            _, dropped = self._tallies.popitem(last=False)
            for labelled in self._labelled.values():
                labelled.tallies = [row for row in labelled.tallies if row[1] is not dropped]
        return found

    def sums(self, tally: Tally, key: str) -> IntArray:
        """The tally's sum per value id of a topology key, with one slot more (0) for rows without it."""
        return tally.sums(key, self.generation, self.topology)

    def owners_meaning(self, pod_class: PodClass) -> list[tuple[str, int, PodTerm, Tally]]:
        """Terms of pods in the cluster that mean pods of this class, with how many pods per row own each."""
        if not self.owners:
            return []
        key = pod_class.label_set
        found = self._owners_of.get(key)
        if found is None or found[0] != self._owners_generation:
            rows = [
                (sort, weight, term, tally)
                for (sort, weight, term), tally in self.owners.items()
                if term.selector.matches(pod_class.namespace, pod_class.labels, self.namespaces)
            ]
            if len(self._owners_of) >= MEMO_MAX:
                self._owners_of.clear()
            found = self._owners_of[key] = (self._owners_generation, rows)
        return found[1]

    # --- what else scheduling depends on ---
    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Learns a namespace's labels (None: it is gone); terms with a namespace selector are counted anew."""
        if self.namespaces.get(name) == labels:
            return
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = dict(labels)
        self._owners_generation += 1
        stale = [key for key in self._tallies if any(s.namespace_selector is not None for s in key[0])]
        for key in stale:
            dropped = self._tallies.pop(key)
            for labelled in self._labelled.values():
                labelled.tallies = [row for row in labelled.tallies if row[1] is not dropped]

    def set_service(self, namespace: str, name: str, selector: LabelSelector | None) -> None:
        """Learns which pods a service means (None: it is gone); its pods are spread by default."""
        rows = self.services.setdefault(namespace, {})
        if selector is None:
            rows.pop(name, None)
        else:
            rows[name] = selector

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Keeps the room that preemption made for a pod until it is bound."""
        self.nominated[pod.uid] = (pod, node)

    def forget_nomination(self, uid: str) -> None:
        self.nominated.pop(uid, None)

    def with_nominated(self, pod: PodInfo) -> list[str]:
        """Counts the nominated pods of at least this priority as if they ran; returns their uids for `remove_pod`."""
        added = []
        for other, node in list(self.nominated.values()):
            counts = other.uid != pod.uid and other.pod_class.priority >= pod.pod_class.priority
            if counts and other.uid not in self.placed and node in self.row_of:
                self.set_pod(replace(other, node=node))
                added.append(other.uid)
        return added

    def names(self, rows: Iterable[int]) -> list[str]:
        """The names of the nodes on these rows."""
        found = (self.nodes[row] for row in rows)
        return [info.name for info in found if info is not None]


def namespace_labels(namespace: Obj) -> Mapping[str, str]:
    """The labels of a Namespace object."""
    return labels_of(namespace)
