"""Reads kubeconfig files: where a cluster is, how to trust it and who asks.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steersman.runtime.credentials import Credentials

#: where a pod finds its service account
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: how long a token read from a file is used before it is read again
TOKEN_FILE_AGE_MAX_S = 60.0


class KubeconfigError(ValueError):
    """The file is missing or says too little; the message names the file and the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One context of a kubeconfig, its files read.

    Args:
        servers: addresses of equal API servers. A kubeconfig names one; more may be listed in the cluster's
            extension `steersman/servers`.
        namespace: the context's namespace; `default` when it names none.
        ca_pem, cert_pem, key_pem: PEM bytes; empty for none.
        token: returns the bearer token; empty for none.
    """

    servers: tuple[str, ...]
    context: str = ""
    namespace: str = "default"
    ca_pem: bytes = b""
    cert_pem: bytes = b""
    key_pem: bytes = b""
    token: Callable[[], str] = str
    insecure: bool = False
    server_hostname: str | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Returns the TLS context, or None when no server speaks TLS."""
        if not any(server.startswith("https:") for server in self.servers):
            return None
        context = ssl.create_default_context(cadata=self.ca_pem.decode() if self.ca_pem else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_pem:
            load_certificate(context, self.cert_pem, self.key_pem)
        return context


def load_certificate(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    """Makes a context show a certificate; raises ssl.SSLError."""
    # the ssl module reads certificates from files only; this one is ours alone and gone at once
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(cert_pem + b"\n" + key_pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who one is to a server. Args: cert_pem, key_pem: PEM bytes; empty for none."""

    cert_pem: bytes = b""
    key_pem: bytes = b""
    token: Callable[[], str] = str
    username: str = ""
    password: str = ""

    @property
    def authorization(self) -> str:
        """The header of that name; empty for none."""
        if token := self.token():
            return f"Bearer {token}"
        if self.username:
            return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"
        return ""


class Logins:
    """The users of a kubeconfig whose names are those of servers.

    Source: k8s.io/apiserver/pkg/util/webhook/authentication.go

    Raises:
        KubeconfigError: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise KubeconfigError(f"{path} does not exist")
        config = _merged([Path(path)])
        self._users = {name: _login(row) for name, row in config["users"].items()}
        context = config["contexts"].get(config["current-context"], {})
        self._usual = self._users.get("*") or self._users.get(context.get("user", "")) or Login()

    def of(self, host: str, port: int) -> Login:
        """Who one is to a server: by its name and port, a parent domain with a star, or (of port 443) without port."""
        for target in (f"{host}:{port}", *((host,) if port == 443 else ())):
            steps = target.split(".")
            for name in (target, *(f"*.{'.'.join(steps[at:])}" for at in range(1, len(steps)))):
                if name in self._users:
                    return self._users[name]
        return self._usual


def _login(row: dict[str, Any]) -> Login:
    path = row.get("tokenFile")
    return Login(
        cert_pem=_pem(row, "client-certificate"),
        key_pem=_pem(row, "client-key"),
        token=_token_file(row[""].parent / path) if path else _constant(row.get("token", "")),
        username=row.get("username", ""),
        password=row.get("password", ""),
    )


def unusable_users(path: str) -> str:
    """Why a path is of no kubeconfig whose users can be used; empty when it is of one."""
    try:
        Logins(path)
    except KubeconfigError as error:
        return str(error)
    return ""


def load(path: str | None = None, context: str | None = None) -> Access:
    """Reads a kubeconfig.

    Args:
        path: a file; None for those of `$KUBECONFIG`, else `~/.kube/config`, else the pod's own service account.
        context: a context's name; None for the current one.

    Raises:
        KubeconfigError: there is no such file or context, or an entry is incomplete.
    """
    if path:
        files = [Path(path)]
    elif listed := os.environ.get("KUBECONFIG"):
        files = [Path(part) for part in listed.split(os.pathsep) if part]
    else:
        files = [Path.home() / ".kube" / "config"]
    found = [file for file in files if file.is_file()]
    if not found:
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ and (IN_CLUSTER / "token").is_file():
            return in_cluster()
        raise KubeconfigError(f"no kubeconfig found: {', '.join(map(str, files))} does not exist")
    return _access(_merged(found), context)


def unusable(path: str) -> str:
    """Why a path is of no kubeconfig that can be used; empty when it is of one."""
    if not Path(path).exists():
        return f"error loading file: stat {path}: no such file or directory"
    if not Path(path).is_file():
        return "must be a regular file"
    try:
        load(path)
    except KubeconfigError as error:
        return str(error)
    return ""


def in_cluster() -> Access:
    """The access of a pod's own service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    space = IN_CLUSTER / "namespace"
    return Access(
        servers=(f"https://{f'[{host}]' if ':' in host else host}:{port}",),
        context="in-cluster",
        namespace=space.read_text().strip() if space.is_file() else "default",
        ca_pem=(IN_CLUSTER / "ca.crt").read_bytes(),
        token=_token_file(IN_CLUSTER / "token"),
    )


def _merged(files: list[Path]) -> dict[str, Any]:
    """The first file that names an entry wins; relative paths are relative to their file."""
    merged: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for file in files:
        try:
            data = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        except yaml.YAMLError as error:
            raise KubeconfigError(f"{file} is no YAML: {error}") from error
        if not isinstance(data, dict):
            raise KubeconfigError(f"{file} is no kubeconfig: it must be a mapping")
        merged["current-context"] = merged["current-context"] or data.get("current-context") or ""
        for part, inner in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for row in data.get(part) or ():
                entry = dict(row.get(inner) or {}, **{"": file})
                merged[part].setdefault(row.get("name", ""), entry)
    return merged


def _access(config: dict[str, Any], context: str | None) -> Access:
    name = context or config["current-context"]
    if name not in config["contexts"]:
        known = ", ".join(sorted(config["contexts"])) or "none"
        raise KubeconfigError(f'context "{name}" does not exist; known: {known}')
    chosen = config["contexts"][name]
    cluster = config["clusters"].get(chosen.get("cluster", ""))
    if not cluster or not cluster.get("server"):
        raise KubeconfigError(f'cluster "{chosen.get("cluster", "")}" of context "{name}" names no server')
    user = config["users"].get(chosen.get("user", ""), {"": Path()})
    token_path = user.get("tokenFile")
    more = next(
        (row.get("extension") for row in cluster.get("extensions") or () if row.get("name") == "steersman/servers"), ()
    )
    return Access(
        servers=(str(cluster["server"]), *(str(server) for server in more or () if server != cluster["server"])),
        context=name,
        namespace=chosen.get("namespace") or "default",
        ca_pem=_pem(cluster, "certificate-authority"),
        cert_pem=_pem(user, "client-certificate"),
        key_pem=_pem(user, "client-key"),
        token=_token_file(user[""].parent / token_path) if token_path else _constant(user.get("token", "")),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_hostname=cluster.get("tls-server-name"),
    )


def _pem(entry: dict[str, Any], field: str) -> bytes:
    if data := entry.get(f"{field}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise KubeconfigError(f"{entry['']}: {field}-data is no base64: {error}") from error
    if path := entry.get(field):
        file = entry[""].parent / path
        try:
            return bytes(file.read_bytes())
        except OSError as error:
            raise KubeconfigError(f"{entry['']}: {field} cannot be read: {error}") from error
    return b""


def _constant(token: str) -> Callable[[], str]:
    return lambda: token


def _token_file(path: Path) -> Callable[[], str]:
    """Returns the file's token, read again each minute: a bound token is rotated in place."""
    cached, read_at = "", float("-inf")

    def token() -> str:
        nonlocal cached, read_at
        if time.monotonic() - read_at > TOKEN_FILE_AGE_MAX_S:
            with contextlib.suppress(OSError):
                cached = path.read_text().strip()
            read_at = time.monotonic()
        return cached

    return token


def render(name: str, server: str, admin: Credentials) -> str:
    """Returns the text of an administrator's kubeconfig, the certificates inside.

    Args:
        name: of its cluster and context; server: URL of an API server.
    """

    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    user = {"client-certificate-data": inline(admin.cert), "client-key-data": inline(admin.key)}
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": inline(admin.ca)}}],
        "users": [{"name": f"{name}-admin", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-admin"}}],
        "current-context": name,
    }
    return str(yaml.safe_dump(tree, sort_keys=False))
