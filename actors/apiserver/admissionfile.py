"""Reads the AdmissionConfiguration, and the files that it names, from this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from steersman.actors import kubeconfig
from steersman.actors.apiserver.reloading import read
from steersman.cluster.api.admission.configuration import read_admission
from steersman.cluster.api.admission.settings import AdmissionSettings


def read_settings(path: Path) -> AdmissionSettings:
    """What a file tells the admission plugins; paths in it are relative to it.

    Raises:
        ValueError: it cannot be read, or (InvalidAdmission) it makes no sense.
    """
    return read_admission(read(path), partial(_beside, path), kubeconfig.unusable_users)


def _beside(path: Path, name: str) -> str:
    return read(path.parent / name)
