"""Debian's etcd and etcdctl, as servers and commands of a test."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.actors.store.conftest import free_ports

needs_etcd = pytest.mark.skipif(
    shutil.which("etcd") is None or shutil.which("etcdctl") is None,
    reason="etcd and etcdctl (Debian's etcd-server and etcd-client) are not installed",
)


@asynccontextmanager
async def real_etcd(directory: Path, pki: Any = None) -> AsyncIterator[str]:
    """Runs etcd on `directory/etcd`, which may have been restored; yields its client address, `host:port`.

    Args:
        pki: clients must show a certificate of this authority; None for plain text.
    """
    client, peer = (f"127.0.0.1:{port}" for port in free_ports(2))
    scheme, tls = "http", ()
    if pki is not None:
        scheme = "https"
        files = {"cert-file": "store.crt", "key-file": "store.key", "trusted-ca-file": "ca.crt"}
        tls = ("--client-cert-auth", *(f"--{flag}={pki.directory / name}" for flag, name in files.items()))
    process = await asyncio.create_subprocess_exec(
        "etcd", "--data-dir", str(directory / "etcd"), "--listen-client-urls", f"{scheme}://{client}",
        "--advertise-client-urls", f"{scheme}://{client}", "--listen-peer-urls", f"http://{peer}",
        "--initial-advertise-peer-urls", f"http://{peer}", "--initial-cluster", f"default=http://{peer}", *tls,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    try:
        yield client
    finally:
        process.kill()
        await process.wait()


async def etcdctl(*arguments: str, deadline_s: float = 30.0) -> str:
    """Runs etcdctl's version 3 to its end; returns its stdout, and raises with its stderr when it fails."""
    process = await asyncio.create_subprocess_exec(
        "etcdctl", *arguments, env=os.environ | {"ETCDCTL_API": "3"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), deadline_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"etcdctl {' '.join(arguments)}: {err.decode()}"
    return out.decode()
