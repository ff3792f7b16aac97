"""Transcripts: commands as a user types them, with all that they print, run against a cluster and compared.

    == rollout undo                 a scene: it has a namespace and a folder of its own
    $ kubectl create deployment web --image=localhost/web:v1
    deployment.apps/web created
    $ kubectl get deployment nobody
    Error from server (NotFound): deployments.apps "nobody" not found
    [1]

`> ` continues a command. `[1]` is its exit status where that is not 0. In what is expected, `...` alone on a line
stands for any lines, `{*}` for any text within a line, `{age}`, `{ip}`, `{time}`, `{uid}` and `{id}` for what they say,
and `{re:EXPRESSION}` for itself; the width of columns does not matter. A title may end in `(from 1.30)`, the first
version of the client that can play the scene; `(every version)` marks those worth playing with each, `(one version)`
those where the server is what is tried. Lines that begin with `# ` are remarks.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

#: a command that takes longer is ended, and the scene fails
STEP_S_MAX = 60.0
#: what each command may use besides the client: tries a command until it succeeds
_PRELUDE = """
eventually() { for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
"""
_PLACEHOLDERS = {
    "*": r".*",
    "age": r"(?:\d+[smhdy])+",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "time": r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4})",
    "uid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "id": r"[a-z0-9]+",
}
_TITLE = re.compile(
    r"== (?P<title>.*?)(?: \(from (?P<major>\d+)\.(?P<minor>\d+)\))?(?: \((?P<which>every|one) version\))?"
)


@dataclass(frozen=True)
class Step:
    line: int
    command: str
    expected: tuple[str, ...]
    status: int


@dataclass
class Scene:
    """One story of a transcript."""

    title: str
    since: tuple[int, int] = (0, 0)
    #: `every`, `one`, or the newest and the oldest
    which: str = ""
    steps: list[Step] = field(default_factory=list)

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:50]


def read(path: Path) -> list[Scene]:
    """The scenes of a file."""
    scenes: list[Scene] = []
    command: list[str] = []
    begun, expected = 0, []

    def end_step() -> None:
        if command:
            wanted = _trimmed(tuple(expected))
            ended = re.fullmatch(r"\[(\d+)\]", wanted[-1]) if wanted else None
            status = int(ended[1]) if ended else 0
            scenes[-1].steps.append(Step(begun, "\n".join(command), wanted[:-1] if ended else wanted, status))
        command.clear()
        expected.clear()

    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := _TITLE.fullmatch(line):
            end_step()
            since = (int(match["major"] or 0), int(match["minor"] or 0))
            scenes.append(Scene(match["title"], since, match["which"] or ""))
        elif line.startswith("$ "):
            end_step()
            begun, command[:] = number, [line[2:]]
        elif line.startswith("> ") or line == ">":
            command.append(line[2:])
        elif not line.startswith("# ") and (line or expected):
            expected.append(line)
    end_step()
    return scenes


def play(scene: Scene, folder: Path, environment: dict[str, str]) -> None:
    """Runs a scene's commands in a folder.

    Raises:
        AssertionError: a command printed something else than the transcript has.
    """
    for step in scene.steps:
        printed, status = _run(step.command, folder, environment)
        if status != step.status or not matches(step.expected, printed):
            wanted = "\n".join(step.expected)
            raise AssertionError(
                f"line {step.line}: $ {step.command}\n--- expected [{step.status}]\n{wanted}\n"
                f"--- got [{status}]\n{printed}"
            )


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Whether a command printed what was expected of it, blank lines at the end aside."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else _pattern(line) + r"\n" for line in _trimmed(expected))
    lines = _trimmed(tuple(printed.splitlines()))
    return re.fullmatch(pattern, "".join(_squeezed(line) + "\n" for line in lines)) is not None


def _trimmed(lines: tuple[str, ...]) -> tuple[str, ...]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def _squeezed(line: str) -> str:
    return re.sub(r"[ \t]{2,}|\t", "  ", line.rstrip())


def _pattern(line: str) -> str:
    parts = re.split(r"(\{(?:\*|[a-z]+|re:.*?\}?)\})", _squeezed(line))
    return "".join(_placeholder(part) for part in parts)


def _placeholder(part: str) -> str:
    if part.startswith("{re:"):
        return f"(?:{part[4:-1]})"
    if part.startswith("{") and part[1:-1] in _PLACEHOLDERS:
        return _PLACEHOLDERS[part[1:-1]]
    return re.escape(part)


def _run(command: str, folder: Path, environment: dict[str, str]) -> tuple[str, int]:
    """Runs a command with all processes that it starts, and ends those that it leaves."""
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(
            ["bash", "-c", _PRELUDE + command], cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            process.wait(STEP_S_MAX)
        except subprocess.TimeoutExpired:
            printed.write(f"\n(ended after {STEP_S_MAX:.0f} s)")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        return printed.read(), process.returncode
