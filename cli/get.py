"""`steer get`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from steersman.cli import tables
from steersman.cli.completers import complete_targets
from steersman.cli.errors import failed
from steersman.cli.kinds import Target, reference
from steersman.cli.output import (
    Format,
    aligned,
    cells_of_columns,
    columns_of,
    columns_of_terminal,
    is_terminal,
    parse_format,
    print_lines,
    print_object,
    without_managed_fields,
)
from steersman.cli.session import Session, api_command
from steersman.cli.tables import Layout, Query
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.jsonpath import JsonPath, relaxed
from steersman.cluster.meta.objects import Obj

EXAMPLES = """
steer get pods                                  # the pods of the namespace
steer get pods,services -A -o wide              # several kinds, everywhere, with more columns
steer get deployment/web -o yaml                # one object, whole
steer get pods -l app=web --field-selector status.phase=Running
steer get pods -w                               # and go on showing changes
steer get pods -o jsonpath='{range .items[*]}{.metadata.name} {.status.podIP}{"\\n"}{end}'
steer get nodes -o custom-columns=NAME:.metadata.name,CPU:.status.capacity.cpu
steer get pods --sort-by=.metadata.creationTimestamp
"""


@api_command("get", examples=EXAMPLES)
@click.argument("what", nargs=-1, metavar="TYPE[,TYPE] [NAME...]", shell_complete=complete_targets)
@click.option("-o", "--output", metavar="FORM", help="wide, json, yaml, name, jsonpath=…, custom-columns=…")
@click.option("-w", "--watch", is_flag=True, help="Go on showing changes.")
@click.option("--watch-only", is_flag=True, help="Show changes only, not what is there.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", metavar="SELECTOR", default="", help="By labels: app=web,tier!=db")
@click.option("--field-selector", metavar="SELECTOR", default="", help="By fields: status.phase=Running")
@click.option("--sort-by", metavar="PATH", help="Sort by a field, as a JSONPath.")
@click.option("--show-labels", is_flag=True, help="Add a column with all labels.")
@click.option("-L", "--label-columns", multiple=True, metavar="KEY", help="Add a column for a label.")
@click.option("--no-headers", is_flag=True, help="Leave the heading out.")
@click.option("--ignore-not-found", is_flag=True, help="A missing object is no error.")
@click.option("--show-managed-fields", is_flag=True, help="Keep managedFields in JSON and YAML.")
@click.option("--show-kind", is_flag=True, help="Print names as kind/name.")
@click.option("--raw", metavar="PATH", help="Print what the server answers to a GET of this path.")
async def get(session: Session, what: tuple[str, ...], output: str | None, raw: str | None, **options: Any) -> None:
    """List objects of one or several kinds, or show some of them by name."""
    if raw is not None:
        click.echo(await session.read(raw), nl=False)
        return
    form = parse_format(output)
    targets = (await session.kinds()).targets(what)
    names = any(row.names for row in targets)
    if names and (options["selector"] or options["field_selector"]):
        raise failed("a name cannot be combined with a selector")
    if names and options["everywhere"]:
        raise failed("a resource cannot be retrieved by name across all namespaces")
    if options["watch"] or options["watch_only"]:
        await _watch(session, targets, form, options)
    elif form.is_table:
        await _print_tables(session, targets, form, options)
    else:
        await _print_objects(session, targets, form, options)


def _query(options: dict[str, Any]) -> Query:
    return Query(
        everywhere=options["everywhere"],
        label_selector=options["selector"],
        field_selector=options["field_selector"],
        objects=bool(options["sort_by"]),
    )


def _layout(what: Target, form: Format, options: dict[str, Any], *, several: bool) -> Layout:
    return Layout(
        wide=form.kind == "wide",
        with_namespace=options["everywhere"] and what.resource.namespaced,
        with_kind=several or options["show_kind"],
        show_labels=options["show_labels"],
        label_columns=[key for text in options["label_columns"] for key in text.split(",")],
    )


async def _print_tables(session: Session, targets: Sequence[Target], form: Format, options: dict[str, Any]) -> None:
    printed = 0
    missing: list[str] = []
    for what in targets:
        layout = _layout(what, form, options, several=len(targets) > 1)
        rows = await _rows(session, what, layout, options, missing)
        if not rows:
            continue
        if printed:
            click.echo()
        printed += 1
        lines = rows if options["no_headers"] else [layout.headings(), *rows]
        print_lines(aligned(lines, fit=columns_of_terminal()), heading=not options["no_headers"])
    if missing:
        raise failed_missing(missing)
    if not printed and not options["ignore_not_found"]:
        _say_nothing_found(session, targets, everywhere=options["everywhere"])


async def _rows(
    session: Session, what: Target, layout: Layout, options: dict[str, Any], missing: list[str]
) -> list[list[str]]:
    found: list[Obj] = []
    for part in [Target(what.kind, (name,)) for name in what.names] or [what]:
        try:
            table = await tables.fetch(session, part, _query(options))
        except NotFound as error:
            if not part.names or not options["ignore_not_found"]:
                missing.append(f"Error from server (NotFound): {error.message}")
            continue
        layout.columns = layout.columns or table["columnDefinitions"]
        found += table["rows"]
    if options["sort_by"]:
        found = _sorted(found, options["sort_by"], lambda row: row["object"])
    return [layout.cells(row, what) for row in found]


def failed_missing(missing: Sequence[str]) -> click.ClickException:
    from steersman.cli.errors import Failed

    return Failed("\n".join(missing))


def _say_nothing_found(session: Session, targets: Sequence[Target], *, everywhere: bool) -> None:
    namespaced = any(what.resource.namespaced for what in targets) and not everywhere
    where = f" in {session.namespace} namespace." if namespaced else ""
    click.echo(f"No resources found{where}", err=True)


def _sorted(rows: list[Any], path_text: str, obj_of: Any) -> list[Any]:
    path = JsonPath(relaxed(path_text))

    def key(row: Any) -> tuple[int, float, str]:
        values = path.values(obj_of(row))
        if not values or values[0] is None:
            return (2, 0.0, "")
        value = values[0]
        number = isinstance(value, int | float)
        return (0, float(value), "") if number else (1, 0.0, str(value))

    return sorted(rows, key=key)


async def _print_objects(session: Session, targets: Sequence[Target], form: Format, options: dict[str, Any]) -> None:
    items: list[Obj] = []
    missing: list[str] = []
    for what in targets:
        items += await _objects(session, what, options, missing)
    if options["sort_by"]:
        items = _sorted(items, options["sort_by"], lambda obj: obj)
    if not options["show_managed_fields"]:
        items = [without_managed_fields(obj) for obj in items]
    single = len(items) == 1 and all(len(what.names) == 1 for what in targets) and len(targets) == 1
    if single:
        print_object(items[0], form, _name_of(targets))
    elif items or not missing:
        whole = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": ""}, "items": items}
        if form.kind == "custom-columns" and options["no_headers"]:
            columns = columns_of(form)
            print_lines(aligned([cells_of_columns(columns, obj) for obj in items]), heading=False)
        elif items or form.kind in ("json", "yaml", "custom-columns", "jsonpath"):
            print_object(whole, form, _name_of(targets))
    if missing:
        raise failed_missing(missing)


async def _objects(session: Session, what: Target, options: dict[str, Any], missing: list[str]) -> list[Obj]:
    scope = session.scope(what.resource, everywhere=options["everywhere"])
    found = []
    for name in what.names:
        try:
            found.append(await session.client.get(what.resource, name, scope))
        except NotFound as error:
            if not options["ignore_not_found"]:
                missing.append(f"Error from server (NotFound): {error.message}")
    if what.names:
        return found
    token = ""
    while True:
        page = await session.client.list(
            what.resource,
            scope,
            label_selector=options["selector"],
            field_selector=options["field_selector"],
            limit=tables.PAGE,
            continue_token=token,
        )
        found += page.items
        token = page.continue_token
        if not token:
            return found


def _name_of(targets: Sequence[Target]) -> Any:
    resources = {(what.resource.api_version, what.resource.kind): what.resource for what in targets}

    def name(obj: Obj) -> str:
        resource = resources[obj["apiVersion"], obj["kind"]]
        return reference(resource, obj["metadata"]["name"])

    return name


async def _watch(session: Session, targets: Sequence[Target], form: Format, options: dict[str, Any]) -> None:
    if len(targets) != 1 or len(targets[0].names) > 1:
        raise failed("you may only specify a single resource type, or one object, with --watch")
    what = targets[0]
    selector = options["field_selector"]
    if what.names:
        selector = f"metadata.name={what.names[0]}"
        await session.client.get(what.resource, what.names[0], session.scope(what.resource))
    from steersman.cli.watching import Watching

    watching = Watching(session, Target(what.kind), _layout(what, form, options, several=False), selector, options)
    if not form.is_table:
        await watching.print_objects(form, _name_of(targets))
    elif is_terminal() and not options["watch_only"]:
        await watching.redraw()
    else:
        await watching.print_rows()


COMMANDS = [get]
