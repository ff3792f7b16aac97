"""How another machine joins: the token it is given, and what it fetches with it.

The token is `ID.SECRET.KEY`: a bootstrap token and the public key of the cluster's authority, by which the joining
machine knows the right API server before it says anything. What it fetches makes it a fully trusted machine, the
authority's private key included: Ray's shared token, which every host needs, lets a host run code on all others anyway.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import secrets
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.actors import roster
from steersman.actors.client import Client
from steersman.actors.http.client import Endpoint, HttpTransport
from steersman.actors.site import Site
from steersman.cluster.config import ClusterConfig, parse
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.resources import ROLE_BINDINGS, ROLES, SECRETS
from steersman.cluster.topology import Host, api_endpoints

NAMESPACE = "kube-system"
_SECRET = "steersman-join"
_MANAGER = "steersman-keeper"
#: of an API server, which answers nothing while the store does not
_READ_S_MAX = 10.0
_FILES = ("ca.crt", "ca.key", "sa.key")
_FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})\.([A-Za-z0-9_-]{44})")


class InvalidInvitation(Exception):
    """The token or the server it leads to is not to be trusted; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Token:
    """Args: authority: public key of the certificate authority, a compressed point of P-256."""

    id: str
    secret: str
    authority: bytes

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises InvalidInvitation: the text has not the form of a token."""
        match = _FORM.fullmatch(text.strip())
        try:
            authority = base64.urlsafe_b64decode(match[3]) if match else b""
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), authority)
        except (binascii.Error, ValueError) as error:
            raise InvalidInvitation("this is no token: `steer token` on the head prints the right one") from error
        assert match is not None
        return cls(match[1], match[2], authority)

    def __str__(self) -> str:
        return f"{self.bearer}.{base64.urlsafe_b64encode(self.authority).decode()}"

    @property
    def bearer(self) -> str:
        return f"{self.id}.{self.secret}"

    def check(self, certificate_pem: str) -> None:
        """Raises InvalidInvitation: the certificate was not issued by the token's authority."""
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.authority)
        hashing = certificate.signature_hash_algorithm
        try:
            assert hashing is not None
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashing))
        except InvalidSignature as error:
            raise InvalidInvitation("the server there is not of the cluster that the token was made for") from error


def token_of(site: Site) -> Token:
    """The head's token, made at first use and kept beside the authority."""
    path = site.pki / "join.token"
    if not path.exists():
        digits = "abcdefghijklmnopqrstuvwxyz0123456789"
        name, secret = ("".join(secrets.choice(digits) for _ in range(length)) for length in (6, 16))
        public = x509.load_pem_x509_certificate((site.pki / "ca.crt").read_bytes()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
        path.touch(0o600)
        path.write_text(str(Token(name, secret, point)))
    return Token.parse(path.read_text())


def command(site: Site) -> str:
    """What to type on another machine."""
    server = api_endpoints(site.config, site.hosts)[0].removeprefix("https://")
    return f"steer join {server} --token {token_of(site)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a joining machine is given; the rest the head's keeper tells it.

    Args:
        files: of the certificate authority, by name.
    """

    config: ClusterConfig
    head: Host
    files: dict[str, str]


async def publish(client: Client, site: Site) -> None:
    """Has the API server hand the invitation to whoever shows the token."""
    token = token_of(site)
    bootstrap = {
        "token-id": token.id,
        "token-secret": token.secret,
        "usage-bootstrap-authentication": "true",
        "description": "lets machines join with `steer join`",
    }
    invitation = {
        "config": site.config.model_dump_json(),
        "head": json.dumps(asdict(site.hosts[0])),
        **{name: (site.pki / name).read_text() for name in _FILES},
    }
    may_read = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [_SECRET]}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": _SECRET}
    for resource, name, body in (
        (SECRETS, f"bootstrap-token-{token.id}", _secret("bootstrap.kubernetes.io/token", bootstrap)),
        (SECRETS, _SECRET, _secret("Opaque", invitation)),
        (ROLES, _SECRET, {"rules": [may_read]}),
        (ROLE_BINDINGS, _SECRET, {"roleRef": role, "subjects": [group]}),
    ):
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **body}
        await client.patch(resource, name, obj, NAMESPACE, kind="apply", field_manager=_MANAGER, force=True)


def _secret(kind: str, data: dict[str, str]) -> dict[str, Any]:
    return {"type": kind, "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


async def accept(server: str, token: Token) -> Invitation:
    """Fetches the invitation from an API server (`HOST:PORT`).

    Raises:
        InvalidInvitation: nobody answers there, or it is another cluster, or the token is not taken any more.
    """
    try:
        endpoint = Endpoint.parse(server)
        shown = await asyncio.to_thread(ssl.get_server_certificate, (endpoint.host, endpoint.port), timeout=10)
    except (OSError, ValueError) as error:
        raise InvalidInvitation(f"no API server answers at {server}: {error}") from error
    token.check(shown)
    tls = ssl.create_default_context(cadata=shown)
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate just checked is the anchor
    client = Client(HttpTransport((server,), tls=tls, token=token.bearer))
    try:
        return await asyncio.wait_for(_read(client), _READ_S_MAX)
    except (ApiError, TimeoutError) as error:
        raise InvalidInvitation(f"{server} does not let this machine join: {error or 'no answer'}") from error
    finally:
        await client.close()


async def _read(client: Client) -> Invitation:
    """Returns the invitation as it is now; raises ApiError."""
    secret = await client.get(SECRETS, _SECRET, NAMESPACE)
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    return Invitation(
        config=ClusterConfig.model_validate_json(data["config"]),
        head=Host(**json.loads(data["head"])),
        files={name: data[name] for name in _FILES},
    )


def save(invitation: Invitation, site: Site) -> None:
    """Writes the authority's files into this machine's data directory."""
    site.pki.mkdir(mode=0o700, exist_ok=True)
    for name, text in invitation.files.items():
        (site.pki / name).touch(0o600)
        (site.pki / name).write_text(text)


def saved(data_dir: Path, token: Token) -> Invitation | None:
    """Returns what a machine kept of an earlier membership in the token's cluster; None when there is nothing."""
    try:
        files = {name: (data_dir / "pki" / name).read_text() for name in _FILES}
        token.check(files["ca.crt"])
        hosts, _, _ = roster.read(data_dir)
        config = parse((data_dir / "config.yaml").read_text())
    except (OSError, ValueError, InvalidInvitation):
        return None
    return Invitation(config=config, head=hosts[0], files=files) if hosts else None
