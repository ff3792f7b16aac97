"""Seeded scripts of raw etcd requests, and what two servers' answers to them must have in common."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from steersman.pb import etcd_pb2

KEYS = tuple(b"k%d" % number for number in range(8))
LEASES = (11, 12, 13)
#: ends of ranges: one key, to a key, to the end, backwards
ENDS = (b"", b"", b"k3", b"k9", b"\0", b"a")
#: fields that name the server rather than the answer
SERVER_FIELDS = frozenset({"cluster_id", "member_id", "raft_term"})

#: seconds that a script takes at most
SCRIPT_S_MAX = 120

R, C, W = etcd_pb2.RangeRequest, etcd_pb2.Compare, etcd_pb2.WatchCreateRequest


class Script:
    """Draws requests by chance; `revision` is where the servers are, as the last answer said."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.revision = 1

    def requests(self, count: int) -> Iterator[tuple[str, Message]]:
        """Yields (method, request)."""
        methods = {
            "Put": (self.put, 30), "Range": (self.range, 30), "DeleteRange": (self.delete, 8), "Txn": (self.txn, 30),
            "Compact": (self.compact, 1), "LeaseGrant": (self.grant, 4), "LeaseRevoke": (self.revoke, 2),
            "LeaseTimeToLive": (self.ttl, 3), "LeaseLeases": (etcd_pb2.LeaseLeasesRequest, 1),
        }  # fmt: skip
        names = list(methods)
        for name in self.rng.choices(names, [methods[name][1] for name in names], k=count):
            yield name, methods[name][0]()

    def _maybe(self, value: Any, likelihood: float = 0.3) -> Any:
        return value if self.rng.random() < likelihood else type(value)()

    def _key(self) -> bytes:
        return self.rng.choice(KEYS) if self.rng.random() < 0.98 else b""

    def _lease(self) -> int:
        return int(self._maybe(self.rng.choice((*LEASES, 99 if self.rng.random() < 0.1 else LEASES[0]))))

    def _revision(self) -> int:
        return self.rng.randint(max(1, self.revision - 12), self.revision + (self.rng.random() < 0.05))

    def put(self) -> etcd_pb2.PutRequest:
        request = etcd_pb2.PutRequest(
            key=self._key(), value=self._maybe(b"v%d" % self.rng.randrange(5), 0.9), lease=self._lease(),
            prev_kv=self._maybe(True),
        )  # fmt: skip
        # of two mistakes in one put etcd tells the one or the other, depending on where the put stands
        match self.rng.randrange(20):
            case 0:
                request.ignore_value, request.lease = True, 0
            case 1:
                request.ignore_lease = True
        return request

    def range(self) -> etcd_pb2.RangeRequest:
        rng = self.rng
        request = etcd_pb2.RangeRequest(
            key=self._key(), range_end=rng.choice(ENDS), limit=self._maybe(rng.randint(-1, 4)),
            revision=self._maybe(self._revision()), keys_only=self._maybe(True, 0.15), serializable=self._maybe(True),
            count_only=self._maybe(True, 0.1), sort_order=rng.choice(R.SortOrder.values()),
            sort_target=rng.choice(R.SortTarget.values()),
        )  # fmt: skip
        for field in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            setattr(request, field, self._maybe(self._revision(), 0.1))
        return request

    def delete(self) -> etcd_pb2.DeleteRangeRequest:
        end = self.rng.choice((b"", b"", b"", b"k3", b"a"))
        return etcd_pb2.DeleteRangeRequest(key=self._key(), range_end=end, prev_kv=self._maybe(True, 0.5))

    def compare(self) -> etcd_pb2.Compare:
        rng = self.rng
        compare = etcd_pb2.Compare(
            result=rng.choice(C.CompareResult.values()), target=rng.choice(C.CompareTarget.values()), key=self._key(),
            range_end=rng.choice(ENDS),
        )  # fmt: skip
        operand = {
            C.VERSION: ("version", rng.randrange(4)), C.CREATE: ("create_revision", rng.choice((0, self._revision()))),
            C.MOD: ("mod_revision", rng.choice((0, self._revision()))), C.VALUE: ("value", b"v%d" % rng.randrange(5)),
            C.LEASE: ("lease", rng.choice((0, *LEASES))),
        }  # fmt: skip
        if rng.random() < 0.97:
            field, value = operand[compare.target]
            setattr(compare, field, value)
        return compare

    def txn(self, depth: int = 0) -> etcd_pb2.TxnRequest:
        return etcd_pb2.TxnRequest(
            compare=[self.compare() for _ in range(self.rng.choice((0, 1, 1, 2)))],
            success=[self._operation(depth) for _ in range(self.rng.randrange(4))],
            failure=[self._operation(depth) for _ in range(self.rng.randrange(3))],
        )

    def _operation(self, depth: int) -> etcd_pb2.RequestOp:
        match self.rng.choice(("range", "range", "put", "put", "delete", *(["txn"] if depth < 2 else []))):
            case "range":
                return etcd_pb2.RequestOp(request_range=self.range())
            case "put":
                return etcd_pb2.RequestOp(request_put=self.put())
            case "delete":
                return etcd_pb2.RequestOp(request_delete_range=self.delete())
            case _:
                return etcd_pb2.RequestOp(request_txn=self.txn(depth + 1))

    def compact(self) -> etcd_pb2.CompactionRequest:
        return etcd_pb2.CompactionRequest(revision=self._revision())

    def grant(self) -> etcd_pb2.LeaseGrantRequest:
        return etcd_pb2.LeaseGrantRequest(ID=self.rng.choice(LEASES), TTL=self.rng.choice((3600, 3600, 3600, 10**10)))

    def revoke(self) -> etcd_pb2.LeaseRevokeRequest:
        return etcd_pb2.LeaseRevokeRequest(ID=self.rng.choice((*LEASES, 0)))

    def ttl(self) -> etcd_pb2.LeaseTimeToLiveRequest:
        return etcd_pb2.LeaseTimeToLiveRequest(ID=self.rng.choice(LEASES), keys=self._maybe(True, 0.7))

    def watch(self, watch_id: int, compacted: int) -> etcd_pb2.WatchCreateRequest:
        """From now, from a revision not compacted, or from the future."""
        start = self.rng.choice((0, self.rng.randint(compacted + 1, self.revision + 5)))
        return etcd_pb2.WatchCreateRequest(
            key=self.rng.choice(KEYS), range_end=self.rng.choice((b"", b"k9", b"\0")), start_revision=start,
            filters=self.rng.sample(W.FilterType.values(), self.rng.choice((0, 0, 1))), prev_kv=self._maybe(True, 0.5),
            watch_id=watch_id,
        )  # fmt: skip


def essence(message: Message) -> dict[str, Any]:
    """What must be equal: every field that is set, without the server's own names and the orders etcd leaves open."""
    tree: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name in SERVER_FIELDS:
            continue
        if isinstance(value, Message):
            tree[field.name] = essence(value)
        elif field.is_repeated:
            rows = [essence(row) if isinstance(row, Message) else row for row in value]
            # the keys of a lease and the list of leases come in no order
            is_set = field.name in ("keys", "leases")
            tree[field.name] = sorted(rows, key=repr) if is_set else rows
        else:
            tree[field.name] = value
    if isinstance(message, etcd_pb2.LeaseTimeToLiveResponse) and 0 <= message.grantedTTL - message.TTL < SCRIPT_S_MAX:
        tree["TTL"] = "what is left"  # whole seconds, which two servers need not count at the same instant
    return tree
