"""Priority and fairness: which level a request belongs to, who waits, who goes on, and how seats are lent."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from steersman.actors.apiserver.bootstrap import read_objects
from steersman.cluster.auth.attributes import Attributes, read_attributes
from steersman.cluster.auth.flowdump import dump, metrics
from steersman.cluster.auth.flows import NO_SEATS, QUEUE_FULL, TIMED_OUT, Dispatcher, Ticket, deal, share_out
from steersman.cluster.auth.flowschemas import dangling, read_levels, read_schemas

OBJECTS = read_objects("10.96.0.0/16", 443)
SCHEMAS = [obj for obj in OBJECTS if obj["kind"] == "FlowSchema"]
LEVELS = [obj for obj in OBJECTS if obj["kind"] == "PriorityLevelConfiguration"]
EVERYBODY = ("system:authenticated",)
PODS = Attributes("list", "", "", "v1", "pods", namespace="a")


def deployed(seats: int = 600) -> Dispatcher:
    levels, dispatcher = read_levels(LEVELS, seats), Dispatcher(seats)
    dispatcher.configure(read_schemas(SCHEMAS, levels), levels, 0.0)
    return dispatcher


@pytest.mark.parametrize(
    ("user", "groups", "method", "path", "schema", "level"),
    [
        ("admin", ("system:masters",), "GET", "/api/v1/pods", "exempt", "exempt"),
        ("x", ("system:unauthenticated",), "GET", "/healthz", "probes", "exempt"),
        ("x", ("system:unauthenticated",), "GET", "/version", "global-default", "global-default"),
        ("system:kube-scheduler", EVERYBODY, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x",
         "system-leader-election", "leader-election"),
        ("system:kube-controller-manager", EVERYBODY, "PUT", "/api/v1/namespaces/a/endpoints/x",
         "endpoint-controller", "workload-high"),
        ("system:serviceaccount:kube-system:x", ("system:serviceaccounts",), "GET", "/api/v1/pods",
         "kube-system-service-accounts", "workload-high"),
        ("system:serviceaccount:a:x", ("system:serviceaccounts",), "GET", "/api/v1/pods",
         "service-accounts", "workload-low"),
        ("system:node:n", ("system:nodes",), "PATCH", "/api/v1/nodes/n/status", "system-node-high", "node-high"),
        ("system:node:n", ("system:nodes",), "GET", "/api/v1/pods", "system-nodes", "system"),
        ("jane", EVERYBODY, "GET", "/api/v1/pods", "global-default", "global-default"),
    ],
)  # fmt: skip
def test_a_request_belongs_where_kubernetes_puts_it(
    user: str, groups: tuple[str, ...], method: str, path: str, schema: str, level: str
) -> None:
    flow = deployed().classify(user, groups, read_attributes(method, path, {}))
    assert (flow.schema.name, flow.level.spec.name) == (schema, level)


def test_the_seats_are_shared_out_as_kubernetes_does() -> None:
    found = {name: (spec.nominal, spec.lower, spec.upper) for name, spec in read_levels(LEVELS, 600).items()}
    assert found == {
        "exempt": (0, 0, 600), "catch-all": (13, 13, 600), "system": (74, 50, 600), "node-high": (98, 73, 600),
        "leader-election": (25, 25, 600), "workload-high": (98, 49, 600), "workload-low": (245, 24, 600),
        "global-default": (49, 24, 600),
    }  # fmt: skip


def test_without_any_object_everything_is_caught_and_the_masters_are_exempt() -> None:
    levels, dispatcher = read_levels([], 10), Dispatcher(10)
    dispatcher.configure(read_schemas([], levels), levels, 0.0)
    assert dispatcher.classify("x", ("system:masters",), PODS).level.spec.exempt
    assert dispatcher.classify("x", EVERYBODY, PODS).schema.name == "catch-all"


def small(seats: int = 4, queues: int = 8, hand: int = 2, length: int = 3, **more: Any) -> Dispatcher:
    """One level for everybody who is no master."""
    queuing = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}
    limited = {"nominalConcurrencyShares": 100_000, "limitResponse": queuing if queues else {"type": "Reject"}, **more}
    level = {"metadata": {"name": "all", "uid": "l"}, "spec": {"type": "Limited", "limited": limited}}
    rule = {
        "subjects": [{"kind": "Group", "group": {"name": "*"}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
        ],
    }
    spec = {"priorityLevelConfiguration": {"name": "all"}, "matchingPrecedence": 5, "rules": [rule]}
    schema = {"metadata": {"name": "all", "uid": "s"}, "spec": {**spec, "distinguisherMethod": {"type": "ByUser"}}}
    levels, dispatcher = read_levels([level], seats), Dispatcher(seats)
    dispatcher.configure(read_schemas([schema], levels), levels, 0.0)
    return dispatcher


def enter(dispatcher: Dispatcher, user: str, now: float = 0.0, width: int = 1) -> Ticket | str:
    return dispatcher.enter(dispatcher.classify(user, EVERYBODY, PODS), width, now)


def test_what_does_not_fit_waits_then_is_refused_and_goes_on_when_there_is_room() -> None:
    dispatcher = small(seats=2, hand=1)
    running = [enter(dispatcher, "jane") for _ in range(2)]
    waiting = [enter(dispatcher, "jane", 0.1) for _ in range(3)]
    assert all(isinstance(one, Ticket) and one.started == 0.0 for one in running)
    assert all(isinstance(one, Ticket) and one.started is None for one in waiting)
    assert enter(dispatcher, "jane", 0.2) == QUEUE_FULL
    first, second, third = waiting
    assert isinstance(running[0], Ticket) and isinstance(second, Ticket)
    assert dispatcher.leave(running[0], 1.0) == [first]
    assert dispatcher.give_up(second, TIMED_OUT, 2.0) == []
    assert isinstance(first, Ticket) and dispatcher.leave(first, 3.0) == [third]
    level = dispatcher.levels["all"]
    assert (level.seats, level.executing, level.waiting, level.waiting_seats, len(level.busy)) == (2, 2, 0, 0, 0)
    assert level.refused == {("all", QUEUE_FULL): 1, ("all", TIMED_OUT): 1}


def test_a_level_without_queues_refuses_at_once() -> None:
    dispatcher = small(seats=1, queues=0)
    assert isinstance(enter(dispatcher, "jane"), Ticket)
    assert enter(dispatcher, "bob") == NO_SEATS


def test_a_flood_of_one_user_does_not_keep_others_waiting() -> None:
    dispatcher, now = small(seats=4, queues=64, hand=2, length=1000), 0.0
    running = [ticket for _ in range(500) if isinstance(ticket := enter(dispatcher, "flood", now), Ticket)]
    lone = enter(dispatcher, "jane", now)
    assert isinstance(lone, Ticket)
    active = [ticket for ticket in running if ticket.started is not None]
    done = 0
    while lone.started is None:
        now += 0.01
        active += dispatcher.leave(active.pop(0), now)
        done += 1
    assert done <= 4, "her turn comes with the next seats, not after the flood"


def test_an_exempt_request_never_waits_and_a_wide_one_gets_what_its_level_can_spare() -> None:
    dispatcher = small(seats=40)
    flow = dispatcher.classify("root", ("system:masters",), PODS)
    assert all(isinstance(one := dispatcher.enter(flow, 10, 0.0), Ticket) and one.started == 0.0 for _ in range(100))
    wide = enter(dispatcher, "jane", width=50)
    assert isinstance(wide, Ticket) and wide.width == 6


def test_wide_requests_leave_seats_to_narrow_ones_and_keep_their_turn_among_themselves() -> None:
    dispatcher = small(seats=40, queues=64, hand=2, length=100)
    flood = [ticket for _ in range(20) if isinstance(ticket := enter(dispatcher, "flood", width=6), Ticket)]
    running = [ticket for ticket in flood if ticket.started is not None]
    assert len(running) == 5 and dispatcher.levels["all"].seats == 30
    narrow = [enter(dispatcher, "jane", 0.1) for _ in range(10)]
    assert all(isinstance(one, Ticket) and one.started == 0.1 for one in narrow)
    late = enter(dispatcher, "jane", 0.2)
    assert isinstance(late, Ticket) and late.started is None
    assert isinstance(narrow[0], Ticket) and dispatcher.leave(narrow[0], 0.3) == [late]
    assert dispatcher.leave(running[0], 0.4) == [flood[5]]
    assert dispatcher.levels["all"].seats == 40 and dispatcher.levels["all"].wide_seats == 30


def test_idle_levels_lend_their_seats_and_get_them_back() -> None:
    dispatcher = deployed()
    busy = dispatcher.classify("system:serviceaccount:a:x", ("system:serviceaccounts",), PODS)
    waiting = [dispatcher.enter(busy, 1, 0.0) for _ in range(500)]
    assert dispatcher.levels["workload-low"].waiting > 0
    before = sum(isinstance(one, Ticket) and one.started is not None for one in waiting)
    gone_on = dispatcher.lend(10.0)
    level = dispatcher.levels["workload-low"]
    assert gone_on and level.current > level.spec.nominal and before == level.spec.nominal
    assert dispatcher.levels["leader-election"].current >= 25, "it lends none"
    assert dispatcher.levels["workload-high"].current >= 49, "half of its seats stay its own"
    other = dispatcher.classify("system:kube-scheduler", EVERYBODY, PODS)
    for _ in range(90):
        dispatcher.enter(other, 1, 11.0)
    dispatcher.lend(20.0)
    assert dispatcher.levels["workload-high"].current >= 90, "what it wants of its own it gets back"


@pytest.mark.parametrize("seed", range(5))
def test_seats_are_never_oversold_and_nothing_is_left_behind(seed: int) -> None:
    rng, dispatcher, now = random.Random(seed), small(seats=5, queues=6, hand=3, length=4), 0.0
    running: list[Ticket] = []
    waiting: list[Ticket] = []

    def woken(tickets: list[Ticket]) -> None:
        for ticket in tickets:
            waiting.remove(ticket)
            running.append(ticket)

    for _ in range(3000):
        now += rng.random() * 0.01
        level = dispatcher.levels["all"]
        match rng.choice("eeelg"):
            case "e":
                ticket = enter(dispatcher, rng.choice("abcdef"), now, rng.choice((1, 1, 3)))
                if isinstance(ticket, Ticket):
                    (running if ticket.started is not None else waiting).append(ticket)
            case "l" if running:
                woken(dispatcher.leave(running.pop(rng.randrange(len(running))), now))
            case "g" if waiting:
                woken(dispatcher.give_up(waiting.pop(rng.randrange(len(waiting))), TIMED_OUT, now))
        assert level.seats == sum(ticket.width for ticket in running) <= level.current
        assert level.waiting == len(waiting) == sum(len(queue.waiting) for queue in level.queues)
        assert not waiting or level.seats == level.current, "nobody waits while there is room"
    while running:
        woken(dispatcher.leave(running.pop(), now))
    assert not waiting
    assert (level.seats, level.executing, level.waiting_seats, level.active) == (0, 0, 0, 0)


def test_a_hand_has_different_queues_and_depends_on_the_name_alone() -> None:
    hand = deal("schema\0jane", 64, 6)
    assert len(set(hand)) == 6 and all(0 <= queue < 64 for queue in hand) and hand == deal("schema\0jane", 64, 6)
    assert len({deal(str(n), 64, 6) for n in range(100)}) == 100
    assert sorted(deal("x", 3, 5)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("total", "rows", "expected"),
    [
        (10, [(0, 10, 1), (0, 10, 1)], [5, 5]),
        (10, [(0, 10, 1), (0, 10, 4)], [2, 8]),
        (10, [(4, 10, 1), (0, 10, 9)], [4, 6]),
        (10, [(0, 3, 5), (0, 10, 5)], [3, 7]),
        (10, [(0, 3, 5), (0, 4, 5)], [3, 4]),
    ],
)
def test_seats_are_shared_out_by_target_within_bounds(total: int, rows: Any, expected: list[int]) -> None:
    assert share_out(total, rows) == pytest.approx(expected, abs=1e-6)


def test_a_schema_without_its_level_says_so_once() -> None:
    schema: Any = {"metadata": {"name": "x"}, "spec": {"priorityLevelConfiguration": {"name": "gone"}}}
    (row,) = dangling(schema, ["system"], "t0") or ()
    assert row == {
        "type": "Dangling", "status": "True", "reason": "NotFound", "lastTransitionTime": "t0",
        "message": 'This FlowSchema references the PriorityLevelConfiguration object named "gone" '
        "but there is no such object",
    }  # fmt: skip
    schema["status"] = {"conditions": [row]}
    assert dangling(schema, ["system"], "t1") is None
    (found,) = dangling(schema, ["gone"], "t2") or ()
    assert (found["status"], found["reason"], found["lastTransitionTime"]) == ("False", "Found", "t2")


def test_tables_and_metrics_show_who_runs_and_who_waits() -> None:
    dispatcher = small(seats=1)
    enter(dispatcher, "jane")
    enter(dispatcher, "jane", 1.0)
    head, row, *_ = (dump(dispatcher, "dump_priority_levels", 2.0, 102.0) or "").splitlines()
    assert head.startswith("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ")
    assert re.fullmatch(
        r"all,               [12],            false,  false,       1,               1,                 1,"
        r"                  0,                0,                0", row,
    )  # fmt: skip
    queues = (dump(dispatcher, "dump_queues", 2.0, 102.0) or "").splitlines()
    assert len(queues) == 9 and queues[0].startswith("PriorityLevelName, Index,  PendingRequests, ")
    assert queues[1].startswith("all,               0,      ") and queues[1].endswith("ss")
    _, runs, waits = (dump(dispatcher, "dump_requests", 2.0, 102.0) or "").splitlines()
    cells = [cell.strip() for cell in runs.split(",")]
    assert cells[3:] == [
        "-1", "jane", "1970-01-01T00:01:40.000000Z", "1", "0", "0s", "1970-01-01T00:01:40.000000Z",
    ]  # fmt: skip
    cells = [cell.strip() for cell in waits.split(",")]
    assert cells[3:] == ["0", "jane", "1970-01-01T00:01:41.000000Z", "1", "0", "0s", "0001-01-01T00:00:00Z"]
    assert dump(dispatcher, "dump_nothing", 2.0, 102.0) is None
    assert 'apiserver_flowcontrol_current_inqueue_requests{priority_level="all"} 1' in metrics(dispatcher)
