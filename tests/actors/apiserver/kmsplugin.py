"""A key management plugin as a program: `python kmsplugin.py SOCKET STATE`; STATE is a JSON file read at each call."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.pb import kms_pb2, kms_pb2_grpc


class Plugin(kms_pb2_grpc.KeyManagementServiceServicer):
    def __init__(self, state: Path) -> None:
        self._state = state

    def _read(self) -> Any:
        return json.loads(self._state.read_text())

    def _key(self, key_id: str) -> AESGCM:
        return AESGCM(hashlib.sha256(key_id.encode()).digest())

    def _count(self, what: str) -> None:
        with self._state.with_suffix(".calls").open("a") as file:
            file.write(f"{what}\n")

    def Status(self, _request: Any, _context: Any) -> Any:
        state = self._read()
        return kms_pb2.StatusResponse(version="v2", healthz=state["healthz"], key_id=state["key"])

    def Encrypt(self, request: Any, _context: Any) -> Any:
        self._count("encrypt")
        key_id, nonce = self._read()["key"], os.urandom(12)
        ciphertext = nonce + self._key(key_id).encrypt(nonce, request.plaintext, None)
        return kms_pb2.EncryptResponse(ciphertext=ciphertext, key_id=key_id, annotations={"test.example": b"1"})

    def Decrypt(self, request: Any, context: Any) -> Any:
        self._count("decrypt")
        if self._read()["healthz"] != "ok" or request.annotations["test.example"] != b"1":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the token is locked")
        nonce, body = request.ciphertext[:12], request.ciphertext[12:]
        return kms_pb2.DecryptResponse(plaintext=self._key(request.key_id).decrypt(nonce, body, None))


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(2))
    kms_pb2_grpc.add_KeyManagementServiceServicer_to_server(Plugin(Path(sys.argv[2])), server)
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(None)
