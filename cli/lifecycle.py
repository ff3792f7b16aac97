"""Commands about the cluster itself: up, down, status, config, kubeconfig.

They talk to the keeper of this machine (a process of its own) and to the actors' status ports, never to Ray.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from steersman.cluster.config import ClusterConfig, ConfigError, parse, render

name_option = click.option(
    "--name", envvar="STEERSMAN_NAME", default=None, help="Name of the cluster [default: default]."
)
data_dir_option = click.option(
    "--data-dir", envvar="STEERSMAN_DATA_DIR", default=None, help="Where its state lives [default: ~/.steersman/NAME]."
)
_config_option = click.option(
    "--config", "-f", "config_file", type=click.Path(dir_okay=False), help="Configuration as YAML."
)


def fail(message: str, log: str = "") -> NoReturn:
    click.echo(f"error: {message}", err=True)
    if log:
        click.echo(f"       more in {log}", err=True)
    raise SystemExit(1)


def _load(config_file: str | None, overrides: dict[str, Any]) -> ClusterConfig:
    text = ""
    if config_file:
        try:
            text = Path(config_file).read_text()
        except OSError as error:
            fail(f"{config_file}: {error.strerror}")
    try:
        return parse(text, overrides)
    except ConfigError as error:
        for mistake in error.mistakes:
            where = f"{config_file}:{mistake.line}: " if config_file else ""
            click.echo(f"error: {where}{mistake.field}{': ' if mistake.field else ''}{mistake.message}", err=True)
        click.echo("       `steer config show` prints every field with its meaning", err=True)
        raise SystemExit(1) from error


def data_dir_path(name: str | None, data_dir: str | None) -> Path:
    return Path(data_dir or f"~/.steersman/{name or 'default'}").expanduser().absolute()


def _overrides(options: dict[str, Any]) -> dict[str, Any]:
    """The nested form of the options that were given."""
    tree: dict[str, Any] = {}
    for path, value in options.items():
        if value is None or value is False or value == ():
            continue
        *parents, leaf = path.split(".")
        below = tree
        for part in parents:
            below = below.setdefault(part, {})
        below[leaf] = value
    return tree


def _ports(rows: tuple[str, ...]) -> dict[str, int]:
    ports = {}
    for row in rows:
        name, equals, number = row.partition("=")
        if not equals or not number.isdigit():
            raise click.BadParameter(f"{row!r} is not NAME=NUMBER, as in api=6443", param_hint="--port")
        ports[f"ports.{name}"] = int(number)
    return ports


@click.command(
    epilog="""\b
Examples:
  steer up                                  start a cluster on this machine
  steer up --name lab --port base=7400      a second one beside it
  steer up --config cluster.yaml --replicas 3
  steer up --embedded --simulated-nodes 50  one process, no Ray, no containers
  steer up --head                           other machines may `steer join` it
"""
)
@_config_option
@name_option
@data_dir_option
@click.option("--host", help="Address that clients and other machines use [default: 127.0.0.1].")
@click.option("--replicas", type=click.Choice(["1", "3", "5"]), help="Members of the store.")
@click.option("--api-servers", type=int, help="Number of API servers.")
@click.option("--port", "ports", multiple=True, metavar="NAME=NUMBER", help="Choose a port; see `steer config show`.")
@click.option(
    "--runtime", type=click.Choice(["auto", "oci", "cri", "process", "simulated", "none"]), help="What runs pods."
)
@click.option("--simulated-nodes", type=int, help="Add nodes without containers.")
@click.option("--kubernetes-version", help="Kubernetes minor version to serve, as 1.36.")
@click.option(
    "--controllers", type=click.Choice(["each", "grouped", "packed"]), help="Actors that run controllers [each]."
)
@click.option("--embedded", is_flag=True, help="Everything in one process, without Ray.")
@click.option("--head", is_flag=True, help="Let other machines join: listen on this machine's own address.")
@click.option("--ray-address", help="Use the Ray that somebody else runs here (host:port).")
def up(config_file: str | None, ports: tuple[str, ...], **options: Any) -> None:
    """Start the cluster, and return when it is ready."""
    paths = {
        "name": "name", "data_dir": "data_dir", "host": "host", "embedded": "embedded",
        "replicas": "control_plane.replicas", "api_servers": "control_plane.api_servers",
        "controllers": "control_plane.controllers", "runtime": "node.runtime",
        "simulated_nodes": "simulated_nodes.count", "kubernetes_version": "kubernetes_version",
        "ray_address": "ray.address", "head": "head",
    }  # fmt: skip
    if options["replicas"]:
        options["replicas"] = int(options["replicas"])
    given = {paths[key]: value for key, value in options.items()} | _ports(ports)
    former = data_dir_path(options["name"], options["data_dir"]) / "config.yaml"
    if config_file is None and former.exists():
        config_file = str(former)
    config = _load(config_file, _overrides(given))
    began = time.monotonic()
    for event in _keeper_events(["up"], config.model_dump_json()):
        match event["event"]:
            case "actor":
                address = f"  {event['addresses'][0]}" if event["addresses"] else ""
                _step(f"[{event['done']}/{event['of']}] {event['name']} is ready{address}")
            case "step":
                _step(event["detail"])
            case "running":
                click.echo(f"Cluster {config.name} runs already (keeper pid {event['pid']}, {event['state']}).")
                return
            case "failed":
                fail(event["reason"], event["log"])
            case "ready":
                _announce(config, event["api"], event["join"], time.monotonic() - began)
                return
    fail("the keeper ended before the cluster was ready", str(data_dir_path(config.name, config.data_dir) / "logs"))


def _announce(config: ClusterConfig, api: str, join: str, took_s: float) -> None:
    _clear_step()
    data_dir = data_dir_path(config.name, config.data_dir)
    first, suffix = _naming(config)
    words = [f"steer {command}{suffix}" for command in ("status", "get nodes", "apply -f deploy/examples/web.yaml")]
    click.echo(f"Cluster {config.name} is ready after {took_s:.1f} s: {api}")
    click.echo(f"  kubectl: export KUBECONFIG={data_dir / 'kubeconfig'}")
    click.echo(f"  steer:   {';  '.join([*first, *words])}")
    if join:
        click.echo(f"  another machine joins with\n    {join}")


def _naming(config: ClusterConfig) -> tuple[list[str], str]:
    """How other commands are told to mean this cluster: what is to be done first, and what is added to each."""
    if config.data_dir and data_dir_path(None, config.data_dir) != data_dir_path(config.name, None):
        return [f"export STEERSMAN_DATA_DIR={data_dir_path(None, config.data_dir)}"], ""
    return [], "" if config.name == "default" else f" --name {config.name}"


_on_terminal = sys.stderr.isatty


def _step(text: str) -> None:
    """Shows progress on stderr: one line that changes on a terminal, plain lines elsewhere."""
    if _on_terminal():
        click.echo(f"\r\x1b[2K{text}", err=True, nl=False)
    else:
        click.echo(text, err=True)


def _clear_step() -> None:
    if _on_terminal():
        click.echo("\r\x1b[2K", err=True, nl=False)


def _keeper_events(words: list[str], stdin: str = "") -> Iterator[dict[str, Any]]:
    """Starts the keeper in a session of its own and yields what it reports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "steersman.actors.keeper", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(stdin.encode())
    process.stdin.close()
    for line in process.stdout:
        yield json.loads(line)


@click.command(
    epilog="""\b
Examples:
  steer down                 stop everything; `steer up` brings it back as it was
  steer down --delete-data   and forget it
  steer down --force         on a machine that has joined, whatever becomes of the store
"""
)
@name_option
@data_dir_option
@click.option("--delete-data", is_flag=True, help="Delete the cluster's state as well.")
@click.option("--force", is_flag=True, help="Take this machine out though the store stands still without it.")
def down(name: str | None, data_dir: str | None, delete_data: bool, force: bool) -> None:
    """Stop the cluster: actors, Ray, containers, mounts, namespaces and rules.

    On a machine that has joined, only what runs there; its members of the store leave first, and nothing is done while
    the store cannot do without them. When the head is down already, it stays one of the cluster's machines and keeps
    its data: that is how a whole cluster is stopped.
    """
    where = data_dir_path(name, data_dir)
    shown = f"in {where}" if data_dir else name or "default"
    words = ["down", str(where), *(["--delete-data"] if delete_data else []), *(["--force"] if force else [])]
    for event in _keeper_events(words):
        match event["event"]:
            case "step":
                _step(event["detail"])
            case "failed":
                _clear_step()
                fail(event["reason"], event["log"])
            case "done":
                _clear_step()
                click.echo(f"Cluster {shown} is down" + (" and its data deleted." if delete_data else "."))
                if event["stays"]:
                    then = "remove its members of the store there" if delete_data else "`steer join` brings it back"
                    click.echo(f"The cluster still counts on this machine ({event['stays']}): {then}.")
                return
    fail("the command ended before all was down")


@click.command(
    epilog="""\b
Examples:
  steer status            a line per actor, and what is reduced on this machine
  steer status -o json    for scripts: actors, endpoints, certificate paths
"""
)
@name_option
@data_dir_option
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="Form of the output.")
def status(name: str | None, data_dir: str | None, output: str) -> None:
    """Show each actor: node, pid, health, restarts, memory and address."""
    import asyncio

    from steersman.actors import bringup
    from steersman.actors.watchman import Watchman

    try:
        site = bringup.read_site(data_dir_path(name, data_dir))
    except bringup.BringUpFailed as error:
        fail(str(error))
    actors = bringup.actors_of(site)

    async def ask() -> Any:
        watchman = Watchman(site)
        try:
            return await watchman.statuses(actors)
        finally:
            await watchman.close()

    replies = asyncio.run(ask())
    rows = [_status_row(spec.name, spec.host, replies[spec.name]) for spec in actors]
    healthy = all(row["healthy"] for row in rows)
    if output == "json":
        tree = {
            "name": site.config.name, "state": bringup.state(site), "healthy": healthy, "actors": rows,
            "endpoints": bringup.endpoints(site), "dataDir": str(site.data_dir),
        }  # fmt: skip
        click.echo(json.dumps(tree, indent=2))
    else:
        _print_status(site.config.name, rows)
    raise SystemExit(0 if healthy else 1)


def _status_row(actor: str, host: str, reply: Any) -> dict[str, Any]:
    if reply is None:
        return {"name": actor, "node": host, "healthy": False, "detail": "does not answer"}
    return {
        "name": actor, "node": host, "pid": reply.pid, "healthy": reply.healthy, "detail": reply.detail,
        "restarts": reply.restarts, "uptimeSeconds": round(reply.uptime_s, 1), "memoryBytes": reply.memory_bytes,
        "cpuSeconds": round(reply.cpu_s, 2), "addresses": list(reply.addresses), "reduced": list(reply.reduced),
    }  # fmt: skip


def _print_status(name: str, rows: list[dict[str, Any]]) -> None:
    from steersman.cluster.meta.times import human_duration

    head = ("ACTOR", "NODE", "PID", "HEALTH", "RESTARTS", "UPTIME", "MEMORY", "ADDRESS")
    table = [head]
    for row in rows:
        alive = "pid" in row
        table.append(
            (
                row["name"],
                row["node"],
                str(row["pid"]) if alive else "-",
                "ok" if row["healthy"] else (row["detail"] or "not ready"),
                str(row["restarts"]) if alive else "-",
                human_duration(row["uptimeSeconds"]) if alive else "-",
                f"{row['memoryBytes'] / 2**20:.0f}Mi" if alive else "-",
                " ".join(row.get("addresses", ())),
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    reduced = dict.fromkeys(sentence for row in rows for sentence in row.get("reduced", ()))
    if reduced:
        click.echo(f"\nReduced on this machine (cluster {name}):")
        for sentence in reduced:
            click.echo(f"  - {sentence}")


@click.command(
    epilog="""\b
Examples:
  steer join 10.0.0.1:6443 --token TOKEN                   `steer up --head` printed this line
  steer join 10.0.0.1:6443 --token TOKEN --node-name blue
"""
)
@click.argument("server", metavar="ADDRESS:PORT")
@click.option("--token", required=True, help="Shown by `steer token` on the head.")
@name_option
@data_dir_option
@click.option("--host", default="", help="Address that the others reach this machine at.")
@click.option("--node-name", default="", help="Name of this machine's Node [default: its host name].")
@click.option(
    "--runtime", type=click.Choice(["auto", "oci", "process", "simulated", "none"]), default="auto",
    help="What runs pods here.",
)  # fmt: skip
def join(server: str, token: str, name: str | None, data_dir: str | None, host: str, **options: str) -> None:
    """Make this machine part of a cluster that `steer up --head` started on another.

    The machines trust each other fully: this one is given the cluster's secrets, and the head may run code here.
    """
    directory = str(data_dir_path(name, data_dir))
    given = {"server": server, "token": token, "data_dir": directory, "address": host, **options}
    for event in _keeper_events(["join"], json.dumps(given)):
        match event["event"]:
            case "actor":
                _step(f"[{event['done']}/{event['of']}] {event['name']} is ready")
            case "step":
                _step(event["detail"])
            case "running":
                click.echo(f"A keeper runs on {directory} already (pid {event['pid']}, {event['state']}).")
                return
            case "failed":
                _clear_step()
                fail(event["reason"], event["log"])
            case "ready":
                _clear_step()
                click.echo(
                    f"This machine is node {event['name']} at {event['address']}; `steer down` takes it out again."
                )
                return
    fail("the keeper ended before this machine was ready", f"{directory}/logs")


@click.command(
    epilog="""\b
Examples:
  steer token        the line to type on another machine
"""
)
@name_option
@data_dir_option
def token(name: str | None, data_dir: str | None) -> None:
    """Print the command with which another machine joins this cluster."""
    from steersman.actors import bringup, invitation

    try:
        site = bringup.read_site(data_dir_path(name, data_dir))
    except bringup.BringUpFailed as error:
        fail(str(error))
    if not site.config.head or site.here != site.hosts[0]:
        fail("this cluster takes no other machines: start it with `steer up --head` on its first one")
    click.echo(invitation.command(site))


@click.group(
    epilog="""\b
Examples:
  steer config show                     what the running cluster uses, or the defaults
  steer config show -f cluster.yaml     what this file makes of them
"""
)
def config() -> None:
    """Show the cluster's configuration."""


@config.command(
    "show",
    epilog="""\b
Examples:
  steer config show                     every field with its default and meaning
  steer config show -f cluster.yaml     what this file makes of it
""",
)
@_config_option
@name_option
@data_dir_option
def config_show(config_file: str | None, name: str | None, data_dir: str | None) -> None:
    """Print the effective configuration as YAML, a comment per field."""
    running = data_dir_path(name, data_dir) / "config.yaml"
    if config_file is None and running.exists():
        config_file = str(running)
    given = _overrides({"name": name, "data_dir": data_dir})
    click.echo(render(_load(config_file, given)), nl=False)


@click.command(
    epilog="""\b
Examples:
  steer kubeconfig > ~/.kube/config
  export KUBECONFIG=$(steer kubeconfig --path)
"""
)
@name_option
@data_dir_option
@click.option("--path", is_flag=True, help="Print where the file is instead of what is in it.")
def kubeconfig(name: str | None, data_dir: str | None, path: bool) -> None:
    """Print the administrator's kubeconfig of the cluster."""
    file = data_dir_path(name, data_dir) / "kubeconfig"
    if not file.exists():
        fail(f"{file} does not exist: start the cluster with `steer up`")
    click.echo(str(file) if path else file.read_text(), nl=path)


COMMANDS: list[click.Command] = [up, join, token, down, status, config, kubeconfig]
