"""Which runtime this machine can carry, and why not a better one.

Tries what it needs to know (a network namespace, an overlay mount) rather than guessing from versions.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import engine, mounts, syscalls
from steersman.runtime.protocol import Runtime, Volumes
from steersman.runtime.simulated import SimulatedRuntime
from steersman.runtime.simulated_volumes import SimulatedVolumes
from steersman.runtime.volumes import MachineVolumes, may_mount

#: what may be asked for; an engine's name asks for the oci runtime with that engine
CHOICES = ("auto", "oci", "crun", "runc", "cri", "process", "simulated")
#: where containerd listens unless told otherwise
CRI_ENDPOINT = "unix:///run/containerd/containerd.sock"


@dataclass(frozen=True, slots=True)
class Choice:
    """Args: reasons: sentences on why no better runtime was taken; empty when asked for or when it is the best."""

    name: str
    runtime: Runtime
    volumes: Volumes
    reasons: tuple[str, ...] = ()


def detect(
    preferred: str | None,
    root: Path,
    *,
    now: Callable[[], float],
    rng: random.Random,
    insecure_registries: Collection[str] = (),
    cri_endpoint: str = CRI_ENDPOINT,
) -> Choice:
    """Chooses a runtime; nothing is started.

    Args:
        preferred: one of `CHOICES`; None is `auto`: `oci` where it can work, else `process`.
        root: data directory for the runtime and its volumes.
        cri_endpoint: of the CRI runtime, when that is asked for.

    Raises:
        RuntimeFailure: `RuntimeNotReady`: what was asked for cannot work here; the message says why.
    """
    wanted = preferred or "auto"
    if wanted not in CHOICES:
        raise RuntimeFailure("RuntimeNotReady", f"unknown runtime {wanted!r}: choose one of {', '.join(CHOICES)}")
    if wanted == "simulated":
        return Choice("simulated", SimulatedRuntime(now=now, rng=rng), SimulatedVolumes())
    volumes = MachineVolumes(root / "volumes", mounting=may_mount())
    if wanted == "cri":
        if reason := why_not_cri(cri_endpoint):
            raise RuntimeFailure("RuntimeNotReady", f"the runtime cri cannot work here: {reason}")
        # needs gRPC and Linux, which the other runtimes do without
        from steersman.runtime.cri import CriRuntime

        return Choice("cri", CriRuntime(cri_endpoint, root, now=now), volumes)
    reason = ""
    if wanted != "process":
        named = wanted if wanted in engine.KNOWN else None
        reason = why_not_oci(root, named)
        if not reason:
            # needs Linux and its libraries, which the other runtimes do without
            from steersman.runtime.oci import OciRuntime

            oci = OciRuntime(root, engine=named, now=now, insecure_registries=insecure_registries)
            return Choice("oci", oci, volumes)
        if wanted != "auto":
            raise RuntimeFailure("RuntimeNotReady", f"the runtime {wanted} cannot work here: {reason}")
    from steersman.runtime.process import ProcessRuntime

    process = ProcessRuntime(root, now=now, insecure_registries=insecure_registries)
    return Choice("process", process, volumes, (f"no real containers: {reason}",) if reason else ())


def why_not_cri(endpoint: str) -> str:
    """Returns why no CRI runtime can be used at an endpoint; empty when one may be there."""
    if not endpoint.startswith("unix:///"):
        return f"the endpoint {endpoint!r} is not of the form unix:///path"
    if os.geteuid() != 0:
        return "it needs root"
    if not Path(endpoint.removeprefix("unix://")).is_socket():
        return f"nothing listens at {endpoint}: start containerd or CRI-O, or name another endpoint"
    return ""


def why_not_oci(root: Path, named: str | None = None) -> str:
    """Returns why the oci runtime cannot work below a directory on this machine; empty when it can. Blocks shortly."""
    if os.geteuid() != 0:
        return "it needs root"
    for name, number in (("CAP_SYS_ADMIN", syscalls.CAP_SYS_ADMIN), ("CAP_NET_ADMIN", syscalls.CAP_NET_ADMIN)):
        if not syscalls.has_capability(number):
            return f"it needs {name}"
    if engine.find(named) is None:
        return f"{named or 'crun or runc'} is not installed"
    if shutil.which("conmon") is None:
        return "conmon is not installed"
    return _why_no_namespaces() or _why_no_overlay(root)


def _why_no_namespaces() -> str:
    problems: list[str] = []

    def attempt() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
        except OSError as error:
            problems.append(f"namespaces are not allowed: {error.strerror}")

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return problems[0] if problems else ""


def _why_no_overlay(root: Path) -> str:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o711)
        directory = Path(tempfile.mkdtemp(prefix=".overlay-", dir=root))
    except OSError as error:
        return f"{root} cannot be written: {error.strerror}"
    try:
        for part in ("lower", "upper", "work", "merged"):
            (directory / part).mkdir()
        options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
        syscalls.mount("overlay", str(directory / "merged"), "overlay", 0, options)
    except OSError as error:
        return f"overlay mounts do not work in {root}: {error.strerror}"
    finally:
        mounts.remove_tree(directory)
    return ""
