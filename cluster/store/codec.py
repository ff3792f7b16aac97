"""The store's own encoding of requests, results and replicated commands: msgpack arrays, tagged by their first element.

A client encodes a request once; the same bytes go through the leader's log, its disk and its peers. Decoding is
strict: bytes that are no request raise `InvalidRequest` and never reach the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from steersman.cluster.store.commands import Command
from steersman.cluster.store.values import InvalidRequest, Range, RangeResult, Txn, TxnResult, WatchBatch

_encoder = msgspec.msgpack.Encoder()
_command: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_txn = msgspec.msgpack.Decoder(Txn)
_range = msgspec.msgpack.Decoder(Range)
_txn_result = msgspec.msgpack.Decoder(TxnResult)
_range_result = msgspec.msgpack.Decoder(RangeResult)
_watch_batch = msgspec.msgpack.Decoder(WatchBatch)


def encode(value: Command | Range | RangeResult | TxnResult | WatchBatch) -> bytes:
    """Returns the bytes of any request, result or command."""
    return _encoder.encode(value)


def decode_command(data: bytes) -> Command:
    """Returns the command of a log entry or of a client's write.

    Raises:
        InvalidRequest: the bytes are no command.
    """
    try:
        return _command.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"not a command of the store: {error}") from None


def decode_range(data: bytes) -> Range:
    """Returns the range of a client's read.

    Raises:
        InvalidRequest: the bytes are no range.
    """
    try:
        return _range.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"not a range: {error}") from None


def encode_range_result(result: RangeResult, part_bytes: int) -> list[bytes]:
    """Returns a result as several, each with some of the keys: about `part_bytes` of keys and values."""
    kvs = result.kvs
    parts: list[bytes] = []
    first = size_bytes = 0
    for position, kv in enumerate(kvs):
        size_bytes += len(kv.key) + len(kv.value)
        if size_bytes >= part_bytes:
            parts.append(_encoder.encode(msgspec.structs.replace(result, kvs=kvs[first : position + 1])))
            first, size_bytes = position + 1, 0
    if first < len(kvs) or not parts:
        parts.append(_encoder.encode(msgspec.structs.replace(result, kvs=kvs[first:]) if first else result))
    return parts


def decode_range_parts(parts: Sequence[bytes]) -> RangeResult:
    """Returns the result that `encode_range_result` parted."""
    results = [_range_result.decode(part) for part in parts]
    if len(results) == 1:
        return results[0]
    return msgspec.structs.replace(results[-1], kvs=tuple(kv for result in results for kv in result.kvs))


def decode_txn_result(data: bytes) -> TxnResult:
    return _txn_result.decode(data)


def decode_watch_batch(data: bytes) -> WatchBatch:
    return _watch_batch.decode(data)
