"""The revisioned state: etcd's semantics case by case, and against a plain model by chance."""

from __future__ import annotations

import random

import pytest

from steersman.cluster.store import codec
from steersman.cluster.store.commands import Compact, LeaseGrant, LeaseRevoke, Name
from steersman.cluster.store.leases import LeaseClock
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.retention import Retention
from steersman.cluster.store.rules import check_txn, prefix_end
from steersman.cluster.store.snapshot import Capturing, SnapshotDamaged, capture, decode, encode
from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareOperator,
    CompareTarget,
    DeleteRange,
    FutureRevision,
    InvalidRequest,
    KeyValue,
    LeaseExists,
    LeaseNotFound,
    Put,
    Range,
    Selection,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
)

ALL = Range(key=b"\0", range_end=b"\0")


def put(state: Mvcc, key: bytes, value: bytes = b"", lease: int = 0) -> TxnResult:
    result = state.apply(Txn(success=(Put(key=key, value=value, lease=lease),)))
    assert isinstance(result, TxnResult)
    return result


def txn(state: Mvcc, **parts: object) -> TxnResult:
    result = state.apply(Txn(**parts))  # type: ignore[arg-type]
    assert isinstance(result, TxnResult)
    return result


def keys(state: Mvcc, request: Range) -> list[bytes]:
    return [kv.key for kv in state.range(request).kvs]


def test_versions_and_revisions_count_as_in_etcd() -> None:
    state = Mvcc()
    assert put(state, b"a", b"1").revision == 2
    assert put(state, b"b").revision == 3
    assert put(state, b"a", b"2").revision == 4
    assert state.range(Range(key=b"a")).kvs == (KeyValue(b"a", b"2", 2, 4, 2),)
    txn(state, success=(DeleteRange(key=b"a"),))
    assert put(state, b"a").revision == 6
    assert state.range(Range(key=b"a")).kvs == (KeyValue(b"a", b"", 6, 6, 1),)


def test_a_transaction_that_changes_nothing_takes_no_revision() -> None:
    state = Mvcc()
    assert txn(state, success=(DeleteRange(key=b"nothing"), Range(key=b"a"))).revision == 1
    assert state.revision == 1


def test_all_changes_of_a_transaction_share_a_revision_and_see_each_other() -> None:
    state = Mvcc()
    result = txn(state, success=(Put(key=b"a", value=b"1"), Put(key=b"b", value=b"2"), Range(key=b"a")))
    assert {kv.mod_revision for kv in state.range(ALL).kvs} == {2}
    assert result.results[2].kvs[0].value == b"1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("request_", "found", "count", "more"),
    [
        pytest.param(Range(key=b"/b", range_end=b"/c"), [b"/b/1", b"/b/2", b"/b/3"], 3, False, id="prefix"),
        pytest.param(Range(key=b"/b", range_end=b"/c", limit=2), [b"/b/1", b"/b/2"], 3, True, id="limit"),
        pytest.param(Range(key=b"/b", range_end=b"/c", limit=3), [b"/b/1", b"/b/2", b"/b/3"], 3, False, id="exact"),
        pytest.param(Range(key=b"/b", range_end=b"/c", count_only=True), [], 3, False, id="count"),
        pytest.param(Range(key=b"/b/2", range_end=b"\0"), [b"/b/2", b"/b/3", b"/c"], 3, False, id="to the end"),
        pytest.param(Range(key=b"/a"), [b"/a"], 1, False, id="one key"),
        pytest.param(Range(key=b"/missing"), [], 0, False, id="no key"),
        pytest.param(Range(key=b"/c", range_end=b"/a"), [], 0, False, id="backwards"),
    ],
)
def test_ranges(request_: Range, found: list[bytes], count: int, more: bool) -> None:
    state = Mvcc()
    for key in (b"/c", b"/b/2", b"/a", b"/b/1", b"/b/3"):
        put(state, key, b"x")
    result = state.range(request_)
    assert ([kv.key for kv in result.kvs], result.count, result.more) == (found, count, more)


@pytest.mark.parametrize(
    ("selection", "limit", "found", "more"),
    [
        pytest.param(Selection(order=SortOrder.DESCEND), 2, [b"c", b"b"], True, id="descending keys"),
        pytest.param(
            Selection(order=SortOrder.ASCEND, target=SortTarget.VALUE), 0, [b"c", b"b", b"a"], False, id="value"
        ),
        pytest.param(Selection(order=SortOrder.DESCEND, target=SortTarget.MOD), 1, [b"a"], True, id="newest"),
        pytest.param(Selection(target=SortTarget.MOD), 1, [b"b"], True, id="no direction: sorts what the limit shows"),
        pytest.param(Selection(min_mod_revision=4), 0, [b"a", b"c"], False, id="changed since"),
        pytest.param(Selection(max_create_revision=2), 1, [b"a"], False, id="made before"),
    ],
)
def test_a_selection_orders_and_filters_before_the_limit(
    selection: Selection, limit: int, found: list[bytes], more: bool
) -> None:
    state = Mvcc()
    for key, value in ((b"a", b"3"), (b"b", b"2"), (b"c", b"1"), (b"a", b"4")):
        put(state, key, value)
    result = state.range(Range(key=b"\0", range_end=b"\0", limit=limit, selection=selection))
    assert ([kv.key for kv in result.kvs], result.count, result.more) == (found, 3, more)


def test_a_put_may_keep_the_value_or_the_lease_of_a_key_that_exists() -> None:
    state = Mvcc()
    state.apply(LeaseGrant(7, 60))
    put(state, b"a", b"1", lease=7)
    txn(state, success=(Put(key=b"a", value=b"", keep_value=True),))
    assert state.range(Range(key=b"a")).kvs[0] == KeyValue(b"a", b"1", 2, 3, 2)
    txn(state, success=(Put(key=b"a", value=b"2", lease=7),))
    txn(state, success=(Put(key=b"a", value=b"3", keep_lease=True),))
    assert state.range(Range(key=b"a")).kvs[0].lease == 7 and state.lease_keys(7) == [b"a"]
    with pytest.raises(InvalidRequest, match="key not found"):
        txn(state, success=(Put(key=b"b", value=b"", keep_value=True),))
    with pytest.raises(InvalidRequest, match="value is provided"):
        check_txn(Txn(success=(Put(key=b"a", value=b"1", keep_value=True),)))


def test_a_transaction_reads_a_named_revision_without_its_own_changes() -> None:
    state = Mvcc()
    put(state, b"a", b"old")
    result = txn(state, success=(Put(key=b"a", value=b"new"), Range(key=b"a", revision=2), Range(key=b"a")))
    assert [found.kvs[0].value for found in result.results[1:]] == [b"old", b"new"]  # type: ignore[union-attr]


def test_an_empty_range_is_compared_like_a_missing_key() -> None:
    compare = Compare(key=b"x", range_end=b"y", target=CompareTarget.VERSION, operand=1)
    assert not txn(Mvcc(), compare=(compare,)).succeeded


def test_names_of_members_take_no_revision_survive_a_snapshot_and_can_be_forgotten() -> None:
    state = Mvcc()
    for member, name in ((1, "a"), (2, "b"), (1, "c"), (2, "")):
        state.apply(Name(member, name))
    assert state.revision == 1 and state.names == {1: "c"}
    assert decode(list(encode(capture(state)))).restore().names == {1: "c"}


def test_prefix_end_is_the_next_prefix() -> None:
    assert prefix_end(b"/a/") == b"/a0"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"


def test_the_past_can_be_read_until_it_is_compacted() -> None:
    state = Mvcc()
    put(state, b"a", b"1")
    put(state, b"b", b"1")
    put(state, b"a", b"2")
    txn(state, success=(DeleteRange(key=b"b"),))
    assert [(kv.key, kv.value) for kv in state.range(Range(key=b"a", range_end=b"z", revision=3)).kvs] == [
        (b"a", b"1"),
        (b"b", b"1"),
    ]
    state.apply(Compact(4))
    assert keys(state, Range(key=b"a", range_end=b"z", revision=4)) == [b"a", b"b"]
    with pytest.raises(Compacted) as caught:
        state.range(Range(key=b"a", revision=3))
    assert caught.value.revision == 4
    with pytest.raises(FutureRevision):
        state.range(Range(key=b"a", revision=99))
    with pytest.raises(Compacted):
        state.apply(Compact(4))
    with pytest.raises(FutureRevision):
        state.apply(Compact(99))


def test_remembered_changes_carry_the_version_before() -> None:
    state = Mvcc()
    put(state, b"a", b"1")
    put(state, b"a", b"2")
    txn(state, success=(DeleteRange(key=b"a"),))
    following, changes = state.changes(2, 10)
    events = [event for change in changes for event in change]
    assert following == 5
    assert [(e.deleted, e.kv.value, e.prev_kv.value if e.prev_kv else None) for e in events] == [
        (False, b"1", None),
        (False, b"2", b"1"),
        (True, b"", b"2"),
    ]
    state.apply(Compact(3))
    with pytest.raises(Compacted):
        state.changes(2, 10)
    assert len(state.changes(3, 10)[1]) == 2, "the oldest revision that can be read can also be watched"


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        pytest.param(Compare(key=b"a", target=CompareTarget.VALUE, operand=b"2"), True, id="value"),
        pytest.param(Compare(key=b"a", target=CompareTarget.MOD, operand=3), True, id="mod"),
        pytest.param(Compare(key=b"a", target=CompareTarget.CREATE, operand=3), False, id="create"),
        pytest.param(Compare(key=b"a", target=CompareTarget.VERSION, operand=1,
                             operator=CompareOperator.GREATER), True, id="version greater"),
        pytest.param(Compare(key=b"a", target=CompareTarget.VERSION, operand=2,
                             operator=CompareOperator.NOT_EQUAL), False, id="version not equal"),
        pytest.param(Compare(key=b"none", target=CompareTarget.CREATE, operand=0), True, id="missing is 0"),
        pytest.param(Compare(key=b"none", target=CompareTarget.VALUE, operand=b""), False, id="missing has no value"),
        pytest.param(Compare(key=b"a", range_end=b"c", target=CompareTarget.VERSION, operand=0,
                             operator=CompareOperator.GREATER), True, id="all of a range"),
        pytest.param(Compare(key=b"a", range_end=b"c", target=CompareTarget.VALUE, operand=b"2"), False,
                     id="not all of a range"),
    ],
)  # fmt: skip
def test_comparisons(compare: Compare, holds: bool) -> None:
    state = Mvcc()
    put(state, b"a", b"1")
    put(state, b"a", b"2")
    put(state, b"b", b"3")
    assert txn(state, compare=(compare,)).succeeded is holds


def test_nested_comparisons_see_the_state_before_the_transaction() -> None:
    state = Mvcc()
    inner = Txn(
        compare=(Compare(key=b"a", target=CompareTarget.CREATE, operand=0),),
        success=(Put(key=b"inner", value=b"absent"),),
        failure=(Put(key=b"inner", value=b"present"),),
    )
    txn(state, success=(Put(key=b"a", value=b""), inner))
    assert state.range(Range(key=b"inner")).kvs[0].value == b"absent"


def test_a_refused_transaction_changes_nothing() -> None:
    state = Mvcc()
    with pytest.raises(LeaseNotFound):
        txn(state, success=(Put(key=b"a", value=b""), Put(key=b"b", value=b"", lease=9)))
    assert state.revision == 1 and state.range(ALL).count == 0


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(Txn(success=(Put(key=b"", value=b""),)), id="empty key"),
        pytest.param(Txn(success=(Put(key=b"a", value=b""), Put(key=b"a", value=b""))), id="twice"),
        pytest.param(Txn(success=(Put(key=b"a", value=b""), DeleteRange(key=b"a"))), id="put and delete"),
        pytest.param(Txn(success=(Put(key=b"a", value=b""), Txn(failure=(Put(key=b"a", value=b""),)))), id="nested"),
        pytest.param(Txn(success=tuple(Range(key=b"a") for _ in range(5000))), id="too many"),
        pytest.param(Txn(compare=(Compare(key=b"a", target=CompareTarget.MOD, operand=b"x"),)), id="wrong operand"),
    ],
)
def test_senseless_transactions_are_refused_before_the_log(bad: Txn) -> None:
    with pytest.raises(InvalidRequest):
        check_txn(bad)


def test_bytes_that_are_no_command_are_refused() -> None:
    for data in (b"", b"\x93\x04\x01\x02", b"\xff" * 40, codec.encode(Range(key=b"a"))):
        with pytest.raises(InvalidRequest):
            codec.decode_command(data)


class TestLeases:
    def test_the_end_of_a_lease_deletes_its_keys_in_one_revision(self) -> None:
        state = Mvcc()
        state.apply(LeaseGrant(7, 10))
        put(state, b"b", lease=7)
        put(state, b"a", lease=7)
        put(state, b"c")
        assert state.lease_keys(7) == [b"a", b"b"]
        state.apply(LeaseRevoke(7))
        assert keys(state, ALL) == [b"c"]
        assert [event.kv.key for event in state.newest] == [b"a", b"b"]
        with pytest.raises(LeaseNotFound):
            state.apply(LeaseRevoke(7))

    def test_a_key_leaves_its_lease_when_it_is_written_without_it(self) -> None:
        state = Mvcc()
        state.apply(LeaseGrant(7, 10))
        put(state, b"a", lease=7)
        put(state, b"a")
        state.apply(LeaseRevoke(7))
        assert keys(state, ALL) == [b"a"]

    def test_an_id_is_granted_once(self) -> None:
        state = Mvcc()
        state.apply(LeaseGrant(7, 10))
        with pytest.raises(LeaseExists):
            state.apply(LeaseGrant(7, 10))

    def test_the_clock_of_the_leader_decides_the_end(self) -> None:
        clock = LeaseClock()
        clock.granted(1, 10, now=100.0)
        clock.granted(2, 30, now=100.0)
        assert clock.expired(109.0) == []
        assert clock.renew(1, 109.0) == 10
        assert clock.expired(118.0) == []
        assert clock.expired(119.0) == [1]
        assert clock.renew(1, 119.0) is None, "an ended lease cannot be kept alive"
        assert clock.expired(120.5) == [1], "until it is revoked"
        clock.revoked(1)
        assert clock.expired(129.0) == []
        assert clock.expired(130.0) == [2]

    def test_a_new_leader_gives_every_lease_its_whole_time(self) -> None:
        clock = LeaseClock()
        clock.lead([(1, 10)], now=500.0)
        assert clock.expired(509.0) == []
        assert clock.remaining_s(1, 505.0) == 5.0
        clock.follow()
        assert clock.expired(600.0) == []


def test_retention_forgets_by_age_and_by_number() -> None:
    retention = Retention(keep_s=100.0, revisions_max=1000)
    assert retention.revision_to_compact(50, 0, 0.0) is None
    assert retention.revision_to_compact(80, 0, 99.0) is None
    assert retention.revision_to_compact(90, 0, 100.0) == 50, "as it was a hundred seconds ago"
    assert retention.revision_to_compact(90, 50, 101.0) is None
    assert retention.revision_to_compact(5000, 50, 102.0) == 4000, "and at once when there are too many"
    assert Retention(keep_s=0.0, revisions_max=10).revision_to_compact(5000, 0, 1e9) is None


def test_by_chance_against_a_plain_model() -> None:
    rng = random.Random(5)
    for _ in range(20):
        state, past = Mvcc(), {1: {}}  # type: ignore[var-annotated]
        for _ in range(120):
            present = dict(past[state.revision])
            key = b"/%d" % rng.randrange(12)
            if rng.random() < 0.7:
                value = b"%d" % rng.randrange(1000)
                put(state, key, value)
                present[key] = value
                past[state.revision] = present
            elif rng.random() < 0.6:
                end = prefix_end(key) if rng.random() < 0.5 else b""
                before = state.revision
                txn(state, success=(DeleteRange(key=key, range_end=end),))
                gone = [k for k in present if k == key or (end and k.startswith(key))]
                assert (state.revision > before) == bool(gone)
                past[state.revision] = {k: v for k, v in present.items() if k not in gone}
            elif state.revision > state.compacted + 3:
                state.apply(Compact(rng.randrange(state.compacted + 1, state.revision)))
            again = decode(encode(capture(state))).restore()
            for revision in range(max(state.compacted, 1), state.revision + 1):
                wanted = sorted(past[revision].items())
                request = Range(key=b"/", range_end=b"0", revision=revision)
                assert [(kv.key, kv.value) for kv in state.range(request).kvs] == wanted
                assert again.range(request) == state.range(request)
            assert again.history() == state.history()
            assert again.size_bytes == state.size_bytes


def test_a_snapshot_that_is_not_whole_is_refused() -> None:
    state = Mvcc()
    for number in range(5000):
        put(state, b"%d" % number, b"x" * 500)
    state.apply(LeaseGrant(3, 60))
    blocks = list(encode(capture(state)))
    assert decode(blocks).restore().leases() == [(3, 60)]
    for damaged in (blocks[:-1], blocks[1:], blocks[:2] + blocks[3:], [*blocks[:2], b"junk", *blocks[2:]]):
        with pytest.raises(SnapshotDamaged):
            decode(damaged)


def test_a_state_captured_in_pieces_is_the_one_at_the_beginning_whatever_happens_meanwhile() -> None:
    rng = random.Random(5)
    state = Mvcc()

    def change() -> None:
        key = b"/k%04d" % rng.randrange(4000)
        operation = DeleteRange(key=key) if rng.random() < 0.3 else Put(key=key, value=b"%d" % rng.random())
        state.apply(Txn(success=(operation,)))

    for number in range(9000):
        change()
        if number == 5000:
            state.apply(Compact(state.revision - 500))
    whole, capturing = capture(state), Capturing(state)
    steps = 0
    while capturing.step():
        steps += 1
        for _ in range(300):
            change()
        state.apply(Compact(state.revision))
    capturing.close()
    again = capturing.captured
    assert steps > 5
    assert again.restore().live() == whole.restore().live()
    assert (again.header, again.changes) == (whole.header, whole.changes)
    assert sorted(again.base, key=lambda kv: kv.key) == sorted(whole.base, key=lambda kv: kv.key)
