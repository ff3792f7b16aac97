"""Certificate signing requests: which approve themselves, what each signer signs, and when requests go."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.cluster.auth import certificates
from steersman.cluster.auth.certificates import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    Approve,
    Authority,
    Delete,
    Fail,
    Sign,
)
from steersman.cluster.meta.times import format_time
from steersman.runtime import pki

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
NODE = ("digital signature", "key encipherment", "client auth")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = pki.Authority(tmp_path_factory.mktemp("pki"))
    made.ensure()
    return Authority(made.ca.read_bytes(), made.key.read_bytes())


def request(name: str, *organizations: str, names: Any = ()) -> str:
    rows = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    subject = x509.Name([*rows, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return base64.b64encode(builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def csr(
    signer: str, text: str, usages: Any, *conditions: str, age_s: float = 0, user: str = "jane", **spec: Any
) -> Any:
    moment = format_time(NOW - age_s)
    rows = [{"type": kind, "status": "True", "lastUpdateTime": moment} for kind in conditions]
    return {
        "metadata": {"name": "a", "uid": "u", "creationTimestamp": moment},
        "spec": {"signerName": signer, "request": text, "usages": list(usages), "username": user, **spec},
        "status": {"conditions": rows} if rows else {},
    }


def step(obj: Any, authority: Authority, *may: str) -> Any:
    return certificates.decide(obj, NOW, lambda below: below in may, authority)


NODE_REQUEST = request("system:node:n1", "system:nodes")


@pytest.mark.parametrize(
    ("obj", "may", "text"),
    [
        (csr(KUBELET_CLIENT, NODE_REQUEST, NODE, user="system:node:n1"), ("selfnodeclient",), "self kubelet client"),
        (csr(KUBELET_CLIENT, NODE_REQUEST, NODE), ("nodeclient",), "Auto approving kubelet client"),
        (csr(KUBELET_CLIENT, NODE_REQUEST, NODE), ("selfnodeclient",), ""),
        (csr(KUBELET_CLIENT, NODE_REQUEST, NODE, user="system:node:n1"), (), ""),
        (csr(KUBELET_CLIENT, request("jane", "system:nodes"), NODE), ("nodeclient",), ""),
        (csr(KUBELET_CLIENT, NODE_REQUEST, ("server auth",)), ("nodeclient",), ""),
        (csr(CLIENT, request("jane"), ("client auth",)), ("nodeclient", "selfnodeclient"), ""),
        (csr(KUBELET_CLIENT, NODE_REQUEST, NODE, "Denied"), ("nodeclient",), ""),
    ],
)
def test_only_nodes_certificates_approve_themselves(obj: Any, may: Any, text: str, authority: Authority) -> None:
    found = step(obj, authority, *may)
    if not text:
        assert found is None
        return
    assert isinstance(found, Approve) and text in found.condition["message"]
    assert found.condition["message"].endswith("after SubjectAccessReview.")


@pytest.mark.parametrize(
    ("signer", "text", "usages", "why"),
    [
        (CLIENT, request("jane", "devs"), ("client auth",), ""),
        (CLIENT, request("jane"), ("server auth",), "invalid usages for client certificate"),
        (CLIENT, request("jane"), ("client auth", "server auth"), "invalid usages for client certificate"),
        (KUBELET_CLIENT, NODE_REQUEST, NODE, ""),
        (KUBELET_CLIENT, NODE_REQUEST, NODE[::2], ""),
        (KUBELET_CLIENT, request("system:node:n1", "devs"), NODE, "subject organization is not system:nodes"),
        (KUBELET_CLIENT, request("n1", "system:nodes"), NODE, "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, request("system:node:n1", "system:nodes", names=[x509.DNSName("a")]), NODE, "DNS subjectAlt"),
        (KUBELET_SERVING, NODE_REQUEST, (*NODE[:2], "server auth"), "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, request("system:node:n1", "system:nodes", names=[x509.DNSName("n1")]),
         (*NODE[:2], "server auth"), ""),
        (KUBELET_SERVING, request("system:node:n1", "system:nodes", names=[x509.DNSName("a"), x509.RFC822Name("a@b")]),
         (*NODE[:2], "server auth"), "Email subjectAltNames are not allowed"),
    ],
)  # fmt: skip
def test_a_signer_signs_what_is_its_own(signer: str, text: str, usages: Any, why: str, authority: Authority) -> None:
    found = step(csr(signer, text, usages, "Approved"), authority)
    if why:
        assert isinstance(found, Fail) and found.condition["reason"] == "SignerValidationFailure"
        assert why in found.condition["message"]
    else:
        assert isinstance(found, Sign)


def test_a_certificate_says_what_was_asked_and_lasts_as_long(authority: Authority) -> None:
    names = [x509.DNSName("n1")]
    text = request("system:node:n1", "system:nodes", names=names)
    obj = csr(KUBELET_SERVING, text, (*NODE[:2], "server auth"), "Approved", expirationSeconds=3600)
    found = step(obj, authority)
    assert isinstance(found, Sign) and found == step(obj, authority), "equal requests give equal certificates"
    cert = x509.load_pem_x509_certificate(base64.b64decode(found.pem))
    assert cert.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    assert cert.not_valid_after_utc.timestamp() == NOW + 3600 and cert.not_valid_before_utc.timestamp() == NOW - 300
    assert list(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == names
    assert list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment and not usage.key_cert_sign
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_other_signers_and_settled_requests_are_left_alone(authority: Authority) -> None:
    assert step(csr("example.com/x", request("jane"), ("client auth",), "Approved"), authority) is None
    settled = csr(CLIENT, request("jane"), ("client auth",), "Approved")
    settled["status"]["certificate"] = "eA=="
    assert step(settled, authority) is None
    assert step(csr(CLIENT, request("jane"), ("client auth",), "Approved", "Failed"), authority) is None


@pytest.mark.parametrize(
    ("conditions", "certificate", "age_s", "goes"),
    [
        ((), "", 23 * 3600, False),
        ((), "", 25 * 3600, True),
        (("Denied",), "", 3500, False),
        (("Denied",), "", 3700, True),
        (("Approved", "Failed"), "", 3700, True),
        (("Approved",), "eA==", 3700, True),
        (("Approved",), "", 25 * 3600, False),
    ],
)
def test_a_request_goes_when_its_time_is_over(
    conditions: Any, certificate: str, age_s: float, goes: bool, authority: Authority
) -> None:
    obj = csr("example.com/x", request("jane"), ("client auth",), *conditions, age_s=age_s)
    if certificate:
        obj["status"]["certificate"] = certificate
    assert isinstance(step(obj, authority), Delete) is goes
