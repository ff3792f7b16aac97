"""The images of a node: configurations, names and unpacked layers, all found by their digests.

    images/index.json          what there is: per image its names, layers and size
    images/configs/HEX         the configuration of each image, as its maker wrote it
    images/layers/HEX/         a layer unpacked, by the start of its plain archive's digest; shared between images

A layer directory appears by a rename when it is complete; `tmp/` is rubbish after a crash.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import orjson

from steersman.cluster.node.values import Image, RuntimeFailure
from steersman.runtime import names
from steersman.runtime.layers import Readable, unpack
from steersman.runtime.oci_spec import ImageConfig
from steersman.runtime.records import write_atomically

#: of a digest that name a layer's directory: 127 layers must fit into one page of mount options
_LAYER_NAME_CHARS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """Args: names: tagged and by digest; layers: digests of the plain archives, the lowest first."""

    id: str
    names: tuple[str, ...]
    layers: tuple[str, ...]
    size_bytes: int
    unpacked: bool


def digest_hex(digest: str) -> str:
    """Returns the hexadecimal part of a `sha256:` digest. Raises ValueError for anything else."""
    kind, _, found = digest.partition(":")
    if kind != "sha256" or len(found) != 64 or not all(char in "0123456789abcdef" for char in found):
        raise ValueError(f"{digest!r} is no sha256 digest")
    return found


def parse_config(config: Mapping[str, Any]) -> ImageConfig:
    """Returns what a container inherits of an image's configuration."""
    inner = config.get("config") or {}
    return ImageConfig(
        entrypoint=tuple(inner.get("Entrypoint") or ()),
        command=tuple(inner.get("Cmd") or ()),
        env=tuple(inner.get("Env") or ()),
        user=str(inner.get("User") or ""),
        working_dir=str(inner.get("WorkingDir") or ""),
        stop_signal=str(inner.get("StopSignal") or ""),
        labels=dict(inner.get("Labels") or {}),
    )


class ImageStore:
    """The directory of images; its methods do short file work, `add_layer` and `remove` belong in a thread.

    Args:
        unpacks: whether layers are kept at all; a runtime without root file systems has no use for them.
    """

    def __init__(self, root: Path, *, unpacks: bool) -> None:
        self.root = root
        self.unpacks = unpacks
        self._records: dict[str, ImageRecord] = {}

    def open(self) -> None:
        for part in ("configs", "layers", "tmp"):
            (self.root / part).mkdir(parents=True, exist_ok=True, mode=0o711)
        for path in (self.root / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            rows = msgspec.json.decode((self.root / "index.json").read_bytes(), type=list[ImageRecord])
        except (FileNotFoundError, msgspec.DecodeError):
            rows = []
        # an image whose layers were never unpacked is of no use to a runtime that needs them, and is fetched again
        self._records = {row.id: row for row in rows if row.unpacked or not self.unpacks}

    def _save(self) -> None:
        write_atomically(self.root / "index.json", msgspec.json.encode(list(self._records.values())))

    # --- what there is

    def records(self) -> list[ImageRecord]:
        return list(self._records.values())

    def find(self, reference: str) -> ImageRecord | None:
        """Returns the image of that id, name, tag or digest."""
        if reference in self._records:
            return self._records[reference]
        try:
            name = names.normalize(reference)
        except RuntimeFailure:
            return None
        return next((record for record in self._records.values() if name in record.names), None)

    def show(self, record: ImageRecord) -> Image:
        return Image(id=record.id, names=record.names, size_bytes=record.size_bytes, user=self.config(record.id).user)

    def config(self, image_id: str) -> ImageConfig:
        return parse_config(orjson.loads((self.root / "configs" / digest_hex(image_id)).read_bytes()))

    def layer_dir(self, diff_id: str) -> Path:
        return self.root / "layers" / digest_hex(diff_id)[:_LAYER_NAME_CHARS]

    def has_layer(self, diff_id: str) -> bool:
        return self.layer_dir(diff_id).is_dir()

    # --- changes

    def add_layer(self, source: Readable, diff_id: str) -> int:
        """Unpacks a layer and returns the bytes it takes. Blocks.

        Raises:
            LayerError, ValueError: the layer cannot be unpacked, or is not the one that was asked for.
        """
        target = self.layer_dir(diff_id)
        temporary = self.temporary()
        temporary.mkdir(mode=0o755)
        try:
            found = unpack(source, temporary)
            if found != diff_id:
                raise ValueError(f"layer {diff_id} has digest {found}")
            size = tree_size(temporary)
            if not target.exists():
                os.rename(temporary, target)
            return size
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def temporary(self) -> Path:
        return self.root / "tmp" / secrets.token_hex(8)

    def add(
        self, config: bytes, image_id: str, layers: tuple[str, ...], size_bytes: int, found: tuple[str, ...]
    ) -> None:
        """Adds an image, whose layers must be there, under more names; the names leave other images."""
        write_atomically(self.root / "configs" / digest_hex(image_id), config)
        known = self._records.get(image_id)
        kept = known.names if known else ()
        for other in self.records():
            if other.id != image_id and set(other.names) & set(found):
                self._records[other.id] = replace(other, names=tuple(n for n in other.names if n not in found))
        self._records[image_id] = ImageRecord(
            id=image_id,
            names=tuple(dict.fromkeys((*kept, *found))),
            layers=layers,
            size_bytes=size_bytes,
            unpacked=self.unpacks,
        )
        self._save()

    def remove(self, image_id: str) -> None:
        """Removes an image and the layers that no other image has. Blocks."""
        if self._records.pop(image_id, None) is None:
            return
        self._save()
        (self.root / "configs" / digest_hex(image_id)).unlink(missing_ok=True)
        self.collect()

    def collect(self) -> None:
        """Removes layers that no image has. Blocks."""
        kept = {self.layer_dir(layer).name for record in self._records.values() for layer in record.layers}
        for path in (self.root / "layers").iterdir():
            if path.name not in kept:
                gone = self.temporary()
                os.rename(path, gone)
                shutil.rmtree(gone)

    def clear(self) -> None:
        """Removes every image. Blocks."""
        self._records.clear()
        if self.root.exists():
            self._save()
            self.collect()


def tree_size(path: Path) -> int:
    """Returns the bytes of the files below a directory."""
    total = 0
    for directory, _, files in os.walk(path):
        total += sum(os.lstat(os.path.join(directory, name)).st_size for name in files)
    return total
