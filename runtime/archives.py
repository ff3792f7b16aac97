"""Loading images from archives: what `docker save`, `skopeo copy` and `buildah push` write.

The archive is first written to disk as it comes, since its table of contents may stand at its end; then each layer is
read in place.
Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md,
https://github.com/moby/docker-image-spec/blob/main/spec.md
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import names
from steersman.runtime.images import ImageStore, digest_hex
from steersman.runtime.layers import LayerError
from steersman.runtime.registry import choose, layers_of

_DOCUMENT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One image of an archive: paths inside it."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


async def load(store: ImageStore, archive: AsyncIterator[bytes]) -> list[str]:
    """Adds every image of an archive; returns their references, or ids where they carry none.

    Raises:
        RuntimeFailure: `InvalidImageArchive`: it is no archive of images, or is damaged.
    """
    path = store.temporary()
    try:
        file = await asyncio.to_thread(path.open, "wb")
        try:
            async for piece in archive:
                await asyncio.to_thread(file.write, piece)
        finally:
            await asyncio.to_thread(file.close)
        return await asyncio.to_thread(_load_file, store, path)
    except (tarfile.TarError, EOFError, LayerError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeFailure("InvalidImageArchive", _no_archive(error)) from error
    finally:
        path.unlink(missing_ok=True)


def _no_archive(error: Exception) -> str:
    # of a file that is no tar at all, the reader tells on several lines what it has tried
    return f"this is no archive of images: {str(error).partition(chr(10))[0].rstrip(':')}"


def names_in(path: Path) -> list[str]:
    """Returns the references that an archive carries. Blocks.

    Raises:
        RuntimeFailure: `InvalidImageArchive`: it is no archive of images, or names none.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
            found = [name for entry in _Archive(archive, members).entries() for name in entry.names]
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeFailure("InvalidImageArchive", _no_archive(error)) from error
    if not found:
        raise RuntimeFailure("InvalidImageArchive", "the images of this archive carry no names")
    return found


def _load_file(store: ImageStore, path: Path) -> list[str]:
    loaded: list[str] = []
    with tarfile.open(path, "r:*") as archive:
        members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        reader = _Archive(archive, members)
        for entry in reader.entries():
            loaded += _add(store, reader, entry)
    if not loaded:
        raise ValueError("it has neither a manifest.json nor an index.json with images")
    return loaded


def _add(store: ImageStore, reader: _Archive, entry: _Entry) -> list[str]:
    config = reader.document(entry.config)
    image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
    layers = layers_of(config)
    if len(layers) != len(entry.layers):
        raise ValueError(f"the manifest has {len(entry.layers)} layers, the configuration {len(layers)}")
    size = 0
    for layer, diff_id in zip(entry.layers, layers, strict=True):
        size += reader.size(layer)
        if store.unpacks and not store.has_layer(diff_id):
            store.add_layer(reader.open(layer), diff_id)
    store.add(config, image_id, layers, size, entry.names)
    return list(entry.names) or [image_id]


class _Archive:
    """Reads members of a tar archive by name."""

    def __init__(self, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> None:
        self._archive = archive
        self._members = members

    def _member(self, name: str) -> tarfile.TarInfo:
        found = self._members.get(name)
        if found is None:
            raise ValueError(f"{name} is missing in it")
        return found

    def open(self, name: str) -> Any:
        found = self._archive.extractfile(self._member(name))
        if found is None:
            raise ValueError(f"{name} is no file in it")
        return found

    def size(self, name: str) -> int:
        return self._member(name).size

    def document(self, name: str) -> bytes:
        if self.size(name) > _DOCUMENT_BYTES_MAX:
            raise ValueError(f"{name} is larger than {_DOCUMENT_BYTES_MAX} bytes")
        data: bytes = self.open(name).read()
        return data

    def entries(self) -> list[_Entry]:
        if "manifest.json" in self._members:
            return [
                _Entry(
                    config=row["Config"],
                    layers=tuple(row["Layers"] or ()),
                    names=tuple(names.normalize(name) for name in row.get("RepoTags") or ()),
                )
                for row in orjson.loads(self.document("manifest.json"))
            ]
        if "index.json" in self._members:
            index = orjson.loads(self.document("index.json"))
            return [self._layout_entry(row) for row in index.get("manifests") or ()]
        return []

    def _layout_entry(self, row: dict[str, Any]) -> _Entry:
        manifest = orjson.loads(self._blob(row["digest"]))
        if "manifests" in manifest:
            manifest = orjson.loads(self._blob(choose(manifest)))
        return _Entry(
            config=_blob_path(manifest["config"]["digest"]),
            layers=tuple(_blob_path(layer["digest"]) for layer in manifest["layers"]),
            names=_annotated_names(row.get("annotations") or {}),
        )

    def _blob(self, digest: str) -> bytes:
        data = self.document(_blob_path(digest))
        if hashlib.sha256(data).hexdigest() != digest_hex(digest):
            raise ValueError(f"blob {digest} is damaged")
        return data


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest_hex(digest)}"


def _annotated_names(annotations: dict[str, str]) -> tuple[str, ...]:
    """Returns the reference that an entry of an OCI layout carries; a bare tag is none."""
    found = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or ""
    if "/" not in found and ":" not in found:
        return ()
    return (names.normalize(found),)
