"""A state as a database of etcd: what its rows are, and what is read of them."""

from __future__ import annotations

import struct

import pytest

from steersman.cluster.store import bolt
from steersman.cluster.store.commands import Alarm, Command, Compact, LeaseGrant, LeaseRevoke
from steersman.cluster.store.database import Database, read_database
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.snapshot import capture
from steersman.cluster.store.values import DeleteRange, Put, Txn

COMMANDS: list[Command] = [
    LeaseGrant(7, 60),
    LeaseGrant(-1, 1 << 40),
    Txn(success=(Put(key=b"a", value=b"1"), Put(key=b"b", value=b"2", lease=7))),  # revision 2
    Txn(success=(Put(key=b"a", value=b"x" * 300),)),
    Compact(3),
    Txn(success=(Put(key=b"gone", value=b""), DeleteRange(key=b"b"))),
    Txn(success=(DeleteRange(key=b"gone"), Put(key=b"c", value=b"", lease=-1))),
    Alarm(1, True),
]


def state_after(commands: list[Command]) -> Mvcc:
    state = Mvcc()
    for command in commands:
        state.apply(command)
    return state


def content(state: Mvcc, index: int = 99) -> bytes:
    database = Database(capture(state), index)
    for _ in database.plan():
        pass
    data = b"".join(database.pieces())
    assert len(data) == database.size_bytes
    return data


def buckets(data: bytes) -> dict[bytes, list[bolt.Row]]:
    return {name: list(rows) for name, rows in bolt.Reader(memoryview(data)).buckets()}


def test_the_rows_are_those_of_etcd() -> None:
    found = buckets(content(state_after(COMMANDS)))
    keys = [(*struct.unpack(">qcq", row[:17]), row[17:]) for row, _ in found[b"key"]]
    assert keys == [
        (2, b"_", 0, b""), (2, b"_", 1, b""), (3, b"_", 0, b""),
        (4, b"_", 0, b""), (4, b"_", 1, b"t"), (5, b"_", 0, b"t"), (5, b"_", 1, b""),
    ]  # fmt: skip
    values = [value.hex(" ") for _, value in found[b"key"]]
    assert values[1] == "0a 01 62 10 02 18 02 20 01 2a 01 32 30 07"
    assert values[2].startswith("0a 01 61 10 02 18 03 20 02 2a ac 02 78 78")
    assert values[4] == "0a 01 62", "of a deletion the key alone"
    assert values[6] == "0a 01 63 10 05 18 05 20 01 30 ff ff ff ff ff ff ff ff ff 01"
    compacted = struct.pack(">qcq", 3, b"_", 0)
    assert dict(found[b"meta"]) == {
        b"consistent_index": struct.pack(">Q", 99), b"finishedCompactRev": compacted, b"scheduledCompactRev": compacted
    }  # fmt: skip
    leases = [(7, "08 07 10 3c"), ((1 << 64) - 1, "08" + " ff" * 9 + " 01 10 80 80 80 80 80 20")]
    assert [(struct.unpack(">Q", row)[0], value.hex(" ")) for row, value in found[b"lease"]] == leases
    assert dict(found[b"cluster"]) == {b"clusterVersion": b"3.4.0"}
    assert not found[b"alarm"], "the alarms of a lost group's disks are not a new one's"


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([], id="nothing"),
        pytest.param(COMMANDS, id="a past, leases, a compaction"),
        pytest.param([*COMMANDS, LeaseRevoke(-1)], id="a revoked lease is the newest change"),
        pytest.param([*COMMANDS, Compact(5)], id="all compacted"),
        pytest.param([*COMMANDS, Txn(success=(DeleteRange(key=b"\0", range_end=b"\0"),)), Compact(6)], id="emptied"),
    ],
)
def test_what_is_written_is_read_again(commands: list[Command]) -> None:
    state = state_after([command for command in commands if not isinstance(command, Alarm)])
    found = read_database(memoryview(content(state)))
    assert list(found.base) == state.live()
    assert list(found.header.leases) == state.leases()
    assert (found.header.compacted, found.header.log_start) == (state.revision, state.revision + 1)


def _file(rows: dict[bytes, list[bolt.Row]]) -> bytes:
    plans = {name: bolt.Plan() for name in rows}
    for name, plan in plans.items():
        plan.extend((key, len(value)) for key, value in rows[name])
    return b"".join(bolt.File(plans).pieces(rows))


def row(revision: int) -> bytes:
    return struct.pack(">qcq", revision, b"_", 0)


def test_a_key_whose_lease_is_gone_lives_on_without_one() -> None:
    data = _file({b"key": [(row(2), bytes.fromhex("0a016110021802200130 07"))]})
    (kv,) = read_database(memoryview(data)).base
    assert (kv.key, kv.version, kv.lease) == (b"a", 1, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param({b"other": [(b"a", b"b")]}, "no bucket of keys", id="another program's"),
        pytest.param({b"key": [(b"short", b"")]}, "is no revision", id="no revision"),
        pytest.param({b"key": [(row(2), b"\x0a\x05ab")]}, "is not whole", id="a short field"),
        pytest.param({b"key": [(row(2), b"\x0a")]}, "ends too early", id="no length"),
        pytest.param({b"key": [(row(2), b"\x08\x01")]}, "a number for its key", id="a number"),
        pytest.param({b"key": [], b"lease": [(b"a", b"\x0a\x01x")]}, "is no number", id="no number"),
        pytest.param({b"key": [(row(2), b"\x09" + bytes(8))]}, "is not whole", id="fixed"),
    ],
)
def test_a_database_that_makes_no_sense_is_refused(rows: dict[bytes, list[bolt.Row]], words: str) -> None:
    with pytest.raises(bolt.Damaged, match=words):
        read_database(memoryview(_file(rows)))


def test_a_database_is_planned_and_streamed_in_small_pieces() -> None:
    state = state_after([])
    for number in range(30_000):
        state.apply(Txn(success=(Put(key=b"/%d" % number, value=b"v"),)))
    state.apply(Compact(state.revision))
    database = Database(capture(state), 1)
    assert sum(1 for _ in database.plan()) > 30, "a thousand versions at once, or a few"
    assert max(map(len, database.pieces())) <= bolt.LEAF_BYTES_MAX
