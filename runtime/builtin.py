"""The images that every node has without a registry: a small web server with a shell, in two versions.

They are made from the machine's static busybox. The server answers on `$PORT` (8080) with a page that names its version
and host; on SIGTERM it goes on serving for `$DRAIN_S` seconds (2), so that no request is lost on the way, and ends.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import orjson

from steersman.runtime.images import ImageStore
from steersman.runtime.names import BUILT_IN_IMAGES

_PLACES = (
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/busybox.static",
    "/usr/bin/busybox.static",
    "/usr/local/bin/busybox",
)

_SERVE = """\
#!/bin/sh
# Serves a page on $PORT until told to stop; then goes on for $DRAIN_S seconds, so that no request is lost.
root=/www
if mkdir -p /tmp/www 2>/dev/null && cp -r /www/. /tmp/www 2>/dev/null; then
  root=/tmp/www
  echo "web $VERSION on $(hostname)" > $root/index.html
fi
httpd -f -p "$PORT" -h "$root" &
server=$!
trap 'sleep "$DRAIN_S"; kill $server; wait $server 2>/dev/null; exit 0' TERM INT
echo "web $VERSION serves on port $PORT"
wait $server
"""

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:1000:1000:www:/www:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nwww:x:1000:\nnogroup:x:65534:\n"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var", "www")


def find_busybox() -> str | None:
    """Returns the path of a statically linked busybox with a web server, or None."""
    for place in _PLACES:
        if Path(place).is_file() and _is_static(Path(place)):
            applets = subprocess.run([place, "--list"], capture_output=True, text=True, check=False).stdout.split()
            if {"httpd", "sh", "tar"} <= set(applets):
                return place
    return None


def _is_static(path: Path) -> bool:
    """Whether an ELF file asks for no dynamic linker."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:4] == b"\x7fELF" and b"/ld-" not in head


def make(store: ImageStore) -> str:
    """Makes the built-in images that are missing; returns why they cannot be made, or an empty string. Blocks."""
    if all(store.find(name) for name in BUILT_IN_IMAGES):
        return ""
    if not store.unpacks:
        for name in BUILT_IN_IMAGES:
            _add(store, name, (), 0)
        return ""
    busybox = find_busybox()
    if busybox is None:
        return "no statically linked busybox on this machine, so there is no built-in image (install busybox-static)"
    archive = root_archive(busybox)
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    if not store.has_layer(diff_id):
        store.add_layer(io.BytesIO(archive), diff_id)
    for name in BUILT_IN_IMAGES:
        _add(store, name, (diff_id,), len(archive))
    return ""


def _add(store: ImageStore, name: str, layers: tuple[str, ...], size_bytes: int) -> None:
    config = image_config(name, layers)
    store.add(config, f"sha256:{hashlib.sha256(config).hexdigest()}", layers, size_bytes, (name,))


def image_config(name: str, layers: tuple[str, ...]) -> bytes:
    """Returns the configuration of a built-in image."""
    version = name.rpartition(":")[2]
    return orjson.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": ["/bin/serve"],
                "Env": [f"VERSION={version}", "PORT=8080", "DRAIN_S=2"],
                "ExposedPorts": {"8080/tcp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
        }
    )


def root_archive(busybox: str) -> bytes:
    """Returns the root file system as a tar archive, the same bytes on every run over the same busybox."""
    buffer = io.BytesIO()
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _DIRECTORIES:
            _entry(archive, name, kind=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        _entry(archive, "bin/busybox", data=Path(busybox).read_bytes(), mode=0o755)
        for applet in applets:
            if applet != "busybox":
                _entry(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        _entry(archive, "bin/serve", data=_SERVE.encode(), mode=0o755)
        _entry(archive, "etc/passwd", data=_PASSWD.encode())
        _entry(archive, "etc/group", data=_GROUP.encode())
        _entry(archive, "www/index.html", data=b"web\n")
        _entry(archive, "www/healthz", data=b"ok\n")
    return buffer.getvalue()


def _entry(
    archive: tarfile.TarFile,
    name: str,
    *,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
    archive.addfile(info, io.BytesIO(data))
