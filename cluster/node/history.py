"""The pod's containers by name and generation, and what its restart policy makes of their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.observed import Observed
from steersman.cluster.node.resources import is_sidecar
from steersman.cluster.node.values import ContainerState, ContainerStatus, SandboxStatus


def restart_policy(pod: Mapping[str, Any], container: Mapping[str, Any], exit_code: int) -> str:
    """Returns `Always`, `OnFailure` or `Never` for this container after this exit.

    A container's own `restartPolicy` wins over the pod's, and its `restartPolicyRules` over both.
    """
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if rule.get("action") == "Restart" and listed is (codes.get("operator") == "In"):
            return "Always"
    policy: str = container.get("restartPolicy") or pod["spec"].get("restartPolicy") or "Always"
    return policy


def restarts(pod: Mapping[str, Any], container: Mapping[str, Any], exit_code: int) -> bool:
    """Whether a main container that ended with this code starts again."""
    policy = restart_policy(pod, container, exit_code)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def is_alive(status: ContainerStatus | None) -> bool:
    """Whether it runs, or may run as far as anybody knows."""
    return status is not None and status.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)


def has_exited(status: ContainerStatus | None) -> bool:
    return status is not None and status.state is ContainerState.EXITED


@dataclass(frozen=True, slots=True)
class History:
    """The runtime's containers of one pod, in order.

    Args:
        sandbox: the newest sandbox if it is ready.
        newest: the newest sandbox, ready or not.
        by_name: container name to its generations, the newest first.
        recorded: container name to the restart count last told of it, for those that have run.
    """

    pod: Mapping[str, Any]
    sandbox: SandboxStatus | None
    newest: SandboxStatus | None
    by_name: Mapping[str, tuple[ContainerStatus, ...]]
    recorded: Mapping[str, int]

    @property
    def mains(self) -> list[Obj]:
        return self.pod["spec"].get("containers") or []

    @property
    def inits(self) -> list[Obj]:
        return self.pod["spec"].get("initContainers") or []

    @property
    def ephemerals(self) -> list[Obj]:
        return self.pod["spec"].get("ephemeralContainers") or []

    def latest(self, name: str) -> ContainerStatus | None:
        """The newest generation that was started, wherever it ran."""
        rows = self.by_name.get(name, ())
        return next((row for row in rows if row.state is not ContainerState.CREATED), None)

    def current(self, name: str) -> ContainerStatus | None:
        """The newest generation that was started in the sandbox that is ready now."""
        latest = self.latest(name)
        if latest is None or self.sandbox is None or latest.sandbox_id != self.sandbox.id:
            return None
        return latest

    def next_attempt(self, name: str) -> int:
        latest = self.latest(name)
        last = self.recorded.get(name, -1) if latest is None else latest.attempt
        return last + 1

    def mains_begun(self) -> bool:
        """Whether a main container has been started in this sandbox, so that initialisation is behind it."""
        return any(self.current(row["name"]) is not None for row in self.mains)

    def initialisation_failed(self) -> bool:
        """Whether an init container ended for good without success."""
        for row in self.inits:
            status = self.latest(row["name"])
            if is_sidecar(row) or status is None or not has_exited(status) or status.exit_code == 0:
                continue
            if restart_policy(self.pod, row, status.exit_code) == "Never":
                return True
        return False

    def is_finished(self) -> bool:
        """Whether no container has any reason to run again: the work is done, or has failed for good."""
        if self.initialisation_failed():
            return True
        for row in self.mains:
            status = self.latest(row["name"])
            if status is None or not has_exited(status) or restarts(self.pod, row, status.exit_code):
                return False
        return bool(self.mains)


def history_of(pod: Mapping[str, Any], seen: Observed, before: Mapping[str, Any]) -> History:
    """Sorts what the runtime shows; `before` is the status last decided, which remembers what the runtime forgets."""
    newest = max(seen.sandboxes, key=lambda row: (row.attempt, row.created_at), default=None)
    grouped: dict[str, list[ContainerStatus]] = {}
    for status in seen.containers:
        grouped.setdefault(status.name, []).append(status)
    return History(
        pod=pod,
        sandbox=newest if newest is not None and newest.ready else None,
        newest=newest,
        by_name={
            name: tuple(sorted(rows, key=lambda row: (row.attempt, row.created_at), reverse=True))
            for name, rows in grouped.items()
        },
        recorded={
            row["name"]: int(row.get("restartCount") or 0)
            for field in ("initContainerStatuses", "containerStatuses")
            for row in before.get(field) or ()
            if row.get("containerID")
        },
    )
