"""The options that every command talking to a cluster shares, and how values given before and after its name merge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

_META = "steersman.common"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which cluster and namespace a command means; None where the user said nothing."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster_name: str | None = None
    namespace: str | None = None


def _option(*names: str, metavar: str, text: str) -> Callable[[], click.Option]:
    return lambda: click.Option([*names], metavar=metavar, help=text, default=None)


#: makers of the shared options, since a click option belongs to one command
COMMON = (
    _option("--kubeconfig", metavar="FILE", text="Kubeconfig to use."),
    _option("--context", metavar="NAME", text="Context of the kubeconfig."),
    _option("--name", "cluster_name", metavar="NAME", text="Local cluster to ask (default: default)."),
    _option("-n", "--namespace", "namespace", metavar="NAME", text="Namespace of the objects."),
)
NAMES = ("kubeconfig", "context", "cluster_name", "namespace")


def remember(ctx: click.Context, given: Mapping[str, str | None]) -> None:
    """Keeps what was given before the command's name."""
    ctx.meta[_META] = dict(given)


def settings(ctx: click.Context, given: Mapping[str, str | None]) -> Settings:
    """Returns the settings: what stands after the command's name overrides what stands before it."""
    before: Mapping[str, str | None] = ctx.meta.get(_META, {})
    return Settings(**{name: given.get(name) or before.get(name) for name in NAMES})


def kubeconfig_path(chosen: Settings) -> str | None:
    """Returns the kubeconfig to read, or None for kubectl's own search (`$KUBECONFIG`, `~/.kube/config`).

    What was named comes first, then a local cluster that runs, then what kubectl would find, and last a local cluster
    that is there but does not run, so that the answer is about it.
    """
    if chosen.kubeconfig:
        return chosen.kubeconfig
    name = chosen.cluster_name or os.environ.get("STEERSMAN_NAME")
    given = None if chosen.cluster_name else os.environ.get("STEERSMAN_DATA_DIR")
    home = Path(given).expanduser() if given else Path.home() / ".steersman" / (name or "default")
    local = home / "kubeconfig"
    if name or given or (local.is_file() and _runs(home)):
        return str(local)
    if "KUBECONFIG" in os.environ or (Path.home() / ".kube" / "config").is_file():
        return None
    return str(local) if local.is_file() else None


def _runs(home: Path) -> bool:
    """Whether the keeper of a local cluster is alive."""
    try:
        os.kill(int((home / "run" / "keeper.pid").read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
