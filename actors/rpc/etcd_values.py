"""etcd's messages to the store's values and back, and the store's refusals in etcd's words and codes.

Source of the words: etcd, api/v3rpc/rpctypes/error.go: clients of etcd tell errors apart by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from steersman.actors.store import refusals
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
    LeaseTooLong,
    NoSpace,
    Put,
    PutResult,
    Range,
    RangeResult,
    Selection,
    SortOrder,
    SortTarget,
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

_ORDER_OF_KEYS = Selection()

#: of keys and values that are encoded at once in a long answer
PIECE_BYTES = 256 << 10

_CODES: dict[type[StoreError], tuple[grpc.StatusCode, str]] = {
    Compacted: (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    FutureRevision: (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    LeaseNotFound: (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found"),
    LeaseExists: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists"),
    LeaseTooLong: (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    NoSpace: (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    refusals.NotLeader: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: not leader"),
    refusals.BadTransferee: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: bad leader transferee"),
    refusals.MemberNotFound: (grpc.StatusCode.NOT_FOUND, "etcdserver: member not found"),
    refusals.MemberExists: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"),
    refusals.NotLearner: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: can only promote a learner member"),
    refusals.LearnerBehind: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    refusals.TooManyLearners: (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"),
    refusals.NotEnoughMembers: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    refusals.BadAddress: (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid"),
    TooLarge: (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large"),
}


def status_of(error: StoreError) -> tuple[grpc.StatusCode, str]:
    """Returns the code and the words in which etcd would refuse."""
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT, f"etcdserver: {error}"
    return _CODES.get(type(error), (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out"))


# requests


def range_of(message: etcd_pb2.RangeRequest) -> Range:
    """Raises InvalidRequest for an order or a field that etcd does not know."""
    return Range(
        key=message.key,
        range_end=message.range_end,
        revision=message.revision,
        limit=max(0, message.limit),
        keys_only=message.keys_only,
        count_only=message.count_only,
        serializable=message.serializable,
        selection=_selection_of(message),
    )


def _selection_of(message: etcd_pb2.RangeRequest) -> Selection | None:
    try:
        selection = Selection(
            order=SortOrder(message.sort_order),
            target=SortTarget(message.sort_target),
            min_mod_revision=max(0, message.min_mod_revision),
            max_mod_revision=message.max_mod_revision,
            min_create_revision=max(0, message.min_create_revision),
            max_create_revision=message.max_create_revision,
        )
    except ValueError:
        raise InvalidRequest("invalid sort option") from None
    return None if selection == _ORDER_OF_KEYS else selection


def put_of(message: etcd_pb2.PutRequest) -> Put:
    return Put(
        key=message.key,
        value=message.value,
        lease=message.lease,
        prev_kv=message.prev_kv,
        keep_value=message.ignore_value,
        keep_lease=message.ignore_lease,
    )


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
    try:
        target, operator = CompareTarget(message.target), CompareOperator(message.result)
    except ValueError:
        raise InvalidRequest("unknown comparison") from None
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
        operator=operator,
        operand=operand,
        range_end=message.range_end,
    )


def _operation_of(message: etcd_pb2.RequestOp) -> Operation:
    match message.WhichOneof("request"):
        case "request_range":
            return range_of(message.request_range)
        case "request_put":
            return put_of(message.request_put)
        case "request_delete_range":
            return delete_of(message.request_delete_range)
        case "request_txn":
            return txn_of(message.request_txn)
        case _:
            raise InvalidRequest("key not found")  # an empty operation, in etcd's words


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


def range_pieces(header: etcd_pb2.ResponseHeader, result: RangeResult) -> Iterator[bytes]:
    """Yields the same encoded, in pieces of about `PIECE_BYTES`: protobuf joins repeated fields that lie apart."""
    yield etcd_pb2.RangeResponse(header=header, more=result.more, count=result.count).SerializeToString()
    kvs: list[mvcc_pb2.KeyValue] = []
    size_bytes = 0
    for kv in result.kvs:
        kvs.append(kv_message(kv))
        size_bytes += len(kv.value) + len(kv.key)
        if size_bytes >= PIECE_BYTES:
            yield etcd_pb2.RangeResponse(kvs=kvs).SerializeToString()
            kvs, size_bytes = [], 0
    yield etcd_pb2.RangeResponse(kvs=kvs).SerializeToString()


def put_message(header: etcd_pb2.ResponseHeader, result: PutResult) -> etcd_pb2.PutResponse:
    prev_kv = None if result.prev_kv is None else kv_message(result.prev_kv)
    return etcd_pb2.PutResponse(header=header, prev_kv=prev_kv)


def delete_message(header: etcd_pb2.ResponseHeader, result: DeleteResult) -> etcd_pb2.DeleteRangeResponse:
    return etcd_pb2.DeleteRangeResponse(
        header=header, deleted=result.deleted, prev_kvs=[kv_message(kv) for kv in result.prev_kvs]
    )


def txn_message(header: etcd_pb2.ResponseHeader, result: TxnResult) -> etcd_pb2.TxnResponse:
    responses = [_response_message(inner) for inner in result.results]
    return etcd_pb2.TxnResponse(header=header, succeeded=result.succeeded, responses=responses)


def _response_message(result: Result) -> etcd_pb2.ResponseOp:
    """The answer to one operation: its header has the revision alone, that of an inner transaction nothing at all."""
    header = etcd_pb2.ResponseHeader(revision=result.revision)
    match result:
        case RangeResult():
            return etcd_pb2.ResponseOp(response_range=range_message(header, result))
        case PutResult():
            return etcd_pb2.ResponseOp(response_put=put_message(header, result))
        case DeleteResult():
            return etcd_pb2.ResponseOp(response_delete_range=delete_message(header, result))
        case TxnResult():
            return etcd_pb2.ResponseOp(response_txn=txn_message(etcd_pb2.ResponseHeader(), result))
