"""The CRI runtime beyond the contract: archives, the pods' files, terminals, and a runtime that is not there."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steersman.cluster.node.values import PortMapping, RuntimeFailure, SandboxSpec, SecurityContext
from steersman.runtime import builtin, cri_config, cri_images, cri_network, detect
from steersman.runtime.cri_streams import exit_code


@pytest.fixture
def subject_name() -> str:
    return "cri"


async def output(subject: Any, container: str, *command: str) -> str:
    result = await subject.runtime.exec_sync(container, command, 10)
    return str((result.stdout + result.stderr).decode())


async def test_a_container_finds_its_pods_names(subject: Any) -> None:
    sandbox = await subject.sandbox("named", host_aliases=(("10.9.9.9", ("elsewhere",)),))
    container = await subject.run(sandbox, "sleep 60", env=(("COLOUR", "green"),))
    hosts = await output(subject, container, "cat", "/etc/hosts")
    assert f"{sandbox.ips[0]}\tnamed" in hosts and "10.9.9.9\telsewhere" in hosts
    assert await output(subject, container, "sh", "-c", "hostname; echo $COLOUR") == "named\ngreen\n"


async def test_a_container_runs_as_who_it_should(subject: Any) -> None:
    security = SecurityContext(run_as_group=1000, supplemental_groups=(2000,), read_only_root=True)
    container = await subject.run(await subject.sandbox(), "sleep 60", security=security)
    assert (await output(subject, container, "sh", "-c", "id -u; id -g; id -G")).split() == [
        "0",
        "1000",
        "1000",
        "2000",
    ]
    assert "Read-only" in await output(subject, container, "touch", "/x")


async def test_an_archive_is_loaded_under_its_names(subject: Any, tmp_path: Path) -> None:
    busybox = builtin.find_busybox()
    assert busybox is not None
    path = tmp_path / "images.tar"
    await asyncio.to_thread(cri_images.write_built_in, path, busybox)

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        yield data

    found = await subject.runtime.load_image(pieces(path.read_bytes()))
    assert found == ["localhost/web:v1", "localhost/web:v2", cri_images.PAUSE_IMAGE]
    with pytest.raises(RuntimeFailure) as caught:
        await subject.runtime.load_image(pieces(b"no archive"))
    assert caught.value.reason == "InvalidImageArchive"


async def test_an_image_that_no_registry_has_cannot_be_pulled(subject: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(RuntimeFailure) as caught:
            await subject.runtime.pull(f"127.0.0.1:{closed.getsockname()[1]}/none:v1", ())
    assert caught.value.reason == "ErrImagePull"
    assert "refused" in caught.value.message


async def test_an_image_in_use_is_not_removed(subject: Any) -> None:
    await subject.run(await subject.sandbox(), "sleep 60")
    image = await subject.runtime.image("localhost/web:v1")
    with pytest.raises(RuntimeFailure, match="used by a container"):
        await subject.runtime.remove_image(image.id)


async def test_an_exec_has_a_terminal_of_its_size(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "sleep 60")
    process = await subject.runtime.exec(container, ("sh",), stdin=True, tty=True)
    await process.resize(91, 37)
    text = b""
    async with asyncio.timeout(20):
        while b"37 91" not in text:
            await process.write(b"stty size\n")
            piece = await process.read()
            assert piece is not None and piece[0] == 1
            text += piece[1]
        await process.write(b"exit 4\n")
        while await process.read() is not None:
            pass
        assert await process.wait() == 4


def test_a_runtime_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        detect.detect(
            "cri", tmp_path, now=time.time, rng=random.Random(1), cri_endpoint=f"unix://{tmp_path}/containerd.sock"
        )
    assert caught.value.reason == "RuntimeNotReady"
    assert "the runtime cri cannot work here" in caught.value.message
    assert "unix:///path" in detect.why_not_cri("tcp://127.0.0.1:1")


def test_the_nodes_range_is_dealt_by_host_local() -> None:
    document = json.loads(cri_network.conflist("steersman-ab", "10.1.2.0/24", "/data/addresses"))
    first, second = document["plugins"]
    assert first["ipam"]["ranges"] == [[{"subnet": "10.1.2.0/24"}]]
    assert first["ipMasq"] is False
    assert second["capabilities"] == {"portMappings": True}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"status": "Success"}, (0, "")),
        ({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "5"}]}}, (5, "")),
        ({"status": "Failure", "message": "no such file"}, (126, "no such file")),
    ],
    ids=["success", "exit code", "cannot run"],
)
def test_a_status_tells_how_a_command_ended(status: dict[str, Any], expected: tuple[int, str]) -> None:
    assert exit_code(status) == expected


def test_a_sandbox_travels_whole_in_its_annotations() -> None:
    mapping = PortMapping(container_port=80, host_port=8080, protocol="UDP")
    spec = SandboxSpec(pod_uid="u", name="n", namespace="d", hostname="n", port_mappings=(mapping,), host_pid=True)
    config = cri_config.sandbox_config(spec, owner="me", log_directory="/logs", cgroup_parent="/me")
    found = cri_config.cri_pb2.PodSandboxStatus(annotations=dict(config.annotations))
    assert cri_config.spec_of(found) == spec
    assert config.linux.security_context.namespace_options.pid == cri_config.cri_pb2.NODE
    assert config.port_mappings[0].protocol == cri_config.cri_pb2.UDP
