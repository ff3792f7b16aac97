"""The files that tell the API servers of a site what to encrypt and what to write down.

The key of Secrets is made here at the first `up`, beside the cluster's certificates; all other files are the user's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from steersman.actors.site import Site

if TYPE_CHECKING:  # every actor loads this module, and few need what a file takes to be read
    from steersman.actors.apiserver.config import AuditConfig
    from steersman.cluster.config import Security

_FILE = "encryption.yaml"


class Unusable(Exception):
    """A file cannot be used; the message names the setting, the file and every mistake in it."""


def resolved(security: Security) -> Security:
    """Returns the settings with files named from the root: actors work in other directories than commands."""

    def absolute(text: str) -> str:
        return str(Path(text).expanduser().absolute()) if text not in ("", "none") else text

    rows = security.model_dump().items()
    update = {field: absolute(value) for field, value in rows if isinstance(value, str)}
    keys = [absolute(path) for path in security.service_account_keys]
    return security.model_copy(update={**update, "service_account_keys": keys})


def encryption_of(site: Site) -> Path | None:
    """The EncryptionConfiguration of a site's API servers; None when they store everything in the clear."""
    match site.config.security.encryption:
        case "none":
            return None
        case "":
            return site.pki / _FILE
        case path:
            return Path(path)


def audit_of(site: Site, index: int) -> AuditConfig | None:
    """What API server number `index` of a site writes down; None when it is nothing.

    Raises:
        OSError, InvalidPolicy: the policy cannot be read.
    """
    security = site.config.security
    if not security.audit_policy:
        return None
    from steersman.actors.apiserver.config import AuditConfig, Rotation
    from steersman.cluster.auth.audit import read_policy

    log = Path(security.audit_log) if security.audit_log else site.logs / "audit.log"
    return AuditConfig(
        policy=read_policy(Path(security.audit_policy).read_text()),
        log=None if security.audit_log == "none" else log.with_stem(f"{log.stem}-{index}") if index else log,
        rotation=Rotation(
            size_bytes_max=security.audit_log_size_mb << 20,
            backups_max=security.audit_log_backups,
            age_days_max=security.audit_log_age_days,
        ),
        webhook=file_of(security.audit_webhook),
    )


def former_keys_of(site: Site) -> tuple[bytes, ...]:
    """The PEM texts of further keys of service account tokens; raises OSError."""
    return tuple(Path(path).read_bytes() for path in site.config.security.service_account_keys)


def file_of(path: str) -> Path | None:
    return Path(path) if path else None


def ensure(site: Site) -> None:
    """Makes the key of Secrets at the first `up`, unless a file of the user's is configured, and checks what there is.

    Raises:
        Unusable
    """
    if site.here != site.hosts[0]:
        return
    from steersman.cluster.auth.encryption import read_encryption, render_encryption
    from steersman.cluster.auth.jwt import from_pem

    path = encryption_of(site)
    if path is not None:
        with _told("security.encryption"):
            if not site.config.security.encryption and not path.exists():
                _write(path, render_encryption("key1", secrets.token_bytes(32)).encode())
            read_encryption(path.read_text())
    with _told("security.audit_policy"):
        audit_of(site, 0)
    if path := file_of(site.config.security.authentication):
        from steersman.actors.apiserver.expressions import compiled
        from steersman.cluster.auth.authenticationfile import read_authentication

        with _told("security.authentication"):
            read_authentication(path.read_text(), compiled)
    if path := file_of(site.config.security.authorization):
        from steersman.actors.apiserver.askedwebhooks import read_modes

        with _told("security.authorization"):
            read_modes(path.read_text())
    if path := file_of(site.config.security.admission):
        from steersman.actors.apiserver.admissionfile import read_settings

        with _told("security.admission"):
            read_settings(path)
    with _told("security.service_account_keys"):
        for pem in former_keys_of(site):
            from_pem(pem)
    for field in ("audit_webhook", "token_webhook"):
        if path := getattr(site.config.security, field):
            from steersman.actors.webhook import Webhook

            with _told(f"security.{field}"):
                Webhook(Path(path))


@contextlib.contextmanager
def _told(setting: str) -> Iterator[None]:
    """Turns what goes wrong with a file into a sentence about the setting that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unusable(f"{setting}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    """Writes a whole file or none of it, durably: what it encrypts must not outlive it."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
