"""Where a component's TLS files are; apart from `pki`, so that whoever only reads them need not load cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of the PEM files with which a component speaks TLS."""

    ca: Path
    cert: Path
    key: Path


def credentials_in(directory: Path, file: str) -> Credentials:
    """The credentials called `file` in a directory of certificates."""
    return Credentials(directory / "ca.crt", directory / f"{file}.crt", directory / f"{file}.key")
