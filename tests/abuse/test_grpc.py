"""The gRPC ports: messages too large, calls with no or other people's certificates, and callers who do not read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from tests.abuse.conftest import Abuse
from tests.abuse.victim import MIB, Victim, _Node

from steersman.actors.rpc.node import serve_node
from steersman.pb import api_pb2, api_pb2_grpc, node_pb2, node_pb2_grpc
from steersman.runtime.pki import Authority, Identity

CREATE = api_pb2.WriteRequest.Verb.Value("CREATE")
MAPS = api_pb2.Address(version="v1", resource="configmaps", namespace="default")


def credentials(directory: Path, user: str = "") -> grpc.ChannelCredentials:
    authority = (directory / "ca.crt").read_bytes()
    if not user:
        return grpc.ssl_channel_credentials(authority)
    key, cert = ((directory / f"{user}.{end}").read_bytes() for end in ("key", "crt"))
    return grpc.ssl_channel_credentials(authority, key, cert)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 20)
    found: grpc.StatusCode = caught.value.code()
    return found


async def test_messages_too_large_are_refused_before_anybody_is_asked(victim: Victim, abuse: Abuse) -> None:
    """Half a gigabyte is sent; of what it does not take gRPC holds its windows, a few MiB for each call."""
    body = orjson.dumps({"metadata": {"name": "large"}, "data": {"a": "x" * (60 * MIB)}})
    write = api_pb2.WriteRequest(address=MAPS, verb=CREATE, body=body)
    async with (
        abuse(growth_mib=200),
        grpc.aio.secure_channel(f"127.0.0.1:{victim.tokens}", credentials(victim.directory)) as channel,
    ):
        stub = api_pb2_grpc.ApiStub(channel)
        codes = await asyncio.gather(*(code_of(stub.Create(write)) for _ in range(8)))
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_nobody_and_strangers_are_refused(victim: Victim, abuse: Abuse, tmp_path: Path) -> None:
    elsewhere = Authority(tmp_path)
    elsewhere.ensure()
    stranger = elsewhere.issue(Identity(file="admin", common_name="admin", organizations=("system:masters",)))
    trusted = (victim.directory / "ca.crt").read_bytes()
    foreign = grpc.ssl_channel_credentials(trusted, stranger.key.read_bytes(), stranger.cert.read_bytes())
    request = api_pb2.ListRequest(address=MAPS)
    async with abuse(growth_mib=30):
        for port, chosen, expected in (
            (victim.grpc, credentials(victim.directory), grpc.StatusCode.UNAVAILABLE),
            (victim.grpc, foreign, grpc.StatusCode.UNAVAILABLE),
            (victim.grpc, credentials(victim.directory, "nobody"), grpc.StatusCode.PERMISSION_DENIED),
            (victim.tokens, credentials(victim.directory), grpc.StatusCode.UNAUTHENTICATED),
        ):
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", chosen) as channel:
                assert await code_of(api_pb2_grpc.ApiStub(channel).List(request)) == expected


async def test_watches_whose_callers_do_not_read_hold_little(victim: Victim, abuse: Abuse) -> None:
    admin = credentials(victim.directory, "admin")
    address = f"127.0.0.1:{victim.grpc}"
    async with abuse(growth_mib=160), grpc.aio.secure_channel(address, admin) as channel:
        stub = api_pb2_grpc.ApiStub(channel)
        async with grpc.aio.secure_channel(address, admin) as other:
            deaf = [api_pb2_grpc.ApiStub(other).Watch(api_pb2.WatchRequest(address=MAPS)) for _ in range(20)]
            async with asyncio.timeout(20):
                while (await victim.counts())["watches"] < 20:  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.05)
            for number in range(60):
                body = {"metadata": {"name": "told"}, "data": {"a": "x" * 200_000, "n": str(number)}}
                write = api_pb2.WriteRequest(address=MAPS, verb=CREATE, body=orjson.dumps(body))
                if number:
                    write.address.name, write.body = "told", orjson.dumps(body)
                    await stub.Update(write)
                else:
                    await stub.Create(write)
            for call in deaf:
                call.cancel()
        target = api_pb2.WriteRequest(address=MAPS, body=b"{}")
        target.address.name = "told"
        await stub.Delete(target)


async def test_a_node_listens_to_the_api_server_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure()
    pair = authority.issue(Identity(file="server", common_name="system:node:n1", hosts=("127.0.0.1",)))
    for user in ("kube-apiserver", "mallory"):
        authority.issue(Identity(file=user, common_name=user, organizations=("system:masters",)))
    serving = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())], authority.ca.read_bytes(), require_client_auth=True
    )
    server, port = await serve_node(_Node(), "127.0.0.1:0", serving)  # type: ignore[arg-type]
    try:
        for user, expected in (("", grpc.StatusCode.UNAVAILABLE), ("mallory", grpc.StatusCode.PERMISSION_DENIED)):
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials(tmp_path, user)) as channel:
                stub = node_pb2_grpc.NodeStreamsStub(channel)
                assert await code_of(stub.Logs(node_pb2.LogRequest()).read()) == expected
                assert await code_of(stub.Converse(iter([node_pb2.Say()])).read()) == expected
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials(tmp_path, "kube-apiserver")) as channel:
            stub = node_pb2_grpc.NodeStreamsStub(channel)
            call = stub.Converse()
            await call.write(node_pb2.Say(open=node_pb2.Open(kind=node_pb2.Open.EXEC, command=["cat"])))
            await asyncio.wait_for(call.read(), 20)
            large = node_pb2.Say(frame=node_pb2.Frame(channel=0, data=b"x" * (17 * MIB)))
            await call.write(large)
            assert await code_of(call.read()) == grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        await server.stop(None)
