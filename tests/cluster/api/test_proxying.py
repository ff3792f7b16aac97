"""What the `proxy` subresource means, and links through it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steersman.cluster.api import proxying
from steersman.cluster.api.htmllinks import TAG_BYTES_MAX, LinkRewriter
from steersman.cluster.api.proxying import Links, Name, read_name
from steersman.cluster.meta.errors import ApiError, BadRequest

LINKS = Links("/api/v1/namespaces/n/pods/p:80/proxy", "10.1.0.1:80", "api:6443")
THROUGH = "/api/v1/namespaces/n/pods/p:80/proxy"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("p", Name("", "p", "")),
        ("p:80", Name("", "p", "80")),
        ("https:p:web", Name("https", "p", "web")),
        (":p:80", Name("", "p", "80")),
        ("ftp:p:80", None),
        ("http::80", None),
        ("a:b:c:d", None),
    ],
)
def test_a_name_may_have_a_port_and_a_scheme(text: str, found: Name | None) -> None:
    if found is not None:
        assert read_name(text, "pod") == found
        return
    with pytest.raises(BadRequest, match=f'invalid pod request "{text}"'):
        read_name(text, "pod")


@pytest.mark.parametrize(
    ("path", "prefix", "rest"),
    [
        (f"{THROUGH}", THROUGH, ""),
        (f"{THROUGH}/", THROUGH, "/"),
        (f"{THROUGH}//a/../%2F%20b/", THROUGH, "//a/../%2F%20b/"),
        ("/api/v1/nodes/n:1/proxy/x", "/api/v1/nodes/n:1/proxy", "/x"),
        ("//api/v1//nodes/n/proxy", "//api/v1//nodes/n/proxy", ""),
    ],
)
def test_the_path_behind_a_proxy_is_kept_byte_by_byte(path: str, prefix: str, rest: str) -> None:
    assert proxying.path_after(path) == (prefix, rest)
    assert proxying.is_proxied(path)


def test_other_paths_lead_through_no_proxy() -> None:
    for path in ("/api/v1/nodes/proxy", "/api/v1/namespaces/n/secrets/s/proxy", "/apis/a/v1/nodes/n/proxy", "/proxy"):
        assert not proxying.is_proxied(path)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.0.1", True), ("fd00::1", True), ("127.0.0.1", False), ("::1", False), ("169.254.169.254", False),
        ("fe80::1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("", False),
        ("localhost", False), ("::ffff:10.1.0.1", True), ("::ffff:127.0.0.1", False), ("::ffff:169.254.169.254", False),
        ("::ffff:7f00:1", False), ("::ffff:0.0.0.0", False), ("::ffff:255.255.255.255", False), ("fe80::1%eth0", False),
    ],
)  # fmt: skip
def test_nobody_is_led_to_this_machine_or_its_link(address: str, allowed: bool) -> None:
    assert proxying.is_proxyable(address) is allowed
    assert proxying.is_proxyable("127.64.0.1", on_loopback=True)


def service(*ports: Any) -> Any:
    return {"metadata": {"namespace": "n"}, "spec": {"ports": list(ports)}}


def endpoints(name: str = "", port: int = 8080, **target: str) -> Any:
    reference = {"kind": "Pod", "name": "p", "namespace": "n", **target}
    address = {"ip": "10.1.0.1", "targetRef": reference}
    return {"subsets": [{"addresses": [address, {"ip": "10.1.0.2"}], "ports": [{"name": name, "port": port}]}]}


@pytest.mark.parametrize(
    ("asked", "ports", "ends", "found"),
    [
        ("s", [{"port": 80}], endpoints(), [("p", "10.1.0.1", 8080)]),
        ("s:80", [{"port": 80, "name": "web"}], endpoints("web"), [("p", "10.1.0.1", 8080)]),
        ("s:web", [{"port": 80, "name": "web"}], endpoints("web"), [("p", "10.1.0.1", 8080)]),
        ("s", [{"port": 80, "name": "web"}], endpoints("web"), 'no endpoints available for service "s"'),
        ("s:8080", [{"port": 80}], endpoints(), 'no service port 8080 found for service "s"'),
        ("s:80", [{"port": 80}], None, 'no endpoints available for service "s"'),
        ("s:80", [{"port": 80}], endpoints(namespace="other"), 'no endpoints available for service "s:80"'),
    ],
)  # fmt: skip
def test_only_pods_of_the_namespace_answer_for_a_service(asked: str, ports: Any, ends: Any, found: Any) -> None:
    if isinstance(found, list):
        assert proxying.endpoints_of(service(*ports), asked, read_name(asked, "service"), ends) == found
        return
    with pytest.raises(ApiError) as refusal:
        proxying.endpoints_of(service(*ports), asked, read_name(asked, "service"), ends)
    assert (refusal.value.code, refusal.value.message) == (503, found)


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("/a/b?c=d#e", f"{THROUGH}/a/b?c=d#e"),
        ("/a/", f"{THROUGH}/a/"),
        ("/", f"{THROUGH}/"),
        ("a/b", "a/b"),
        ("http://10.1.0.1:80/a", f"{THROUGH}/a"),
        ("https://api:6443/a", f"https://api:6443{THROUGH}/a"),
        ("http://example.com/a", "http://example.com/a"),
        (f"{THROUGH}/a", f"{THROUGH}/a"),
        ("mailto:a@b", "mailto:a@b"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_links_to_the_server_behind_lead_through_the_proxy(link: str, found: str) -> None:
    assert LINKS.rewrite(link) == found


PAGE = b"""<!DOCTYPE html><HTML><head><link rel=x href=/style.css><script src="/a.js">if (a<b) '<a href="/no">'</script>
<!-- <a href="/comment"> --></head><body background='/b.png'><p title="/no">1 < 2</p>
<a class=x href="/one?a=1&amp;b=2">one</a><A HREF = '/two'>two</A><img alt="a > b" src="pic.png"><a href="//x/y">x</a>
<form action="/go" method=post><a name>\xff</a></body></HTML>"""
REWRITTEN = (
    PAGE.replace(b"href=/style.css", b'href="%b/style.css"')
    .replace(b'src="/a.js"', b'src="%b/a.js"')
    .replace(b"background='/b.png'", b'background="%b/b.png"')
    .replace(b'"/one?', b'"%b/one?')
    .replace(b"HREF = '/two'", b'HREF = "%b/two"')
    .replace(b'"/go"', b'"%b/go"')
    .replace(b"%b", THROUGH.encode())
)


def test_a_page_is_rewritten_alike_in_whatever_pieces_it_comes() -> None:
    rng = random.Random(3)
    for size in (1, 2, 3, 7, 50, 10_000):
        page, found, at = LinkRewriter(LINKS.rewrite), b"", 0
        while at < len(PAGE):
            step = rng.randint(1, size)
            found += page.feed(PAGE[at : at + step])
            at += step
        assert found + page.end() == REWRITTEN


def test_a_tag_without_end_is_not_held_for_ever() -> None:
    page = LinkRewriter(LINKS.rewrite)
    text = b'<a href="/x' + b"y" * TAG_BYTES_MAX
    assert page.feed(text) == text


def test_headers_of_one_connection_stay_behind_and_the_way_is_told() -> None:
    sent = {
        "connection": "close, X-Mine",
        "x-mine": "1",
        "expect": "100-continue",
        "content-length": "3",
        "accept": "*/*",
    }
    found = proxying.forwarded({**sent, "x-forwarded-for": "1.1.1.1"}, "2.2.2.2", "/a", frozenset({"connection"}))
    assert found == {"accept": "*/*", "x-forwarded-uri": "/a", "x-forwarded-for": "1.1.1.1, 2.2.2.2"}
