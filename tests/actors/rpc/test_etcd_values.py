"""Long answers as etcd's clients read them."""

from __future__ import annotations

import pytest

from steersman.actors.rpc import etcd_values as wire
from steersman.cluster.store.values import KeyValue, RangeResult
from steersman.pb import etcd_pb2


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_answer_in_pieces_reads_as_the_whole(count: int) -> None:
    kvs = tuple(
        KeyValue(key=b"/%d" % n, value=b"v" * n, create_revision=1, mod_revision=2, version=3) for n in range(count)
    )
    result = RangeResult(kvs=kvs, count=count + 5, more=True, revision=9)
    header = etcd_pb2.ResponseHeader(cluster_id=1, member_id=2, revision=9, raft_term=3)
    pieces = list(wire.range_pieces(header, result))
    assert etcd_pb2.RangeResponse.FromString(b"".join(pieces)) == wire.range_message(header, result)
    assert all(len(piece) < 2 * wire.PIECE_BYTES for piece in pieces)
