"""Requests that are no requests, or more than one: framing, smuggling, paths, hosts, identities in headers."""

from __future__ import annotations

import asyncio

from tests.abuse.conftest import MAPS, Abuse
from tests.abuse.victim import MIB, Victim
from tests.abuse.wire import Wire, wires

VERSION = b"GET /version HTTP/1.1\r\nhost: x\r\n"
POST = f"POST {MAPS} HTTP/1.1\r\nhost: x\r\n".encode()
#: what a smuggled request would do
HIDDEN = f"DELETE {MAPS}/precious HTTP/1.1\r\nhost: x\r\n\r\n".encode()

#: id: (bytes, status)
REFUSED: dict[str, tuple[bytes, int]] = {
    "length and chunks": (POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunks and length": (POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunked twice": (POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "an unknown coding": (POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunked is not last": (POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunked after a tab": (POST + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "two lengths": (POST + b"content-length: 0\r\ncontent-length: 60\r\n\r\n" + HIDDEN, 400),
    "two lengths in one": (POST + b"content-length: 0, 60\r\n\r\n" + HIDDEN, 400),
    "a negative length": (POST + b"content-length: -1\r\n\r\n" + HIDDEN, 400),
    "a signed length": (POST + b"content-length: +4\r\n\r\n" + HIDDEN, 400),
    "a length in hex": (POST + b"content-length: 0x4\r\n\r\n" + HIDDEN, 400),
    "a length without end": (POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "a length of digits that are none": (POST + b"content-length: \xb2\r\n\r\n", 400),
    "too long": (POST + b"content-length: 3145729\r\n\r\n", 413),
    "a chunk without end": (POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
    "a negative chunk": (POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + HIDDEN, 400),
    "a chunk that ends elsewhere": (POST + b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + HIDDEN, 400),
    "a space before the colon": (VERSION + b"content-length : 60\r\n\r\n" + HIDDEN, 400),
    "a name with a control character": (VERSION + b"x\x01y: 1\r\n\r\n", 400),
    "a name with a line feed": (VERSION + b"x\n y: 1\r\n\r\n", 400),
    "a value with a bare return": (VERSION + b"x: a\rb: c\r\n\r\n", 400),
    "a value with a zero": (VERSION + b"x: a\0b\r\n\r\n", 400),
    "no colon": (VERSION + b"nonsense\r\n\r\n", 400),
    "no host": (b"GET /version HTTP/1.1\r\n\r\n", 400),
    "two hosts": (VERSION + b"host: y\r\n\r\n", 400),
    "a host with a path": (b"GET /version HTTP/1.1\r\nhost: x/../y\r\n\r\n", 400),
    "a host with a space": (b"GET /version HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
    "a space in the path": (b"GET /version /api HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a control character in the path": (b"GET /\x1b[31m HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "wide characters": (b"GET /ap\xef\xbd\x89/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a percent sign that encodes nothing": (b"GET /version%zz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a percent sign at the end": (b"GET /version%2?a=%41 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "no version": (b"GET /version\r\n\r\n", 400),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a version that is none": (b"GET /version HTTP/1.9\r\nhost: x\r\n\r\n", 400),
    "an unknown method": (b"BREW /version HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "expects too much": (POST + b"expect: 200-maybe\r\ncontent-length: 2\r\n\r\n{}", 417),
    "one long header": (VERSION + b"x: " + b"y" * (MIB + 20_000) + b"\r\n\r\n", 431),
    "many small headers": (VERSION + b"a:\r\n" * (MIB // 4 + 8192) + b"\r\n", 431),
    "a header that comes again and again": (VERSION + b"x: yyyy\r\n" * 180_000 + b"\r\n", 431),
    "a path without end": (b"GET /" + b"a" * (MIB + 20_000) + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
}  # fmt: skip


async def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    victim: Victim, abuse: Abuse
) -> None:
    async def answered(name: str, sent: bytes, status: int) -> str:
        async with wires(victim.port, victim.tls("mallory")) as (wire,):
            sending = asyncio.create_task(wire.send(sent))
            try:
                code, headers, _ = await wire.answer()
                fits = (code, headers.get("connection")) == (status, "close") and await wire.is_cut()
                return "" if fits else f"{name}: {code} {headers}"
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                return f"{name}: {error!r}"
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async with abuse(growth_mib=80), wires(victim.port, victim.tls("admin")) as (admin,):
        assert (await admin.call("POST", MAPS, {"metadata": {"name": "precious"}}))[0] == 201
        wrong = await asyncio.gather(*(answered(name, *row) for name, row in REFUSED.items()))
        assert not any(wrong), "\n".join(filter(None, wrong))
        assert (await admin.call("DELETE", f"{MAPS}/precious"))[0] == 200


#: id: (request, user, status): mallory may do everything, nobody nothing
ANSWERED: dict[str, tuple[bytes, str, int]] = {
    "HTTP/1.0": (b"GET /version HTTP/1.0\r\n\r\n", "mallory", 200),
    "absolute": (b"GET http://elsewhere/version HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 200),
    "absolute without path": (b"GET https://elsewhere HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 200),
    "absolute, of somebody without rights": (
        b"GET http://x/api/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "authority": (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "trace": (b"TRACE /version HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 405),
    "h2c": (VERSION + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
            "mallory", 200),
    "dots": (b"GET /healthz/../api/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "encoded dots": (b"GET /healthz/%2e%2e/api/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "encoded slashes": (b"GET /healthz%2f..%2fapi/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "double slashes": (b"GET //api//v1//secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "a semicolon": (b"GET /version;/../api/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "a backslash": (b"GET /version\\..\\api HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "an encoded zero": (b"GET /api/v1/namespaces/default/configmaps/a%00b HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 404),
    "dots for a name": (f"GET {MAPS}/.. HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 400),
    "encoded dots for a name": (f"DELETE {MAPS}/%2e%2e HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 400),
    "a percent sign in a name": (f"GET {MAPS}/a%25b HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 400),
    "a slash in a name": (f"GET {MAPS}%2fa/ HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 404),
    "a segment too many": (b"GET /api/v1/nodes/n1/status/x HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 404),
    "an empty segment": (f"GET {MAPS}//a HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 404),
    "an empty namespace": (b"GET /api/v1/namespaces//configmaps HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 200),
    "two slashes at the front": (b"GET //version HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 404),
    "a slash after what takes none": (b"GET /metrics/ HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 404),
    "a slash after health": (b"GET /healthz/ HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 404),
    "a slash after the version": (b"GET /version/ HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 200),
    "slashes at the end": (f"GET {MAPS}// HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 200),
    "a semicolon in the query": (f"GET {MAPS}?limit=1;x HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 200),
    "a stray percent sign in the query": (
        f"GET {MAPS}?limit=%zz HTTP/1.1\r\nhost: x\r\n\r\n".encode(), "mallory", 200),
    "an encoded question mark": (b"GET /version%3f HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "capitals": (b"GET /API/V1/secrets HTTP/1.1\r\nhost: x\r\n\r\n", "nobody", 403),
    "a front proxy's user": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nx-remote-user: admin\r\nx-remote-group: system:masters\r\n\r\n",
        "nobody", 403),
    "underscores for hyphens": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nimpersonate_user: admin\r\nX_Remote_User: admin\r\n\r\n",
        "nobody", 403),
    "impersonation in capitals": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nIMPERSONATE-USER: admin\r\nImpersonate-GROUP: devs\r\n\r\n",
        "nobody", 403),
    "impersonation twice": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nimpersonate-user: nobody\r\nimpersonate-user: admin\r\n\r\n",
        "nobody", 403),
    "impersonation of groups alone": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nimpersonate-group: system:masters\r\n\r\n", "nobody", 400),
    "impersonation of a uid alone": (
        b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nimpersonate-uid: 1\r\n\r\n", "nobody", 400),
    "two tokens": (
        b"GET /api HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n", "", 401),
    "a trailer with a name": (
        POST + b"transfer-encoding: chunked\r\ntrailer: impersonate-user\r\n\r\n2\r\n{}\r\n0\r\n"
        b"impersonate-user: admin\r\n\r\n", "nobody", 403),
    "a token whose issuer is no text": (
        b"GET /api HTTP/1.1\r\nhost: x\r\nauthorization: Bearer e30.eyJpc3MiOltdfQ.eHg\r\n\r\n", "", 401),
    "an encoded letter": (b"GET /health%7a HTTP/1.1\r\nhost: x\r\n\r\n", "", 200),
    "a trailer with a token": (
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nauthorization: Bearer x\r\n\r\n", "", 401),
    "a trailer that impersonates": (
        POST + b"content-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: impersonate-user\r\n\r\n"
        b"2\r\n{}\r\n0\r\nimpersonate-user: nobody\r\ncontent-type: text/plain\r\n\r\n", "mallory", 422),
    "chunks with extensions": (
        POST + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2;a=b;c\r\n{}\r\n0\r\n\r\n",
        "mallory", 422),
    "a body in gzip": (
        POST + b"content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\0",
        "mallory", 400),
    "10,000 parameters": (b"GET /version?" + b"a=%20&" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", "mallory", 200),
    "a language without end": (VERSION + b"accept-language: " + b"a," * 200_000 + b"\r\n\r\n", "mallory", 200),
}  # fmt: skip


async def test_odd_requests_mean_one_thing_and_give_nobody_rights(victim: Victim, abuse: Abuse) -> None:
    wrong = []
    async with abuse(growth_mib=60):
        for name, (sent, user, status) in ANSWERED.items():
            async with wires(victim.port, victim.tls(user)) as (wire,):
                await wire.send(sent)
                try:
                    code, headers, body = await wire.answer()
                    if code != status:
                        wrong.append(f"{name}: {code} {body[:300]!r}")
                    if headers.get("connection") != "close":
                        await _goes_on(wire, name, wrong)
                except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
                    wrong.append(f"{name}: {error!r}")
    assert not wrong, "\n".join(wrong)


async def _goes_on(wire: Wire, name: str, wrong: list[str]) -> None:
    code, _, body = await wire.call("GET", "/version")
    if code != 200 or body["compiler"] != "CPython":
        wrong.append(f"{name}: the connection goes on with {code} {body}")


async def test_what_a_client_says_of_itself_cannot_write_into_answers_or_logs(victim: Victim, abuse: Abuse) -> None:
    async with abuse(growth_mib=30), wires(victim.port, victim.tls("mallory")) as (wire,):
        body = {"metadata": {"name": "odd"}, "a\r\nset-cookie: x=1": 1, "b\x1b[31m": 2}
        status, headers, _ = await wire.call("POST", f"{MAPS}?dryRun=All", body)
        assert status == 201 and "set-cookie" not in headers and "warning" not in headers
        status, headers, _ = await wire.call("GET", f"{MAPS}/a%0d%0aset-cookie:%20x%0a", user_agent="\x1b[31mme")
        assert status in (400, 404) and "set-cookie" not in headers
    assert "\x1b" not in victim.said()
