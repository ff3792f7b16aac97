"""Calls of a key management plugin: a gRPC service on a unix socket of this machine (KMS v2)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio

from steersman.pb import kms_pb2, kms_pb2_grpc

T = TypeVar("T")

_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class PluginFailed(Exception):
    """The plugin does not answer, or refuses; the message holds nothing secret. Args: code: gRPC's, as Go spells it."""

    def __init__(self, message: str, code: str = "Unknown") -> None:
        super().__init__(message)
        self.code = code


class KmsPlugin:
    """One plugin.

    Args:
        endpoint: `unix:///path`, or `unix:///@name` of an abstract socket.
    """

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        path = endpoint.removeprefix("unix://")
        address = f"unix-abstract:{path.lstrip('/')[1:]}" if path.lstrip("/").startswith("@") else f"unix:{path}"
        self._channel = grpc.aio.insecure_channel(address, options=[*_OPTIONS, ("grpc.default_authority", "localhost")])
        self._stub: Any = kms_pb2_grpc.KeyManagementServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    async def status(self) -> tuple[str, str, str]:
        """Returns the version of its API, `ok` or what is wrong, and the id of the key that it encrypts with."""
        found = await self._answer(self._stub.Status(kms_pb2.StatusRequest(), timeout=self._timeout_s))
        return found.version, found.healthz, found.key_id

    async def encrypt(self, plaintext: bytes) -> tuple[bytes, str, dict[str, bytes]]:
        """Returns the ciphertext, the id of its key, and annotations to be kept beside it."""
        request = kms_pb2.EncryptRequest(plaintext=plaintext, uid=str(uuid.uuid4()))
        found = await self._answer(self._stub.Encrypt(request, timeout=self._timeout_s))
        return found.ciphertext, found.key_id, dict(found.annotations)

    async def decrypt(self, ciphertext: bytes, key_id: str, annotations: dict[str, bytes]) -> bytes:
        """Returns the plaintext."""
        request = kms_pb2.DecryptRequest(
            ciphertext=ciphertext, uid=str(uuid.uuid4()), key_id=key_id, annotations=annotations
        )
        found = await self._answer(self._stub.Decrypt(request, timeout=self._timeout_s))
        return bytes(found.plaintext)

    async def _answer(self, call: Awaitable[T]) -> T:
        """Raises PluginFailed."""
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            raise PluginFailed(f"{name.lower()}: {error.details()}", name.title().replace("_", "")) from None

    async def close(self) -> None:
        await self._channel.close(None)
