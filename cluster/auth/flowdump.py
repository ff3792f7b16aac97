"""What priority and fairness does at the moment, as text: the debug tables and metrics of an API server.

Source: https://kubernetes.io/docs/reference/debug-cluster/flow-control/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from steersman.cluster.auth.flows import CANCELLED, TIMED_OUT, Dispatcher, Level

_LEVELS = (
    "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests,"
    " RejectedRequests, TimedoutRequests, CancelledRequests"
)
_QUEUES = (
    "PriorityLevelName, Index, PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR, InitialSeatsSum,"
    " MaxSeatsSum, TotalWorkSum"
)
_REQUESTS = "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, InitialSeats, Waited"
_METRICS: tuple[tuple[str, str, Callable[[Level], int]], ...] = (
    ("nominal_limit_seats", "Seats that a level has of its own.", lambda level: level.spec.nominal),
    ("lower_limit_seats", "Seats that a level does not lend.", lambda level: level.spec.lower),
    ("upper_limit_seats", "The most seats a level may have, with borrowed ones.", lambda level: level.spec.upper),
    ("current_limit_seats", "Seats that a level may use now.", lambda level: level.current),
    ("current_executing_seats", "Seats in use.", lambda level: level.seats),
    ("current_executing_requests", "Requests that run.", lambda level: level.executing),
    ("current_inqueue_requests", "Requests that wait.", lambda level: level.waiting),
)


def dump(dispatcher: Dispatcher, what: str, now: float) -> str | None:
    """The table `dump_priority_levels`, `dump_queues` or `dump_requests`; None for another name."""
    match what:
        case "dump_priority_levels":
            rows = [_LEVELS, *(_level(level) for _, level in sorted(dispatcher.levels.items()))]
        case "dump_queues":
            rows = [_QUEUES, *_queues(dispatcher)]
        case "dump_requests":
            rows = [_REQUESTS, *_requests(dispatcher, now)]
        case _:
            return None
    return "\n".join(rows) + "\n"


def _level(level: Level) -> str:
    counts = [
        sum(count for (_, reason), count in level.refused.items() if test(reason))
        for test in (
            lambda reason: reason not in (TIMED_OUT, CANCELLED),
            lambda reason: reason == TIMED_OUT,
            lambda reason: reason == CANCELLED,
        )
    ]
    idle = str(not level.executing and not level.waiting).lower()
    cells = (
        level.spec.name, level.active, idle, "false", level.waiting, level.executing,
        sum(level.dispatched.values()), *counts,
    )  # fmt: skip
    return ", ".join(map(str, cells))


def _queues(dispatcher: Dispatcher) -> Iterator[str]:
    for name, level in sorted(dispatcher.levels.items()):
        for queue in level.queues:
            seats = [ticket.width for ticket in queue.waiting]
            row = f"{name}, {queue.index}, {len(queue.waiting)}, {queue.executing}, {queue.seats}"
            yield f"{row}, {queue.next_r:.8f}, {sum(seats)}, {max(seats, default=0)}, {sum(seats) * 0.003:.8f}"


def _requests(dispatcher: Dispatcher, now: float) -> Iterator[str]:
    for name, level in sorted(dispatcher.levels.items()):
        for queue in level.busy:
            for at, ticket in enumerate(queue.waiting):
                flow = ticket.flow
                row = f"{name}, {flow.schema.name}, {queue.index}, {at}, {flow.distinguisher}"
                yield f"{row}, {ticket.width}, {now - ticket.arrived:.3f}s"


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
