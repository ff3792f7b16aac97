"""The native gRPC API: the same objects, users and refusals as REST, and transactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest

from steersman.actors.rpc.api import error_of
from steersman.pb import api_pb2, api_pb2_grpc
from steersman.runtime.pki import Authority, Identity

CREATE, UPDATE, PATCH, APPLY, DELETE = (
    api_pb2.WriteRequest.Verb.Value(v) for v in ("CREATE", "UPDATE", "PATCH", "APPLY", "DELETE")
)


def config_maps(name: str = "", namespace: str = "default") -> Any:
    return api_pb2.Address(version="v1", resource="configmaps", namespace=namespace, name=name)


def config_map(name: str, **data: str) -> bytes:
    return orjson.dumps({"metadata": {"name": name}, "data": data})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("pki"))
    made.ensure()
    return made


@pytest.fixture
async def served(make_api: Any, make_store: Any, authority: Authority) -> AsyncIterator[Any]:
    serving = authority.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1", "localhost")))
    store = make_store(time.time)
    await store.start()
    api = await make_api(
        store, host="127.0.0.1", grpc_port=0, grpc_token_port=0, client_ca=authority.ca.read_bytes(),
        tls_cert=serving.cert.read_bytes(), tls_key=serving.key.read_bytes(),
    )  # fmt: skip
    yield api
    await api.server.stop()
    await store.stop()


def channel(api: Any, authority: Authority, user: str, *groups: str) -> grpc.aio.Channel:
    pair = authority.issue(Identity(file=user, common_name=user, organizations=groups))
    credentials = grpc.ssl_channel_credentials(pair.ca.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes())
    return grpc.aio.secure_channel(f"127.0.0.1:{api.server.grpc_port}", credentials)


async def refused(call: Any, code: int) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_of(caught.value)
    assert error is not None and error.code == code, caught.value
    return error.message


async def test_objects_are_written_read_listed_and_watched(served: Any, authority: Authority) -> None:
    async with channel(served, authority, "admin", "system:masters") as wire:
        api = api_pb2_grpc.ApiStub(wire)
        watch = api.Watch(api_pb2.WatchRequest(address=config_maps(), initial_events=True))
        assert [e.type for e in (await watch.read()).events] == ["BOOKMARK"]
        made = await api.Create(api_pb2.WriteRequest(address=config_maps(), body=config_map("a", x="1")))
        obj = orjson.loads(made.json)
        assert obj["metadata"]["uid"]
        [event] = (await watch.read()).events
        assert event.type == "ADDED" and orjson.loads(event.json) == obj
        obj["data"] = {"x": "2"}
        await api.Update(api_pb2.WriteRequest(address=config_maps("a"), body=orjson.dumps(obj)))
        await api.Patch(api_pb2.WriteRequest(address=config_maps("a"), body=b'{"data":{"y":"3"}}'))
        applied = orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": {"z": "4"}})
        await api.Apply(api_pb2.WriteRequest(address=config_maps("a"), body=applied, field_manager="me"))
        found = orjson.loads((await api.Get(api_pb2.GetRequest(address=config_maps("a")))).json)
        assert found["data"] == {"x": "2", "y": "3", "z": "4"}
        listed = await api.List(api_pb2.ListRequest(address=config_maps(namespace=""), limit=1))
        assert [orjson.loads(item)["metadata"]["name"] for item in listed.items] == ["a"]
        await api.Delete(api_pb2.WriteRequest(address=config_maps("a")))
        assert "not found" in await refused(api.Get(api_pb2.GetRequest(address=config_maps("a"))), 404)
        watch.cancel()


async def test_a_name_that_is_taken_has_a_code_of_its_own(served: Any, authority: Authority) -> None:
    async with channel(served, authority, "admin", "system:masters") as wire:
        api = api_pb2_grpc.ApiStub(wire)
        await api.Create(api_pb2.WriteRequest(address=config_maps(), body=config_map("a")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.Create(api_pb2.WriteRequest(address=config_maps(), body=config_map("a")))
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_transaction_writes_all_or_nothing(served: Any, authority: Authority) -> None:
    async with channel(served, authority, "admin", "system:masters") as wire:
        api = api_pb2_grpc.ApiStub(wire)
        namespace = api_pb2.Address(version="v1", resource="namespaces")
        service = api_pb2.Address(version="v1", resource="services", namespace="team")
        spec = {"ports": [{"port": 80}]}
        writes = [
            api_pb2.WriteRequest(verb=CREATE, address=namespace, body=b'{"metadata":{"name":"team"}}'),
            api_pb2.WriteRequest(verb=CREATE, address=config_maps("", "team"), body=config_map("a")),
            *(
                api_pb2.WriteRequest(
                    verb=CREATE, address=service, body=orjson.dumps({"metadata": {"name": name}, "spec": spec})
                )
                for name in ("s", "t")
            ),
        ]
        reply = await api.Transact(api_pb2.TransactRequest(writes=writes))
        made = [orjson.loads(row.json) for row in reply.objects]
        assert len({row["metadata"]["resourceVersion"] for row in made}) == 1, "one revision for all"
        assert made[2]["spec"]["clusterIP"] != made[3]["spec"]["clusterIP"]
        again = [
            api_pb2.WriteRequest(verb=DELETE, address=config_maps("a", "team")),
            api_pb2.WriteRequest(verb=CREATE, address=config_maps("", "nowhere"), body=config_map("b")),
        ]
        assert "nowhere" in await refused(api.Transact(api_pb2.TransactRequest(writes=again)), 404)
        await api.Get(api_pb2.GetRequest(address=config_maps("a", "team")))
        twice = [api_pb2.WriteRequest(verb=DELETE, address=config_maps("a", "team"))] * 2
        await refused(api.Transact(api_pb2.TransactRequest(writes=twice)), 400)
        await refused(api.Transact(api_pb2.TransactRequest(writes=[api_pb2.WriteRequest()])), 400)
        await refused(api.Transact(api_pb2.TransactRequest()), 400)


async def test_certificates_and_tokens_say_who_asks(served: Any, authority: Authority) -> None:
    address = config_maps("x")
    async with channel(served, authority, "jane") as wire:
        text = await refused(api_pb2_grpc.ApiStub(wire).Get(api_pb2.GetRequest(address=address)), 403)
        assert 'User "jane" cannot get resource "configmaps"' in text
    account = "/api/v1/namespaces/default/serviceaccounts"
    await served.ok("POST", account, {"metadata": {"name": "robot"}})
    token = (await served.ok("POST", f"{account}/robot/token", {"spec": {"audiences": []}}))["status"]["token"]
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{served.server._grpc.token_port}", credentials) as wire:
        api = api_pb2_grpc.ApiStub(wire)
        request = api_pb2.GetRequest(address=address)
        await refused(api.Get(request), 401)
        text = await refused(api.Get(request, metadata=(("authorization", f"Bearer {token}"),)), 403)
        assert "system:serviceaccount:default:robot" in text


async def test_a_name_cannot_reach_beyond_its_place(served: Any, authority: Authority) -> None:
    async with channel(served, authority, "admin", "system:masters") as wire:
        api = api_pb2_grpc.ApiStub(wire)
        for name, code in (("../secrets/x", 400), ("a?watch=1", 404), ("a/status", 400), ("%2e%2e", 400), ("..", 400)):
            await refused(api.Get(api_pb2.GetRequest(address=config_maps(name))), code)


async def test_a_watch_lets_go_when_its_client_leaves(served: Any, authority: Authority) -> None:
    async with channel(served, authority, "admin", "system:masters") as wire:
        watch = api_pb2_grpc.ApiStub(wire).Watch(api_pb2.WatchRequest(address=config_maps(), initial_events=True))
        await watch.read()
        assert served.server.watches.open == 1
        watch.cancel()
    async with asyncio.timeout(5):
        while served.server.watches.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
