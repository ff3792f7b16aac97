"""What a decision about one pod sees, and what it may answer.

Source: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_manager.go (podActions)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.backoff import Backoff, Failure
from steersman.cluster.node.values import ContainerStatus, SandboxStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A container must be stopped for a probe's sake; grace_s: of the probe, None for the pod's own."""

    message: str
    grace_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What probes and hooks say of a running container."""

    started: bool = True
    ready: bool = True
    kill: Kill | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The node will not run this pod: rejected at admission, or evicted.

    Args:
        condition: a row for the pod's conditions (`DisruptionTarget`), if the refusal has one.
    """

    reason: str
    message: str
    grace_s: float | None = None
    condition: Obj | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One pod as its node sees it.

    Args:
        sandboxes, containers: the runtime's, of this pod's uid, in any order.
        verdicts: by container id; a running container without one has no probe.
        crash: by container name: the back-off after exits.
        exited: by container id: when it ended, where the runtime's own date is not to be compared with `now`, since
            the wall clock has been set in between.
        failures: by container name: the last attempt to start it, when that failed.
        mounted: whether every volume stands.
        busy: operations in flight: `volumes`, `sandbox`, `start`, `stop-sandbox`, `teardown`, `delete`,
            `remove ID`.
        starting: the container that `start` is about.
        stopping: by container id: until when its grace lasts.
        messages: by container id: the termination message of one that has exited.
        refusal: set once, never taken back.
        ending_since: when the pod was first seen to end.
        gone: the API no longer has the pod.
        torn_down: nothing of the pod is left in the runtime and its volumes are removed.
        saved: the API has the status as it was last decided.
        prepared: what the node itself must have (an address range) is there.
    """

    sandboxes: tuple[SandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    crash: Mapping[str, Backoff] = field(default_factory=dict)
    exited: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    mounted: bool = False
    mount_failure: Failure | None = None
    sandbox_failure: Failure | None = None
    busy: frozenset[str] = frozenset()
    starting: str = ""
    stopping: Mapping[str, float] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None
    ending_since: float | None = None
    gone: bool = False
    torn_down: bool = False
    saved: bool = True
    prepared: bool = True


# --- answers


@dataclass(frozen=True, slots=True, kw_only=True)
class MountVolumes:
    """Make every volume of the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSandbox:
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Fetch the image, create, start, run the postStart hook.

    Args:
        backoff: to keep if the container has run before.
    """

    name: str
    attempt: int
    sandbox_id: str
    backoff: Backoff | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer:
    """Run the preStop hook, then stop; both within `grace_s`.

    Args:
        message: of the `Killing` event.
        hook: whether preStop is to run (it is not when the grace is being shortened).
    """

    id: str
    name: str
    grace_s: float
    message: str
    hook: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer:
    """Remove an exited container that nobody needs any more."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSandbox:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSandboxes:
    """Release addresses and namespaces; containers and logs stay."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teardown:
    """Remove containers, sandboxes and volumes of the pod."""

    containers: tuple[str, ...]
    sandboxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """Tell the API that the pod is gone from here: delete with grace 0 and its uid."""


Action = (
    MountVolumes
    | RunSandbox
    | StartContainer
    | StopContainer
    | RemoveContainer
    | RemoveSandbox
    | StopSandboxes
    | Teardown
    | DeletePod
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An event to record; once: notes with the same text here are recorded a single time per pod."""

    type: str
    reason: str
    message: str
    container: str = ""
    once: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now.

    Args:
        status: the whole status that the pod has now.
        wake_at: decide again at this moment though nothing happens, Unix seconds.
        ending: the pod will not run anything again.
        finished: the agent has nothing more to do with this pod, ever.
    """

    actions: tuple[Action, ...]
    status: Obj
    wake_at: float | None = None
    notes: tuple[Note, ...] = ()
    ending: bool = False
    finished: bool = False
