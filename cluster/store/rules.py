"""Which requests the store refuses before they reach the log: empty keys, keys written twice, too many operations.

Source: etcd's `checkPutRequest`, `checkTxnRequest` and `checkIntervals` (server/etcdserver/api/v3rpc/key.go).
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.store.values import Compare, DeleteRange, InvalidRequest, Put, Range, Txn

#: operations of one transaction, nested ones included; keeps the time of one apply short
OPS_MAX = 4096
#: how deep transactions may be nested
DEPTH_MAX = 16

Operation = Range | Put | DeleteRange | Txn


def contains(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether `key` lies in the range `start`, `end` as requests write it (see `Range`)."""
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


def prefix_end(prefix: bytes) -> bytes:
    """Returns the `range_end` that makes a range of every key with this prefix."""
    for index in range(len(prefix) - 1, -1, -1):
        if prefix[index] < 0xFF:
            return prefix[:index] + bytes((prefix[index] + 1,))
    return b"\0"


def check_txn(txn: Txn) -> None:
    """Refuses a transaction that could never be applied.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    _check(txn, 0)
    if len(txn.success) > 1 or len(txn.failure) > 1 or _has_inner(txn):
        _writes(txn.success)
        _writes(txn.failure)


def _has_inner(txn: Txn) -> bool:
    return any(isinstance(operation, Txn) for operation in (*txn.success, *txn.failure))


def _check(txn: Txn, depth: int) -> int:
    if depth > DEPTH_MAX:
        raise InvalidRequest("transactions are nested too deeply")
    for compare in txn.compare:
        _check_compare(compare)
    count = len(txn.success) + len(txn.failure) + len(txn.compare)
    for branch in (txn.success, txn.failure):
        for operation in branch:
            if isinstance(operation, Txn):
                count += _check(operation, depth + 1)
            else:
                check_operation(operation)
    if count > OPS_MAX:
        raise InvalidRequest("too many operations in txn request")
    return count


def check_operation(operation: Range | Put | DeleteRange) -> None:
    """Refuses a single operation that makes no sense.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    if not operation.key:
        raise InvalidRequest("key is not provided")
    if isinstance(operation, Put):
        if operation.keep_value and operation.value:
            raise InvalidRequest("value is provided")
        if operation.keep_lease and operation.lease:
            raise InvalidRequest("lease is provided")


def _check_compare(compare: Compare) -> None:
    if not compare.key:
        raise InvalidRequest("key is not provided")
    wants_bytes = compare.target.name == "VALUE"
    if isinstance(compare.operand, bytes) is not wants_bytes:
        if wants_bytes and compare.operand == 0:
            return
        raise InvalidRequest(f"a comparison of {compare.target.name} takes {'bytes' if wants_bytes else 'a number'}")


class _Writes:
    """Keys put and ranges deleted somewhere in a branch."""

    __slots__ = ("deletes", "puts")

    def __init__(self) -> None:
        self.puts: set[bytes] = set()
        self.deletes: list[tuple[bytes, bytes]] = []

    def clashes(self, key: bytes) -> bool:
        return key in self.puts or any(contains(key, *span) for span in self.deletes)


def _writes(branch: Sequence[Operation]) -> _Writes:
    """Collects what a branch writes; raises InvalidRequest when it puts a key that it writes elsewhere too."""
    found = _Writes()
    found.deletes = [(each.key, each.range_end) for each in branch if isinstance(each, DeleteRange)]
    for operation in branch:
        if isinstance(operation, Txn):
            # only one of its branches will run: they may write the same keys
            inner = (_writes(operation.success), _writes(operation.failure))
            if any(found.clashes(key) for writes in inner for key in writes.puts):
                raise InvalidRequest("duplicate key given in txn request")
            for writes in inner:
                found.puts |= writes.puts
                found.deletes += writes.deletes
    for operation in branch:
        if isinstance(operation, Put):
            if found.clashes(operation.key):
                raise InvalidRequest("duplicate key given in txn request")
            found.puts.add(operation.key)
    return found
