"""Client certificates over real TLS: users' and front proxies', good ones and such as nobody vouches for."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.actors.http.client import HttpTransport
from steersman.actors.http.messages import Request
from steersman.actors.ports import User
from steersman.runtime.pki import Authority, Identity

ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


@pytest.fixture
async def fronted(make_api: Any, make_store: Any, tmp_path: Path) -> AsyncIterator[tuple[Any, Authority, Authority]]:
    """A server on TLS that takes users' certificates of one authority and front proxies' of another."""
    clients, proxies = Authority(tmp_path), Authority(tmp_path, "front-proxy-ca")
    clients.ensure()
    proxies.ensure()
    serving = clients.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1",)))
    store = make_store(time.time)
    await store.start()
    api = await make_api(
        store, port=0, tls_cert=serving.cert.read_bytes(), tls_key=serving.key.read_bytes(),
        client_ca=clients.ca.read_bytes(), proxy_ca=proxies.ca.read_bytes(),
    )  # fmt: skip
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    yield api, clients, proxies
    await api.server.stop()
    await store.stop()


async def whoami(
    api: Any, ca: Path, pair: Any, *, path: str = "/apis/authentication.k8s.io/v1/selfsubjectreviews", **headers: str
) -> Any:
    """What the server says of who asks, or the code of its refusal."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(pair.cert, pair.key)
    transport = HttpTransport([f"https://127.0.0.1:{api.server.port}"], tls=context)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    body = orjson.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    answer = await transport(
        Request(
            "POST",
            path,
            {"content-type": "application/json", **sent},
            body,
        )
    )
    await transport.close()
    assert isinstance(answer.body, bytes)
    found = orjson.loads(answer.body)
    return found["status"]["userInfo"] if answer.status == 201 else answer.status


async def test_it_is_told_how_long_the_certificates_are_good_for_that_clients_show(
    fronted: tuple[Any, Authority, Authority], tmp_path: Path
) -> None:
    api, clients, _ = fronted
    hour = Authority(tmp_path, life=datetime.timedelta(hours=1))
    for authority, name in ((hour, "short"), (clients, "long")):
        pair = authority.issue(Identity(file=name, common_name=name))
        assert (await whoami(api, clients.ca, pair))["username"] == name
    name = "apiserver_client_certificate_expiration_seconds"
    page = (await api.call("GET", "/metrics")).body.decode().splitlines()
    assert f"# TYPE {name} histogram" in page
    counts = [(bound, f'{name}_bucket{{le="{bound}"}} {count}') for bound, count in
              (("1800", 0), ("3600", 1), ("15552000", 1), ("31104000", 1), ("+Inf", 2))]  # fmt: skip
    assert [bound for bound, line in counts if line not in page] == []
    assert f"{name}_count 2" in page


async def test_only_a_front_proxy_says_in_headers_who_asks(fronted: tuple[Any, Authority, Authority]) -> None:
    api, clients, proxies = fronted
    proxy = proxies.issue(Identity(file="front-proxy-client", common_name="front-proxy-client"))
    jane = {"x_remote_user": "jane", "x_remote_group": "a, b\nsystem:masters", "x_remote_extra_scopes": "read"}
    said = await whoami(api, clients.ca, proxy, **jane)
    assert said["username"] == "jane" and said["groups"] == ["a, b", "system:masters", "system:authenticated"]
    assert said["extra"] == {"scopes": ["read"]}

    tom = clients.issue(Identity(file="tom", common_name="tom", organizations=("devs",)))
    said = await whoami(api, clients.ca, tom, **jane)
    assert said["username"] == "tom", "a user's certificate does not make a proxy"
    same_name = clients.issue(Identity(file="fake", common_name="front-proxy-client"))
    assert (await whoami(api, clients.ca, same_name, **jane))["username"] == "front-proxy-client"
    other_name = proxies.issue(Identity(file="other", common_name="other", organizations=("system:masters",)))
    assert await whoami(api, clients.ca, other_name, **jane) == 401
    assert await whoami(api, clients.ca, proxy) == 401, "a proxy itself is nobody"


async def test_extension_servers_find_whom_to_trust(fronted: tuple[Any, Authority, Authority]) -> None:
    api, clients, proxies = fronted
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = (await api.ok("GET", path))["data"]
    assert data["client-ca-file"].strip() == clients.ca.read_text().strip()
    assert data["requestheader-client-ca-file"].strip() == proxies.ca.read_text().strip()
    reader = User("system:serviceaccount:wardle:server", ("system:serviceaccounts",))
    await api.refused(403, "GET", path, user=reader)
    roles = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "ServiceAccount", "name": "server", "namespace": "wardle"}
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "extension-apiserver-authentication-reader",
    }
    bindings = f"{roles}/namespaces/kube-system/rolebindings"
    await api.ok("POST", bindings, {"metadata": {"name": "wardle"}, "roleRef": role, "subjects": [subject]})
    assert (await api.ok("GET", path, user=reader))["data"] == data


def issued(
    directory: Path,
    authority: Any,
    name: str,
    *,
    days: int = 1,
    purpose: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
    is_authority: bool = False,
    chain: bytes = b"",
) -> Any:
    """A certificate of `authority`, with what the product's own never have: no time left, another purpose, a chain."""
    signer = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    issuer = x509.load_pem_x509_certificates(authority.ca.read_bytes())[0]
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    text = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pair = SimpleNamespace(cert=directory / f"{name}.crt", key=directory / f"{name}.key")
    pair.ca = pair.cert
    pair.cert.write_bytes(text + chain)
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *pem))
    return pair


async def test_a_certificate_that_nobody_vouches_for_is_told_so_in_an_answer(
    fronted: tuple[Any, Authority, Authority], tmp_path: Path
) -> None:
    api, clients, _ = fronted
    foreign = Authority(tmp_path / "elsewhere")  # by the same name
    foreign.ensure()
    rows = {
        "expired": issued(tmp_path, clients, "late", days=-1),
        "foreign": foreign.issue(Identity(file="f", common_name="root", organizations=("system:masters",))),
        "for servers": issued(tmp_path, clients, "server-only", purpose=ExtendedKeyUsageOID.SERVER_AUTH),
    }
    token = (await api.ok("POST", f"{ACCOUNT}/token", {"spec": {}}))["status"]["token"]
    for what, pair in rows.items():
        assert await whoami(api, clients.ca, pair) == 401, what
        assert await whoami(api, clients.ca, pair, path="/healthz") == 401, what
        assert await whoami(api, clients.ca, pair, authorization="Bearer x") == 401, what
        said = await whoami(api, clients.ca, pair, authorization=f"Bearer {token}")
        assert said["username"] == "system:serviceaccount:default:default", "another credential counts"


async def test_whom_a_certificate_names_depends_on_the_authority_it_goes_back_to(
    fronted: tuple[Any, Authority, Authority], tmp_path: Path
) -> None:
    api, clients, proxies = fronted
    for authority, name, expected in ((clients, "below-clients", "jane"), (proxies, "below-proxies", 401)):
        between = issued(tmp_path, authority, name, is_authority=True)
        pair = issued(tmp_path, between, "jane", chain=between.cert.read_bytes())
        found = await whoami(api, clients.ca, pair)
        assert (found["username"] if isinstance(found, dict) else found) == expected
    between = issued(tmp_path, proxies, "below", is_authority=True)
    pair = issued(tmp_path, between, "front-proxy-client", chain=between.cert.read_bytes())
    assert (await whoami(api, clients.ca, pair, x_remote_user="tom"))["username"] == "tom"
    assert await whoami(api, clients.ca, pair) == 401, "a proxy that names nobody is nobody"


def visited(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
    """The first line of an answer, and the session to resume in the next visit."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.sendall(b"GET /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline(), connection.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_would_resume_its_session_is_verified_anew(
    fronted: tuple[Any, Authority, Authority], version: ssl.TLSVersion
) -> None:
    api, clients, _ = fronted
    pair = clients.issue(Identity(file="tom", common_name="tom", organizations=("system:masters",)))
    context = ssl.create_default_context(cafile=str(clients.ca))
    context.load_cert_chain(pair.cert, pair.key)
    context.maximum_version = version
    line, session = await asyncio.to_thread(visited, api.server.port, context, None)
    assert line == b"HTTP/1.1 200 OK\r\n"
    line, _ = await asyncio.to_thread(visited, api.server.port, context, session)
    assert line == b"HTTP/1.1 200 OK\r\n"
