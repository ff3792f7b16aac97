"""The images of a CRI runtime: pulled by it, loaded from archives through its own client where it has one.

Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto, ctr(8)
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

import orjson

from steersman.cluster.node.values import Image, RegistryAuth, RuntimeFailure
from steersman.pb import cri_pb2
from steersman.runtime import archives, builtin, names
from steersman.runtime.cri_client import CriClient
from steersman.runtime.cri_config import image_of

#: a first process for sandboxes, for runtimes that are configured to use it and have no registry
PAUSE_IMAGE = "localhost/pause:v1"
_PAUSE = 'trap "exit 0" TERM; while :; do sleep 86400 & wait; done'
_PULL_DEADLINE_S = 1800.0
_LOAD_DEADLINE_S = 10.0
#: what a registry's refusal looks like in a runtime's words: another credential may do better
_REFUSALS = ("401", "403", "unauthorized", "forbidden", "denied", "authentication required", "no basic auth")


class CriImages:
    """Args: in_use: returns the ids of the images that containers are made of."""

    def __init__(self, client: CriClient, root: Path, in_use: Callable[[], Awaitable[Collection[str]]]) -> None:
        self._client = client
        self._root = root
        self._in_use = in_use

    async def start(self) -> str:
        """Loads the built-in images that are missing; returns why they cannot be, or an empty string."""
        wanted = (*names.BUILT_IN_IMAGES, PAUSE_IMAGE)
        if all([await self.image(name) for name in wanted]):
            return ""
        if missing := self._why_no_loading():
            return f"no built-in images: {missing}"
        busybox = await asyncio.to_thread(builtin.find_busybox)
        if busybox is None:
            return "no statically linked busybox on this machine, so there are no built-in images"
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        path = self._root / "built-in.tar"
        try:
            await asyncio.to_thread(write_built_in, path, busybox)
            await self._import(path, wanted)
        finally:
            path.unlink(missing_ok=True)
        return ""

    async def image(self, reference: str) -> Image | None:
        wanted = reference
        if not reference.startswith("sha256:"):
            try:
                wanted = names.normalize(reference)
            except RuntimeFailure:
                return None
        request = cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=wanted))
        found = await self._client.call_unless_gone(self._client.images.ImageStatus, request, "ImageInspectError")
        return image_of(found.image) if found is not None and found.image.id else None

    async def images(self) -> list[Image]:
        request = cri_pb2.ListImagesRequest()
        found = await self._client.call(self._client.images.ListImages, request, "ImageInspectError")
        return [image_of(row) for row in found.images]

    async def remove(self, image_id: str) -> None:
        if image_id in await self._in_use():
            raise RuntimeFailure("ImageInUse", f"image {image_id} is used by a container")
        request = cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=image_id))
        await self._client.call_unless_gone(self._client.images.RemoveImage, request, "ImageRemoveError")

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        wanted = str(names.parse(reference))
        if wanted in names.BUILT_IN_IMAGES and (found := await self.image(wanted)):
            return found
        tries: tuple[RegistryAuth | None, ...] = auths or (None,)
        for number, auth in enumerate(tries):
            try:
                answer = await self._pull(wanted, auth)
            except RuntimeFailure as failure:
                refused = any(word in failure.message.lower() for word in _REFUSALS)
                if refused and number + 1 < len(tries):
                    continue
                message = f'failed to pull image "{reference}": {failure.message}'
                raise RuntimeFailure("ErrImagePull", message) from failure
            if pulled := await self.image(answer) or await self.image(wanted):
                return pulled
        raise RuntimeFailure("ErrImagePull", f"image {reference} was removed while it was pulled")

    async def _pull(self, wanted: str, auth: RegistryAuth | None) -> str:
        request = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=wanted))
        if auth is not None:
            request.auth.username, request.auth.password = auth.username, auth.password
        answer = await self._client.call(self._client.images.PullImage, request, "ErrImagePull", _PULL_DEADLINE_S)
        return str(answer.image_ref)

    # --- archives

    def _why_no_loading(self) -> str:
        if self._client.name != "containerd":
            return f"{self._client.name} loads no archives"
        return "" if shutil.which("ctr") else "containerd's ctr is not installed"

    async def load(self, archive: AsyncIterator[bytes]) -> list[str]:
        """Loads an archive; returns its references. Raises RuntimeFailure."""
        if missing := self._why_no_loading():
            raise RuntimeFailure("ImageLoadError", f"images cannot be loaded on this node: {missing}")
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        with tempfile.TemporaryDirectory(dir=self._root) as directory:
            path = Path(directory) / "image.tar"
            file = await asyncio.to_thread(path.open, "wb")
            try:
                async for piece in archive:
                    await asyncio.to_thread(file.write, piece)
            finally:
                await asyncio.to_thread(file.close)
            found = await asyncio.to_thread(archives.names_in, path)
            await self._import(path, found)
        return found

    async def _import(self, path: Path, wanted: Collection[str]) -> None:
        """Hands an archive to containerd, and waits until its CRI side knows the images."""
        process = await asyncio.create_subprocess_exec(
            "ctr", "--address", self._client.socket, "--namespace", "k8s.io", "images", "import", str(path),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeFailure("InvalidImageArchive", errors.decode(errors="replace").strip()[-500:])
        loop = asyncio.get_running_loop()
        end = loop.time() + _LOAD_DEADLINE_S
        for name in wanted:
            while await self.image(name) is None:
                if loop.time() > end:
                    raise RuntimeFailure("ImageLoadError", f"containerd does not show {name} after loading it")
                await asyncio.sleep(0.02)


def write_built_in(path: Path, busybox: str) -> None:
    """Writes the built-in images and the pause image as a docker archive. Blocks."""
    layer = builtin.root_archive(busybox)
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    rows = []
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", layer)
        for number, name in enumerate((*names.BUILT_IN_IMAGES, PAUSE_IMAGE)):
            config = builtin.image_config(name, (diff_id,))
            if name == PAUSE_IMAGE:
                document = orjson.loads(config)
                config = orjson.dumps(document | {"config": {"Entrypoint": ["/bin/sh", "-c", _PAUSE]}})
            _add(archive, f"{number}.json", config)
            rows.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(archive, "manifest.json", orjson.dumps(rows))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
