"""Drives one pod: looks, decides, carries out, tells the API; woken by changes, answers and timers.

Source of every policy: `cluster.node`. Here is only the carrying out: operations run as tasks beside each other, each
at most once at a time, and what they leave is seen in the runtime's listing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, assert_never

from steersman.actors.nodeagent.handlers import Target
from steersman.actors.nodeagent.host import Host
from steersman.actors.nodeagent.mounting import mount_volumes
from steersman.actors.nodeagent.probing import ContainerProbes, probes_of
from steersman.actors.nodeagent.starting import create, ensure_image, post_start, pre_stop, termination_message
from steersman.actors.ports import monotonic
from steersman.cluster.meta.errors import ApiError, Conflict, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PODS
from steersman.cluster.node.admission import admit, requested
from steersman.cluster.node.backoff import Backoff, Failure, failed
from steersman.cluster.node.containers import find_container
from steersman.cluster.node.ending import GRACE_MIN_S
from steersman.cluster.node.lifecycle import decide
from steersman.cluster.node.observed import (
    Action,
    DeletePod,
    MountVolumes,
    Note,
    Observed,
    Refusal,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandboxes,
    Teardown,
)
from steersman.cluster.node.probes import ProbeKind
from steersman.cluster.node.sandbox import sandbox_spec
from steersman.cluster.node.status import TERMINAL, is_urgent, status_patch, with_foreign
from steersman.cluster.node.values import ContainerState, ContainerStatus, RuntimeFailure
from steersman.cluster.node.volumes import plan, tokens_of, wanted

_log = logging.getLogger(__name__)

#: how long a status that nobody waits for may wait for more changes
STATUS_DELAY_S = 0.2
#: pause after an operation that failed and has no back-off of its own, doubling up to the second
RETRY_S = 1.0
RETRY_S_MAX = 30.0
#: pauses after failures to mount and to make a sandbox, and the longest after bad configuration
SETUP_RETRY_S = 1.0
SETUP_RETRY_S_MAX = 30.0
CONFIG_RETRY_S_MAX = 20.0
_CONFIG_REASONS = ("CreateContainerConfigError",)


class PodWorker:
    """One pod on this node, from its appearance to its disappearance.

    Args:
        observe: takes in the API's answer to a write, before the watch brings it.
    """

    def __init__(self, host: Host, pod: Obj, observe: Any) -> None:
        self._host = host
        self._observe_answer = observe
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.finished = False
        self._first_seen = monotonic()
        self._woken = asyncio.Event()
        self._woken.set()
        self._timer: asyncio.TimerHandle | None = None
        self._status_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._probes: dict[str, ContainerProbes] = {}
        self._noted: set[str] = set()
        #: the status as last decided; the API's until then
        self.status: Obj = pod.get("status") or {}
        self._admitted = False
        self._refusal: Refusal | None = None
        self._ending_since: float | None = None
        self._gone = False
        self._torn_down = False
        self._mounted = False
        self._mount_failure: Failure | None = None
        self._sandbox_failure: Failure | None = None
        self._paths: dict[str, str] = {}
        self._crash: dict[str, Backoff] = {}
        self._failures: dict[str, Failure] = {}
        self._stopping: dict[str, float] = {}
        #: when each container has ended, as `monotonic`
        self._exited: dict[str, float] = {}
        self._messages: dict[str, str] = {}
        self._starting = ""
        self._pulling = False
        self._write_failures = 0
        #: operations that look at the runtime just before they end, and wake the worker then
        self._looking = 0

    # --- from outside

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"pod {self.uid}")

    async def stop(self) -> None:
        """Lets go of the pod; its containers run on."""
        tasks = [*self._operations.values(), *([self._task] if self._task else [])]
        self._let_go()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        self._woken.set()

    def runtime_changed(self) -> None:
        """The runtime's listing shows the pod differently."""
        if not self._looking:
            self.wake()

    def update(self, pod: Obj) -> None:
        """Takes in a newer version of the pod."""
        before, self.pod = self.pod, pod
        old, new = before["metadata"], pod["metadata"]
        if any(old.get(field) != new.get(field) for field in ("labels", "annotations")):
            self.refresh_volumes()
        turned = any(old.get(field) != new.get(field) for field in ("deletionTimestamp", "deletionGracePeriodSeconds"))
        gated = bool(pod["spec"].get("readinessGates"))
        if turned or gated or before["spec"] != pod["spec"] or status_patch(pod, self.status) is not None:
            self.wake()

    def pod_gone(self) -> None:
        """The API no longer has the pod."""
        self._gone = True
        self.wake()

    def refuse(self, refusal: Refusal) -> None:
        """The node will not (or no longer) run this pod."""
        if self._refusal is None:
            self._refusal = refusal
            self._host.event(self.pod, "Warning", refusal.reason, refusal.message)
            self.wake()

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def is_active(self) -> bool:
        return self._ending_since is None

    def configuration(self) -> list[tuple[str, str, str]]:
        """(kind, namespace, name) of what the pod's volumes show."""
        if not self._mounted or not self.is_active:
            return []
        namespace = self.pod["metadata"]["namespace"]
        return [(kind, namespace, name) for kind, name in wanted(plan(self.pod))]

    def token_due(self) -> bool:
        return self._mounted and self.is_active and self._host.materials.token_due(self.uid, tokens_of(plan(self.pod)))

    def refresh_volumes(self) -> None:
        """Shows the present configuration in the pod's volumes."""
        if self._mounted and self.is_active and "refresh" not in self._operations:
            self._launch("refresh", self._refresh_volumes())

    # --- the loop

    async def _run(self) -> None:
        while not self.finished:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._step()
            except Exception:
                # a pod that confuses this code must not take its neighbours along
                _log.exception("pod %s: the step failed; next try in %g s", self.uid, RETRY_S_MAX)
                self._wake_after(RETRY_S_MAX)
        self._let_go()

    def _let_go(self) -> None:
        for handle in (self._timer, self._status_timer):
            if handle is not None:
                handle.cancel()
        for probes in self._probes.values():
            probes.stop()
        self._probes.clear()
        self._host.taken.pop(self.uid, None)

    async def _step(self) -> None:
        host = self._host
        if not self._admitted:
            self._admit()
        for status in host.view.containers(self.uid):
            if status.state is ContainerState.EXITED and status.id not in self._messages:
                self._exited[status.id] = monotonic() - max(0.0, host.now() - status.finished_at)
                self._messages[status.id] = await termination_message(host, self.pod, status)
        now = host.now()
        self._probe_containers()
        before = with_foreign(self.status, self.pod.get("status") or {})
        decision = decide(
            self.pod, self._observed(now), now, config=host.config, before=before, runtime=host.runtime_name
        )
        if decision.ending and self._ending_since is None:
            self._begin_to_end()
        for note in decision.notes:
            self._note(note)
        self.status = decision.status
        if self.status.get("phase") in TERMINAL:
            host.taken.pop(self.uid, None)  # what has ended takes nothing, as its object stays
        for action in decision.actions:
            self._carry_out(action)
        self._save_status()
        self._wake_after(None if decision.wake_at is None else decision.wake_at - now)
        self.finished = decision.finished

    def _observed(self, now: float) -> Observed:
        """What `decide` is to know; the agent's own moments, kept as `monotonic`, are put on the wall clock's scale."""
        host, by_s = self._host, now - monotonic()
        mount, sandbox, ending = self._mount_failure, self._sandbox_failure, self._ending_since
        return Observed(
            sandboxes=host.view.sandboxes(self.uid),
            containers=host.view.containers(self.uid),
            verdicts={container_id: probes.verdict() for container_id, probes in self._probes.items()},
            crash={name: backoff.moved(by_s) for name, backoff in self._crash.items()},
            failures={name: failure.moved(by_s) for name, failure in self._failures.items()},
            exited={container_id: at + by_s for container_id, at in self._exited.items()},
            mounted=self._mounted,
            mount_failure=mount and mount.moved(by_s),
            sandbox_failure=sandbox and sandbox.moved(by_s),
            busy=frozenset(self._operations),
            starting=self._starting,
            stopping={container_id: until + by_s for container_id, until in self._stopping.items()},
            messages=self._messages,
            refusal=self._refusal,
            ending_since=None if ending is None else ending + by_s,
            gone=self._gone,
            torn_down=self._torn_down,
            saved=not self._torn_down or status_patch(self.pod, self.status) is None,
            prepared=host.prepared or bool(self.pod["spec"].get("hostNetwork")),
        )

    def _admit(self) -> None:
        """Checks once whether the node takes the pod; one that already runs here, or has ended, is not asked again."""
        self._admitted = True
        host, status = self._host, self.pod.get("status") or {}
        if status.get("phase") in TERMINAL or self.pod["metadata"].get("deletionTimestamp"):
            return
        if not status.get("startTime") and not host.view.sandboxes(self.uid) and host.node is not None:
            used: dict[str, int] = {}
            for row in host.taken.values():
                for resource, amount in row.items():
                    used[resource] = used.get(resource, 0) + amount
            refusal = admit(self.pod, host.node, used, host.config.allocatable())
            if refusal is not None:
                self.refuse(refusal)
                return
        host.taken[self.uid] = requested(self.pod)

    def _begin_to_end(self) -> None:
        self._ending_since = monotonic()
        for key in ("volumes", "refresh"):
            if key in self._operations:
                self._operations[key].cancel()
        if self._pulling:
            self._operations["start"].cancel()
        self._probe_containers()

    def _note(self, note: Note) -> None:
        if note.once:
            if note.once in self._noted:
                return
            self._noted.add(note.once)
        self._host.event(self.pod, note.type, note.reason, note.message, note.container)

    def _wake_after(self, delay_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay_s) + 0.001, self.wake)

    # --- operations

    async def _look(self) -> None:
        """Brings the runtime's listing up to date; the last thing an operation does."""
        self._looking += 1
        try:
            await self._host.view.refresh()
        finally:
            self._looking -= 1

    def _launch(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        self._operations[key] = asyncio.create_task(self._operate(key, work), name=f"{key} of pod {self.uid}")

    async def _operate(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        try:
            await work
        except RuntimeFailure as failure:
            _log.warning("pod %s: %s failed: %s", self.uid, key, failure.message)
            await asyncio.sleep(RETRY_S)
        except Exception:
            _log.exception("pod %s: %s failed", self.uid, key)
            await asyncio.sleep(RETRY_S_MAX)
        finally:
            if self._operations.get(key) is task:
                del self._operations[key]
                if key == "start":
                    self._starting, self._pulling = "", False
                if key != "status" or not self.is_active or status_patch(self.pod, self.status) is not None:
                    self.wake()

    def _carry_out(self, action: Action) -> None:
        match action:
            case MountVolumes():
                self._launch("volumes", self._mount())
            case RunSandbox(attempt=attempt):
                self._launch("sandbox", self._run_sandbox(attempt))
            case StartContainer():
                self._starting = action.name
                self._launch("start", self._start_container(action))
            case StopContainer():
                self._stop_container(action)
            case RemoveContainer(id=container_id):
                self._launch(f"remove {container_id}", self._remove_container(container_id))
            case RemoveSandbox(id=sandbox_id):
                self._launch(f"remove {sandbox_id}", self._remove_sandbox(sandbox_id))
            case StopSandboxes(ids=ids):
                self._launch("stop-sandbox", self._stop_sandboxes(ids))
            case Teardown():
                self._launch("teardown", self._tear_down(action))
            case DeletePod():
                self._launch("delete", self._delete_pod())
            case _:
                assert_never(action)

    async def _mount(self) -> None:
        host = self._host
        newer_than = self._first_seen if self._mount_failure is None else self._mount_failure.at
        try:
            self._paths = await mount_volumes(host, self.pod, newer_than)
        except RuntimeFailure as failure:
            self._mount_failure = failed(
                self._mount_failure,
                failure.reason,
                failure.message,
                monotonic(),
                initial_s=SETUP_RETRY_S,
                max_s=SETUP_RETRY_S_MAX,
            )
            host.event(self.pod, "Warning", "FailedMount", failure.message)
            return
        self._mounted, self._mount_failure = True, None

    async def _refresh_volumes(self) -> None:
        try:
            await mount_volumes(self._host, self.pod, self._first_seen, payloads_only=True)
        except RuntimeFailure as failure:
            self._host.event(self.pod, "Warning", "FailedMount", failure.message)

    async def _run_sandbox(self, attempt: int) -> None:
        host = self._host
        try:
            await host.runtime.run_sandbox(sandbox_spec(self.pod, host.config, attempt))
        except RuntimeFailure as failure:
            self._sandbox_failure = failed(
                self._sandbox_failure,
                failure.reason,
                failure.message,
                monotonic(),
                initial_s=SETUP_RETRY_S,
                max_s=SETUP_RETRY_S_MAX,
            )
            message = f"Failed to create pod sandbox: {failure.message}"
            host.event(self.pod, "Warning", "FailedCreatePodSandBox", message)
        else:
            self._sandbox_failure = None
        await self._look()

    async def _start_container(self, action: StartContainer) -> None:
        host, pod = self._host, self.pod
        container = find_container(pod, action.name)
        assert container is not None
        old = self._failures.get(action.name)
        newer_than = self._first_seen if old is None else old.at
        container_id = ""
        try:
            self._pulling = True
            image = await ensure_image(host, pod, container, newer_than)
            self._pulling = False
            container_id = await create(
                host,
                pod,
                container,
                action.attempt,
                sandbox_id=action.sandbox_id,
                image=image,
                ips=self._ips(),
                paths=self._paths,
                newer_than=newer_than,
            )
            if action.backoff is not None:
                self._crash[action.name] = replace(action.backoff, since=monotonic())
            await host.runtime.start_container(container_id)
        except RuntimeFailure as failure:
            self._start_failed(container, failure, old)
            await self._look()
            return
        self._failures.pop(action.name, None)
        host.event(pod, "Normal", "Started", "Container started", action.name)
        if not (container.get("lifecycle") or {}).get("postStart"):
            self._starting = ""
        await self._look()
        self.wake()
        if not await post_start(host, pod, container, container_id, self._ip()):
            await host.runtime.stop_container(container_id, GRACE_MIN_S)
            await self._look()

    def _start_failed(self, container: Obj, failure: RuntimeFailure, old: Failure | None) -> None:
        host, name = self._host, container["name"]
        limit_s = {"max_s": CONFIG_RETRY_S_MAX} if failure.reason in _CONFIG_REASONS else {}
        self._failures[name] = failed(old, failure.reason, failure.message, monotonic(), **limit_s)
        if failure.reason == "ErrImagePull":
            host.event(self.pod, "Warning", "Failed", f"Error: {failure.reason}", name)
            host.event(self.pod, "Normal", "BackOff", f'Back-off pulling image "{container["image"]}"', name)
        elif failure.reason in ("ErrImageNeverPull", "InvalidImageName"):
            # nothing was tried, so that nothing is backed off from
            reason = "InspectFailed" if failure.reason == "InvalidImageName" else failure.reason
            host.event(self.pod, "Warning", reason, failure.message, name)
            host.event(self.pod, "Warning", "Failed", f"Error: {failure.reason}", name)
        else:
            host.event(self.pod, "Warning", "Failed", f"Error: {failure.message}", name)

    def _ips(self) -> tuple[str, ...]:
        if self.pod["spec"].get("hostNetwork"):
            return (self._host.config.address,)
        ready = [row for row in self._host.view.sandboxes(self.uid) if row.ready]
        return max(ready, key=lambda row: row.attempt).ips if ready else ()

    def _ip(self) -> str:
        return next(iter(self._ips()), "")

    def _stop_container(self, action: StopContainer) -> None:
        key = f"stop {action.id}"
        running = self._operations.pop(key, None)
        if running is not None:
            running.cancel()
        self._stopping[action.id] = monotonic() + action.grace_s
        self._host.event(self.pod, "Normal", "Killing", action.message, action.name)
        self._launch(key, self._stop(action))

    async def _stop(self, action: StopContainer) -> None:
        host = self._host
        began = monotonic()
        status = next((row for row in host.view.containers(self.uid) if row.id == action.id), None)
        try:
            if action.hook and action.grace_s > 0 and status is not None:
                await pre_stop(host, self.pod, status, self._ip(), action.grace_s)
            left_s = action.grace_s - (monotonic() - began)
            await host.runtime.stop_container(action.id, max(left_s, min(GRACE_MIN_S, action.grace_s)))
            await self._look()
        except RuntimeFailure as failure:
            host.event(self.pod, "Warning", "FailedKillPod", f"error killing pod: {failure.message}")
            await asyncio.sleep(RETRY_S)
        self._stopping.pop(action.id, None)

    async def _remove_container(self, container_id: str) -> None:
        await self._host.runtime.remove_container(container_id)
        self._messages.pop(container_id, None)
        self._exited.pop(container_id, None)
        await self._look()

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        await self._host.runtime.remove_sandbox(sandbox_id)
        await self._look()

    async def _stop_sandboxes(self, ids: tuple[str, ...]) -> None:
        for sandbox_id in ids:
            await self._host.runtime.stop_sandbox(sandbox_id)
        await self._look()

    async def _tear_down(self, action: Teardown) -> None:
        host = self._host
        for container_id in action.containers:
            await host.runtime.remove_container(container_id)
        for sandbox_id in action.sandboxes:
            await host.runtime.remove_sandbox(sandbox_id)
        await host.volumes.teardown(self.uid)
        host.materials.forget_pod(self.uid)
        host.taken.pop(self.uid, None)
        if action.containers or action.sandboxes:
            await self._look()
        self._torn_down = not host.view.containers(self.uid) and not host.view.sandboxes(self.uid)

    async def _delete_pod(self) -> None:
        meta = self.pod["metadata"]
        try:
            await self._host.client.delete(PODS, meta["name"], meta["namespace"], grace_s=0, uid=self.uid)
        except (NotFound, Conflict):
            pass  # gone, or another pod has the name by now
        except (ApiError, OSError) as error:
            await self._pause("the deletion", error)
            return
        self._gone = True

    # --- probes

    def _probe_containers(self) -> None:
        """Probes what runs, and only that; a pod that ends is asked for readiness alone."""
        ending = self._ending_since is not None
        running = {row.id: row for row in self._host.view.containers(self.uid) if row.state is ContainerState.RUNNING}
        for container_id in [held for held in self._probes if held not in running]:
            self._probes.pop(container_id).stop()
        for container_id, status in running.items():
            probes = self._probes.get(container_id)
            if probes is None:
                if not ending and container_id not in self._stopping:
                    self._begin_probes(status)
            elif ending or container_id in self._stopping:
                probes.keep_only((ProbeKind.READINESS,))

    def _begin_probes(self, status: ContainerStatus) -> None:
        container = find_container(self.pod, status.name)
        specs = probes_of(container) if container is not None else {}
        if container is None or not specs:
            return
        host = self._host
        name = status.name
        self._probes[status.id] = probes = ContainerProbes(
            host.handlers,
            Target(container_id=status.id, container=container, pod_ip=self._ip()),
            specs,
            age_s=max(0.0, host.now() - status.started_at),
            known=self._known(status),
            rng=host.rng,
            on_change=self.wake,
            on_unhealthy=lambda text: host.event(self.pod, "Warning", "Unhealthy", text, name),
        )
        probes.start()

    def _known(self, status: ContainerStatus) -> tuple[bool, bool] | None:
        """What the API's status says of this very container, left there by an agent before this one."""
        for field in ("containerStatuses", "initContainerStatuses"):
            for row in (self.pod.get("status") or {}).get(field) or ():
                if row.get("name") == status.name and str(row.get("containerID", "")).endswith(status.id):
                    return bool(row.get("started")), bool(row.get("ready"))
        return None

    # --- the API

    def _save_status(self) -> None:
        if self._gone or "status" in self._operations:
            return
        patch = status_patch(self.pod, self.status)
        if patch is None:
            return
        # of a pod that goes, the last word is written when everything is over
        going = bool(self.pod["metadata"].get("deletionTimestamp"))
        if self._torn_down if going else is_urgent(self.pod, patch):
            self._flush_status()
        elif self._status_timer is None:
            loop = asyncio.get_running_loop()
            self._status_timer = loop.call_later(STATUS_DELAY_S, self._flush_status)

    def _flush_status(self) -> None:
        if self._status_timer is not None:
            self._status_timer.cancel()
            self._status_timer = None
        if "status" not in self._operations:
            self._launch("status", self._write_status())

    async def _write_status(self) -> None:
        meta = self.pod["metadata"]
        async with self._host.status_writes:
            patch = status_patch(self.pod, self.status)
            if patch is None:
                return
            wanted_status = self.status
            try:
                answer = await self._host.client.patch(
                    PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status"
                )
            except (NotFound, Conflict):
                return  # gone, or another pod has the name by now: the watch will tell
            except (ApiError, OSError) as error:
                failure: Exception = error
            else:
                self._observe_answer(answer)
                left = status_patch(answer, wanted_status)
                if left is None:
                    self._write_failures = 0
                    return
                failure = ValueError(f"the server keeps it otherwise: {sorted(left['status'])}")
        await self._pause("the status", failure)

    async def _pause(self, what: str, error: Exception) -> None:
        """Waits after a refused or failed write, longer each time."""
        delay_s = min(RETRY_S * 2**self._write_failures, RETRY_S_MAX) * self._host.rng.uniform(0.5, 1.0)
        self._write_failures = min(self._write_failures + 1, 10)
        _log.warning("pod %s: writing %s failed, again in %.1f s: %s", self.uid, what, delay_s, error)
        await asyncio.sleep(delay_s)
