"""Hands commands to nftables: in this process through libnftables, else by running `nft`.

Every batch is one transaction: all of it holds, or nothing. Also forgets UDP flows that lead to endpoints now gone.
Source: libnftables(3), nft(8)
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

#: how long `nft` may take
DEADLINE_S = 60.0
_PROTOCOL_UDP = 17
_LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class NftablesError(Exception):
    """The kernel or nft refused a batch; nothing of it holds. The message is nft's."""


class _Library:
    """libnftables through ctypes."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("nftables") or "libnftables.so.1"
        library = ctypes.CDLL(name)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for function in ("nft_ctx_buffer_error", "nft_ctx_buffer_output"):
            getattr(library, function).argtypes = [ctypes.c_void_p]
        for function in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, function).restype = ctypes.c_char_p
            getattr(library, function).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise OSError("libnftables gave no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, script: str) -> str:
        code = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code:
            raise NftablesError(errors.decode(errors="replace").strip())
        return output.decode(errors="replace")

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)
        self._context = None


class _Program:
    """The `nft` program."""

    def __init__(self) -> None:
        path = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
        if path is None:
            raise OSError("neither libnftables nor the program nft is here")
        self._path = path

    def run(self, script: str) -> str:
        done = subprocess.run(
            [self._path, "-f", "-"], input=script.encode(), capture_output=True, timeout=DEADLINE_S, check=False
        )
        if done.returncode:
            raise NftablesError(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode(errors="replace")

    def close(self) -> None:
        """Holds nothing."""


class Nftables:
    """Runs batches one after the other in a thread of its own.

    Args:
        program: use the program even where the library is.
    """

    def __init__(self, *, program: bool = False) -> None:
        self._by_program = program
        self._backend: _Library | _Program | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="steersman-nft")

    async def _in_worker(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)

    async def start(self) -> None:
        """Opens the library, or finds the program. Raises OSError when neither is here."""
        await self._in_worker(self._open)

    def _open(self) -> None:
        if not self._by_program:
            try:
                self._backend = _Library()
            except (OSError, AttributeError):
                self._backend = None
        self._backend = self._backend or _Program()

    async def apply(self, commands: Sequence[str]) -> None:
        """Carries out a batch, all or nothing. Raises NftablesError with nothing changed."""
        if commands:
            await self._in_worker(self._run, "\n".join(commands) + "\n")

    async def listing(self, what: str) -> str:
        """Returns what `nft list WHAT` prints."""
        return str(await self._in_worker(self._run, f"list {what}\n"))

    def _run(self, script: str) -> str:
        if self._backend is None:
            raise NftablesError("nftables is not open")
        return self._backend.run(script)

    async def remove_table(self, name: str) -> None:
        """Removes a table and everything in it, if it is there."""
        await self.apply([f"add table ip {name}", f"delete table ip {name}"])

    async def open_paths(self) -> bool:
        """Lets this machine forward packets, and lets rules send traffic of others to 127/8.

        Returns whether the latter was closed before.
        """
        return bool(await self._in_worker(_write_sysctls))

    async def close_localnet(self) -> None:
        """Lets nobody else's traffic to 127/8 in again; to be called before the rules that guard it go."""
        await self._in_worker(_LOCALNET.write_text, "0")

    async def forget_flows(self, gone: Sequence[tuple[str, str, int]]) -> int:
        """Makes the kernel forget UDP flows; returns how many.

        Args:
            gone: (address spoken to or empty for any, endpoint's address, its port); with an empty endpoint every
                flow to the address is meant.

        Raises OSError where flows may not be touched.
        """
        try:
            return int(await self._in_worker(_forget_flows, gone)) if gone else 0
        except NetlinkError as error:
            raise OSError(error.code, str(error.args[-1])) from error

    async def stop(self) -> None:
        if self._backend is not None:
            await self._in_worker(self._backend.close)
            self._backend = None
        self._worker.shutdown(wait=False)


async def unavailable() -> str:
    """Why this process cannot make services by kernel rules; empty when it can. Leaves nothing behind."""
    nft = Nftables()
    try:
        await nft.start()
        table = f"steersman-probe-{os.getpid()}"
        chain = f"add chain ip {table} probe {{ type nat hook output priority -100 ; }}"
        await nft.apply([f"add table ip {table}", chain])
        await nft.remove_table(table)
    except OSError as error:
        return str(error)
    except NftablesError as error:
        lines = str(error).splitlines() or ["refused"]
        return f"the kernel lets this process make no rules ({lines[0].strip()})"
    finally:
        await nft.stop()
    return "" if os.access(_LOCALNET, os.W_OK) and os.access(_FORWARD, os.W_OK) else "sysctls cannot be written here"


def _write_sysctls() -> bool:
    closed = _LOCALNET.read_text().strip() != "1"
    for path in (_FORWARD, _LOCALNET):
        if path.read_text().strip() != "1":
            path.write_text("1")
    return closed


def _forget_flows(gone: Sequence[tuple[str, str, int]]) -> int:
    count = 0
    with NFCTSocket() as socket:
        for flow in list(socket.dump(tuple_orig=NFCTAttrTuple(proto=_PROTOCOL_UDP))):
            original, reply = flow.get_attr("CTA_TUPLE_ORIG"), flow.get_attr("CTA_TUPLE_REPLY")
            if original is None or reply is None:
                continue
            address, _, protocol = _ends(original)
            endpoint, port, _ = _ends(reply, "SRC")
            if protocol == _PROTOCOL_UDP and any(_means(row, address, endpoint, port) for row in gone):
                count += _delete_flow(socket, original)
    return count


def _means(row: tuple[str, str, int], address: str, endpoint: str, port: int) -> bool:
    frontend, ip, number = row
    if frontend and frontend != address:
        return False
    return not ip or (ip, number) == (endpoint, port)


def _ends(side: Any, end: str = "DST") -> tuple[str, int, int]:
    """Returns (address, port, protocol number) of one end of a flow's tuple."""
    ip, protocol = side.get_attr("CTA_TUPLE_IP"), side.get_attr("CTA_TUPLE_PROTO")
    return (
        str(ip.get_attr(f"CTA_IP_V4_{end}") or ""),
        int(protocol.get_attr(f"CTA_PROTO_{end}_PORT") or 0),
        int(protocol.get_attr("CTA_PROTO_NUM") or 0),
    )


def _delete_flow(socket: Any, original: Any) -> int:
    source, source_port, protocol = _ends(original, "SRC")
    target, target_port, _ = _ends(original, "DST")
    flow = NFCTAttrTuple(saddr=source, daddr=target, proto=protocol, sport=source_port, dport=target_port)
    try:
        socket.entry("del", tuple_orig=flow)
    except NetlinkError:
        return 0  # it ended by itself in between
    return 1
