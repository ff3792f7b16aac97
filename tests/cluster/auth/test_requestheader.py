"""Who asks, as front proxies say it."""

from __future__ import annotations

import orjson
import pytest

from steersman.cluster.auth.requestheader import headers_of, identity_of, trust, without_claims


@pytest.mark.parametrize(
    ("name", "groups", "uid", "extra"),
    [
        ("jane", ("devs", "system:authenticated"), "", {}),
        ("jane", ("a, system:masters", "system:authenticated"), "u-1", {}),
        ("zoë 株", ("système", "system:authenticated"), "", {}),
        ("jane", ("system:authenticated",), "", {"example.com/scopes": ("read", "write"), "per cent %": ("x",)}),
        ("system:anonymous", ("system:unauthenticated",), "", {}),
    ],
    ids=["plain", "a comma in a group", "other letters", "extra", "anonymous"],
)
def test_what_is_written_into_headers_is_read_out_of_them(name, groups, uid, extra) -> None:
    found = identity_of(headers_of(name, groups, uid, extra))
    assert found is not None
    assert (found.name, found.groups, found.uid, dict(found.extra)) == (name, groups, uid, extra)


def test_of_a_name_that_comes_twice_the_first_counts_and_keys_are_decoded_where_they_are_encoded() -> None:
    headers = {"x-remote-user": "jane\nroot", "x-remote-uid": "1\n2", "x-remote-group": "a\n\nb"}
    found = identity_of({**headers, "x-remote-extra-foo%41%2fb": "x\ny", "x-remote-extra-a%zz%20": "z"})
    assert found is not None and (found.name, found.uid) == ("jane", "1")
    assert found.groups == ("a", "b", "system:authenticated")
    assert dict(found.extra) == {"fooA/b": ("x", "y"), "a%zz%20": ("z",)}


def test_who_is_authenticated_is_in_the_group_of_those_and_without_a_name_there_is_nobody() -> None:
    found = identity_of({"x-remote-user": "jane"})
    assert found is not None and found.groups == ("system:authenticated",)
    assert identity_of({"x-remote-group": "system:masters"}) is None


@pytest.mark.parametrize("name", ["jane\r\nX-Remote-Group: system:masters", "jane\n", "\x00"])
def test_a_name_that_would_end_its_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="invalid header field value"):
        headers_of(name, ())
    with pytest.raises(ValueError, match="invalid header field value"):
        headers_of("jane", (name,))


def test_what_a_client_says_of_itself_does_not_go_through() -> None:
    sent = {"authorization": "Bearer x", "x-remote-user": "root", "x-remote-extra-a": "b", "impersonate-user": "root"}
    assert without_claims({**sent, "accept": "*/*"}) == {"accept": "*/*"}


@pytest.mark.parametrize(
    ("offered", "passed"),
    [
        ("base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io", "v5.channel.k8s.io"),
        ("a,base64url.bearer.authorization.k8s.io.c2VjcmV0 ,b", "a,b"),
        ("a, b", "a, b"),
        ("base64url.bearer.authorization.k8s.io.", ""),
    ],
)
def test_the_token_of_a_websocket_goes_to_nobody_behind(offered: str, passed: str) -> None:
    assert without_claims({"sec-websocket-protocol": offered}) == {"sec-websocket-protocol": passed}


def test_extension_servers_are_told_both_authorities_and_the_headers() -> None:
    one, two = (f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("AA", "BB"))
    data = trust(one, two, ["front-proxy-client"], {})
    assert (data["client-ca-file"], data["requestheader-client-ca-file"]) == (one, two)
    lists = {key.removeprefix("requestheader-"): orjson.loads(value) for key, value in data.items() if "[" in value}
    assert lists == {
        "allowed-names": ["front-proxy-client"], "username-headers": ["X-Remote-User"], "uid-headers": ["X-Remote-Uid"],
        "group-headers": ["X-Remote-Group"], "extra-headers-prefix": ["X-Remote-Extra-"],
    }  # fmt: skip
    assert trust(one, two, ["front-proxy-client"], data) == data
    assert trust(two, "", (), data)["client-ca-file"] == one + two, "another server's authority is forgotten"
