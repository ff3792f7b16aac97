"""The cluster's own certificate authority and the certificates of its components, as files.

Every certificate is ECDSA P-256. A component is who its certificate says: the common name is the user, the
organizations are the groups, as in https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.runtime.credentials import Credentials, credentials_in

#: files of the authority of front proxies, and of the certificate with which API servers are such
FRONT_PROXY_CA, FRONT_PROXY = "front-proxy-ca", "front-proxy-client"
_CA_DAYS, _LEAF_DAYS = 3650, 365
#: the part of its life after which a certificate is renewed; the kubelet's own are after 0.7 to 0.9 of theirs
_RENEW_AFTER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate to have: its file name, whom it names, and where it may serve.

    Args:
        hosts: DNS names and addresses of a serving certificate; empty for a client's.
    """

    file: str
    common_name: str
    organizations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Authority:
    """A certificate authority in a directory; made at first use.

    Args:
        life: of the certificates that it issues.
        file: the name of its files; that of front proxies lies beside that of clients.
    """

    def __init__(
        self, directory: Path, file: str = "ca", *, life: datetime.timedelta = datetime.timedelta(days=_LEAF_DAYS)
    ) -> None:
        self.directory = directory
        self.ca = directory / f"{file}.crt"
        self.key = directory / f"{file}.key"
        self._common_name = f"steersman-{file}"
        self._life = life

    def ensure(self) -> None:
        """Makes the authority and the key that signs service account tokens, unless they are there."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = _name(self._common_name, ())
            cert = (
                _builder(name, name, key.public_key(), datetime.timedelta(days=_CA_DAYS))
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .add_extension(_key_usage(authority=True), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .sign(key, hashes.SHA256())
            )
            _write(self.ca, cert.public_bytes(serialization.Encoding.PEM), 0o644)
            _write(self.key, _pem(key), 0o600)
        if not self.service_account_key.exists():
            _write(self.service_account_key, _pem(ec.generate_private_key(ec.SECP256R1())), 0o600)

    @property
    def service_account_key(self) -> Path:
        """The private key that signs service account tokens."""
        return self.directory / "sa.key"

    def credentials(self, file: str) -> Credentials:
        """The paths of a component's certificate; `issue` makes the files."""
        return credentials_in(self.directory, file)

    def issue(self, identity: Identity) -> Credentials:
        """Makes a certificate, unless a fitting one is there that has a fifth of its life before it."""
        credentials = self.credentials(identity.file)
        if not (credentials.key.exists() and _fits(credentials.cert, identity)):
            key = ec.generate_private_key(ec.SECP256R1())
            cert = self._sign(identity, key.public_key())
            _write(credentials.key, _pem(key), 0o600)
            _write(credentials.cert, cert.public_bytes(serialization.Encoding.PEM), 0o644)
        return credentials

    def _sign(self, identity: Identity, public_key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        subject = _name(identity.common_name, identity.organizations)
        builder = (
            _builder(subject, authority.subject, public_key, self._life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
        )
        if identity.hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in identity.hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(key, hashes.SHA256())


def fingerprint(ca: Path) -> str:
    """The SHA-256 of the authority's public key, with which a joining host knows the right cluster."""
    certificate = x509.load_pem_x509_certificate(ca.read_bytes())
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    return digest.finalize().hex()


def _fits(path: Path, identity: Identity) -> bool:
    """Whether a certificate is the identity's and good for some time yet."""
    try:
        cert = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):  # it was never made, or a disk has spoilt it
        return False
    begins, ends = cert.not_valid_before_utc, cert.not_valid_after_utc
    is_old = datetime.datetime.now(datetime.UTC) >= begins + _RENEW_AFTER * (ends - begins)
    if is_old or cert.subject != _name(identity.common_name, identity.organizations):
        return False
    try:
        names = list(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    return names == [_general_name(host) for host in identity.hosts]


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    rows = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    return x509.Name([*rows, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Writes a whole file or none of it."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
