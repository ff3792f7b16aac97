"""Tokens end to end: kept in Secrets, signed by former keys, of other issuers, reviewed by a webhook."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.cluster.auth import jwt
from steersman.cluster.auth.tokens import TokenIssuer

SECRETS = "/api/v1/namespaces/default/secrets"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"


def pem(key: Any = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def whoami(api: Any, token: str) -> Any:
    found = await api.ok("POST", WHOAMI, {}, user=None, authorization=f"Bearer {token}")
    return found["status"]["userInfo"]


async def until(test: Callable[[], Any]) -> Any:
    async with asyncio.timeout(10):
        while not (found := await test()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def filled(api: Any, name: str) -> str:
    """The token in a Secret, once it is there."""

    async def token() -> str:
        data = (await api.ok("GET", f"{SECRETS}/{name}")).get("data") or {}
        return base64.b64decode(data.get("token", "")).decode()

    return str(await until(token))


async def test_a_secret_for_a_service_account_is_filled_and_good_until_it_is_deleted(api: Any) -> None:
    annotations = {"kubernetes.io/service-account.name": "default"}
    body = {"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    await api.ok("POST", SECRETS, body)
    token = await filled(api, "t")
    found = await api.ok("GET", f"{SECRETS}/t")
    account = await api.ok("GET", f"{ACCOUNTS}/default")
    assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    assert base64.b64decode(found["data"]["namespace"]) == b"default"
    user = await whoami(api, token)
    assert user["username"] == "system:serviceaccount:default:default" and user["uid"] == account["metadata"]["uid"]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking"
    assert (await api.ok("GET", tracking))["data"] == {"since": today}

    async def marked() -> bool:
        labels = (await api.ok("GET", f"{SECRETS}/t"))["metadata"].get("labels") or {}
        return bool(labels == {"kubernetes.io/legacy-token-last-used": today})

    await until(marked)
    media = "application/merge-patch+json"
    for value, status in (("2026-01-01", False), (None, True)):
        labels = {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}}
        await api.ok("PATCH", f"{SECRETS}/t", labels, content_type=media)
        await api.server.cache.fresh()
        review = await api.ok("POST", REVIEW, {"spec": {"token": token}})
        assert review["status"].get("authenticated", False) is status
        assert (
            status or "default/t for service account default/default has been marked inv" in review["status"]["error"]
        )
    await api.ok("DELETE", f"{SECRETS}/t")
    await api.server.cache.fresh()
    await api.refused(401, "POST", WHOAMI, {}, user=None, authorization=f"Bearer {token}")


async def test_a_secret_without_its_account_is_removed(api: Any) -> None:
    await api.ok("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    annotations = {"kubernetes.io/service-account.name": "robot"}
    body = {"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    await api.ok("POST", SECRETS, body)
    await filled(api, "t")
    await api.ok("DELETE", f"{ACCOUNTS}/robot")

    async def gone() -> bool:
        return bool((await api.call("GET", f"{SECRETS}/t")).status == 404)

    await until(gone)


async def test_a_changed_key_signs_and_the_former_one_still_verifies(make_api: Any, make_store: Any) -> None:
    store, old, new = make_store(time.time), pem(), pem()
    await store.start()
    first = await make_api(store, service_account_key=old)
    await first.ok("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    token = (await first.ok("POST", f"{ACCOUNTS}/robot/token", {"spec": {}}))["status"]["token"]
    await first.server.stop()
    second = await make_api(store, service_account_key=new, former_service_account_keys=(old,))
    assert (await whoami(second, token))["username"] == "system:serviceaccount:default:robot"
    assert len((await second.ok("GET", "/openid/v1/jwks"))["keys"]) == 2
    await second.server.stop()
    third = await make_api(store, service_account_key=new)
    await third.refused(401, "POST", WHOAMI, {}, user=None, authorization=f"Bearer {token}")
    await third.server.stop()
    await store.stop()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (599, "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"),
        (2**32 + 1, "may not specify a duration larger than 2^32 seconds"),
    ],
)
async def test_a_token_lives_neither_too_short_nor_too_long(api: Any, seconds: int, text: str) -> None:
    refused = await api.refused(422, "POST", f"{ACCOUNTS}/default/token", {"spec": {"expirationSeconds": seconds}})
    assert text in refused["message"]


async def test_a_review_names_the_audiences_that_the_token_and_the_question_share(api: Any) -> None:
    spec = {"audiences": ["vault", "api"]}
    token = (await api.ok("POST", f"{ACCOUNTS}/default/token", {"spec": spec}))["status"]["token"]
    found = await api.ok("POST", REVIEW, {"spec": {"token": token, "audiences": ["other", "vault"]}})
    assert found["status"]["authenticated"] and found["status"]["audiences"] == ["vault"]
    await api.refused(400, "POST", REVIEW, {"spec": {"token": ""}})


async def test_a_token_of_another_issuer_is_somebody_by_its_claims(
    make_api: Any, make_store: Any, other: Any, tmp_path: Path
) -> None:
    text = json.dumps(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [
                {
                    "issuer": {"url": other.url, "audiences": ["web"], "certificateAuthority": other.ca},
                    "claimMappings": {
                        "username": {"claim": "sub", "prefix": "id:"},
                        "groups": {"expression": "claims.roles.map(r, 'id:' + r)"},
                    },
                }
            ],
        }
    )
    key = jwt.SigningKey(pem())
    claims = {"iss": other.url, "aud": "web", "exp": time.time() + 60, "sub": "jane", "roles": ["dev"]}
    store = make_store(time.time)
    await store.start()
    config = tmp_path / "authentication.yaml"
    config.write_text(text)
    api = await make_api(store, authentication=config)
    api.server._renewal.cancel()
    await api.refused(401, "POST", WHOAMI, {}, user=None, authorization=f"Bearer {key.sign(claims)}")
    other.answers["/.well-known/openid-configuration"] = {"issuer": other.url, "jwks_uri": f"{other.url}/keys"}
    other.answers["/keys"] = {"keys": [key.public.to_jwk()]}
    api.server._others._keys.clear()
    for _ in range(3):
        user = await whoami(api, key.sign(claims))
        assert (user["username"], user["groups"]) == ("id:jane", ["id:dev", "system:authenticated"])
    assert [target for target, _ in other.asked].count("/keys") == 1
    changed = jwt.SigningKey(pem())
    other.answers["/keys"] = {"keys": [changed.public.to_jwk()]}
    header = {"authorization": f"Bearer {changed.sign(claims)}"}
    await api.refused(401, "POST", WHOAMI, {}, user=None, **header)
    api.server._others._keys[other.url] = (0.0, api.server._others._keys[other.url][1])
    assert (await whoami(api, changed.sign(claims)))["username"] == "id:jane", "an unknown key is looked for"
    late = {"authorization": f"Bearer {changed.sign({**claims, 'exp': time.time() - 1})}"}
    await api.refused(401, "POST", WHOAMI, {}, user=None, **late)
    config.write_text("kind: Nothing")
    api.server._authentication.reload()
    await whoami(api, changed.sign(claims))
    config.write_text(text.replace(other.url, "https://somebody.else"))
    api.server._authentication.reload()
    await api.refused(401, "POST", WHOAMI, {}, user=None, authorization=f"Bearer {changed.sign(claims)}")
    await api.server.stop()
    await store.stop()


async def test_a_webhook_says_whose_an_unknown_token_is_and_is_asked_once(
    make_api: Any, make_store: Any, other: Any, tmp_path: Path
) -> None:
    config = tmp_path / "hook"
    config.write_text(other.kubeconfig("/review"))
    user = {"username": "bob", "uid": "7", "groups": ["ops"], "extra": {"k": ["v"]}}
    other.answers["/review"] = {"status": {"authenticated": True, "user": user}}
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, token_webhook=config)
    for _ in range(3):
        assert (await whoami(api, "opaque"))["username"] == "bob"
    assert len(other.asked) == 1 and other.asked[0][1]["spec"]["token"] == "opaque"
    review = await api.ok("POST", REVIEW, {"spec": {"token": "opaque"}})
    assert review["status"]["user"]["groups"] == ["ops", "system:authenticated"]
    other.answers["/review"]["status"]["audiences"] = ["vault"]
    review = await api.ok("POST", REVIEW, {"spec": {"token": "opaque", "audiences": ["vault", "x"]}})
    assert review["status"]["authenticated"] and review["status"]["audiences"] == ["vault"]
    assert other.asked[-1][1]["spec"]["audiences"] == ["vault", "x"], "what was said of other audiences says nothing"
    other.answers["/review"] = {"status": {"authenticated": False}}
    await api.refused(401, "POST", WHOAMI, {}, user=None, authorization="Bearer unknown")
    for nonsense in ({"user": "x"}, {"user": {"username": "x", "extra": {"k": 1}}}, {"user": user, "audiences": 1}):
        other.answers["/review"] = {"status": {"authenticated": True, **nonsense}}
        await api.refused(401, "POST", WHOAMI, {}, user=None, authorization="Bearer odd")
    await api.server.stop()
    await store.stop()


def test_a_token_of_a_secret_is_signed_alike_each_time() -> None:
    issuer = TokenIssuer(pem(), issuer="i", audience="a")
    assert issuer.sign({"iss": "kubernetes/serviceaccount"}) == issuer.sign({"iss": "kubernetes/serviceaccount"})


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"authorization": "Bearer {token}"}, 201),
        ({"authorization": "bearer {token} and more"}, 201),
        ({"authorization": "Bearer  {token}"}, 401),  # no credential at all, as Go splits it
        ({"authorization": "Token {token}"}, 401),
        ({"sec-websocket-protocol": "{socket}, v4.channel.k8s.io", "upgrade": "websocket"}, 201),
        ({"sec-websocket-protocol": "{socket}", "upgrade": "websocket"}, 401),
        ({"sec-websocket-protocol": "{socket}, {socket}, v4.channel.k8s.io", "upgrade": "websocket"}, 401),
        ({"sec-websocket-protocol": "{socket}, v4.channel.k8s.io"}, 401),  # not a WebSocket
    ],
)
async def test_a_token_is_read_where_kubernetes_reads_it(api: Any, headers: dict[str, str], code: int) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    token = (await api.ok("POST", f"{account}/token", {"spec": {}}))["status"]["token"]
    socket = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    sent = {name: value.format(token=token, socket=socket) for name, value in headers.items()}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, user=None, **sent)
    assert answer.status == code
    if "  " in sent.get("authorization", ""):
        assert "extra space before the bearer token" in answer.headers["warning"]


async def test_a_token_request_is_refused_in_kubernetes_words(api: Any) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "gone"}}
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod)
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "other"}})
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p"}
    rows: list[tuple[Any, int, str]] = [
        ({"spec": {"expirationSeconds": 0}}, 422,
         'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 0: '
         "may not specify a duration less than 10 minutes"),
        ({"metadata": {"name": "x"}, "spec": {}}, 422,
         'TokenRequest.authentication.k8s.io "default" is invalid: metadata.name: Invalid value: "x": '
         "must match the service account name if specified"),
        ({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}, 400,
         "cannot bind token to object of type apps/v1, Kind=Deployment"),
        ({"spec": {"boundObjectRef": {**bound, "uid": "u9"}}}, 409,
         'Operation cannot be fulfilled on Pod "p": the UID in the bound object reference (u9) does not match the UID '
         "in record. The object might have been deleted and then recreated"),
    ]  # fmt: skip
    for body, code, message in rows:
        assert (await api.refused(code, "POST", path, body))["message"] == message
    other = path.replace("/default/token", "/other/token")
    found = await api.refused(400, "POST", other, {"spec": {"boundObjectRef": bound}})
    assert found["message"] == (
        'cannot bind token for serviceaccount "other" to pod running with different serviceaccount name.'
    )
    token = (await api.ok("POST", path, {"spec": {"boundObjectRef": bound}}))["status"]["token"]
    review = {"spec": {"token": token}}
    status = (await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert status["user"]["extra"]["authentication.kubernetes.io/node-name"] == ["gone"]
    assert "authentication.kubernetes.io/node-uid" not in status["user"]["extra"]


async def test_a_token_that_nobody_uses_is_given_up_after_a_year_and_goes_after_another(
    make_api: Any, make_store: Any
) -> None:
    now, secrets = [time.time()], "/api/v1/namespaces/default/secrets"
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, lambda: now[0])
    annotations = {"kubernetes.io/service-account.name": "robot"}
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.ok("POST", accounts, {"metadata": {"name": "robot"}, "secrets": [{"name": "old"}]})
    for name in ("old", "manual"):
        body = {"metadata": {"name": name, "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
        await api.ok("POST", secrets, body)

    async def holds(test: Any) -> Any:
        async with asyncio.timeout(10):
            while True:
                if test(found := await api.ok("GET", f"{secrets}/old")):
                    return found
                await asyncio.sleep(0.01)

    token = base64.b64decode((await holds(lambda row: row.get("data")))["data"]["token"]).decode()
    cleaner = api.server._legacy_tokens
    now[0] += 400 * 86_400
    await cleaner.clean_up()
    await holds(lambda row: "kubernetes.io/legacy-token-invalid-since" in (row["metadata"].get("labels") or {}))
    review = {"spec": {"token": token}}
    status = (await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert "for service account default/robot has been marked invalid" in status["error"]
    await holds(lambda row: "kubernetes.io/legacy-token-last-used" in row["metadata"]["labels"])
    now[0] += 400 * 86_400
    await cleaner.clean_up()
    assert {row["metadata"]["name"] for row in (await api.ok("GET", secrets))["items"]} == {"manual"}
    await api.server.stop()
    await store.stop()
