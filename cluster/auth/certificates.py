"""Certificate signing requests: which approve themselves, what the cluster's signers sign, and when a request goes.

`decide` says the next step of one request. Refuses to know where requests are kept, and who may ask for what: of that
it is told by `may`. Equal requests give equal certificates.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ and
k8s.io/kubernetes/pkg/controller/certificates
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time, parse_time

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)

#: how long certificates last of whom nobody asks otherwise, and how far they are dated back
_DURATION_S, _BACKDATE_S = 365 * 86_400, 300
#: those that last shorter get all of their time
_SHORT_S = 8 * 3600
#: requests that were decided go after an hour, others after a day
_DECIDED_S, _PENDING_S = 3600, 86_400
_NODE, _NODES = "system:node:", "system:nodes"
_BASE = {"digital signature", "key encipherment"}
_USAGES = {
    "signing": "digital_signature", "digital signature": "digital_signature", "key encipherment": "key_encipherment",
    "content commitment": "content_commitment", "data encipherment": "data_encipherment",
    "key agreement": "key_agreement", "cert sign": "key_cert_sign", "crl sign": "crl_sign",
    "encipher only": "encipher_only", "decipher only": "decipher_only",
}  # fmt: skip
_EXTENDED = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION, "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}  # fmt: skip


#: names that a node's client certificate may not have
_FORBIDDEN: tuple[tuple[type[x509.GeneralName], str], ...] = (
    (x509.DNSName, "DNS"),
    (x509.RFC822Name, "Email"),
    (x509.IPAddress, "IP"),
    (x509.UniformResourceIdentifier, "URI"),
)


@dataclass(frozen=True, slots=True)
class Delete:
    """The request has had its time."""


@dataclass(frozen=True, slots=True)
class Approve:
    """The request approves itself. Args: condition: that says so."""

    condition: Obj


@dataclass(frozen=True, slots=True)
class Fail:
    """The request cannot be signed. Args: condition: that says why."""

    condition: Obj


@dataclass(frozen=True, slots=True)
class Sign:
    """The certificate. Args: pem: its text, in base64."""

    pem: str


class Authority:
    """Signs certificates.

    Raises:
        ValueError: the PEM texts are no certificate and key.
    """

    def __init__(self, cert_pem: bytes, key_pem: bytes) -> None:
        self._cert = x509.load_pem_x509_certificate(cert_pem)
        self._key: Any = serialization.load_pem_private_key(key_pem, None)

    def sign(self, request: x509.CertificateSigningRequest, spec: Obj, uid: str, now: float) -> bytes:
        """Returns the certificate as PEM.

        Args:
            spec: of the request: its usages, and how long it is to last.
            uid: of the request, from which the serial number follows.
        """
        seconds = min(int(spec.get("expirationSeconds") or _DURATION_S), _DURATION_S)
        begins = _moment(now - _BACKDATE_S)
        late_s = 0 if seconds < _SHORT_S else _BACKDATE_S
        ends = min(_moment(now + seconds - late_s), self._cert.not_valid_after_utc)
        serial = int.from_bytes(hashlib.sha256(f"{uid} {int(now)}".encode()).digest()[:16], "big") | 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._cert.subject)
            .public_key(request.public_key())
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        usages = spec.get("usages") or ()
        wanted = {_USAGES[usage] for usage in usages if usage in _USAGES}
        if wanted:
            flags = {name: name in wanted for name in _USAGES.values()}
            flags["key_agreement"] = flags["key_agreement"] or flags["encipher_only"] or flags["decipher_only"]
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        if extended := [_EXTENDED[usage] for usage in usages if usage in _EXTENDED]:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        if names := list(_names(request)):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        of_curve = isinstance(self._key, ec.EllipticCurvePrivateKey)
        cert = builder.sign(self._key, hashes.SHA256(), ecdsa_deterministic=True if of_curve else None)
        return cert.public_bytes(serialization.Encoding.PEM)


#: what is done about a request
Step = Delete | Approve | Fail | Sign


def decide(csr: Obj, now: float, may: Callable[[str], bool], authority: Authority) -> Step | None:
    """Returns the next step of a request; None when there is nothing to do now.

    Args:
        may: whether the one who asks may create this subresource of requests (`nodeclient`, `selfnodeclient`).
    """
    spec, status = csr["spec"], csr.get("status") or {}
    conditions = {row["type"]: row for row in status.get("conditions") or ()}
    if _is_over(csr, conditions, now):
        return Delete()
    signer = spec.get("signerName", "")
    if signer not in SIGNERS or "Denied" in conditions or "Failed" in conditions or status.get("certificate"):
        return None
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    except ValueError:
        return None
    if "Approved" not in conditions:
        if signer != KUBELET_CLIENT or _why_not_kubelet_client(request, spec):
            return None
        return _approval(request, spec, now, may)
    if why := _why_not(signer, request, spec):
        return Fail(_condition("Failed", "SignerValidationFailure", why, now))
    pem = authority.sign(request, spec, csr["metadata"].get("uid", ""), now)
    return Sign(base64.b64encode(pem).decode())


def _approval(
    request: x509.CertificateSigningRequest, spec: Obj, now: float, may: Callable[[str], bool]
) -> Approve | None:
    """A node may renew its own certificate, and whoever may ask for a node's gets one."""
    rows = (
        (
            "selfnodeclient",
            _common_name(request) == spec.get("username"),
            "Auto approving self kubelet client certificate",
        ),
        ("nodeclient", True, "Auto approving kubelet client certificate"),
    )
    for subresource, fits, text in rows:
        if fits and may(subresource):
            return Approve(_condition("Approved", "AutoApproved", f"{text} after SubjectAccessReview.", now))
    return None


def _condition(kind: str, reason: str, message: str, now: float) -> Obj:
    moment = format_time(now)
    return {
        "type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": moment,
        "lastTransitionTime": moment,
    }  # fmt: skip


def _is_over(csr: Obj, conditions: dict[str, Obj], now: float) -> bool:
    certificate = (csr.get("status") or {}).get("certificate")
    if certificate and "Approved" in conditions and _has_expired(certificate, now):
        return True
    for kind in ("Approved", "Denied", "Failed"):
        decided = conditions.get(kind)
        if decided is None or (kind == "Approved" and not certificate):
            continue
        return now > parse_time(decided.get("lastUpdateTime") or csr["metadata"]["creationTimestamp"]) + _DECIDED_S
    return not conditions and now > parse_time(csr["metadata"]["creationTimestamp"]) + _PENDING_S


def _has_expired(certificate: str, now: float) -> bool:
    try:
        found = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    except ValueError:
        return False
    return found.not_valid_after_utc < _moment(now)


def _why_not(signer: str, request: x509.CertificateSigningRequest, spec: Obj) -> str:
    """Why a signer does not sign a request; empty when it does."""
    match signer:
        case "kubernetes.io/kube-apiserver-client":
            usages = set(spec.get("usages") or ())
            if "client auth" not in usages or not usages <= _BASE | {"client auth"}:
                return f"invalid usages for client certificate: {_quoted(spec.get('usages') or ())}"
        case "kubernetes.io/kube-apiserver-client-kubelet":
            return _why_not_kubelet_client(request, spec)
        case "kubernetes.io/kubelet-serving":
            return _why_not_kubelet_serving(request, spec)
    return ""


def _why_not_node(request: x509.CertificateSigningRequest) -> str:
    organizations = [str(row.value) for row in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if organizations != [_NODES]:
        return "subject organization is not system:nodes"
    if not _common_name(request).startswith(_NODE):
        return "subject common name does not begin with system:node: "
    return ""


def _why_not_kubelet_client(request: x509.CertificateSigningRequest, spec: Obj) -> str:
    if why := _why_not_node(request):
        return why
    kinds = {type(name) for name in _names(request)}
    for kind, text in _FORBIDDEN:
        if kind in kinds:
            return f"{text} subjectAltNames are not allowed"
    return _why_not_usages(spec, "client auth")


def _why_not_kubelet_serving(request: x509.CertificateSigningRequest, spec: Obj) -> str:
    if why := _why_not_node(request):
        return why
    kinds = {type(name) for name in _names(request)}
    if not kinds & {x509.DNSName, x509.IPAddress}:
        return "DNS or IP subjectAltName is required"
    for kind, text in _FORBIDDEN:
        if kind in kinds - {x509.DNSName, x509.IPAddress}:
            return f"{text} subjectAltNames are not allowed"
    return _why_not_usages(spec, "server auth")


def _why_not_usages(spec: Obj, purpose: str) -> str:
    usages = set(spec.get("usages") or ())
    if usages in ({"digital signature", purpose}, _BASE | {purpose}):
        return ""
    return f"usages did not match [{' '.join(sorted(_BASE | {purpose}))}]"


def _quoted(values: Sequence[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def _common_name(request: x509.CertificateSigningRequest) -> str:
    found = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[-1].value) if found else ""


def _names(request: x509.CertificateSigningRequest) -> Sequence[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return ()


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
