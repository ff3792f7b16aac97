"""What the answers of all etcd services have in common: the header, and refusals in etcd's codes and words."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NoReturn, TypeVar

from steersman.actors.rpc import etcd_values as wire
from steersman.actors.rpc.h2.calls import Call as Context
from steersman.actors.store.replica import Replica
from steersman.cluster.store.values import StoreError
from steersman.pb import etcd_pb2

T = TypeVar("T")


async def refuse(context: Context, error: StoreError) -> NoReturn:
    code, words = wire.status_of(error)
    await context.abort(code, words)


async def guard(context: Context, work: Awaitable[T]) -> T:
    """Returns what the store answers, or ends the call with etcd's code for the refusal."""
    try:
        return await work
    except StoreError as error:
        await refuse(context, error)


def header_of(replica: Replica, revision: int = 0) -> etcd_pb2.ResponseHeader:
    """Raises Unavailable when the replica has ended."""
    cluster, term, newest = replica.position()
    return etcd_pb2.ResponseHeader(
        cluster_id=cluster, member_id=replica.member_id, revision=revision or newest, raft_term=term
    )
