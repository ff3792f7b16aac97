"""The calls to a CRI runtime on its socket, with its refusals as `RuntimeFailure`s.

Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import orjson

from steersman.cluster.node.values import RuntimeFailure
from steersman.pb import cri_pb2, cri_pb2_grpc

_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_DEADLINE_S = 60.0
_HELLO_DEADLINE_S = 10.0


class CriClient:
    """Both services of a CRI runtime.

    Args:
        endpoint: as `unix:///run/containerd/containerd.sock`.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._channel: grpc.aio.Channel | None = None
        self.runtime: Any = None
        self.images: Any = None
        self.name = ""
        self.version = ""
        #: what the runtime tells of its own configuration; containerd tells much, others may tell nothing
        self.config: dict[str, Any] = {}

    @property
    def socket(self) -> str:
        return self.endpoint.removeprefix("unix://")

    async def open(self) -> None:
        """Connects. Raises RuntimeFailure("RuntimeNotReady") when nobody answers."""
        options = [("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX)]
        self._channel = grpc.aio.insecure_channel(f"unix://{self.socket}", options=options)
        self.runtime = cri_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images = cri_pb2_grpc.ImageServiceStub(self._channel)
        try:
            hello = await self.runtime.Version(cri_pb2.VersionRequest(), timeout=_HELLO_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            message = f"no CRI runtime answers at {self.endpoint}: {error.details()}"
            raise RuntimeFailure("RuntimeNotReady", message) from error
        self.name, self.version = hello.runtime_name, hello.runtime_version
        info = (await self.status()).info
        self.config = orjson.loads(info["config"]) if "config" in info else {}

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def call(self, method: Any, request: Any, reason: str, deadline_s: float = _DEADLINE_S) -> Any:
        """Returns the answer. Raises RuntimeFailure with this reason, or `NotFound` for what does not exist."""
        try:
            return await method(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                reason = "NotFound"
            raise RuntimeFailure(reason, (error.details() or error.code().name).removesuffix(": unknown")) from error

    async def call_unless_gone(self, method: Any, request: Any, reason: str, deadline_s: float = _DEADLINE_S) -> Any:
        """As `call`, but None for what does not exist."""
        try:
            return await self.call(method, request, reason, deadline_s)
        except RuntimeFailure as failure:
            if failure.reason == "NotFound":
                return None
            raise

    async def status(self) -> cri_pb2.StatusResponse:
        request = cri_pb2.StatusRequest(verbose=True)
        found: cri_pb2.StatusResponse = await self.call(self.runtime.Status, request, "RuntimeNotReady")
        return found

    async def makes_cgroups_by_systemd(self) -> bool:
        """Whether cgroup parents are slices of systemd rather than paths."""
        try:
            found = await self.runtime.RuntimeConfig(cri_pb2.RuntimeConfigRequest(), timeout=_HELLO_DEADLINE_S)
            return bool(found.linux.cgroup_driver == cri_pb2.SYSTEMD)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise RuntimeFailure("RuntimeNotReady", str(error.details())) from error
        inner = self.config.get("containerd") or {}
        handler = (inner.get("runtimes") or {}).get(inner.get("defaultRuntimeName")) or {}
        return bool((handler.get("options") or {}).get("SystemdCgroup"))
