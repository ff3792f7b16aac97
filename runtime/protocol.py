"""The one seam between a node agent and whatever runs containers on its machine.

Implementers: `oci` (crun or runc with conmon), `cri` (containerd, CRI-O), `process` (no engine), `simulated` (no
containers). One contract test suite runs over all of them. Containers outlive the agent: after a restart `containers()`
shows them again by id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from steersman.cluster.node.values import (
    ContainerSpec,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Image,
    RegistryAuth,
    RuntimeInfo,
    SandboxSpec,
    SandboxStatus,
)


class Process(Protocol):
    """A process with open streams: an exec in a container, or the attachment to its first process."""

    async def read(self) -> tuple[int, bytes] | None:
        """Returns (1 for stdout or 2 for stderr, bytes), or None at the end of both."""
        ...

    async def write(self, data: bytes) -> None:
        """Writes to stdin; empty data closes it."""
        ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        """Returns the exit code, 128 + n after signal n; an attachment that is left returns 0."""
        ...

    async def close(self) -> None:
        """Ends an exec's process, or leaves an attachment."""
        ...


class ByteStream(Protocol):
    """A connection to a port of a pod."""

    async def read(self) -> bytes:
        """Returns the next bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Writes; empty data closes the writing half."""
        ...

    async def close(self) -> None: ...


class Runtime(Protocol):
    """Runs sandboxes and containers. Every method may raise `RuntimeFailure`; removals of what is gone succeed."""

    async def start(self) -> RuntimeInfo:
        """Looks at the machine, makes directories, networks and the built-in images; touches no container."""
        ...

    async def stop(self) -> None:
        """Lets go of what this process holds; containers run on."""
        ...

    async def purge(self) -> None:
        """Removes every sandbox, container, mount, namespace, cgroup and network of this runtime's data directory."""
        ...

    async def set_pod_cidr(self, cidr: str) -> None:
        """Names the range of this node's pod addresses; needed before the first sandbox outside the host's network."""
        ...

    async def sandboxes(self) -> list[SandboxStatus]: ...
    async def containers(self) -> list[ContainerStatus]: ...

    def changes(self) -> AsyncIterator[str]:
        """Yields the pod uid of each change noticed (an exit, an OOM kill): a hint to look, never the truth."""
        ...

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus: ...
    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kills what runs in it and releases its address."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...
    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        """Returns the container's id."""
        ...

    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, grace_s: float) -> None:
        """Sends the stop signal, and SIGKILL after `grace_s`; returns when it has exited."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Removes a container that does not run, with its log."""
        ...

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        """Runs a command to its end; output is cut at 16 KiB.

        Raises TimeoutError past the deadline, and RuntimeFailure when the command cannot be started.
        """
        ...

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> Process: ...
    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Process: ...
    async def connect(self, sandbox_id: str, port: int) -> ByteStream:
        """Connects to a TCP port on the pod's loopback address or its IP, from inside its network namespace."""
        ...

    def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[tuple[float, int, bytes]]:
        """Yields (Unix seconds, 1 or 2 for the stream, line with its newline if it had one), oldest first."""
        ...

    async def stats(self) -> list[ContainerStats]: ...

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        """Fetches an image, trying each credential and, with none, anonymously."""
        ...

    async def image(self, reference: str) -> Image | None:
        """Returns the image if this node has it, by name, tag, digest or id."""
        ...

    async def images(self) -> list[Image]: ...
    async def remove_image(self, image_id: str) -> None: ...
    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        """Loads an OCI or docker-archive tar; returns the references it carries."""
        ...


class Volumes(Protocol):
    """The files that pods see: directories, in-memory secrets, projected contents that change atomically.

    Everything lives below a directory per pod uid that `teardown` unmounts and removes. Every method may raise
    `RuntimeFailure("FailedMount", ...)`.
    """

    async def empty_dir(
        self, pod_uid: str, volume: str, *, in_memory: bool, size_bytes_max: int, gid: int | None
    ) -> str:
        """Returns the host path of a directory that starts empty and lives as long as the pod."""
        ...

    async def payload(
        self, pod_uid: str, volume: str, files: dict[str, tuple[bytes, int]], *, in_memory: bool, gid: int | None
    ) -> str:
        """Shows `files` (relative path to content and mode) as a directory; a later call swaps all of them at once.

        Returns the host path; contents stand behind a `..data` link as Kubernetes' atomic writer leaves them.
        """
        ...

    async def host_path(self, path: str, kind: str) -> str:
        """Checks or makes a `hostPath` of the given `type` (`""`, `DirectoryOrCreate`, `File`, ...)."""
        ...

    async def sub_path(self, pod_uid: str, volume_path: str, sub_path: str) -> str:
        """Returns the host path of a file or directory inside a volume, made if missing; never outside the volume."""
        ...

    async def pod_file(self, pod_uid: str, path: str, data: bytes, mode: int) -> str:
        """Writes a file of the pod's own (a termination message); returns the host path."""
        ...

    async def read_pod_file(self, pod_uid: str, path: str, size_bytes_max: int) -> bytes:
        """Returns the last bytes of a file of the pod's own, empty when there is none."""
        ...

    async def pods(self) -> list[str]:
        """The uids of pods that have a directory here."""
        ...

    async def teardown(self, pod_uid: str) -> None: ...
