"""`steer api-resources` and `steer api-versions`."""

from __future__ import annotations

import click

from steersman.cli.output import print_table
from steersman.cli.session import Session, api_command

EXAMPLES = """
steer api-resources
steer api-resources --api-group=apps -o wide
steer api-resources --namespaced=false --verbs=list,watch -o name
"""


@api_command("api-resources", examples=EXAMPLES)
@click.option("--api-group", metavar="GROUP", help="Of this group only; '' is the core group.")
@click.option("--namespaced", type=bool, metavar="true|false", help="Only kinds that live in namespaces, or do not.")
@click.option("--verbs", default="", metavar="VERB,…", help="Only kinds that know all these verbs.")
@click.option("--sort-by", type=click.Choice(["name", "kind"]), help="Sort by a column.")
@click.option("--no-headers", is_flag=True, help="Leave the heading out.")
@click.option("-o", "--output", type=click.Choice(["wide", "name"]), help="With verbs and categories, or names alone.")
async def api_resources(
    session: Session,
    api_group: str | None,
    namespaced: bool | None,
    verbs: str,
    sort_by: str | None,
    no_headers: bool,
    output: str | None,
) -> None:
    """List the kinds that the server knows."""
    wanted = {verb.strip() for verb in verbs.split(",") if verb.strip()}
    found = [
        row
        for row in (await session.kinds()).all
        if row.preferred
        and (api_group is None or row.resource.group == api_group)
        and (namespaced is None or row.resource.namespaced == namespaced)
        and wanted <= set(row.verbs)
    ]
    if sort_by:
        found.sort(key=lambda row: row.resource.plural if sort_by == "name" else row.resource.kind)
    if output == "name":
        for row in found:
            click.echo(str(row.resource))
        return
    headings = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    rows = [
        [
            row.resource.plural,
            ",".join(row.short_names),
            row.resource.api_version,
            str(row.resource.namespaced).lower(),
            row.resource.kind,
            *([",".join(row.verbs), ",".join(row.categories)] if output == "wide" else []),
        ]
        for row in found
    ]
    print_table([*headings, *(["VERBS", "CATEGORIES"] if output == "wide" else [])], rows, no_headers=no_headers)


@api_command("api-versions", examples="steer api-versions")
async def api_versions(session: Session) -> None:
    """List the API versions that the server knows."""
    for version in sorted({row.resource.api_version for row in (await session.kinds()).all}):
        click.echo(version)


COMMANDS = [api_resources, api_versions]
