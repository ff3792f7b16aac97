"""The key with which the API servers encrypt Secrets in the store: a file beside the cluster's certificates."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from steersman.actors.site import Site
from steersman.cluster.auth.encryption import InvalidEncryption, read_encryption, render_encryption

_FILE = "encryption.yaml"


class Unusable(Exception):
    """The EncryptionConfiguration cannot be used; the message names the file and every mistake in it."""


def file_of(site: Site) -> Path | None:
    """The EncryptionConfiguration of a site's API servers; None when they store everything in the clear."""
    match site.config.control_plane.encryption:
        case "none":
            return None
        case "":
            return site.pki / _FILE
        case path:
            return Path(path).expanduser()


def ensure(site: Site) -> None:
    """Makes the key at the first `up`, unless a file of the user's is configured, and checks what there is.

    Raises:
        Unusable
    """
    path = file_of(site)
    if path is None or site.here != site.hosts[0]:
        return
    try:
        if not site.config.control_plane.encryption and not path.exists():
            _write(path, render_encryption("key1", secrets.token_bytes(32)).encode())
        read_encryption(path.read_text())
    except (OSError, UnicodeDecodeError, InvalidEncryption) as error:
        raise Unusable(f"{path} cannot be used: {error}") from error


def _write(path: Path, data: bytes) -> None:
    """Writes a whole file or none of it, durably: what it encrypts must not outlive it."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
