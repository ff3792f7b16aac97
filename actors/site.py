"""Where a component runs: the cluster's configuration, its hosts, and the paths and addresses that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steersman.cluster.config import ClusterConfig
from steersman.cluster.topology import ActorSpec, Host
from steersman.runtime.pki import Authority, Credentials


@dataclass(frozen=True, slots=True)
class Site:
    """Args: config: with its ports resolved; hosts: all machines, the head first; here: the machine at hand."""

    config: ClusterConfig
    hosts: tuple[Host, ...]
    here: Host

    @property
    def data_dir(self) -> Path:
        return Path(self.here.data_dir)

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def run(self) -> Path:
        """Files that say what runs: the keeper's lock and state, and one small file per actor."""
        return self.data_dir / "run"

    @property
    def authority(self) -> Authority:
        return Authority(self.data_dir / "pki")

    def credentials(self, file: str) -> Credentials:
        return self.authority.credentials(file)

    def store_dir(self, member: int) -> Path:
        return self.data_dir / "store" / str(member)

    @property
    def node_dir(self) -> Path:
        return self.data_dir / "node"

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def encode(spec: ActorSpec, site: Site) -> str:
    """Returns the one argument of an actor, as JSON."""
    return json.dumps(
        {
            "spec": {**asdict(spec), "options": dict(spec.options)},
            "config": site.config.model_dump(),
            "hosts": [asdict(host) for host in site.hosts],
        }
    )


def decode(text: str) -> tuple[ActorSpec, Site]:
    """Returns what `encode` wrote."""
    tree: Mapping[str, Any] = json.loads(text)
    spec = ActorSpec(**tree["spec"])
    hosts = tuple(Host(**row) for row in tree["hosts"])
    here = next(host for host in hosts if host.name == spec.host)
    return spec, Site(ClusterConfig.model_validate(tree["config"]), hosts, here)
