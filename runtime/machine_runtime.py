"""What the runtimes of real machines have in common: their records and images, shown as `protocol.Runtime` wants."""

from __future__ import annotations

from collections.abc import AsyncIterator

from steersman.cluster.node.values import ContainerStatus, Image, RegistryAuth, SandboxStatus
from steersman.runtime.image_service import ImageService
from steersman.runtime.ledger import Ledger


class MachineRuntime:
    """The methods that need only a ledger and an image store."""

    def __init__(self, ledger: Ledger, images: ImageService) -> None:
        self._ledger = ledger
        self._images = images

    async def sandboxes(self) -> list[SandboxStatus]:
        return [self._ledger.sandbox_status(record) for record in self._ledger.sandboxes.values()]

    async def containers(self) -> list[ContainerStatus]:
        return [self._ledger.container_status(container_id) for container_id in list(self._ledger.containers)]

    def changes(self) -> AsyncIterator[str]:
        return self._ledger.changes()

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        return await self._images.pull(reference, auths)

    async def image(self, reference: str) -> Image | None:
        return await self._images.image(reference)

    async def images(self) -> list[Image]:
        return await self._images.images()

    async def remove_image(self, image_id: str) -> None:
        await self._images.remove(image_id)

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        return await self._images.load(archive)
