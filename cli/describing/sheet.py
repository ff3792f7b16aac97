"""A sheet of labelled lines, aligned and indented as `kubectl describe` prints them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from steersman.cli.output import aligned
from steersman.cluster.meta.objects import Obj, controller_of
from steersman.cluster.meta.times import parse_time

_STEP = "  "
#: stands for the value of a line that has none
_PLAIN = "\0"
#: stands for the value of a line that has none
_PLAIN = _PLAIN
#: values of labels and annotations are cut at this length, as they may be whole documents
_VALUE_MAX = 140


@dataclass(slots=True)
class _Line:
    indent: int
    label: str
    value: str


class Sheet:
    """Collects lines; `text` aligns the values of neighbouring lines."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._indent = 0

    @contextmanager
    def section(self, label: str, value: str = "") -> Iterator[None]:
        """Lines added inside are indented below the label."""
        self.field(label, value)
        self._indent += 1
        yield
        self._indent -= 1

    def field(self, label: str, value: Any = "") -> None:
        """Adds `Label:  value`; further lines of the value stand below its first."""
        first, *more = str(value).split("\n")
        self._lines.append(_Line(self._indent, f"{label}:", first))
        self._lines += [_Line(self._indent, "", line) for line in more]

    def optional(self, label: str, value: Any) -> None:
        """Adds the line only where there is something to say."""
        if value not in (None, "", [], {}):
            self.field(label, value)

    def plain(self, text: str) -> None:
        for line in text.split("\n"):
            self._lines.append(_Line(self._indent, line, _PLAIN))

    def pairs(self, label: str, values: Mapping[str, str] | None, separator: str = "=") -> None:
        """Adds labels or annotations, one a line; `<none>` for none."""
        rows = [f"{key}{separator}{_shortened(str(value))}" for key, value in sorted((values or {}).items())]
        self.field(label, "\n".join(rows) or "<none>")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        texts = [list(headings), ["-" * len(text) for text in headings], *([str(c) for c in row] for row in rows)]
        for line in aligned(texts):
            self.plain(line)

    def text(self) -> str:
        blocks = self._blocks()
        widths: dict[tuple[int, int], int] = {}
        for line, block in zip(self._lines, blocks, strict=True):
            if line.value != _PLAIN:
                widths[block] = max(widths.get(block, 0), len(line.label))
        texts = []
        for line, block in zip(self._lines, blocks, strict=True):
            head = _STEP * line.indent
            if line.value == _PLAIN:
                texts.append((head + line.label).rstrip())
            else:
                texts.append(f"{head}{line.label.ljust(widths[block])}  {line.value}".rstrip())
        return "\n".join(texts)

    def _blocks(self) -> list[tuple[int, int]]:
        """Which lines stand together: those of one indentation with nothing less indented between them."""
        opened: dict[int, int] = {}
        found = []
        for number, line in enumerate(self._lines):
            opened = {indent: start for indent, start in opened.items() if indent <= line.indent}
            found.append((line.indent, opened.setdefault(line.indent, number)))
        return found


def _shortened(value: str) -> str:
    flat = " ".join(value.split())
    return flat if len(flat) <= _VALUE_MAX else flat[: _VALUE_MAX - 1] + "…"


def moment(timestamp: str | None) -> str:
    """A time for people: `Thu, 01 Jan 2026 00:00:00 +0000`; empty for none."""
    if not timestamp:
        return ""
    return format_datetime(datetime.fromtimestamp(parse_time(timestamp), UTC))


def head(sheet: Sheet, obj: Obj, *, created: bool = True) -> None:
    """The lines every description begins with."""
    metadata = obj["metadata"]
    sheet.field("Name", metadata["name"])
    sheet.optional("Namespace", metadata.get("namespace"))
    if created:
        sheet.field("CreationTimestamp", moment(metadata.get("creationTimestamp")))
    sheet.pairs("Labels", metadata.get("labels"))
    sheet.pairs("Annotations", metadata.get("annotations"), ": ")
    if metadata.get("deletionTimestamp"):
        grace = metadata.get("deletionGracePeriodSeconds")
        within = f", {grace}s grace" if grace else ""
        sheet.field("Terminating", f"since {moment(metadata['deletionTimestamp'])}{within}")
    owner = controller_of(obj)
    if owner:
        sheet.field("Controlled By", f"{owner['kind']}/{owner['name']}")


def conditions(sheet: Sheet, obj: Obj, *, brief: bool = False) -> None:
    """The conditions of an object's status as a table."""
    rows = (obj.get("status") or {}).get("conditions") or ()
    if not rows:
        return
    with sheet.section("Conditions"):
        if brief:
            sheet.table(["Type", "Status", "Reason"], [[r["type"], r["status"], r.get("reason", "")] for r in rows])
        else:
            sheet.table(
                ["Type", "Status", "LastTransitionTime", "Reason", "Message"],
                [
                    [
                        r["type"],
                        r["status"],
                        moment(r.get("lastTransitionTime")),
                        r.get("reason", ""),
                        textwrap.shorten(r.get("message", ""), 100, placeholder="…"),
                    ]
                    for r in rows
                ],
            )
