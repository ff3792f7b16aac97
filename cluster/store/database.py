"""A state as the database of etcd 3.4: the rows of a snapshot for etcd's tools, and the state in one of theirs.

    key             revision and number in its transaction (and `t` for a deletion): the version, of every change that
                    is remembered and of what lived before; a read or a watch of the past works on it as on etcd
    lease           id: the lease with its whole time to live
    meta            consistent_index: the entry of the log up to which all is applied; finishedCompactRev,
                    scheduledCompactRev: what is compacted
    alarm, auth, authRoles, authUsers, cluster, members, members_removed
                    nothing but the cluster's version: a group that begins from a snapshot has members of its own, and
                    certificates decide who gets in

Source: https://github.com/etcd-io/etcd/tree/release-3.4 (mvcc/kvstore.go, mvcc/revision.go, lease/lessor.go,
etcdserver/api/membership/store.go; mvcc/mvccpb/kv.proto, lease/leasepb/lease.proto)
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from steersman.cluster.store import bolt
from steersman.cluster.store.snapshot import PIECE_ITEMS, Capture, Header
from steersman.cluster.store.values import KeyValue

#: the etcd whose file it is
CLUSTER_VERSION = b"3.4.0"
#: versions put in order at once
RUN_ITEMS = 5_000

_REVISION = struct.Struct(">qcq")
_ID = struct.Struct(">Q")
_U64_MAX = (1 << 64) - 1
_DELETED = b"t"
_EMPTY = (b"alarm", b"auth", b"authRoles", b"authUsers", b"members", b"members_removed")
_BY_REVISION = attrgetter("mod_revision")


class Database:
    """The database of a captured state: planned in pieces, then streamed.

    Args:
        index: the entry of the log up to which the state is applied.
    """

    def __init__(self, captured: Capture, index: int) -> None:
        self._header, self._base, self._changes = captured.header, captured.base, captured.changes
        self._in_order: list[KeyValue] = []
        self._small: dict[bytes, list[bolt.Row]] = {name: [] for name in _EMPTY}
        self._small[b"cluster"] = [(b"clusterVersion", CLUSTER_VERSION)]
        self._small[b"meta"] = _meta(index, captured.header.compacted)
        self._small[b"lease"] = [(_ID.pack(i & _U64_MAX), _lease(i, ttl_s)) for i, ttl_s in captured.header.leases]
        self._small[b"lease"].sort()
        self._file: bolt.File | None = None

    def plan(self) -> Iterator[None]:
        """Finds out where everything will lie; yields every few milliseconds."""
        runs = []
        for start in range(0, len(self._base), RUN_ITEMS):
            runs.append(sorted(self._base[start : start + RUN_ITEMS], key=_BY_REVISION))
            yield
        merged = heapq.merge(*runs, key=_BY_REVISION)
        while piece := list(islice(merged, PIECE_ITEMS)):
            self._in_order += piece
            yield
        keys = bolt.Plan()
        versions = self._versions()
        while sizes := [(row, _version_bytes(kv)) for row, kv in islice(versions, PIECE_ITEMS)]:
            keys.extend(sizes)
            yield
        plans = {b"key": keys}
        for name, rows in self._small.items():
            plans[name] = bolt.Plan()
            plans[name].extend((key, len(value)) for key, value in rows)
        self._file = bolt.File(plans)

    @property
    def size_bytes(self) -> int:
        """Of the whole file; known when it is planned."""
        assert self._file is not None, "the file is not planned"
        return self._file.size_bytes

    def pieces(self) -> Iterator[bytes]:
        """Yields the bytes of the planned file, a few kilobytes each unless a value is larger."""
        assert self._file is not None, "the file is not planned"
        return self._file.pieces({**self._small, b"key": ((row, _version(kv)) for row, kv in self._versions())})

    def _versions(self) -> Iterator[tuple[bytes, KeyValue]]:
        """Yields every version in order of revisions, with its key in the database."""
        pack = _REVISION.pack
        revision = number = 0
        for kv in self._in_order:
            number = number + 1 if kv.mod_revision == revision else 0
            revision = kv.mod_revision
            yield pack(revision, b"_", number), kv
        for revision, change in enumerate(self._changes, self._header.log_start):
            for number, event in enumerate(change):
                if event.deleted:
                    yield pack(revision, b"_", number) + _DELETED, KeyValue(event.kv.key, b"", 0, 0, 0)
                else:
                    yield pack(revision, b"_", number), event.kv


def read_database(data: memoryview) -> Capture:
    """Returns the newest state in a database of etcd, without its past.

    Users and roles are left out, and so are members and alarms, which are of the group that is no more.

    Raises:
        bolt.Damaged: it is no database of etcd, or not a whole one.
    """
    live: dict[bytes, KeyValue] = {}
    leases: dict[int, int] = {}
    revision, has_keys = 1, False
    for name, rows in bolt.Reader(data).buckets():
        if name == b"key":
            revision, has_keys = max(revision, _read_versions(rows, live)), True
        elif name == b"lease":
            leases.update(_read_lease(value) for _, value in rows)
        elif name == b"meta":
            compacted = dict(rows).get(b"finishedCompactRev")
            revision = max(revision, _revision(compacted)[0] if compacted else 0)
        else:
            for _ in rows:  # a damaged page is told of, whatever was on it
                pass
    if not has_keys:
        raise bolt.Damaged("it has no bucket of keys: it is no database of etcd 3")
    kvs = [kv if kv.lease in leases else _without_lease(kv) for _, kv in sorted(live.items())]
    return Capture(Header(revision, revision + 1, tuple(sorted(leases.items()))), kvs, [])


def _read_versions(rows: Iterator[bolt.Row], live: dict[bytes, KeyValue]) -> int:
    revision = 0
    for row, value in rows:
        revision, is_deletion = _revision(row)
        kv = _read_version(value)
        if is_deletion:
            live.pop(kv.key, None)
        else:
            live[kv.key] = kv
    return revision


def _revision(row: bytes) -> tuple[int, bool]:
    """Returns the revision in a key of the database, and whether it is a deletion's."""
    if len(row) < _REVISION.size:
        raise bolt.Damaged(f"{row!r} is no revision")
    return _REVISION.unpack_from(row)[0], row[_REVISION.size :] == _DELETED


def _without_lease(kv: KeyValue) -> KeyValue:
    """A key whose lease is gone lives on without one, as on etcd."""
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version) if kv.lease else kv


def _meta(index: int, compacted: int) -> list[bolt.Row]:
    rows = [(b"consistent_index", _ID.pack(index))]
    if compacted:
        row = _REVISION.pack(compacted, b"_", 0)
        rows += [(b"finishedCompactRev", row), (b"scheduledCompactRev", row)]
    return rows


# protobuf: the few messages that the database holds

_VARINTS = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(1 << 14)]


def _varint(number: int) -> bytes:
    if 0 <= number < 1 << 14:
        return _VARINTS[number]
    number &= _U64_MAX
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _varint_bytes(number: int) -> int:
    return 1 if 0 <= number < 128 else ((number & _U64_MAX).bit_length() + 6) // 7


def _version(kv: KeyValue) -> bytes:
    """Returns the message mvccpb.KeyValue; as everywhere in it, a zero is left out."""
    parts = [b"\x0a", _varint(len(kv.key)), kv.key]
    if kv.mod_revision:
        parts += (b"\x10", _varint(kv.create_revision), b"\x18", _varint(kv.mod_revision), b"\x20", _varint(kv.version))
    if kv.value:
        parts += (b"\x2a", _varint(len(kv.value)), kv.value)
    if kv.lease:
        parts += (b"\x30", _varint(kv.lease))
    return b"".join(parts)


def _version_bytes(kv: KeyValue) -> int:
    """Returns how long `_version` is."""
    key_bytes, value_bytes = len(kv.key), len(kv.value)
    found = 1 + _varint_bytes(key_bytes) + key_bytes
    if kv.mod_revision:
        numbers = _varint_bytes(kv.create_revision) + _varint_bytes(kv.mod_revision) + _varint_bytes(kv.version)
        found += 3 + numbers
    if value_bytes:
        found += 1 + _varint_bytes(value_bytes) + value_bytes
    if kv.lease:
        found += 1 + _varint_bytes(kv.lease)
    return found


def _lease(lease: int, ttl_s: int) -> bytes:
    """Returns the message leasepb.Lease."""
    return b"\x08" + _varint(lease) + b"\x10" + _varint(ttl_s)


def _read_version(data: bytes) -> KeyValue:
    fields = _fields(data)
    key, value = fields.get(1, b""), fields.get(5, b"")
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        raise bolt.Damaged("a version has a number for its key or value")
    return KeyValue(key, value, _number(fields, 2), _number(fields, 3), _number(fields, 4), _number(fields, 6))


def _read_lease(data: bytes) -> tuple[int, int]:
    fields = _fields(data)
    return _number(fields, 1), _number(fields, 2)


def _number(fields: dict[int, int | bytes], number: int) -> int:
    found = fields.get(number, 0)
    if isinstance(found, bytes):
        raise bolt.Damaged(f"field {number} is no number")
    return found - (1 << 64) if found >> 63 else found


def _fields(data: bytes) -> dict[int, int | bytes]:
    """Returns the numbers and byte strings of a message by their field."""
    found: dict[int, int | bytes] = {}
    offset, size_bytes = 0, len(data)
    try:
        while offset < size_bytes:
            tag, offset = _read_varint(data, offset)
            number, offset = _read_varint(data, offset)
            if tag & 7 == 0:
                found[tag >> 3] = number
                continue
            if tag & 7 != 2 or offset + number > size_bytes:
                raise bolt.Damaged("a message is not whole")
            found[tag >> 3] = data[offset : offset + number]
            offset += number
    except IndexError:
        raise bolt.Damaged("a message ends too early") from None
    return found


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    byte = data[offset]
    offset += 1
    found, shift = byte & 127, 7
    while byte > 127:
        byte = data[offset]
        offset += 1
        found |= (byte & 127) << shift
        shift += 7
    return found & _U64_MAX, offset
