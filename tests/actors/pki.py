"""Certificates of a throw-away authority, and free ports."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steersman.actors.tls import context_of


@dataclass(frozen=True)
class Pki:
    """Files of an authority and of one certificate per name."""

    directory: Path

    name: str = "store"

    def named(self, name: str) -> Pki:
        """Returns the same with the certificate of another name."""
        return Pki(self.directory, name)

    def server(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        directory = self.directory
        return context_of(
            protocol, directory / "ca.crt", directory / f"{self.name}.crt", directory / f"{self.name}.key"
        )

    def grpc_server(self) -> grpc.ServerCredentials:
        """The same for grpc.aio."""
        authority, cert, key = self._read()
        return grpc.ssl_server_credentials([(key, cert)], authority, require_client_auth=True)

    def grpc_client(self) -> grpc.ChannelCredentials:
        authority, cert, key = self._read()
        return grpc.ssl_channel_credentials(authority, key, cert)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        names = ("ca.crt", f"{self.name}.crt", f"{self.name}.key")
        authority, cert, key = ((self.directory / name).read_bytes() for name in names)
        return authority, cert, key


def make_pki(directory: Path) -> Pki:
    """Makes an authority, and certificates for `store` and `stranger`."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("test authority")
    _write(directory / "ca", authority, _certificate(issuer, issuer, authority, authority, is_authority=True))
    for name in ("store", "stranger"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(directory / name, key, _certificate(_name(name), issuer, key, authority, is_authority=False))
    return Pki(directory)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, signer: Any, *, is_authority: bool) -> Any:
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(names, critical=False)
    )
    if not is_authority:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usages, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, key: Any, certificate: Any) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"
