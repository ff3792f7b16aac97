"""Where a component runs: the cluster's configuration, its hosts, and the paths and addresses that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from steersman.cluster.placement import StoreGroup, StoreMember, founding_group
from steersman.cluster.topology import ActorSpec, Host, store_peers
from steersman.runtime.credentials import Credentials, credentials_in

if TYPE_CHECKING:
    from steersman.cluster.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster as one of its machines sees it.

    Args:
        config: with its ports resolved; hosts: all machines, the head first; here: the machine at hand.
        recorded: the store's members as last known; None for a new cluster.
    """

    config: ClusterConfig
    hosts: tuple[Host, ...]
    here: Host
    recorded: StoreGroup | None = None

    @property
    def group(self) -> StoreGroup:
        """The store's members."""
        return self.recorded or founding_group(self.config.control_plane.replicas, self.hosts[0].name)

    @property
    def store_peers(self) -> dict[int, str]:
        """Store member id to `host:port`."""
        return store_peers(self.config, self.hosts, self.group)

    @property
    def store_founders(self) -> dict[int, str]:
        """As `store_peers`, of the group as it began."""
        return store_peers(self.config, self.hosts, founding_group(self.group.founders, self.hosts[0].name))

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
    def pki(self) -> Path:
        """The certificate authority and the certificates it has issued."""
        return self.data_dir / "pki"

    def credentials(self, file: str) -> Credentials:
        return credentials_in(self.pki, file)

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
            "machines": machines_tree(site.hosts, site.recorded),
        }
    )


def decode(text: str) -> tuple[ActorSpec, Site]:
    """Returns what `encode` wrote."""
    tree: Mapping[str, Any] = json.loads(text)
    spec = ActorSpec(**tree["spec"])
    hosts, group = machines_of(tree["machines"])
    here = next(host for host in hosts if host.name == spec.host)
    return spec, Site(cast("ClusterConfig", _plain(tree["config"])), hosts, here, group)


def machines_tree(hosts: Sequence[Host], group: StoreGroup | None) -> dict[str, Any]:
    """Returns machines and store members as plain data."""
    return {"hosts": [asdict(host) for host in hosts], "store": asdict(group) if group else None}


def machines_of(tree: Mapping[str, Any]) -> tuple[tuple[Host, ...], StoreGroup | None]:
    """Returns what `machines_tree` wrote; raises LookupError or TypeError for anything else."""
    store = tree["store"]
    group = store and StoreGroup(
        members=tuple(StoreMember(**row) for row in store["members"]), founders=store["founders"]
    )
    return tuple(Host(**row) for row in tree["hosts"]), group


#: fields whose value is a mapping rather than a section
_MAPPINGS = frozenset({"labels"})


def _plain(tree: Mapping[str, Any]) -> SimpleNamespace:
    """A configuration that was validated before, read back without loading the validator into every actor."""
    return SimpleNamespace(
        **{
            name: _plain(value) if isinstance(value, dict) and name not in _MAPPINGS else value
            for name, value in tree.items()
        }
    )
