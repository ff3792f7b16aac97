"""How an API server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from steersman.actors.http.limits import HttpLimits
from steersman.cluster.auth.audit import AuditPolicy
from steersman.runtime.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a log is put aside, and how long those put aside are kept; 0 for no limit."""

    size_bytes_max: int = 100 << 20
    backups_max: int = 10
    age_days_max: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Args: policy: what is written; log: file of the events; webhook: kubeconfig of a server that gets them."""

    policy: AuditPolicy
    log: Path | None = None
    rotation: Rotation = Rotation()
    webhook: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """What an API server is told when it starts.

    Args:
        host: address to listen on; port: 0 for any free one, None for no socket at all (in-process callers only).
        tls_cert, tls_key, client_ca: PEM bytes; with none of them the socket speaks plain HTTP.
        tls_files, proxy_files: where the certificates of this server, `tls_cert` and `proxy_cert`, are renewed, to be
            read at the next handshake; None for nowhere.
        client_ca_key: PEM of the key of `client_ca`, with which certificate requests are signed; empty for none.
        service_account_key: PEM of the P-256 key that signs service-account tokens.
        kubernetes_version: the minor version whose API is served.
        node_port_range: first and last node port, both included.
        grpc_port: of the native gRPC API on the same host, whose callers show client certificates; None for none.
        grpc_token_port: of the same API for callers who have a bearer token and no certificate; None for none.
        encryption: file of the EncryptionConfiguration by which values are kept in the store; None for plain ones.
        audit: what of the requests is written down, and where; None for nothing.
        former_service_account_keys: PEM of further keys whose tokens are accepted.
        authentication: file of the AuthenticationConfiguration: which other issuers' tokens are accepted, and what may
            be asked anonymously; None for nobody's, and health and version.
        authorization: file of the AuthorizationConfiguration: who is asked whether something is allowed, in which
            order; None for node authorizer and RBAC.
        token_webhook: kubeconfig of a server that says whose other tokens are.
        admission_plugins, admission_plugins_off: those that are on beside the usual ones, and those that are off.
        admission: file of the AdmissionConfiguration: what the plugins are told; None for nothing.
        proxy_ca: PEM of the authority of front proxies, which say in headers for whom they ask; proxy_cert, proxy_key:
            PEM of what this server itself is one by, to extension API servers.
        http: what clients can make the socket hold and wait for.
        requests_in_flight: seats that the levels of priority share.
        advertise_address: where the cluster reaches this server; `host` when empty.
    """

    host: str = "127.0.0.1"
    port: int | None = 0
    tls_cert: bytes = b""
    tls_key: bytes = b""
    tls_files: Credentials | None = None
    client_ca: bytes = b""
    client_ca_key: bytes = b""
    service_account_key: bytes = b""
    proxy_ca: bytes = b""
    proxy_cert: bytes = b""
    proxy_key: bytes = b""
    proxy_files: Credentials | None = None
    kubernetes_version: str = "1.36"
    cluster_domain: str = "cluster.local"
    service_cidr: str = "10.96.0.0/16"
    node_port_range: tuple[int, int] = (30000, 32767)
    grpc_port: int | None = None
    grpc_token_port: int | None = None
    advertise_address: str = ""
    former_service_account_keys: tuple[bytes, ...] = ()
    authentication: Path | None = None
    authorization: Path | None = None
    token_webhook: Path | None = None
    http: HttpLimits = field(default_factory=HttpLimits)
    requests_in_flight: int = 600
    admission_plugins: tuple[str, ...] = ()
    admission_plugins_off: tuple[str, ...] = ()
    admission: Path | None = None
    encryption: Path | None = None
    audit: AuditConfig | None = None

    @property
    def issuer(self) -> str:
        """The `iss` claim of service-account tokens and the server's own audience."""
        return f"https://kubernetes.default.svc.{self.cluster_domain}"
