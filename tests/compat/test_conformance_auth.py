"""What the conformance suite asks of service accounts, certificate requests and events.

Source: kubernetes/test/e2e/auth/{service_accounts,certificates}.go and
kubernetes/test/e2e/instrumentation/{core_events,events}.go
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steersman.actors.http.messages import Request
from steersman.actors.ports import User

STRATEGIC = "application/strategic-merge-patch+json"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def csr(signer: str, name: str = "e2e-example-csr") -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    usages = ["digital signature", "key encipherment", "server auth"]
    spec = {"request": pem, "signerName": signer, "expirationSeconds": 3600, "usages": usages}
    return {"metadata": {"generateName": "e2e-example-csr-", "labels": {"e2e": "ops"}}, "spec": spec}


def self_signed() -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def test_a_certificate_request_lives_through_its_operations(house: Any) -> None:
    signer = "example.com/e2e-ops"
    group = house.ok("GET", "/apis/certificates.k8s.io")
    assert "certificates.k8s.io/v1" in [row["groupVersion"] for row in group["versions"]]
    listed = {row["name"]: row for row in house.ok("GET", "/apis/certificates.k8s.io/v1")["resources"]}
    for sub in ("", "/approval", "/status"):
        assert {"get", "patch", "update"} <= set(listed[f"certificatesigningrequests{sub}"]["verbs"])
    body = csr(signer)
    first, _, third = (house.ok("POST", CSRS, body) for _ in range(3))
    name = first["metadata"]["name"]
    one = f"{CSRS}/{name}"
    assert first["spec"]["username"] == "kubernetes-admin" and "system:masters" in first["spec"]["groups"]
    many = f"{CSRS}?fieldSelector=spec.signerName%3Dexample.com%2Fe2e-ops"
    assert len(house.ok("GET", many)["items"]) == 3
    watch = house.watch(f"{many}&watch=1&resourceVersion={third['metadata']['resourceVersion']}")
    assert house.ok("PATCH", one, {"metadata": {"annotations": {"patched": "true"}}})["metadata"]["annotations"]
    found = house.ok("GET", one)
    found["metadata"]["annotations"]["updated"] = "true"
    found = house.ok("PUT", one, found)
    watch.until("MODIFIED", lambda obj: obj["metadata"]["annotations"].get("updated") == "true")
    approved = {
        "type": "ApprovalPatch", "status": "True", "reason": "ApprovalReason", "message": "Set from an e2e test",
    }  # fmt: skip
    patched = house.ok("PATCH", f"{one}/approval", {
        "metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [approved]},
    })  # fmt: skip
    assert patched["status"]["conditions"][0].items() >= approved.items()
    assert patched["metadata"]["annotations"]["patchedapproval"] == "true"
    found = house.ok("GET", f"{one}/approval")
    found["status"]["conditions"].append({**approved, "type": "Approved"})
    found = house.ok("PUT", f"{one}/approval", found)
    assert [row["type"] for row in found["status"]["conditions"]] == ["ApprovalPatch", "Approved"]
    certificate = self_signed()
    patched = house.ok("PATCH", f"{one}/status", {
        "metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": certificate},
    })  # fmt: skip
    assert patched["status"]["certificate"] == certificate and patched["metadata"]["annotations"]["patchedstatus"]
    found = house.ok("GET", f"{one}/status")
    found["status"]["conditions"].append({**approved, "type": "StatusUpdate"})
    found = house.ok("PUT", f"{one}/status", found)
    assert [row["type"] for row in found["status"]["conditions"]][-1] == "StatusUpdate"
    house.ok("DELETE", one)
    house.refused(404, "GET", one)
    watch.until("DELETED")
    watch.close()
    house.ok("DELETE", many)
    assert house.ok("GET", many)["items"] == []


#: the pod says, the account says, a token is mounted
MOUNTS = [
    (None, None, True), (None, True, True), (None, False, False), (True, None, True), (True, True, True),
    (True, False, True), (False, None, False), (False, True, False), (False, False, False),
]  # fmt: skip


@pytest.mark.parametrize(("of_pod", "of_account", "mounted"), MOUNTS)
def test_a_token_is_mounted_unless_pod_or_account_opt_out(
    house: Any, space: str, of_pod: bool | None, of_account: bool | None, mounted: bool
) -> None:
    account = {"metadata": {"name": "mount"}}
    if of_account is not None:
        account["automountServiceAccountToken"] = of_account  # type: ignore[assignment]
    house.ok("POST", f"/api/v1/namespaces/{space}/serviceaccounts", account)
    container = {"name": "token-test", "image": "registry.k8s.io/pause:3.10.1"}
    spec: Any = {"containers": [container], "serviceAccountName": "mount"}
    if of_pod is not None:
        spec["automountServiceAccountToken"] = of_pod
    made = house.ok("POST", f"/api/v1/namespaces/{space}/pods", {"metadata": {"name": "p"}, "spec": spec})
    found = [row["mountPath"] for row in made["spec"]["containers"][0].get("volumeMounts") or ()]
    assert found == (["/var/run/secrets/kubernetes.io/serviceaccount"] if mounted else [])


def test_a_mounted_token_is_one_of_the_account_and_bound_to_the_pod(house: Any, space: str) -> None:
    pods = f"/api/v1/namespaces/{space}/pods"
    container = {"name": "test", "image": "registry.k8s.io/pause:3.10.1"}
    made = house.ok("POST", pods, {"metadata": {"name": "pod"}, "spec": {"containers": [container]}})
    (volume,) = made["spec"]["volumes"]
    assert volume["projected"]["defaultMode"] == 420
    assert [next(iter(row)) for row in volume["projected"]["sources"]] == [
        "serviceAccountToken", "configMap", "downwardAPI",
    ]  # fmt: skip
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": made["metadata"]["uid"]}
    token = house.ok("POST", f"/api/v1/namespaces/{space}/serviceaccounts/default/token", {
        "spec": {"boundObjectRef": bound, "expirationSeconds": 3600},
    })["status"]["token"]  # fmt: skip
    review = house.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    user = review["status"]["user"]
    assert user["username"] == f"system:serviceaccount:{space}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["pod"]
    assert set(user["groups"]) == {
        "system:serviceaccounts", f"system:serviceaccounts:{space}", "system:authenticated",
    }  # fmt: skip
    house.ok("DELETE", f"{pods}/pod?gracePeriodSeconds=0")
    house.gone(f"{pods}/pod")
    review = house.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert not review["status"].get("authenticated")


def test_every_namespace_has_the_root_certificate(house: Any, space: str) -> None:
    maps = f"/api/v1/namespaces/{space}/configmaps"
    one = f"{maps}/kube-root-ca.crt"
    found = house.until(one, lambda found: found is not None)
    data = found["data"]
    assert data["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    house.ok("DELETE", one)
    house.until(one, lambda found: found is not None and found["data"] == data)
    house.ok("PATCH", one, {"data": {"ca.crt": ""}})
    house.until(one, lambda found: found["data"] == data)


def test_the_lifecycle_of_a_service_account(house: Any, space: str) -> None:
    accounts = f"/api/v1/namespaces/{space}/serviceaccounts"
    watch = house.watch(f"{accounts}?watch=1&labelSelector=test%3D{space}")
    house.ok("POST", accounts, {"metadata": {"name": "testserviceaccount", "labels": {"test": space}}})
    watch.until("ADDED")
    patch = {"automountServiceAccountToken": False}
    house.ok("PATCH", f"{accounts}/testserviceaccount", patch, content_type=STRATEGIC)
    watch.until("MODIFIED")
    (found,) = house.ok("GET", f"/api/v1/serviceaccounts?labelSelector=test%3D{space}")["items"]
    assert found["automountServiceAccountToken"] is False
    found["automountServiceAccountToken"] = True
    assert house.ok("PUT", f"{accounts}/testserviceaccount", found)["automountServiceAccountToken"] is True
    house.ok("DELETE", f"{accounts}?labelSelector=test%3D{space}")
    watch.until("DELETED")
    watch.close()


def test_the_issuer_of_tokens_is_discovered_by_an_account(house: Any, space: str) -> None:
    user = User(f"system:serviceaccount:{space}:default", ("system:serviceaccounts", "system:authenticated"))
    found = house.ok("GET", "/.well-known/openid-configuration", user=user)
    assert found["issuer"] and found["jwks_uri"].endswith("/openid/v1/jwks")
    assert found["response_types_supported"] == ["id_token"] and found["subject_types_supported"] == ["public"]
    (key, *_) = house.ok("GET", "/openid/v1/jwks", user=user)["keys"]
    assert key["use"] == "sig" and key["alg"] in found["id_token_signing_alg_values_supported"]
    anonymous = Request("GET", "/openid/v1/jwks", {}, b"", User("system:anonymous", ("system:unauthenticated",)))
    assert house.cluster.run(house.cluster.embedded.api(anonymous)).status == 403


def event(version: str, name: str, space: str, **more: Any) -> Any:
    about = {"kind": "Pod", "namespace": space, "name": "web"}
    if version == "v1":
        return {"metadata": {"name": name, "labels": {"testevent-set": "true"}}, "involvedObject": about,
                "reason": "Test", "message": "This is a test", "type": "Normal",
                "lastTimestamp": "2026-01-01T00:00:00Z", **more}  # fmt: skip
    return {"metadata": {"name": name, "labels": {"testevent-set": "true"}}, "regarding": about, "reason": "Test",
            "note": "This is a test", "type": "Normal", "eventTime": "2017-09-19T13:49:16.000000Z", "action": "Do",
            "reportingController": "test-controller", "reportingInstance": "test-node", **more}  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "events.k8s.io/v1"])
def test_events_are_deleted_as_a_collection(house: Any, space: str, version: str) -> None:
    base = "/api/v1" if version == "v1" else "/apis/events.k8s.io/v1"
    many = f"{base}/namespaces/{space}/events"
    for number in range(3):
        house.ok("POST", many, event(version, f"test-event-{number}", space))
    selected = f"{many}?labelSelector=testevent-set%3Dtrue"
    assert len(house.ok("GET", selected)["items"]) == 3
    house.ok("DELETE", selected)
    assert house.ok("GET", selected)["items"] == []


def test_the_lifecycle_of_an_event(house: Any, space: str) -> None:
    many = f"/api/v1/namespaces/{space}/events"
    house.ok("POST", many, event("v1", "event-test", space))
    selected = "/api/v1/events?labelSelector=testevent-set%3Dtrue"
    assert len([item for item in house.ok("GET", selected)["items"] if item["metadata"]["namespace"] == space]) == 1
    one = f"{many}/event-test"
    found = house.ok("PATCH", one, {"message": "This is a test event - patched"}, content_type=STRATEGIC)
    assert house.ok("GET", one)["message"] == "This is a test event - patched"
    series = {"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000001Z"}
    found["series"] = series
    assert house.ok("PUT", one, found)["series"] == series
    shown = house.ok("GET", f"/apis/events.k8s.io/v1/namespaces/{space}/events/event-test")
    assert (shown["note"], shown["series"]) == ("This is a test event - patched", series)
    house.ok("DELETE", one)
    assert house.ok("GET", many)["items"] == []


def test_a_newer_event_lives_through_its_operations(house: Any, space: str) -> None:
    many = f"/apis/events.k8s.io/v1/namespaces/{space}/events"
    house.ok("POST", many, event("events.k8s.io/v1", "event-test", space))
    fields = "fieldSelector=reportingController%3Dtest-controller"
    assert len(house.ok("GET", f"{many}?{fields}")["items"]) == 1
    patch = {"series": {"count": 2, "lastObservedTime": "2014-09-19T13:49:16.000000Z"}}
    assert house.ok("PATCH", f"{many}/event-test", patch, content_type=STRATEGIC)["series"]["count"] == 2
    found = house.ok("GET", f"{many}/event-test")
    found["series"] = {"count": 100, "lastObservedTime": "2014-09-19T13:49:16.000000Z"}
    assert house.ok("PUT", f"{many}/event-test", found)["series"]["count"] == 100
    house.ok("DELETE", f"{many}/event-test")
    house.refused(404, "GET", f"{many}/event-test")
