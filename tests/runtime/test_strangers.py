"""What a server says of certificates that it cannot verify, as its Python lets it."""

from __future__ import annotations

import ctypes
import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from steersman.runtime import strangers
from steersman.runtime.pki import Authority, Identity


@pytest.fixture(autouse=True)
def _looked_at_anew() -> Iterator[None]:
    strangers._library.cache_clear()
    yield
    strangers._library.cache_clear()


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The server's end after a handshake in memory, in which it gets one record at a time; raises SSLError."""
    sent, up, down = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs, ours = client.wrap_bio(down, sent), server.wrap_bio(up, down, server_side=True)
    waiting, left = [theirs, ours], b""
    while waiting:
        for end in list(waiting):
            left += sent.read()
            if end is ours:
                size = 5 + int.from_bytes(left[3:5], "big")
                up.write(left[:size])
                left = left[size:]
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    return ours


def contexts(tmp_path: Path, client: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext, Authority]:
    own = Authority(tmp_path / "own")
    own.ensure()
    pair = own.issue(Identity(file="server", common_name="api"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    strangers.admit_strangers(server, own.ca.read_bytes())
    shown = client.issue(Identity(file="jane", common_name="jane"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(shown.cert, shown.key)
    return server, context, own


def authority(path: Path) -> Authority:
    made = Authority(path)
    made.ensure()
    return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_who_goes_back_to_an_authority_has_a_root(tmp_path: Path, version: ssl.TLSVersion) -> None:
    for client, known in ((authority(tmp_path / "own"), True), (authority(tmp_path / "elsewhere"), False)):
        server, context, own = contexts(tmp_path, client)
        context.maximum_version = version
        root = strangers.root_of(shaken(server, context))
        expected = ssl.PEM_cert_to_DER_cert(own.ca.read_text()) if known else None
        assert root == expected


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_claims_to_be_of_an_authority_that_has_not_signed_is_a_stranger(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    server, context, own = contexts(tmp_path, authority(tmp_path / "own"))
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .issuer_name(x509.load_pem_x509_certificate(own.ca.read_bytes()).subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pair = tmp_path / "forged"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair.write_bytes(forged.public_bytes(Encoding.PEM) + pem)
    context.load_cert_chain(pair)
    context.maximum_version = version
    assert strangers.root_of(shaken(server, context)) is None


@pytest.mark.parametrize("offset", [-ctypes.sizeof(ctypes.c_void_p), ctypes.sizeof(ctypes.c_void_p)])
def test_a_python_that_is_laid_out_otherwise_refuses_strangers_and_still_knows_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    monkeypatch.setattr(strangers, "_HEAD_BYTES", strangers._HEAD_BYTES + offset)
    server, context, own = contexts(tmp_path, authority(tmp_path / "own"))
    assert strangers.root_of(shaken(server, context)) == ssl.PEM_cert_to_DER_cert(own.ca.read_text())
    server, context, _ = contexts(tmp_path, authority(tmp_path / "elsewhere"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, context)
