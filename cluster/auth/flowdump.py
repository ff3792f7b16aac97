"""What priority and fairness does at the moment, as text: the debug tables and metrics of an API server.

Source: https://kubernetes.io/docs/reference/debug-cluster/flow-control/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from steersman.cluster.auth.flows import CANCELLED, GUESS_S, TIMED_OUT, Dispatcher, Level
from steersman.cluster.meta.times import format_micro_time

_LEVELS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip
_QUEUES = (
    "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
    "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
)  # fmt: skip
_REQUESTS = (
    "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
    "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime",
)  # fmt: skip
_NEVER = "0001-01-01T00:00:00Z"
#: columns are so wide at least
_WIDTH_MIN = 8
_Row = Sequence[object]
_METRICS: tuple[tuple[str, str, Callable[[Level], int]], ...] = (
    ("nominal_limit_seats", "Seats that a level has of its own.", lambda level: level.spec.nominal),
    ("lower_limit_seats", "Seats that a level does not lend.", lambda level: level.spec.lower),
    ("upper_limit_seats", "The most seats a level may have, with borrowed ones.", lambda level: level.spec.upper),
    ("current_limit_seats", "Seats that a level may use now.", lambda level: level.current),
    ("current_executing_seats", "Seats in use.", lambda level: level.seats),
    ("current_executing_requests", "Requests that run.", lambda level: level.executing),
    ("current_inqueue_requests", "Requests that wait.", lambda level: level.waiting),
)


def dump(dispatcher: Dispatcher, what: str, now: float, wall: float) -> str | None:
    """The table `dump_priority_levels`, `dump_queues` or `dump_requests`; None for another name.

    Args:
        now: of the dispatcher's clock; wall: the same moment in seconds since 1970.
    """
    match what:
        case "dump_priority_levels":
            return _table(_LEVELS, (_level(level) for _, level in sorted(dispatcher.levels.items())))
        case "dump_queues":
            return _table(_QUEUES, _queues(dispatcher))
        case "dump_requests":
            return _table(_REQUESTS, _requests(dispatcher, wall - now))
    return None


def _table(head: _Row, rows: Iterable[_Row]) -> str:
    """Cells with commas between them, the columns below each other."""
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(_WIDTH_MIN, 2 + max(map(len, column))) for column in zip(*lines, strict=True)]
    padded = ("".join(f"{cell},".ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) for row in lines)
    return "".join(f"{start}{row[-1]}\n" for start, row in zip(padded, lines, strict=True))


def _level(level: Level) -> _Row:
    counts = [
        sum(count for (_, reason), count in level.refused.items() if test(reason))
        for test in (
            lambda reason: reason not in (TIMED_OUT, CANCELLED),
            lambda reason: reason == TIMED_OUT,
            lambda reason: reason == CANCELLED,
        )
    ]
    idle = str(not level.executing and not level.waiting).lower()
    return (
        level.spec.name, level.active, idle, "false", level.waiting, level.executing,
        sum(level.dispatched.values()), *counts,
    )  # fmt: skip


def _queues(dispatcher: Dispatcher) -> Iterator[_Row]:
    for name, level in sorted(dispatcher.levels.items()):
        for queue in level.queues:
            seats = [ticket.width for ticket in queue.waiting]
            yield (
                name, queue.index, len(queue.waiting), queue.executing, queue.seats, f"{queue.next_r:.8f}ss",
                sum(seats), max(seats, default=0), f"{sum(seats) * GUESS_S:.8f}ss",
            )  # fmt: skip


def _requests(dispatcher: Dispatcher, offset: float) -> Iterator[_Row]:
    """Those that run, and those that wait; `offset` is the clock's zero in seconds since 1970."""
    for name, level in sorted(dispatcher.levels.items()):
        rows = [(ticket, -1) for ticket in level.running]
        rows += [(ticket, at) for queue in level.busy for at, ticket in enumerate(queue.waiting)]
        for ticket, at in rows:
            flow, queue, started = ticket.flow, ticket.queue, ticket.started
            yield (
                name, flow.schema.name, -1 if queue is None else queue.index, at, flow.distinguisher,
                format_micro_time(ticket.arrived + offset), ticket.width, 0, "0s",
                _NEVER if started is None else format_micro_time(started + offset),
            )  # fmt: skip


def metrics(dispatcher: Dispatcher) -> list[str]:
    """Lines in Prometheus' text format."""
    lines, levels = [], sorted(dispatcher.levels.items())
    for name, help_text, value in _METRICS:
        metric = f"apiserver_flowcontrol_{name}"
        lines += [f"# HELP {metric} {help_text}", f"# TYPE {metric} gauge"]
        lines += [f'{metric}{{priority_level="{level_name}"}} {value(level)}' for level_name, level in levels]
    metric = "apiserver_flowcontrol_dispatched_requests_total"
    lines += [f"# HELP {metric} Requests that got their turn.", f"# TYPE {metric} counter"]
    for level_name, level in levels:
        for schema, count in level.dispatched.items():
            lines.append(f'{metric}{{flow_schema="{schema}",priority_level="{level_name}"}} {count}')
    metric = "apiserver_flowcontrol_rejected_requests_total"
    lines += [f"# HELP {metric} Requests that did not.", f"# TYPE {metric} counter"]
    for level_name, level in levels:
        for (schema, reason), count in level.refused.items():
            labels = f'flow_schema="{schema}",priority_level="{level_name}",reason="{reason}"'
            lines.append(f"{metric}{{{labels}}} {count}")
    return lines
