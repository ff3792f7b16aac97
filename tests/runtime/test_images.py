"""Images from registries and archives, against a real registry on loopback."""

# ruff: noqa: ASYNC221 (tests may block)

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from steersman.cluster.node.values import RegistryAuth, RuntimeFailure
from steersman.runtime import layers, names
from steersman.runtime import registry as registry_module
from steersman.runtime.image_service import ImageService

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep their owners and devices: needs root")


def layer(files: dict[str, bytes | None], *, links: dict[str, str] | None = None) -> bytes:
    """A plain layer archive; None makes a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.mode, info.size = 0o755, len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def docker_archive(plain_layers: list[bytes], tags: list[str], **config: object) -> bytes:
    """What `docker save` writes."""
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in plain_layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": [f"{n}.tar" for n in range(len(plain_layers))]}]
    files: dict[str, bytes | None] = {f"{n}.tar": data for n, data in enumerate(plain_layers)}
    files |= {"config.json": json.dumps(document).encode(), "manifest.json": json.dumps(manifest).encode()}
    return layer(files)


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def service(root: Path, *, unpacks: bool = True) -> ImageService:
    found = ImageService(root, unpacks=unpacks, in_use=set)
    await found.start()
    return found


# --- references


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("user/app:v1", "docker.io/user/app:v1"),
        ("localhost/web:v1", "localhost/web:v1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        ("quay.io/x/y@sha256:" + "a" * 64, "quay.io/x/y@sha256:" + "a" * 64),
    ],
)
def test_a_short_reference_has_a_full_form(short: str, full: str) -> None:
    assert names.normalize(short) == full


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "x:y:z", "x@sha256:12", "host:port/x", "-x"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        names.parse(text)
    assert caught.value.reason == "InvalidImageName"


# --- layers


@needs_root
def test_whiteouts_become_what_overlayfs_understands(tmp_path: Path) -> None:
    layers.unpack(io.BytesIO(layer({"d": None, "d/.wh..wh..opq": b"", "d/new": b"1", ".wh.gone": b""})), tmp_path)
    assert stat.S_ISCHR((tmp_path / "gone").stat().st_mode)
    assert (tmp_path / "gone").stat().st_rdev == 0
    assert os.getxattr(tmp_path / "d", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "d" / "new").read_bytes() == b"1"


@needs_root
def test_no_entry_leaves_its_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    layers.unpack(io.BytesIO(layer({}, links={"out": "/", "up": "../../.."})), root)
    layers.unpack(io.BytesIO(layer({"out/one": b"1", "up/two": b"2"})), root)
    assert (root / "one").read_bytes() == b"1"
    assert (root / "two").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    with pytest.raises(layers.LayerError):
        layers.unpack(io.BytesIO(layer({"../evil": b"x"})), root)


def test_a_damaged_layer_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(layer({"a": os.urandom(50_000)}))
    for data in (whole[: len(whole) // 2], b"nonsense " * 1000):
        with pytest.raises(layers.LayerError):
            layers.unpack(io.BytesIO(data), tmp_path)


# --- archives


@needs_root
async def test_a_docker_archive_is_loaded_with_its_names(tmp_path: Path) -> None:
    images = await service(tmp_path)
    data = docker_archive([layer({"a": b"1"}), layer({"b": b"2"})], ["app:v1", "app:v2"], Cmd=["/a"], User="7")
    assert await images.load(pieces_of(data)) == ["docker.io/library/app:v1", "docker.io/library/app:v2"]
    found = await images.image("app:v2")
    assert found is not None and found.user == "7"
    record = images.store.find(found.id)
    assert record is not None
    assert [(images.store.layer_dir(d) / n).exists() for d, n in zip(record.layers, "ab", strict=True)] == [True, True]


@needs_root
async def test_a_tag_moves_to_the_newer_image(tmp_path: Path) -> None:
    images = await service(tmp_path)
    await images.load(pieces_of(docker_archive([layer({"a": b"1"})], ["app:v1"])))
    old = await images.image("app:v1")
    await images.load(pieces_of(docker_archive([layer({"a": b"2"})], ["app:v1"])))
    new = await images.image("app:v1")
    assert old is not None and new is not None and old.id != new.id
    kept = await images.image(old.id)
    assert kept is not None and kept.names == ()


@needs_root
async def test_an_archive_of_something_else_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    images = await service(tmp_path)
    before = await images.images()
    broken = docker_archive([layer({"a": b"1"})], ["app:v1"]).replace(b"sha256:", b"sha256:f", 1)
    for data in (b"x" * 5000, layer({"a": b"1"}), broken):
        with pytest.raises(RuntimeFailure) as caught:
            await images.load(pieces_of(data))
        assert caught.value.reason == "InvalidImageArchive"
        assert "\n" not in caught.value.message
    assert await images.images() == before
    assert list((tmp_path / "tmp").iterdir()) == []


@needs_root
async def test_removing_an_image_keeps_the_layers_of_others(tmp_path: Path) -> None:
    images = await service(tmp_path)
    base = layer({"base": b"1"})
    await images.load(pieces_of(docker_archive([base], ["one:v1"])))
    await images.load(pieces_of(docker_archive([base, layer({"more": b"2"})], ["two:v1"])))
    two = await images.image("two:v1")
    assert two is not None
    before = len(list((tmp_path / "layers").iterdir()))
    await images.remove(two.id)
    assert len(list((tmp_path / "layers").iterdir())) == before - 1
    one = images.store.find("one:v1")
    assert one is not None and images.store.has_layer(one.layers[0])


@needs_root
async def test_images_are_there_after_a_restart(tmp_path: Path) -> None:
    images = await service(tmp_path)
    await images.load(pieces_of(docker_archive([layer({"a": b"1"})], ["app:v1"], Env=["A=1"])))
    again = await service(tmp_path)
    assert await again.images() == await images.images()
    record = again.store.find("app:v1")
    assert record is not None and again.store.config(record.id).env == ("A=1",)


# --- a registry

REGISTRY = shutil.which("docker-registry")
SKOPEO = shutil.which("skopeo")
USER, PASSWORD = "sailor", "ahoy"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    for _ in range(400):
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            import time

            time.sleep(0.025)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants a password, with the image `app:v1` of two layers in it; returns its host:port."""
    if REGISTRY is None or SKOPEO is None or shutil.which("htpasswd") is None:
        pytest.skip("docker-registry, skopeo or htpasswd is not installed")
    directory = tmp_path_factory.mktemp("registry")
    passwords = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
    (directory / "htpasswd").write_bytes(passwords)
    host = f"127.0.0.1:{free_port()}"
    (directory / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: '{host}'}}\nauth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
    )
    (directory / "app.tar").write_bytes(
        docker_archive([layer({"a": b"1"}), layer({"b": b"2"})], ["app:v1"], Cmd=["/a"], Env=["A=1"])
    )
    process = subprocess.Popen(
        [REGISTRY, "serve", str(directory / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://{host}/v2/")
        source, target = f"docker-archive:{directory}/app.tar", f"docker://{host}/team/app:v1"
        options = ["--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}", "--insecure-policy"]
        subprocess.run([SKOPEO, "copy", *options, source, target], check=True, capture_output=True)
        yield host
    finally:
        process.kill()
        process.wait()


GOOD = RegistryAuth(username=USER, password=PASSWORD)
BAD = RegistryAuth(username=USER, password="wrong")


@needs_root
async def test_an_image_is_pulled_with_the_credential_that_fits(registry: str, tmp_path: Path) -> None:
    images = await service(tmp_path)
    pulled = await images.pull(f"{registry}/team/app:v1", (BAD, GOOD))
    assert pulled.id.startswith("sha256:")
    assert f"{registry}/team/app:v1" in pulled.names
    (by_digest,) = (name for name in pulled.names if "@" in name)
    assert await images.image(by_digest) == pulled
    assert await images.pull(by_digest, (GOOD,)) == pulled
    record = images.store.find(pulled.id)
    assert record is not None
    assert (images.store.layer_dir(record.layers[1]) / "b").read_bytes() == b"2"
    assert images.store.config(pulled.id).command == ("/a",)


async def test_a_runtime_without_root_file_systems_fetches_no_layers(registry: str, tmp_path: Path) -> None:
    images = await service(tmp_path, unpacks=False)
    pulled = await images.pull(f"{registry}/team/app:v1", (GOOD,))
    assert images.store.config(pulled.id).env == ("A=1",)
    assert list((tmp_path / "layers").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "auths", "words"),
    [
        ("team/app:none", (GOOD,), "not found"),
        ("team/none:v1", (GOOD,), "not found"),
        ("team/app:v1", (BAD,), "access denied"),
        ("team/app:v1", (), "access denied"),
        ("team/app@sha256:" + "0" * 64, (GOOD,), "not found"),
    ],
    ids=["no such tag", "no such repository", "wrong password", "no password", "no such digest"],
)
async def test_a_failed_pull_says_why(
    registry: str, tmp_path: Path, path: str, auths: tuple[RegistryAuth, ...], words: str
) -> None:
    images = await service(tmp_path, unpacks=False)
    with pytest.raises(RuntimeFailure, match=words) as caught:
        await images.pull(f"{registry}/{path}", auths)
    assert caught.value.reason == "ErrImagePull"


async def test_a_registry_that_is_not_there_cannot_be_reached(tmp_path: Path) -> None:
    images = await service(tmp_path, unpacks=False)
    with pytest.raises(RuntimeFailure, match=r"cannot be reached.*refused"):
        await images.pull(f"127.0.0.1:{free_port()}/app:v1", ())


class TokenRegistry(BaseHTTPRequestHandler):
    """A registry that wants a bearer token, and gives one to those who know the password."""

    manifest, config = b"", b""

    def do_GET(self) -> None:
        host = self.headers["Host"]
        if self.path.startswith("/token"):
            known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() in self.headers.get("Authorization", "")
            wanted = "scope=repository%3Aapp%3Apull" in self.path and "service=reg" in self.path
            self.answer(200 if known and wanted else 401, b'{"token": "open-sesame"}')
        elif self.headers.get("Authorization") != "Bearer open-sesame":
            realm = f'Bearer realm="http://{host}/token",service="reg",scope="repository:app:pull"'
            self.answer(401, b"{}", {"WWW-Authenticate": realm})
        else:
            self.answer(200, self.manifest if "/manifests/" in self.path else self.config)

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def token_registry() -> Iterator[str]:
    config = json.dumps({"os": "linux", "config": {}, "rootfs": {"diff_ids": []}}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": digest}, "layers": []}).encode()
    handler = type("Handler", (TokenRegistry,), {"manifest": manifest, "config": config})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_token_is_fetched_with_the_credential(token_registry: str, tmp_path: Path) -> None:
    images = await service(tmp_path, unpacks=False)
    pulled = await images.pull(f"{token_registry}/app:v1", (BAD, GOOD))
    assert f"{token_registry}/app:v1" in pulled.names
    with pytest.raises(RuntimeFailure, match="access denied"):
        await images.pull(f"{token_registry}/app:v1", (BAD,))


@pytest.mark.parametrize("part", ["manifest", "config"])
async def test_what_does_not_have_its_digest_is_refused(
    token_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    images = await service(tmp_path, unpacks=False)
    digest = "sha256:" + "0" * 64
    if part == "config":
        monkeypatch.setattr(registry_module, "_digest", lambda data: digest)
    reference = f"{token_registry}/app@{digest}" if part == "manifest" else f"{token_registry}/app:v1"
    with pytest.raises(RuntimeFailure, match="has digest"):
        await images.pull(reference, (GOOD,))


@needs_root
async def test_several_pulls_of_one_image_share_the_work(registry: str, tmp_path: Path) -> None:
    images = await service(tmp_path)
    found = await asyncio.gather(*(images.pull(f"{registry}/team/app:v1", (GOOD,)) for _ in range(4)))
    assert len({image.id for image in found}) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


@needs_root
@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
async def test_an_oci_archive_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(docker_archive([layer({"a": b"1"})], ["app:v1"]))
    source, target = f"docker-archive:{tmp_path}/in.tar", f"oci-archive:{tmp_path}/out.tar:localhost/app:v9"
    assert SKOPEO is not None
    subprocess.run([SKOPEO, "copy", "--insecure-policy", source, target], check=True, capture_output=True)
    images = await service(tmp_path / "store")
    assert await images.load(pieces_of((tmp_path / "out.tar").read_bytes())) == ["localhost/app:v9"]
