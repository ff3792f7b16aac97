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
            elif not operation.key:
                raise InvalidRequest("key is not provided")
        if len(branch) > 1:
            _check_overlaps(branch)
    if count > OPS_MAX:
        raise InvalidRequest("too many operations in txn request")
    return count


def _check_compare(compare: Compare) -> None:
    if not compare.key:
        raise InvalidRequest("key is not provided")
    wants_bytes = compare.target.name == "VALUE"
    if isinstance(compare.operand, bytes) is not wants_bytes:
        if wants_bytes and compare.operand == 0:
            return
        raise InvalidRequest(f"a comparison of {compare.target.name} takes {'bytes' if wants_bytes else 'a number'}")


def _check_overlaps(branch: Sequence[Operation]) -> None:
    puts: list[bytes] = []
    deletes: list[tuple[bytes, bytes]] = []
    for operation in branch:
        added, removed = _written(operation)
        if any(contains(key, *span) for key in added for span in deletes) or any(
            contains(key, *span) for key in puts for span in removed
        ):
            raise InvalidRequest("duplicate key given in txn request")
        puts += added
        deletes += removed
    if len(set(puts)) != len(puts):
        raise InvalidRequest("duplicate key given in txn request")


def _written(operation: Operation) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Returns the keys put (each once a branch) and the ranges deleted by an operation, nested ones included."""
    match operation:
        case Put(key=key):
            return [key], []
        case DeleteRange(key=key, range_end=end):
            return [], [(key, end)]
        case Txn(success=success, failure=failure):
            puts: dict[bytes, None] = {}
            deletes: list[tuple[bytes, bytes]] = []
            for branch in (success, failure):
                for inner in branch:
                    added, removed = _written(inner)
                    puts.update(dict.fromkeys(added))
                    deletes += removed
            return list(puts), deletes
        case _:
            return [], []
