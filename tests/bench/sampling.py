"""Where a process spends its CPU time, by what it is doing: stacks looked at while it runs, never a timer in its code.

A signal comes after every millisecond of CPU time. Python takes it at the next safe point of the main thread, so what
ran is told by where that point lies: at the first instruction of a callback, or where a coroutine goes on, it was the
event loop (sockets and TLS with it); at that of a function, it was its caller; after a call, what was called.
"""

from __future__ import annotations

import dis
import signal
from collections import Counter
from types import FrameType

PERIOD_S = 0.001
LOOP = "event loop, sockets, TLS"
OTHER = "in between: routing, tasks, values"
#: phase to where it happens: the start of a path below `steersman`, with a function or without
PHASES: dict[str, tuple[str, ...]] = {
    "HTTP: read the request": (
        "actors/http/connection.py:data_received", "actors/http/receiver.py", "actors/apiserver/call.py",
        "cluster/auth/attributes.py",
    ),
    "authentication": ("actors/apiserver/authenticator.py",),
    "authorization": (
        "actors/apiserver/access.py", "cluster/auth/authorization.py", "cluster/auth/rbac.py", "cluster/auth/node.py",
    ),
    "priority and fairness": ("actors/apiserver/flowcontrol.py", "cluster/auth/flows.py"),
    "decode, check against the schema": ("cluster/api/decode.py", "cluster/api/schema/", "cluster/api/protobuf/"),
    "defaults": ("cluster/api/rules/defaults.py",),
    "admission": ("cluster/api/admission/", "actors/apiserver/quotas.py", "actors/apiserver/webhooks.py"),
    "managedFields": ("cluster/api/ssa.py", "cluster/api/fieldset.py", "cluster/api/managed.py"),
    "patch": ("cluster/api/patch.py", "cluster/api/strategic.py", "cluster/api/lastapplied.py"),
    "validation": ("cluster/api/rules/",),
    "encode": ("actors/apiserver/entry.py:encode",),
    "store: wire": ("actors/store/client.py", "actors/apiserver/sealed.py", "cluster/store/codec.py", "actors/rpc/"),
    "watch cache and fan-out": (
        "actors/apiserver/cache.py:_follow", "actors/apiserver/cache.py:_apply", "actors/apiserver/watcher.py",
    ),
    "HTTP: answer": (
        "actors/http/sender.py", "actors/apiserver/change.py:entry", "actors/apiserver/resources.py:_written",
        "actors/apiserver/forms.py",
    ),
    "store: consensus": ("cluster/raft/",),
    "store: apply": ("cluster/store/",),
    "store: watches": ("actors/store/watches.py",),
    "store: log": ("actors/store/saving.py", "actors/store/wal.py", "actors/store/files.py"),
    "store: requests": ("actors/store/",),
}  # fmt: skip
_RESUME = dis.opmap["RESUME"]


class Sampler:
    """Counts what the main thread of this process is doing, between `start` and `stop`."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()
        self._phases: dict[tuple[str, str], str] = {}

    def start(self) -> None:
        self._found.clear()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)

    def stop(self) -> dict[str, int]:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return dict(self._found)

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        self._found[self._phase(frame)] += 1

    def _phase(self, frame: FrameType | None) -> str:
        if frame is not None and (resumed := _resumed(frame)) is not None:
            frame = None if resumed else frame.f_back
        is_ours = False
        while frame is not None:
            code = frame.f_code
            place = code.co_filename, code.co_name
            found = self._phases.get(place)
            if found is None:
                found = self._phases[place] = _phase_of(*place)
            if found and found != OTHER:
                return found
            is_ours = is_ours or found == OTHER
            frame = frame.f_back
        return OTHER if is_ours else LOOP


def _resumed(frame: FrameType) -> bool | None:
    """Whether a frame goes on just now (True) or has been called just now (False); None when neither."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at + 1] != 0 if at >= 0 and code[at] == _RESUME else None


def _phase_of(file: str, function: str) -> str:
    """The phase of a function, the longest of what fits; `OTHER` for the rest of the product, empty for what is not."""
    _, ours, path = file.rpartition("/steersman/")
    if not ours:
        return ""
    best, phase = 0, OTHER
    for name, places in PHASES.items():
        for place in places:
            start, _, only = place.partition(":")
            if path.startswith(start) and only in ("", function) and len(place) > best:
                best, phase = len(place), name
    return phase
