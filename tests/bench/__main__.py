"""Runs the benchmarks and prints every figure: a table on stdout and, with --json FILE, the same as JSON.

    python -m tests.bench                     all of them, a few minutes
    python -m tests.bench api deployment      some
    python -m tests.bench --json figures.json

Each benchmark is a module beside this one with `run() -> Iterator[Figure]`, and runs in a process of its own.
No figure passes or fails: they are for comparing two states of the code on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure

#: in the order they run; the README sets some beside what others do
BENCHES = (
    "model",
    "custom",
    "store",
    "api",
    "large",
    "memory",
    "scheduler",
    "scheduling",
    "deployment",
    "net",
    "runtime",
    "cold_start",
    "idle",
)


def child(name: str) -> None:
    """Runs one benchmark and prints a line of JSON per figure."""
    for figure in importlib.import_module(f"tests.bench.{name}").run():
        print(json.dumps(dataclasses.asdict(figure)), flush=True)


def figures(name: str) -> Iterator[Figure]:
    """Runs one benchmark in a process of its own; what it prints besides figures goes to stderr."""
    command = [sys.executable, "-m", "tests.bench", "--child", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                yield Figure(**json.loads(line))
            except (ValueError, TypeError):
                print(line, end="", file=sys.stderr)
    if process.returncode:
        print(f"{name} failed with exit code {process.returncode}", file=sys.stderr)


def show(figure: Figure) -> None:
    digits = 0 if abs(figure.value) >= 1000 else 1 if abs(figure.value) >= 10 else 3
    runs = f"median of {figure.runs}" if figure.runs > 1 else ""
    print(f"{figure.name:<56} {figure.value:>12,.{digits}f} {figure.unit:<8} {runs}".rstrip(), flush=True)


def machine() -> dict[str, object]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpus": os.cpu_count(), "cpu": cpu.partition(":")[2].strip(), "kernel": platform.release(),
        "python": platform.python_version(), "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)} [default: all]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well ('-' is stdout)")
    parser.add_argument("--child", choices=BENCHES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return 0
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    began, rows, failed = time.monotonic(), [], []
    for name in arguments.names or BENCHES:
        found = []
        for figure in figures(name):
            show(figure)
            found.append(figure)
        rows += found
        if not found:
            failed.append(name)
    document = {"machine": machine(), "took_s": round(time.monotonic() - began, 1), "failed": failed,
                "figures": [dataclasses.asdict(row) for row in rows]}  # fmt: skip
    text = json.dumps(document, indent=2) + "\n"
    if arguments.json and str(arguments.json) != "-":
        arguments.json.write_text(text)
    elif arguments.json:
        print(text, end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
