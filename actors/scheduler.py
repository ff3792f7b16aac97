"""The scheduler at work: informers feed the columns and the queue, decisions become bindings, evictions and events.

It holds no policy: where a pod goes and whom it may displace is `cluster/sched`'s to say. A placement is assumed before
its binding is written; a binding that fails is forgotten and the pod tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from steersman.actors.background import failure_of
from steersman.actors.client import Client
from steersman.actors.informer import Informer
from steersman.actors.leases import Leadership
from steersman.actors.ports import Now, monotonic
from steersman.actors.recorder import EventRecorder
from steersman.cluster.api.components import SCHEDULER
from steersman.cluster.meta.errors import ApiError, NotFound, ServiceUnavailable
from steersman.cluster.meta.objects import Obj, condition, labels_of, uid
from steersman.cluster.meta.resources import NAMESPACES, NODES, POD_DISRUPTION_BUDGETS, PODS, SERVICES
from steersman.cluster.meta.selectors import from_map
from steersman.cluster.meta.times import format_time
from steersman.cluster.sched.decide import Placement, Unschedulable, schedule_batch
from steersman.cluster.sched.plugins import DEFAULT_PROFILE, Profile
from steersman.cluster.sched.pods import Compiler, PodInfo
from steersman.cluster.sched.preempt import Preemption, budget, lower_nominations, preempt
from steersman.cluster.sched.queue import Change, Queue
from steersman.cluster.sched.snapshot import Snapshot

#: equal pods decided on before other tasks get their turn
BATCH = 64
#: bindings on their way at once
BINDINGS_MAX = 256
#: other writes (conditions, evictions) on their way at once
WRITES_MAX = 32
#: the leader lease's name
LEASE = "kube-scheduler"
#: how long an instance whose lease has run out waits before it looks again
LEASE_POLL_S = 0.25
_GATED = "Scheduling is blocked due to non-empty scheduling gates"


class _Outbox:
    """Runs writes with bounded concurrency; of several waiting for one key only the last is sent."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: OrderedDict[str, Callable[[], Awaitable[None]]] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def put(self, name: str, write: Callable[[], Awaitable[None]]) -> None:
        self._waiting[name] = write
        self._fill()

    def _fill(self) -> None:
        for name in list(self._waiting):
            if len(self._tasks) >= self._limit:
                return
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._send(name, self._waiting.pop(name)))

    async def _send(self, name: str, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        finally:
            del self._tasks[name]
            self._fill()

    async def stop(self) -> None:
        self._waiting.clear()
        for task in list(self._tasks.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Scheduler:
    """Component: binds pending pods of its profile to nodes.

    Args:
        identity: names this incarnation in events and in the leader lease.
        leader_election: whether another instance may run: then only the holder of the lease acts.
    """

    def __init__(
        self,
        client: Client,
        *,
        now: Now,
        rng: random.Random,
        identity: str = "",
        profile: Profile = DEFAULT_PROFILE,
        leader_election: bool = False,
    ) -> None:
        self._client = client
        self._now = now
        self._rng = rng
        self._profile = profile
        self._leadership = Leadership(client, LEASE, identity, SCHEDULER, now, rng) if leader_election else None
        self._recorder = EventRecorder(client, profile.name, identity, now, rng)
        self._compiler = Compiler()
        self.snapshot = Snapshot()
        self.queue = Queue()
        self._pods = Informer(client, PODS, on_change=self._pod_changed)
        self._nodes = Informer(client, NODES, on_change=self._node_changed)
        self._services = Informer(client, SERVICES, on_change=self._service_changed)
        self._namespaces = Informer(client, NAMESPACES, on_change=self._namespace_changed)
        self._budgets = Informer(client, POD_DISRUPTION_BUDGETS)
        #: kinds of change since the queue last heard, in order of first arrival
        self._changes: dict[Change, None] = {}
        self._wake = asyncio.Event()
        self._bindings: dict[str, asyncio.Task[None]] = {}
        self._outbox = _Outbox(WRITES_MAX)
        self._task: asyncio.Task[None] | None = None

    @property
    def _informers(self) -> tuple[Informer, ...]:
        return (self._namespaces, self._services, self._budgets, self._nodes, self._pods)

    async def start(self) -> None:
        """Begins to watch; pods are bound once nodes and pods are known."""
        for informer in self._informers:
            await informer.start()
        if self._leadership is not None:
            await self._leadership.start()
        self._task = asyncio.create_task(self._run(), name="scheduler")

    async def stop(self) -> None:
        """Lets bindings on their way be; what is not acknowledged is decided anew by the next instance."""
        tasks = [self._task, *self._bindings.values()]
        for task in tasks:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._task = None
        await self._outbox.stop()
        if self._leadership is not None:
            await self._leadership.stop()
        for informer in self._informers:
            await informer.stop()
        await self._recorder.stop()

    @property
    def failure(self) -> str:
        """What ended the background work unforeseen; empty while all is well."""
        return failure_of(self._task)

    # --- what is seen ---
    def _note(self, change: Change) -> None:
        self._changes[change] = None
        self._wake.set()

    def _node_changed(self, before: Obj | None, after: Obj | None) -> None:
        if after is None:
            if before is not None:
                self.snapshot.remove_node(before["metadata"]["name"])
        elif self.snapshot.set_node(after):
            self._note(Change.NODE_ADDED if before is None else Change.NODE_CHANGED)

    def _service_changed(self, before: Obj | None, after: Obj | None) -> None:
        obj = after or before
        if obj is not None:
            selector = (obj.get("spec") or {}).get("selector") if after is not None else None
            meta = obj["metadata"]
            self.snapshot.set_service(meta["namespace"], meta["name"], from_map(selector) if selector else None)

    def _namespace_changed(self, before: Obj | None, after: Obj | None) -> None:
        obj = after or before
        if obj is not None:
            self.snapshot.set_namespace(obj["metadata"]["name"], labels_of(obj) if after is not None else None)
            self._note(Change.NAMESPACE)

    def _pod_changed(self, before: Obj | None, after: Obj | None) -> None:
        if before is not None and (after is None or uid(before) != uid(after)):
            self._forget(uid(before))
        if after is None:
            return
        try:
            pod = self._compiler.compile(after)
        except ValueError as error:  # no validation let it through: somebody wrote past the API server
            self._forget(uid(after))
            self._recorder.event(after, "Warning", "FailedScheduling", f"the pod cannot be read: {error}")
            return
        if pod.node:
            self._bound_pod(pod)
        elif pod.finished or pod.terminating:
            self._forget(pod.uid)
        elif (after["spec"].get("schedulerName") or DEFAULT_PROFILE.name) == self._profile.name:
            self._pending_pod(pod, after)

    def _bound_pod(self, pod: PodInfo) -> None:
        self.queue.remove(pod.uid)
        self.snapshot.forget_nomination(pod.uid)
        known = self.snapshot.placed.get(pod.uid)
        self.snapshot.set_pod(pod)
        if pod.finished:
            if known is not None:
                self._note(Change.POD_REMOVED)
        elif known is None:
            self._note(Change.POD_PLACED)
        elif known[0].pod_class is not pod.pod_class or known[0].terminating != pod.terminating:
            self._note(Change.POD_LABELS)
            if dict(known[0].pod_class.requests) != dict(pod.pod_class.requests):
                self._note(Change.POD_REMOVED)

    def _pending_pod(self, pod: PodInfo, obj: Obj) -> None:
        if pod.nominated and pod.uid not in self._bindings:
            self.snapshot.nominate(pod, pod.nominated)
        self.queue.put(pod, monotonic())
        if pod.gated:
            self._set_condition(pod, obj, "SchedulingGated", _GATED)
        self._wake.set()

    def _forget(self, pod_uid: str) -> None:
        self.queue.remove(pod_uid)
        self.snapshot.forget_nomination(pod_uid)
        if pod_uid in self.snapshot.placed:
            self._note(Change.POD_REMOVED)
        self.snapshot.remove_pod(pod_uid)

    # --- what is done ---
    async def _run(self) -> None:
        for informer in (self._namespaces, self._services, self._nodes, self._pods):
            await informer.synced.wait()
        while True:
            await self._something()
            if self._leadership is not None and not self._leadership.valid:
                await self._leadership.leading.wait()
                await asyncio.sleep(0 if self._leadership.valid else LEASE_POLL_S)
                continue
            for change in self._changes:
                self.queue.moved(change)
            self._changes.clear()
            room = min(BATCH, BINDINGS_MAX - len(self._bindings))
            batch = self.queue.take(room, monotonic()) if room > 0 else []
            for found in schedule_batch(batch, self.snapshot, self._profile, self._rng):
                if isinstance(found, Placement):
                    self._bind(found)
                else:
                    self._refuse(found)
            await asyncio.sleep(0)

    async def _something(self) -> None:
        """Returns when there is a pod to try, a change to tell the queue or a time that has come."""
        while not self._changes and not (len(self._bindings) < BINDINGS_MAX and self.queue.ready(monotonic())):
            self._wake.clear()
            wake_at = self.queue.next_wake()
            delay_s = None if wake_at is None else max(0.0, wake_at - monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    def _bind(self, found: Placement) -> None:
        self._bindings[found.pod.uid] = asyncio.create_task(self._write_binding(found))

    async def _write_binding(self, found: Placement) -> None:
        pod = found.pod
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": found.node},
        }
        try:
            if self._leadership is not None and not self._leadership.valid:
                raise ServiceUnavailable("the leader lease is lost")
            await self._client.create(PODS, body, pod.namespace, name=pod.name, subresource="binding")
        except NotFound:
            self._forget(pod.uid)
        except (ApiError, OSError) as error:
            self._binding_failed(pod, str(error))
        else:
            self._event(pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {found.node}")
        finally:
            del self._bindings[pod.uid]
            self._wake.set()

    def _binding_failed(self, pod: PodInfo, error: str) -> None:
        held = self._pods.get(pod.key)
        if held is not None and uid(held) == pod.uid and held["spec"].get("nodeName"):
            return
        self._forget(pod.uid)
        if held is not None and uid(held) == pod.uid:
            self.queue.put(pod, monotonic())
            self.queue.failed(pod.uid, monotonic())
            self._event(pod, "Warning", "FailedScheduling", f"binding rejected: {error}")

    def _refuse(self, refused: Unschedulable) -> None:
        pod = refused.pod
        nominated = pod.nominated
        if refused.nodes:
            budgets = [budget(obj) for obj in self._budgets.all()]
            found = preempt(refused, self.snapshot, self._profile, budgets, self._rng)
            if isinstance(found, Preemption):
                self._make_room(found)
                nominated = found.node
            else:
                refused = replace(refused, preemption=found)
                if nominated and not found.startswith("not eligible due to a terminating"):
                    self.snapshot.forget_nomination(pod.uid)
                    nominated = ""
        self.queue.refused(pod.uid, refused.plugins, monotonic())
        obj = self._pods.get(pod.key)
        if obj is not None and uid(obj) == pod.uid:
            self._set_condition(pod, obj, "Unschedulable", refused.message, nominated)
            self._event(pod, "Warning", "FailedScheduling", refused.message)

    def _make_room(self, found: Preemption) -> None:
        for other in lower_nominations(found, self.snapshot.nominated):
            self.snapshot.forget_nomination(other.uid)
            self.queue.retry(other.uid)
            self._outbox.put(f"nomination/{other.uid}", lambda other=other: self._clear_nomination(other))  # type: ignore[misc]
        self.snapshot.nominate(found.pod, found.node)
        for victim in found.victims:
            if not victim.terminating:
                self.snapshot.set_pod(replace(victim, terminating=True))
                self._outbox.put(f"evict/{victim.uid}", lambda victim=victim: self._evict(victim, found))  # type: ignore[misc]

    async def _evict(self, victim: PodInfo, found: Preemption) -> None:
        """Marks a victim as disrupted and deletes it, with the grace it asked for itself."""
        held = self._pods.get(victim.key)
        row = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{self._profile.name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": format_time(self._now()),
        }
        try:
            await self._patch_status(victim, {"conditions": [row]})
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
        except NotFound:
            return
        except (ApiError, OSError):
            # it stays: count it as staying, and let the preemptor think again
            if held is not None:
                self.snapshot.set_pod(self._compiler.compile(held))
            self.queue.retry(found.pod.uid)
            self._wake.set()
            return
        self._event(victim, "Normal", "Preempted", f"Preempted by pod {found.pod.uid} on node {found.node}")

    async def _clear_nomination(self, pod: PodInfo) -> None:
        with contextlib.suppress(ApiError, OSError):
            await self._patch_status(pod, {"nominatedNodeName": None})

    def _set_condition(self, pod: PodInfo, obj: Obj, reason: str, message: str, nominated: str = "") -> None:
        held = condition(obj, "PodScheduled") or {}
        same = (held.get("reason"), held.get("message")) == (reason, message)
        if same and nominated == pod.nominated:
            return
        stamp = held.get("lastTransitionTime") if held.get("status") == "False" else None
        row = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": stamp or format_time(self._now()),
        }
        change: Obj = {"conditions": [row]}
        if nominated != pod.nominated:
            change["nominatedNodeName"] = nominated or None

        async def write() -> None:
            with contextlib.suppress(ApiError, OSError):
                await self._patch_status(pod, change)

        self._outbox.put(f"condition/{pod.uid}", write)

    async def _patch_status(self, pod: PodInfo, change: Obj) -> None:
        patch = {"metadata": {"uid": pod.uid}, "status": change}
        await self._client.patch(PODS, pod.name, patch, pod.namespace, kind="strategic", subresource="status")

    def _event(self, pod: PodInfo, type_: str, reason: str, message: str) -> None:
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        }
        self._recorder.event(about, type_, reason, message)
