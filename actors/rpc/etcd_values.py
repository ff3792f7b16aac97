"""etcd's messages to the store's values and back, and the store's refusals in etcd's words and codes.

Source of the words: etcd, api/v3rpc/rpctypes/error.go: clients of etcd tell errors apart by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc

from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareOperator,
    CompareTarget,
    DeleteRange,
    DeleteResult,
    FutureRevision,
    InvalidRequest,
    KeyValue,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Put,
    PutResult,
    Range,
    RangeResult,
    StoreError,
    TooLarge,
    Txn,
    TxnResult,
    WatchEvent,
)
from steersman.pb import etcd_pb2, mvcc_pb2

if TYPE_CHECKING:
    Operation = Range | Put | DeleteRange | Txn
    Result = RangeResult | PutResult | DeleteResult | TxnResult

_CODES: dict[type[StoreError], tuple[grpc.StatusCode, str]] = {
    Compacted: (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    FutureRevision: (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    LeaseNotFound: (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found"),
    LeaseExists: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists"),
    NoSpace: (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    TooLarge: (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large"),
}


def status_of(error: StoreError) -> tuple[grpc.StatusCode, str]:
    """Returns the code and the words in which etcd would refuse."""
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT, f"etcdserver: {error}"
    return _CODES.get(type(error), (grpc.StatusCode.UNAVAILABLE, f"etcdserver: request timed out ({error})"))


# requests


def range_of(message: etcd_pb2.RangeRequest) -> Range:
    """The range to ask the store for; what the store does not do (sorting, filters) `trimmed` does after it."""
    if not message.key:
        raise InvalidRequest("key is not provided")
    return Range(
        key=message.key,
        range_end=message.range_end,
        revision=max(0, message.revision),
        limit=0 if _needs_trimming(message) else max(0, message.limit),
        keys_only=message.keys_only and not _sorts_by_value(message),
        count_only=message.count_only,
        serializable=message.serializable,
    )


def _sorts_by_value(message: etcd_pb2.RangeRequest) -> bool:
    return bool(message.sort_order) and message.sort_target == etcd_pb2.RangeRequest.VALUE


def _needs_trimming(message: etcd_pb2.RangeRequest) -> bool:
    sorts = message.sort_order == etcd_pb2.RangeRequest.DESCEND or (
        message.sort_order and message.sort_target != etcd_pb2.RangeRequest.KEY
    )
    return bool(
        sorts
        or message.min_mod_revision
        or message.max_mod_revision
        or message.min_create_revision
        or message.max_create_revision
    )


def trimmed(message: etcd_pb2.RangeRequest, result: RangeResult) -> RangeResult:
    """The answer with the wanted order, filters and limit."""
    if not _needs_trimming(message) or message.count_only:
        return result
    kvs = [
        kv
        for kv in result.kvs
        if message.min_mod_revision <= kv.mod_revision <= (message.max_mod_revision or kv.mod_revision)
        and message.min_create_revision <= kv.create_revision <= (message.max_create_revision or kv.create_revision)
    ]
    field = {
        etcd_pb2.RangeRequest.KEY: "key",
        etcd_pb2.RangeRequest.VERSION: "version",
        etcd_pb2.RangeRequest.CREATE: "create_revision",
        etcd_pb2.RangeRequest.MOD: "mod_revision",
        etcd_pb2.RangeRequest.VALUE: "value",
    }[message.sort_target]
    if message.sort_order:
        descends = message.sort_order == etcd_pb2.RangeRequest.DESCEND
        kvs.sort(key=lambda kv: getattr(kv, field), reverse=descends)
    more = bool(message.limit) and len(kvs) > message.limit
    kvs = kvs[: message.limit or None]
    if message.keys_only:
        kvs = [KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in kvs]
    return RangeResult(kvs=tuple(kvs), count=result.count, more=more, revision=result.revision)


def put_of(message: etcd_pb2.PutRequest) -> Put:
    return Put(key=message.key, value=message.value, lease=message.lease, prev_kv=message.prev_kv)


def delete_of(message: etcd_pb2.DeleteRangeRequest) -> DeleteRange:
    return DeleteRange(key=message.key, range_end=message.range_end, prev_kv=message.prev_kv)


def txn_of(message: etcd_pb2.TxnRequest) -> Txn:
    """Raises InvalidRequest for what this store does not do inside a transaction."""
    return Txn(
        compare=tuple(_compare_of(row) for row in message.compare),
        success=tuple(_operation_of(row) for row in message.success),
        failure=tuple(_operation_of(row) for row in message.failure),
    )


def _compare_of(message: etcd_pb2.Compare) -> Compare:
    target = CompareTarget(message.target)
    operand: int | bytes
    match target:
        case CompareTarget.VALUE:
            operand = message.value
        case CompareTarget.VERSION:
            operand = message.version
        case CompareTarget.CREATE:
            operand = message.create_revision
        case CompareTarget.MOD:
            operand = message.mod_revision
        case CompareTarget.LEASE:
            operand = message.lease
    return Compare(
        key=message.key,
        target=target,
        operator=CompareOperator(message.result),
        operand=operand,
        range_end=message.range_end,
    )


def _operation_of(message: etcd_pb2.RequestOp) -> Operation:
    match message.WhichOneof("request"):
        case "request_range":
            if _needs_trimming(message.request_range):
                raise InvalidRequest("sorting and revision filters are not supported inside a transaction")
            return range_of(message.request_range)
        case "request_put":
            if message.request_put.ignore_value or message.request_put.ignore_lease:
                raise InvalidRequest("ignore_value and ignore_lease are not supported inside a transaction")
            return put_of(message.request_put)
        case "request_delete_range":
            return delete_of(message.request_delete_range)
        case "request_txn":
            return txn_of(message.request_txn)
        case _:
            raise InvalidRequest("an operation of the transaction is empty")


# answers


def kv_message(kv: KeyValue) -> mvcc_pb2.KeyValue:
    return mvcc_pb2.KeyValue(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )


def event_message(event: WatchEvent, *, prev_kv: bool) -> mvcc_pb2.Event:
    kind = mvcc_pb2.Event.DELETE if event.deleted else mvcc_pb2.Event.PUT
    message = mvcc_pb2.Event(type=kind, kv=kv_message(event.kv))
    if prev_kv and event.prev_kv is not None:
        message.prev_kv.CopyFrom(kv_message(event.prev_kv))
    return message


def range_message(header: etcd_pb2.ResponseHeader, result: RangeResult) -> etcd_pb2.RangeResponse:
    return etcd_pb2.RangeResponse(
        header=header, kvs=[kv_message(kv) for kv in result.kvs], more=result.more, count=result.count
    )


def put_message(header: etcd_pb2.ResponseHeader, result: PutResult) -> etcd_pb2.PutResponse:
    prev_kv = None if result.prev_kv is None else kv_message(result.prev_kv)
    return etcd_pb2.PutResponse(header=header, prev_kv=prev_kv)


def delete_message(header: etcd_pb2.ResponseHeader, result: DeleteResult) -> etcd_pb2.DeleteRangeResponse:
    return etcd_pb2.DeleteRangeResponse(
        header=header, deleted=result.deleted, prev_kvs=[kv_message(kv) for kv in result.prev_kvs]
    )


def txn_message(header: etcd_pb2.ResponseHeader, result: TxnResult) -> etcd_pb2.TxnResponse:
    return etcd_pb2.TxnResponse(
        header=header, succeeded=result.succeeded, responses=list(_operations(header, result.results))
    )


def _operations(header: etcd_pb2.ResponseHeader, results: Iterable[Result]) -> Iterable[etcd_pb2.ResponseOp]:
    inner = etcd_pb2.ResponseHeader(revision=header.revision)
    for result in results:
        match result:
            case RangeResult():
                yield etcd_pb2.ResponseOp(response_range=range_message(inner, result))
            case PutResult():
                yield etcd_pb2.ResponseOp(response_put=put_message(inner, result))
            case DeleteResult():
                yield etcd_pb2.ResponseOp(response_delete_range=delete_message(inner, result))
            case TxnResult():
                yield etcd_pb2.ResponseOp(response_txn=txn_message(inner, result))
