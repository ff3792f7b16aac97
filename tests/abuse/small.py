"""A client that reads one small object again and again and notes how long it waits, in a process of its own.

Run as a module it reads, and answers each line on its standard input with how many answers it had since the last one,
and the longest wait for one; `Small` is the handle of such a process.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: between two requests
PAUSE_S = 0.001


def _main(port: int, directory: Path, user: str, target: str) -> None:
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / f"{user}.crt", directory / f"{user}.key")
    bare = socket.create_connection(("127.0.0.1", port), 20)
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ask, count, worst_s = f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), 0, 0.0
    with context.wrap_socket(bare, server_hostname="127.0.0.1") as wire:
        while True:
            began, answer = time.perf_counter(), b""
            wire.sendall(ask)
            while not answer.endswith(b"}"):
                piece = wire.recv(65536)
                assert piece, "the server has gone"
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200"), answer
            count, worst_s = count + 1, max(worst_s, time.perf_counter() - began)
            if select.select([sys.stdin], [], [], PAUSE_S)[0]:
                if not sys.stdin.readline():
                    return
                print(json.dumps([count, worst_s]), flush=True)
                count, worst_s = 0, 0.0


@dataclass
class Small:
    """A running client."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, port: int, directory: Path, user: str, target: str) -> Small:
        """Returns when it was answered. Args: directory: of certificates; target: of an object that stays as it is."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.small", str(port), str(directory), user, target],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True, bufsize=1,
        )  # fmt: skip
        found = cls(process)
        found._waited()
        return found

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    async def waited(self) -> tuple[int, float]:
        """How many answers it had since this was asked last, and the longest wait for one, in seconds."""
        return await asyncio.to_thread(self._waited)

    def _waited(self) -> tuple[int, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        count, worst_s = json.loads(self.process.stdout.readline())
        return count, worst_s


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
