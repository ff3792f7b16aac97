"""What a machine must know before the store answers, on its disk: the machines and the store's members."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from steersman.actors.site import Site, machines_of, machines_tree
from steersman.cluster.placement import StoreGroup, founding_group
from steersman.cluster.topology import Host

_FILE = "machines.json"


def write(site: Site, retiring: Collection[int] = ()) -> None:
    """Makes machines and members durable; what was there stays until then."""
    _write(site.data_dir, machines_tree(site.hosts, site.group) | {"retiring": sorted(retiring)})


def _write(data_dir: Path, tree: dict[str, Any]) -> None:
    path = data_dir / _FILE
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(json.dumps(tree, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(data_dir: Path) -> tuple[tuple[Host, ...], StoreGroup | None, frozenset[int]]:
    """Returns the machines, the store's members and the ids of those that are to go, as last written; else nothing.

    Raises:
        ValueError: the file is damaged.
    """
    path = data_dir / _FILE
    try:
        tree = json.loads(path.read_text())
        hosts, group = machines_of(tree)
        return hosts, group, frozenset(tree["retiring"])
    except FileNotFoundError:
        return (), None, frozenset()
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def begin_group_anew(data_dir: Path, size: int) -> None:
    """Notes that the store is a new group, all of it on the head; the machines stay known.

    Raises:
        ValueError: the file is damaged.
    """
    hosts, group, _ = read(data_dir)
    if group is not None:
        _write(data_dir, machines_tree(hosts, founding_group(size, hosts[0].name)) | {"retiring": []})


def refreshed(site: Site) -> Site:
    """Returns a site with the members as the disk has them: an actor that starts again was described long ago."""
    _, group, _ = read(site.data_dir)
    return replace(site, recorded=group) if group is not None else site
