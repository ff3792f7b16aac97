"""The image half of `protocol.Runtime`, shared by the runtimes of real machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from steersman.cluster.node.values import Image, RegistryAuth, RuntimeFailure
from steersman.runtime import archives, builtin, names, registry
from steersman.runtime.images import ImageStore


class ImageService:
    """Pulls, loads, shows and removes images.

    Args:
        in_use: returns the ids of the images that containers are made of.
        insecure_registries: hosts that are spoken to over plain HTTP, beside those on loopback.
    """

    def __init__(
        self,
        root: Path,
        *,
        unpacks: bool,
        in_use: Callable[[], Collection[str]],
        insecure_registries: Collection[str] = (),
    ) -> None:
        self.store = ImageStore(root, unpacks=unpacks)
        self._in_use = in_use
        self._puller = registry.Puller(self.store, insecure=frozenset(insecure_registries))
        #: one pull of a reference at a time; who comes later finds it done
        self._pulling: dict[str, asyncio.Lock] = {}

    async def start(self) -> str:
        """Opens the store and makes the built-in images; returns what is missing, or an empty string."""
        self.store.open()
        await asyncio.to_thread(self.store.collect)
        return await asyncio.to_thread(builtin.make, self.store)

    async def image(self, reference: str) -> Image | None:
        record = self.store.find(reference)
        return self.store.show(record) if record else None

    async def images(self) -> list[Image]:
        return [self.store.show(record) for record in self.store.records()]

    async def remove(self, image_id: str) -> None:
        record = self.store.find(image_id)
        if record is None:
            return
        if record.id in self._in_use():
            raise RuntimeFailure("ImageInUse", f"image {record.id} is used by a container")
        await asyncio.to_thread(self.store.remove, record.id)

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        wanted = names.parse(reference)
        if str(wanted) in names.BUILT_IN_IMAGES and (found := await self.image(reference)):
            return found
        lock = self._pulling.setdefault(str(wanted), asyncio.Lock())
        try:
            async with lock:
                image_id = await self._puller.pull(wanted, auths)
        finally:
            if not lock.locked():
                self._pulling.pop(str(wanted), None)
        pulled = await self.image(image_id)
        if pulled is None:
            raise RuntimeFailure("ErrImagePull", f"image {reference} was removed while it was pulled")
        return pulled

    async def load(self, archive: AsyncIterator[bytes]) -> list[str]:
        return await archives.load(self.store, archive)
