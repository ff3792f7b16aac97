"""Certificates are renewed under a cluster that runs: new handshakes show the new ones, and what stands goes on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from tests.actors.pki import free_ports

from steersman.actors import bringup, renewing
from steersman.actors.oneprocess import OneProcess
from steersman.actors.parts import over_tls
from steersman.actors.renewed import Renewals
from steersman.actors.site import Site
from steersman.actors.tls import Channels, client_context, client_credentials, server_credentials
from steersman.cluster.config import ClusterConfig, Security
from steersman.cluster.meta.resources import CONFIG_MAPS
from steersman.cluster.topology import Host, grpc_port, grpc_token_port
from steersman.runtime.credentials import Credentials
from steersman.runtime.pki import Authority, Identity

SHORT = datetime.timedelta(minutes=1)
HOSTS = ("127.0.0.1", "localhost")


def serial_in(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def serial_of(port: int, credentials: Credentials) -> int:
    """The serial number of what a server shows in a handshake."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(credentials))
    try:
        return int(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"], 16)
    finally:
        writer.close()


async def test_an_embedded_cluster_takes_what_its_keeper_renews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "LOOK_S", 0.05)
    monkeypatch.setattr(bringup, "Authority", lambda *args: Authority(*args, life=SHORT))
    config = ClusterConfig(data_dir=str(tmp_path), embedded=True, security=Security(encryption="none"))
    listened_on = dict(zip(("api", "grpc", "grpc_token", "store"), free_ports(4), strict=True))
    ports = config.ports.model_copy(update=listened_on).resolved()
    here = Host(name="here", address="127.0.0.1", data_dir=str(tmp_path), runtime="none")
    site = Site(config.model_copy(update={"ports": ports}), (here,), here)
    bringup.issue_certificates(site)
    bringup.write_kubeconfig(site)
    short = {path.name: serial_in(path) for path in site.pki.glob("*.crt")}
    whole = OneProcess(site, now=time.time, rng=random.Random(1))
    await whole.start()
    client = over_tls(site, "component")
    watch = client.watch(CONFIG_MAPS, "default")
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> None:
        async for _, obj in watch:
            await seen.put(obj["metadata"].get("name", "a bookmark"))

    following = asyncio.create_task(follow())
    await client.create(CONFIG_MAPS, config_map("before"))
    async with asyncio.timeout(10):
        while await seen.get() != "before":
            pass
    caller = site.credentials("component")
    shown = {
        int(bringup.endpoints(site)["api"][0].rsplit(":", 1)[1]): "apiserver.crt",
        grpc_port(site.config, 0): "apiserver.crt",
        grpc_token_port(site.config, 0): "apiserver.crt",
        int(next(iter(site.store_peers.values())).rsplit(":", 1)[1]): "component.crt",
    }
    assert {port: await serial_of(port, caller) for port in shown} == {
        port: short[name] for port, name in shown.items()
    }
    kubeconfig = (tmp_path / "kubeconfig").read_text()
    monkeypatch.setattr(bringup, "Authority", Authority)
    keeper = asyncio.create_task(renewing.renew_always(lambda: site))
    async with asyncio.timeout(10):
        while (tmp_path / "kubeconfig").read_text() == kubeconfig:  # noqa: ASYNC110  (a file)
            await asyncio.sleep(0.02)
    keeper.cancel()
    new = {path.name: serial_in(path) for path in site.pki.glob("*.crt")}
    assert {name for name in new if new[name] == short[name]} == {"ca.crt", "front-proxy-ca.crt"}
    assert [await serial_of(port, caller) for port in shown] == [new[name] for name in shown.values()]
    newcomer = over_tls(site, "component")
    await newcomer.create(CONFIG_MAPS, config_map("after"))
    async with asyncio.timeout(10):
        while await seen.get() != "after":
            pass
    assert not following.done(), "the watch that began before goes on"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await client.close()
    await newcomer.close()
    await whole.stop()


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def test_calls_between_components_go_on_while_new_ones_show_the_new_certificates(tmp_path: Path) -> None:
    identities = {name: Identity(file=name, common_name=name, hosts=HOSTS) for name in ("server", "client")}
    short = Authority(tmp_path, life=SHORT)
    short.ensure()
    server_files, client_files = (short.issue(identities[name]) for name in ("server", "client"))
    go_on = asyncio.Event()

    async def follow(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        yield caller_of(context)
        await go_on.wait()
        yield b"still here"

    async def ask(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return caller_of(context)

    def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return next(iter(context.auth_context()["x509_pem_cert"]))

    server = grpc.aio.server()
    handlers = {
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(server_files))
    await server.start()
    channels = Channels(client_credentials(client_files), ())
    address = f"127.0.0.1:{port}"
    stream = channels.to(address).unary_stream("/test/Follow")(b"")
    assert x509.load_pem_x509_certificate(await stream.read()).serial_number == serial_in(client_files.cert)
    before = (await serial_of(port, client_files), serial_in(client_files.cert))
    assert before[0] == serial_in(server_files.cert)
    for identity in identities.values():
        Authority(tmp_path).issue(identity)
    shown = x509.load_pem_x509_certificate(await channels.to(address).unary_unary("/test/Ask")(b"")).serial_number
    after = (await serial_of(port, client_files), shown)
    assert after == (serial_in(server_files.cert), serial_in(client_files.cert))
    assert not set(before) & set(after)
    go_on.set()
    assert await stream.read() == b"still here"
    await channels.close()
    await server.stop(0)


def test_files_that_do_not_fit_each_other_are_left_for_the_next_time(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure()
    one, other = (authority.issue(Identity(file=name, common_name=name)) for name in ("one", "other"))
    renewals = Renewals(one)
    assert renewals.news() is not None
    assert renewals.news() is None
    key = other.key.read_bytes()
    one.key.write_bytes(key)  # the keeper has written the key, and not the certificate yet
    assert renewals.news() is None
    one.cert.write_bytes(other.cert.read_bytes())
    news = renewals.news()
    assert news is not None and news.key == key
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    news.load(context)
    with contextlib.suppress(FileNotFoundError):
        one.cert.unlink()
    assert renewals.news() is None, "what was read last stays"
