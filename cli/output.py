"""Forms of output: tables that fit the terminal, JSON, YAML, names, JSONPath and custom columns; and colour, which only
a terminal gets.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from steersman.cli.errors import failed
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.jsonpath import JsonPath, JsonPathError, printed, relaxed
from steersman.cluster.meta.objects import Obj

_GAP = "   "
#: no column is cut below this many characters
_CELL_MIN = 10
_GOOD = {"Running", "Ready", "Active", "Bound", "Complete", "Completed", "Succeeded", "Normal", "Available", "healthy"}
_WAITING = {"Pending", "ContainerCreating", "PodInitializing", "Terminating", "Suspended", "Unknown", "starting"}
_BAD = ("Error", "BackOff", "Err", "Failed", "NotReady", "OOMKilled", "Evicted", "Warning", "Lost", "Unhealthy")


def is_terminal() -> bool:
    """Whether output goes to somebody's eyes and may be coloured and redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ


def columns_of_terminal() -> int | None:
    """The width to fit; None in a pipe, where nothing is cut."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def aligned(rows: Sequence[Sequence[str]], *, widths: Sequence[int] = (), fit: int | None = None) -> list[str]:
    """Returns the rows as lines with columns aligned; the widest columns are cut where `fit` demands it.

    Args:
        widths: the least width of each column, so that rows printed later stay aligned.
    """
    if not rows:
        return []
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    wide = [max(have, least) for have, least in zip(wide, list(widths) + [0] * len(wide), strict=False)]
    if fit is not None:
        wide = _fitted(wide, fit - len(_GAP) * (len(wide) - 1))
    return [_GAP.join(_cell(text, width) for text, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def _fitted(widths: list[int], room: int) -> list[int]:
    fitted = list(widths)
    while sum(fitted) > room:
        # the first column holds names, which are needed whole
        widest = max(range(1, len(fitted)), key=lambda i: fitted[i], default=0)
        if widest == 0 or fitted[widest] <= _CELL_MIN:
            return widths if sum(fitted) - room > room else fitted
        fitted[widest] = max(_CELL_MIN, fitted[widest] - (sum(fitted) - room))
    return fitted


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def painted(line: str) -> str:
    """A table's line with the words that stand for states coloured, on a terminal."""
    if not is_terminal():
        return line
    words = line.split(" ")
    return " ".join(_painted_word(word) for word in words)


def _painted_word(word: str) -> str:
    state = word.split(",")[0]
    if state in _GOOD:
        return click.style(word, fg="green")
    if state in _WAITING or state.startswith("Init:"):
        return click.style(word, fg="yellow")
    if state and (state in _BAD or state.endswith(_BAD)):
        return click.style(word, fg="red")
    return word


def print_lines(lines: Sequence[str], *, heading: bool = True) -> None:
    """Prints a table's lines; the heading is emphasised on a terminal."""
    for index, line in enumerate(lines):
        if index == 0 and heading:
            click.echo(click.style(line, bold=True) if is_terminal() else line)
        else:
            click.echo(painted(line))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, no_headers: bool = False) -> None:
    """Prints rows of any cells as a table."""
    texts = [[str(cell) for cell in row] for row in rows]
    table = texts if no_headers else [list(headings), *texts]
    print_lines(aligned(table, fit=columns_of_terminal()), heading=not no_headers)


@dataclass(frozen=True, slots=True)
class Format:
    """What `-o` asked for.

    Args:
        kind: `table`, `wide`, `json`, `yaml`, `name`, `jsonpath` or `custom-columns`.
        argument: what followed the `=`.
    """

    kind: str
    argument: str = ""

    @property
    def is_table(self) -> bool:
        return self.kind in ("table", "wide")


def parse_format(text: str | None) -> Format:
    """Reads the value of `-o`.

    Raises:
        Failed: it names no form, or its template is malformed.
    """
    kind, equals, argument = (text or "table").partition("=")
    if kind in ("jsonpath", "custom-columns"):
        if not argument:
            example = "{.metadata.name}" if kind == "jsonpath" else "NAME:.metadata.name"
            raise failed(f"-o {kind} needs a template: -o {kind}={example}")
        found = Format(kind, argument)
        (template_of if kind == "jsonpath" else columns_of)(found)
        return found
    if kind in ("jsonpath-file", "custom-columns-file"):
        try:
            with open(argument, encoding="utf-8") as file:
                return parse_format(f"{kind.removesuffix('-file')}={file.read().strip()}")
        except OSError as error:
            raise failed(f"cannot read {argument}: {error.strerror}") from None
    if kind in ("table", "wide", "json", "yaml", "name") and not equals:
        return Format(kind)
    raise failed(
        f'unable to match a printer suitable for the output format "{text}", allowed formats are: '
        "custom-columns=,json,jsonpath=,name,wide,yaml"
    )


def template_of(form: Format) -> JsonPath:
    try:
        return JsonPath(relaxed(form.argument))
    except JsonPathError as error:
        raise failed(f"error parsing jsonpath {form.argument}: {error}") from None


def columns_of(form: Format) -> list[tuple[str, JsonPath]]:
    """Reads `NAME:.metadata.name,IMAGE:.spec.containers[*].image`."""
    found = []
    for part in _split_columns(form.argument):
        heading, colon, path = part.partition(":")
        if not colon or not path:
            raise failed(f"unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")
        try:
            found.append((heading.strip(), JsonPath(relaxed(path.strip()))))
        except JsonPathError as error:
            raise failed(f"error parsing jsonpath {path}: {error}") from None
    return found


def _split_columns(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += char in "[({"
        depth -= char in "])}"
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def cells_of_columns(columns: Sequence[tuple[str, JsonPath]], obj: Obj) -> list[str]:
    cells = []
    for _, path in columns:
        values = path.values(obj)
        cells.append(",".join("<nil>" if v is None else printed(v) for v in values) if values else "<none>")
    return cells


def without_managed_fields(obj: Obj) -> Obj:
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def to_json(value: Any) -> str:
    return json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False)


def print_object(obj: Obj, form: Format, name: Callable[[Obj], str]) -> None:
    """Prints one object or a list in a form that is no table.

    Args:
        name: how `-o name` prints an object.
    """
    match form.kind:
        case "json":
            click.echo(to_json(obj))
        case "yaml":
            click.echo(yamlio.dump(obj), nl=False)
        case "name":
            for item in obj["items"] if _is_list(obj) else [obj]:
                click.echo(name(item))
        case "jsonpath":
            text = template_of(form).text(obj)
            click.echo(text, nl=sys.stdout.isatty() and not text.endswith("\n"))
        case "custom-columns":
            columns = columns_of(form)
            items = obj["items"] if _is_list(obj) else [obj]
            print_table([heading for heading, _ in columns], [cells_of_columns(columns, item) for item in items])


def _is_list(obj: Obj) -> bool:
    return str(obj.get("kind", "")).endswith("List") and isinstance(obj.get("items"), list)
