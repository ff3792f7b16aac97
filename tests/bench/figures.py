"""What a benchmark yields: figures, medians of several runs, and what processes have used of CPU and memory."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. Args: name: dotted, its bench first; runs: how many runs it is the median of."""

    name: str
    value: float
    unit: str
    runs: int = 1


def median(name: str, values: Sequence[float], unit: str) -> Figure:
    return Figure(name, statistics.median(values), unit, len(values))


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, its waited-for children excluded; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process."""
    found = {"Rss": 0.0, "Pss": 0.0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in found:
                found[key] = int(rest.split()[0]) / 1024
    except OSError:
        pass
    return found["Rss"], found["Pss"]
