"""Volumes without files: paths are names, payloads are kept so that tests can look at what a pod would see."""

from __future__ import annotations

from steersman.cluster.node.values import RuntimeFailure


class SimulatedVolumes:
    """Implements `protocol.Volumes` in memory."""

    def __init__(self) -> None:
        #: pod uid -> path -> contents of a payload or a pod's file; None for a directory
        self.contents: dict[str, dict[str, dict[str, tuple[bytes, int]] | bytes | None]] = {}

    def _put(self, pod_uid: str, path: str, value: dict[str, tuple[bytes, int]] | bytes | None) -> str:
        self.contents.setdefault(pod_uid, {})[path] = value
        return path

    async def empty_dir(
        self, pod_uid: str, volume: str, *, in_memory: bool, size_bytes_max: int, gid: int | None
    ) -> str:
        return self._put(pod_uid, f"/simulated/{pod_uid}/empty-dir/{volume}", None)

    async def payload(
        self, pod_uid: str, volume: str, files: dict[str, tuple[bytes, int]], *, in_memory: bool, gid: int | None
    ) -> str:
        return self._put(pod_uid, f"/simulated/{pod_uid}/payload/{volume}", dict(files))

    async def host_path(self, path: str, kind: str) -> str:
        return path

    async def sub_path(self, pod_uid: str, volume_path: str, sub_path: str) -> str:
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            raise RuntimeFailure("FailedMount", f"subPath {sub_path!r} must be relative and stay in its volume")
        return f"{volume_path}/{sub_path}"

    async def pod_file(self, pod_uid: str, path: str, data: bytes, mode: int) -> str:
        return self._put(pod_uid, f"/simulated/{pod_uid}/files/{path}", data)

    async def read_pod_file(self, pod_uid: str, path: str, size_bytes_max: int) -> bytes:
        found = self.contents.get(pod_uid, {}).get(f"/simulated/{pod_uid}/files/{path}")
        return found[-size_bytes_max:] if isinstance(found, bytes) and size_bytes_max > 0 else b""

    async def pods(self) -> list[str]:
        return sorted(self.contents)

    async def teardown(self, pod_uid: str) -> None:
        self.contents.pop(pod_uid, None)
