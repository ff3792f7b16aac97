"""What to do next for a pod: the kubelet's syncPod as one function of what is seen.

Order: volumes, sandbox, init containers one after the other (sidecars stay and must have started), main containers in
order; containers that exit start again by policy and back-off; a pod that ends is left to `ending`.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
and k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_manager.go (computePodActions)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.backoff import next_backoff, ready_at
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.containers import spec_hash
from steersman.cluster.node.ending import DEADLINE_EXCEEDED, deadline_at, end, ending_of, grace_of
from steersman.cluster.node.history import History, has_exited, history_of, is_alive, restarts
from steersman.cluster.node.observed import (
    Action,
    Decision,
    MountVolumes,
    Note,
    Observed,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandboxes,
)
from steersman.cluster.node.resources import is_sidecar
from steersman.cluster.node.status import build_status
from steersman.cluster.node.values import ContainerState, ContainerStatus, SandboxStatus

#: exited generations of a container that are kept: the present one and the one before it (`logs --previous`)
KEPT_GENERATIONS = 2


@dataclass(slots=True)
class _Draft:
    """A decision being put together."""

    actions: list[Action] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    wake_at: float | None = None

    def wake(self, at: float | None) -> None:
        if at is not None:
            self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def decide(
    pod: Mapping[str, Any], seen: Observed, now: float, *, config: NodeConfig, before: Mapping[str, Any], runtime: str
) -> Decision:
    """Decides what to do now for one pod.

    Args:
        before: the status last decided or, at first, the API's: what is no longer seen is remembered from it.
        runtime: the runtime's name, for container ids as the API shows them.
    """
    history = history_of(pod, seen, before)
    ending = ending_of(pod, before, seen, history, now)
    draft = _Draft()
    finished = False
    if ending is not None:
        outcome = end(ending, seen, history, now)
        draft.actions += outcome.actions
        if ending.reason == DEADLINE_EXCEEDED:
            draft.notes.append(Note(type="Normal", reason=ending.reason, message=ending.message, once=ending.reason))
        draft.wake(outcome.wake_at)
        finished = outcome.finished
    else:
        _run(draft, pod, seen, history, now)
        draft.wake(deadline_at(pod, before))
    status, changes_at = build_status(
        pod, seen, history, now, ending=ending, before=before, config=config, runtime=runtime
    )
    draft.wake(changes_at)
    return Decision(
        actions=tuple(draft.actions),
        status=status,
        wake_at=draft.wake_at,
        notes=tuple(draft.notes),
        ending=ending is not None,
        finished=finished,
    )


def _run(draft: _Draft, pod: Mapping[str, Any], seen: Observed, history: History, now: float) -> None:
    _clean(draft, seen, history)
    if not seen.mounted:
        if "volumes" not in seen.busy:
            _try(draft, seen.mount_failure, MountVolumes(), now)
        return
    if history.sandbox is None:
        _run_sandbox(draft, seen, history, now)
        return
    _kill(draft, pod, seen, history)
    if _initialise(draft, pod, seen, history, history.sandbox, now):
        _start_mains(draft, pod, seen, history, history.sandbox, now)
    for container in history.ephemerals:
        if history.latest(container["name"]) is None:
            _start(draft, pod, container, seen, history, history.sandbox, now)


def _try(draft: _Draft, failure: Any, action: Action, now: float) -> None:
    """Adds the action unless an earlier failure of it asks to wait."""
    if failure is not None and now < failure.retry_at:
        draft.wake(failure.retry_at)
    else:
        draft.actions.append(action)


def _run_sandbox(draft: _Draft, seen: Observed, history: History, now: float) -> None:
    alive = [row for row in seen.containers if is_alive(row)]
    if alive:
        for row in alive:
            if row.id not in seen.stopping:
                message = "Pod sandbox changed, it will be killed and re-created."
                draft.actions.append(StopContainer(id=row.id, name=row.name, grace_s=2.0, message=message))
        return
    if "sandbox" in seen.busy or not seen.prepared:
        return
    newest = history.newest
    attempt = 0 if newest is None else newest.attempt + 1
    if newest is not None:
        message = "Pod sandbox changed, it will be killed and re-created."
        draft.notes.append(Note(type="Normal", reason="SandboxChanged", message=message, once=f"sandbox {attempt}"))
    _try(draft, seen.sandbox_failure, RunSandbox(attempt=attempt), now)


def _kill(draft: _Draft, pod: Mapping[str, Any], seen: Observed, history: History) -> None:
    """Stops containers that failed a probe, or whose image in the spec is another by now."""
    for container in [*history.inits, *history.mains]:
        status = history.current(container["name"])
        if status is None or status.state is not ContainerState.RUNNING or status.id in seen.stopping:
            continue
        verdict = seen.verdicts.get(status.id)
        grace_s, message = grace_of(pod), ""
        if verdict is not None and verdict.kill is not None:
            message = verdict.kill.message
            grace_s = grace_s if verdict.kill.grace_s is None else verdict.kill.grace_s
        elif status.spec_hash and status.spec_hash != spec_hash(container):
            message = f"Container {container['name']} definition changed, will be restarted"
        if message:
            draft.actions.append(StopContainer(id=status.id, name=container["name"], grace_s=grace_s, message=message))


def _initialise(
    draft: _Draft,
    pod: Mapping[str, Any],
    seen: Observed,
    history: History,
    sandbox: SandboxStatus,
    now: float,
) -> bool:
    """Takes the next step of initialisation; True when the main containers may run."""
    begun = history.mains_begun()
    for container in history.inits:
        status = history.current(container["name"])
        if is_sidecar(container):
            if not is_alive(status):
                _start(draft, pod, container, seen, history, sandbox, now)
            if not begun and not _has_started(status, seen):
                return False
        elif not begun:
            if status is None or (has_exited(status) and status.exit_code != 0):
                _start(draft, pod, container, seen, history, sandbox, now)
                return False
            if is_alive(status):
                return False
    return True


def _has_started(status: ContainerStatus | None, seen: Observed) -> bool:
    """Whether a sidecar runs, has passed its startup probe, and its postStart hook is over."""
    if status is None or status.state is not ContainerState.RUNNING or seen.starting == status.name:
        return False
    verdict = seen.verdicts.get(status.id)
    return verdict is None or verdict.started


def _start_mains(
    draft: _Draft, pod: Mapping[str, Any], seen: Observed, history: History, sandbox: SandboxStatus, now: float
) -> None:
    for container in history.mains:
        latest = history.latest(container["name"])
        if is_alive(latest):
            continue
        if has_exited(latest) and latest is not None and not restarts(pod, container, latest.exit_code):
            continue
        _start(draft, pod, container, seen, history, sandbox, now)


def _start(
    draft: _Draft,
    pod: Mapping[str, Any],
    container: Obj,
    seen: Observed,
    history: History,
    sandbox: SandboxStatus,
    now: float,
) -> None:
    """Starts a container, unless another is just being started or a back-off asks to wait."""
    name = container["name"]
    latest = history.latest(name)
    failure = seen.failures.get(name)
    if failure is not None and now < failure.retry_at:
        draft.wake(failure.retry_at)
        return
    if "start" in seen.busy:  # also of this container: its back-off is over then
        return
    backoff = None
    if latest is not None and has_exited(latest):
        ended_at = seen.exited.get(latest.id, latest.finished_at)
        at = ready_at(seen.crash.get(name), ended_at)
        if now < at:
            draft.wake(at)
            draft.notes.append(_backoff_note(pod, name, latest.attempt))
            return
        backoff = next_backoff(seen.crash.get(name), ended_at, now)
    if any(isinstance(action, StartContainer) for action in draft.actions):
        return
    draft.actions.append(
        StartContainer(name=name, attempt=history.next_attempt(name), sandbox_id=sandbox.id, backoff=backoff)
    )


def _backoff_note(pod: Mapping[str, Any], name: str, attempt: int) -> Note:
    meta = pod["metadata"]
    return Note(
        type="Warning",
        reason="BackOff",
        message=f"Back-off restarting failed container {name} in pod "
        f"{meta['name']}_{meta.get('namespace', '')}({meta['uid']})",
        container=name,
        once=f"backoff {name} {attempt}",
    )


def _clean(draft: _Draft, seen: Observed, history: History) -> None:
    """Removes what was created but never started, old generations, and sandboxes that nothing refers to."""
    kept_sandboxes = set() if history.newest is None else {history.newest.id}
    for rows in history.by_name.values():
        started = 0
        for row in rows:
            if row.state is ContainerState.CREATED:
                stale = seen.starting != row.name
            else:
                started += 1
                stale = row.state is ContainerState.EXITED and started > KEPT_GENERATIONS
            if not stale:
                kept_sandboxes.add(row.sandbox_id)
            elif f"remove {row.id}" not in seen.busy:
                draft.actions.append(RemoveContainer(id=row.id))
    for sandbox in seen.sandboxes:
        if history.newest is not None and sandbox.id == history.newest.id:
            continue
        if sandbox.ready:
            if "stop-sandbox" not in seen.busy:
                draft.actions.append(StopSandboxes(ids=(sandbox.id,)))
        elif sandbox.id not in kept_sandboxes and f"remove {sandbox.id}" not in seen.busy:
            draft.actions.append(RemoveSandbox(id=sandbox.id))
