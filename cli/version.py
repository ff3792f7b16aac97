"""`steer version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from steersman.cli.errors import failed
from steersman.cli.output import to_json
from steersman.cli.session import Session, api_command
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj


@api_command("version", examples="steer version\nsteer version --client\nsteer version -o json")
@click.option("--client", "client_only", is_flag=True, help="The client's version only; no cluster is asked.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="As JSON or YAML.")
async def version(session: Session, client_only: bool, output: str | None) -> None:
    """Print the versions of this program and of the cluster's API server."""
    mine: Obj = {
        "clientVersion": {"gitVersion": f"v{version_of('steersman')}", "pythonVersion": platform.python_version()}
    }
    trouble = ""
    if not client_only:
        try:
            mine["serverVersion"] = await session.fetch("/version")
        except ApiError as error:
            trouble = error.message
    if output:
        click.echo(to_json(mine) if output == "json" else yamlio.dump(mine).rstrip())
    else:
        click.echo(f"Client Version: {mine['clientVersion']['gitVersion']}")
        if server := mine.get("serverVersion"):
            click.echo(f"Server Version: {server.get('gitVersion', '')}")
    if trouble:
        raise failed(f"the server's version is not known: {trouble}")


COMMANDS = [version]
