"""Images under the names that the clients' own tests ask for, made of the machine's static busybox."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from steersman.runtime import builtin

_PAUSE = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 1; done"]
_SERVE = ["/bin/sh", "-c", "httpd -f -p 80 -h /usr/share/nginx/html & trap 'kill $!; exit 0' TERM INT; wait"]

#: what each image runs
COMMANDS = {
    "gcr.io/google_containers/pause:latest": _PAUSE,
    "docker.io/library/busybox:latest": ["/bin/sh"],
    "docker.io/library/ubuntu:latest": ["/bin/sh"],
    "docker.io/library/nginx:latest": _SERVE,
    "docker.io/library/nginx:stable": _SERVE,
    "docker.io/library/nginx:1.14.2": _SERVE,
}


def archive() -> bytes:
    """Returns what `docker save` would write of them; needs a static busybox."""
    busybox = builtin.find_busybox()
    assert busybox is not None
    layers = [builtin.root_archive(busybox), _page()]
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    manifest = []
    for number, (name, command) in enumerate(COMMANDS.items()):
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin:/usr/bin"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
        files[f"{number}.json"] = json.dumps(document).encode()
        manifest.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": ["0.tar", "1.tar"]})
    return _tar(files | {"manifest.json": json.dumps(manifest).encode()})


def _page() -> bytes:
    return _tar({"usr/share/nginx/html/index.html": b"Welcome to nginx!\n"})


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as found:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            found.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
