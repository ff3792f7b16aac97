"""The network of a CRI runtime's pods: a configuration for the CNI plugins that the runtime calls for each sandbox.

Each pod gets a veth pair routed by the host (`ptp`), so that pods of one node also meet in the host's forwarding path,
where service rules apply; `host-local` deals the addresses of the node's range, `portmap` publishes host ports.
Source: https://www.cni.dev/docs/spec/, https://www.cni.dev/plugins/current/
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime.cri_client import CriClient
from steersman.runtime.records import write_atomically

_PLUGINS = ("ptp", "host-local", "portmap")
#: before the names that other networks choose: runtimes take the first
_FILE = "05-{name}.conflist"
_LOAD_DEADLINE_S = 10.0


class CniNetwork:
    """Args: name: of the network; root: where addresses are kept."""

    def __init__(self, client: CriClient, name: str, root: Path) -> None:
        self._client = client
        self._name = name
        self._root = root
        self._range_file = root / "pod-cidr"
        self.cidr = ""

    @property
    def _conf(self) -> Path:
        cni = self._client.config.get("cni") or {}
        return Path(cni.get("confDir") or "/etc/cni/net.d") / _FILE.format(name=self._name)

    @property
    def _leases(self) -> Path:
        return self._root / "addresses"

    async def start(self) -> str:
        """Looks for the plugins; returns what is missing for host ports, or an empty string.

        Raises:
            RuntimeFailure: `RuntimeNotReady`: without these plugins no pod can have an address.
        """
        cni = self._client.config.get("cni") or {}
        places = [cni["binDir"]] if cni.get("binDir") else list(cni.get("binDirs") or ())
        missing = [name for name in _PLUGINS if not any((Path(place) / name).exists() for place in places)]
        if places and missing:
            where = " and ".join(places)
            raise RuntimeFailure("RuntimeNotReady", f"the CNI plugins {', '.join(missing)} are not in {where}")
        if self._range_file.exists():
            await self.set_range(self._range_file.read_text().strip())
        return "" if shutil.which("iptables") else "iptables is not installed: hostPort does not work"

    async def set_range(self, cidr: str) -> None:
        """Writes the configuration and waits until the runtime has read it."""
        text = conflist(self._name, str(ipaddress.IPv4Network(cidr, strict=False)), str(self._leases))
        path = self._conf
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text() != text:
                write_atomically(path, text.encode(), 0o644)
            write_atomically(self._range_file, cidr.encode())
        except OSError as error:
            raise RuntimeFailure("NetworkNotReady", f"cannot write {path}: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        end = loop.time() + _LOAD_DEADLINE_S
        while not await self._is_loaded(text):
            if loop.time() > end:
                raise RuntimeFailure("NetworkNotReady", f"{self._client.name} does not load {path}")
            await asyncio.sleep(0.02)
        self.cidr = cidr

    async def _is_loaded(self, text: str) -> bool:
        status = await self._client.status()
        if "cniconfig" in status.info:
            networks = orjson.loads(status.info["cniconfig"]).get("Networks") or ()
            return any((row.get("Config") or {}).get("Source") == text for row in networks)
        return any(row.type == "NetworkReady" and row.status for row in status.status.conditions)

    def collect(self, sandboxes: Collection[str]) -> None:
        """Frees the addresses that none of these sandboxes holds: a killed runtime leaves its leases behind."""
        for path in (self._leases / self._name).glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if path.read_text().split()[0] not in sandboxes:
                    path.unlink()

    def purge(self) -> None:
        self._conf.unlink(missing_ok=True)
        shutil.rmtree(self._root, ignore_errors=True)
        self.cidr = ""


def conflist(name: str, cidr: str, leases: str) -> str:
    """The CNI network of a node; traffic that leaves the cluster is masqueraded elsewhere."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": leases,
    }
    plugins: list[dict[str, Any]] = [
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": name, "plugins": plugins}, indent=1)
