"""What only real containers do: limits, users, namespaces, mounts, ports, and outliving a killed agent."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC240 (tests may block)

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steersman.cluster.node.values import (
    ContainerState,
    DnsConfig,
    Mount,
    PortMapping,
    Resources,
    RuntimeFailure,
    SecurityContext,
)
from steersman.runtime import crilog, detect, machine

DEADLINE_S = 20.0

pytestmark = pytest.mark.root


@pytest.fixture
def subject_name() -> str:
    return "oci"


async def output(subject: Any, container: str, *command: str) -> str:
    result = await subject.runtime.exec_sync(container, command, 10)
    assert result.exit_code == 0, result
    return result.stdout.decode().strip()


async def log_of(subject: Any, container: str) -> list[tuple[int, bytes]]:
    await subject.exited(container)
    return [(stream, line) async for _, stream, line in subject.runtime.log_lines(container, follow=False)]


async def read_until(process: Any, text: bytes) -> bytes:
    found = b""
    async with asyncio.timeout(DEADLINE_S):
        while text not in found:
            piece = await process.read()
            assert piece is not None, found
            found += piece[1]
    return found


async def get(host: str, port: int) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
                break
            except OSError:
                await asyncio.sleep(0.02)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
    return answer


async def test_a_container_that_takes_too_much_memory_is_told_so(subject: Any) -> None:
    container = await subject.run(
        await subject.sandbox(),
        "tail /dev/zero",
        resources=Resources(memory_limit_bytes=16 * 1024 * 1024),
    )
    done = await subject.exited(container)
    assert (done.reason, done.exit_code) == ("OOMKilled", 137)


async def test_limits_stand_in_the_cgroup(subject: Any) -> None:
    sandbox = await subject.sandbox(qos_class="Burstable", resources=Resources(cpu_shares=512, pids_limit=100))
    container = await subject.run(
        sandbox, resources=Resources(cpu_shares=256, cpu_quota_us=50_000, memory_limit_bytes=1 << 26, pids_limit=64)
    )
    host = subject.runtime._host
    group = host.container_cgroup(host.ledger.containers[container])
    assert "/kubepods/burstable/poduid-pod/" in group
    if host.cgroups.version == 1:
        assert Path(f"{host.cgroups.mounts['cpu']}{group}/cpu.shares").read_text() == "256\n"
        assert Path(f"{host.cgroups.mounts['cpu']}{group}/cpu.cfs_quota_us").read_text() == "50000\n"
        assert Path(f"{host.cgroups.mounts['memory']}{group}/memory.limit_in_bytes").read_text() == f"{1 << 26}\n"
        assert Path(f"{host.cgroups.mounts['pids']}{os.path.dirname(group)}/pids.max").read_text() == "100\n"
    else:
        assert Path(f"{host.cgroups.mounts['unified']}{group}/memory.max").read_text() == f"{1 << 26}\n"


async def test_the_two_output_streams_are_told_apart(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf end")
    assert await log_of(subject, container) == [(1, b"out\n"), (2, b"err\n"), (1, b"end")]


async def test_a_terminal_has_the_size_it_is_given(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("sh",), stdin=True, tty=True)
    await process.resize(101, 33)
    await process.write(b"stty size; tty; exit 4\n")
    found = await read_until(process, b"/dev/pts")
    assert b"33 101" in found
    while await process.read() is not None:
        pass
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 4


async def test_a_terminals_size_follows_while_a_command_runs(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("sh",), stdin=True, tty=True)
    for height in (31, 32):
        await process.resize(101, height)
        await process.write(b"stty size\n")
        await read_until(process, f"{height} 101".encode())
    await process.close()


async def test_a_command_that_is_missing_says_so_on_a_terminal_too(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("no-such",), stdin=True, tty=True)
    assert b"no-such" in await read_until(process, b"not found")
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) != 0


async def test_an_attachment_sees_output_and_gives_input(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "while read line; do echo got $line; done", stdin=True)
    process = await subject.runtime.attach(container, stdin=True, tty=False)
    await process.write(b"one\n")
    assert await read_until(process, b"got one\n") == b"got one\n"
    await process.close()
    again = await subject.runtime.attach(container, stdin=True, tty=False)
    await again.write(b"two\n")
    assert await read_until(again, b"two\n") == b"got two\n"
    await again.close()
    assert (await subject.status(container)).state is ContainerState.RUNNING


async def test_an_attachment_to_a_terminal_works(subject: Any) -> None:
    waits = 'until [ "$(stty size)" = "44 99" ]; do sleep 0.02; done; read line; echo got $line'
    container = await subject.run(await subject.sandbox(), waits, stdin=True, tty=True)
    process = await subject.runtime.attach(container, stdin=True, tty=True)
    for size in ((100, 45), (99, 44)):  # as kubectl does, to have the screen drawn anew
        await process.resize(*size)
    await process.write(b"go\n")
    await read_until(process, b"got go")


async def test_users_and_groups_come_from_the_image_and_the_pod(subject: Any) -> None:
    sandbox = await subject.sandbox()
    security = SecurityContext(
        run_as_user=1000, supplemental_groups=(4000,), read_only_root=True, no_new_privileges=True
    )
    container = await subject.run(sandbox, "sleep 60", security=security)
    assert await output(subject, container, "id") == "uid=1000(www) gid=1000(www) groups=1000(www),4000"
    assert (await subject.runtime.exec_sync(container, ("touch", "/x"), 10)).exit_code == 1
    status = await output(subject, container, "cat", "/proc/1/status")
    assert "NoNewPrivs:\t1" in status and "CapEff:\t0000000000000000" in status and "Seccomp:\t2" in status


async def test_capabilities_are_dockers_by_default_and_can_be_dropped(subject: Any) -> None:
    sandbox = await subject.sandbox()
    default = await subject.run(sandbox, "sleep 60")
    status = await output(subject, default, "cat", "/proc/1/status")
    (effective,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff")]
    assert effective >> 0 & 1 and not effective >> 21 & 1 and not effective >> 12 & 1
    none = await subject.run(
        sandbox,
        "sleep 60",
        name="none",
        security=SecurityContext(capabilities_drop=("ALL",), capabilities_add=("NET_BIND_SERVICE",)),
    )
    assert "CapEff:\t0000000000000400" in await output(subject, none, "cat", "/proc/1/status")
    assert (await subject.runtime.exec_sync(default, ("mount", "-t", "tmpfs", "x", "/tmp"), 10)).exit_code != 0
    assert (await subject.runtime.exec_sync(default, ("unshare", "-n", "true"), 10)).exit_code != 0


async def test_a_privileged_container_may_mount_and_sees_devices(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "sleep 60", security=SecurityContext(privileged=True))
    assert (await subject.runtime.exec_sync(container, ("mount", "-t", "tmpfs", "x", "/tmp"), 10)).exit_code == 0
    assert await output(subject, container, "sh", "-c", "ls /dev | wc -l") != "0"
    assert (await subject.runtime.exec_sync(container, ("test", "-e", "/dev/kmsg"), 10)).exit_code in (0, 1)


async def test_a_pod_finds_its_names_in_its_files(subject: Any) -> None:
    sandbox = await subject.sandbox(
        "web-0",
        dns=DnsConfig(servers=("10.96.0.10",), searches=("a.svc", "svc"), options=("ndots:5",)),
        host_aliases=(("1.2.3.4", ("one", "two")),),
    )
    container = await subject.run(sandbox, "sleep 60")
    resolv = "nameserver 10.96.0.10\nsearch a.svc svc\noptions ndots:5"
    assert await output(subject, container, "cat", "/etc/resolv.conf") == resolv
    hosts = await output(subject, container, "cat", "/etc/hosts")
    assert f"{sandbox.ips[0]}\tweb-0" in hosts and "1.2.3.4\tone\ttwo" in hosts
    assert await output(subject, container, "hostname") == "web-0"
    assert await output(subject, container, "cat", "/etc/hostname") == "web-0"


async def test_mounts_are_shown_with_their_rights(subject: Any, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol" / "file").write_text("hello")
    mounts = (
        Mount(host_path=str(tmp_path / "vol"), container_path="/deep/vol"),
        Mount(host_path=str(tmp_path / "vol"), container_path="/ro", read_only=True),
        Mount(host_path=str(tmp_path / "vol" / "file"), container_path="/etc/file", read_only=True),
    )
    container = await subject.run(await subject.sandbox(), "sleep 60", mounts=mounts)
    assert await output(subject, container, "cat", "/deep/vol/file", "/etc/file") == "hellohello"
    await output(subject, container, "sh", "-c", "echo more > /deep/vol/new")
    assert (tmp_path / "vol" / "new").read_text() == "more\n"
    assert (await subject.runtime.exec_sync(container, ("touch", "/ro/x"), 10)).exit_code == 1


async def test_pods_reach_each_other_by_address(subject: Any) -> None:
    one, two = await subject.sandbox("one"), await subject.sandbox("two")
    await subject.run(one)
    client = await subject.run(two, "sleep 60")
    await get(one.ips[0], 8080)
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {one.ips[0]} 8080"
    assert "web v1 on one" in await output(subject, client, "sh", "-c", script)


async def test_an_address_that_no_pod_holds_is_refused_at_once(subject: Any) -> None:
    with pytest.raises(OSError):
        async with asyncio.timeout(2):
            await asyncio.open_connection("198.19.7.200", 80)


async def test_a_host_port_leads_to_the_pod(subject: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mapping = PortMapping(container_port=8080, host_port=port)
    sandbox = await subject.sandbox("published", port_mappings=(mapping,))
    await subject.run(sandbox)
    await get(sandbox.ips[0], 8080)
    for address in {"127.0.0.1", machine.primary_address()}:
        assert b"web v1 on published" in await get(address, port)
    await subject.runtime.remove_sandbox(sandbox.id)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert subject.runtime._host.tag not in rules


async def test_containers_of_a_pod_share_what_the_pod_says(subject: Any) -> None:
    sandbox = await subject.sandbox(share_process_namespace=True)
    one = await subject.run(sandbox, "sleep 61", name="one")
    await subject.run(sandbox, "sleep 62", name="two")
    processes = await output(subject, one, "ps")
    assert "sleep 61" in processes and "sleep 62" in processes
    apart = await subject.sandbox("apart")
    alone = await subject.run(apart, "sleep 63")
    assert "sleep 61" not in await output(subject, alone, "ps")


async def test_a_container_that_was_never_started_can_be_stopped(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.runtime.create_container(sandbox.id, await subject.spec(sandbox))
    await subject.runtime.stop_container(container, 5)
    assert (await subject.status(container)).state is ContainerState.EXITED
    await subject.runtime.remove_container(container)


async def test_an_exec_of_a_missing_command_fails_clearly(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    with pytest.raises(RuntimeFailure, match="no-such"):
        await subject.runtime.exec_sync(container, ("/no-such",), 10)


async def test_the_web_server_drains_before_it_ends(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.run(sandbox, env=(("DRAIN_S", "0.5"),))
    await get(sandbox.ips[0], 8080)
    stopping = asyncio.ensure_future(subject.runtime.stop_container(container, 10))
    await asyncio.sleep(0.1)
    assert b"web v1" in await get(sandbox.ips[0], 8080)
    await stopping
    assert (await subject.status(container)).exit_code == 0


def big_image(count: int) -> bytes:
    """A docker archive of the built-in image's layer and many small ones above it."""
    import hashlib

    from steersman.runtime import builtin

    busybox = builtin.find_busybox()
    assert busybox is not None
    plain = [builtin.root_archive(busybox)]
    for number in range(count):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(f"layer-{number}"))
        plain.append(buffer.getvalue())
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in plain]
    config = {"os": "linux", "config": {"Cmd": ["sh", "-c", "ls / | grep -c layer-"]}, "rootfs": {"diff_ids": digests}}
    manifest = [{"Config": "c.json", "RepoTags": ["big:v1"], "Layers": [f"{n}.tar" for n in range(len(plain))]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in [
            ("c.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ] + [(f"{n}.tar", data) for n, data in enumerate(plain)]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def test_an_image_of_many_layers_is_one_file_system(subject: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield big_image(120)

    assert await subject.runtime.load_image(pieces()) == ["docker.io/library/big:v1"]
    sandbox = await subject.sandbox()
    image = await subject.runtime.image("big:v1")
    spec = replace(await subject.spec(sandbox), image=image.id)
    container = await subject.runtime.create_container(sandbox.id, spec)
    await subject.runtime.start_container(container)
    assert await log_of(subject, container) == [(1, b"120\n")]
    with pytest.raises(RuntimeFailure, match="used by a container"):
        await subject.runtime.remove_image(image.id)


async def test_a_full_log_is_rotated_and_read_as_one(subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crilog, "LOG_BYTES_MAX", 100)
    script = "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); done; read x; echo last"
    container = await subject.run(await subject.sandbox(), script, stdin=True)
    log = Path((await subject.status(container)).log_path)
    async with asyncio.timeout(DEADLINE_S):
        while "line 19" not in log.read_text():
            await asyncio.sleep(0.01)
    subject.runtime._containers.rotate_logs()
    async with asyncio.timeout(DEADLINE_S):
        while not log.exists():
            await asyncio.sleep(0.01)
    process = await subject.runtime.attach(container, stdin=True, tty=False)
    await process.write(b"\n")
    lines = await log_of(subject, container)
    assert [line for _, line in lines] == [*(f"line {n}\n".encode() for n in range(20)), b"last\n"]
    assert crilog.rotated(log).exists()


AGENT = """
import asyncio, sys, time
from pathlib import Path
from steersman.cluster.node.values import ContainerSpec, SandboxSpec
from steersman.runtime.oci import OciRuntime

async def main():
    runtime = OciRuntime(Path(sys.argv[1]), now=time.time)
    await runtime.start()
    await runtime.set_pod_cidr("198.19.7.0/24")
    sandbox = await runtime.run_sandbox(SandboxSpec(pod_uid="uid-a", name="a", namespace="default", hostname="a"))
    image = await runtime.image("localhost/web:v1")
    for name, command in (("web", ()), ("brief", ("sh", "-c", "sleep 1; exit 9"))):
        spec = ContainerSpec(
            pod_uid="uid-a", pod_name="a", namespace="default", name=name, image=image.id, command=command
        )
        container = await runtime.create_container(sandbox.id, spec)
        await runtime.start_container(container)
        print(container, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_containers_survive_the_murder_of_their_agent_and_its_whole_session(subject: Any) -> None:
    root = subject.root.with_name("murdered")
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(root), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert agent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        web, brief = [(await agent.stdout.readline()).decode().strip() for _ in range(2)]
    os.killpg(agent.pid, signal.SIGKILL)
    await agent.wait()
    await asyncio.sleep(1.2)
    fresh = subject.another(root)
    await fresh.start()
    await fresh.set_pod_cidr("198.19.7.0/24")
    subject.runtime, used = fresh, subject.runtime
    try:
        found = {status.id: status for status in await fresh.containers()}
        assert found.keys() == {web, brief}
        assert found[web].state is ContainerState.RUNNING
        assert (found[brief].state, found[brief].exit_code) == (ContainerState.EXITED, 9)
        (sandbox,) = await fresh.sandboxes()
        assert sandbox.ready
        assert b"web v1 on a" in await get(sandbox.ips[0], 8080)
        assert (await subject.sandbox("next")).ips != sandbox.ips
        assert await output(subject, web, "echo", "hi") == "hi"
        changes = fresh.changes()
        os.kill(fresh._host.ledger.containers[web].pid, signal.SIGKILL)
        assert await asyncio.wait_for(anext(changes), DEADLINE_S) == "uid-a"
        assert (await subject.status(web)).exit_code == 137
    finally:
        subject.runtime = used
        await fresh.purge()
        await fresh.stop()


async def test_what_was_half_made_when_an_agent_died_is_removed(subject: Any) -> None:
    sandbox = await subject.sandbox()
    kept = await subject.run(sandbox)
    half = await subject.run(sandbox, "sleep 60", name="half")
    ledger = subject.runtime._host.ledger
    pid = ledger.containers[half].pid
    (ledger.container_dir(half) / "container.json").unlink()
    lost = await subject.sandbox("lost")
    (ledger.sandbox_dir(lost.id) / "sandbox.json").unlink()
    await subject.again()
    assert [status.id for status in await subject.runtime.containers()] == [kept]
    assert [status.id for status in await subject.runtime.sandboxes()] == [sandbox.id]
    assert not Path(f"/proc/{pid}").exists()
    network = subject.runtime._host.network
    assert await network.links() == [network.link_name(sandbox.id)]
    assert not (subject.root / "containers" / half).exists()


async def test_a_container_whose_keeper_was_killed_is_still_seen_to_end(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "sleep 60")
    record = subject.runtime._host.ledger.containers[container]
    os.kill(record.monitor, signal.SIGKILL)
    assert (await subject.status(container)).state is ContainerState.RUNNING
    os.kill(record.pid, signal.SIGKILL)
    done = await subject.exited(container)
    assert (done.exit_code, done.reason) == (255, "Error")
    assert "nothing watched" in done.message


async def test_the_keeper_has_a_session_and_a_cgroup_of_its_own(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    record = subject.runtime._host.ledger.containers[container]
    stat = Path(f"/proc/{record.monitor}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[3]) == record.monitor
    assert int(stat[16]) == 0
    assert subject.runtime._host.conmon_cgroup in Path(f"/proc/{record.monitor}/cgroup").read_text()


async def test_ten_pods_at_once_all_run_and_all_go(subject: Any) -> None:
    async def pod(number: int) -> tuple[str, str]:
        sandbox = await subject.sandbox(f"pod-{number}")
        return sandbox.id, await subject.run(sandbox, "sleep 60")

    made = await asyncio.gather(*(pod(number) for number in range(10)))
    assert {status.state for status in await subject.runtime.containers()} == {ContainerState.RUNNING}
    assert len({status.ips for status in await subject.runtime.sandboxes()}) == 10
    await asyncio.gather(*(subject.runtime.remove_sandbox(sandbox) for sandbox, _ in made))
    assert await subject.runtime._host.network.links() == []
    assert not list((subject.root / "containers").iterdir())


async def test_runc_serves_as_well(subject: Any, tmp_path: Path) -> None:
    from steersman.runtime import engine

    if engine.find("runc") is None or "runc" in subject.runtime._host.engine.version:
        pytest.skip("runc is not installed beside crun")
    from steersman.runtime.oci import OciRuntime

    runtime = OciRuntime(tmp_path / "runc", engine="runc", now=time.time)
    assert (await runtime.start()).version.startswith("runc ")
    await runtime.set_pod_cidr("198.19.8.0/24")
    subject.runtime, used = runtime, subject.runtime
    try:
        container = await subject.run(await subject.sandbox())
        assert await output(subject, container, "echo", "hi") == "hi"
        with pytest.raises(RuntimeFailure):
            await subject.run(await subject.sandbox("bad"), command=("/no-such",))
    finally:
        subject.runtime = used
        await runtime.purge()
        await runtime.stop()


def test_the_choice_of_a_runtime_says_why(tmp_path: Path) -> None:
    import random

    choice = detect.detect("process", tmp_path, now=time.time, rng=random.Random(1))
    assert (choice.name, choice.reasons) == ("process", ())
    with pytest.raises(RuntimeFailure, match="unknown runtime"):
        detect.detect("docker", tmp_path, now=time.time, rng=random.Random(1))
    with contextlib.suppress(RuntimeFailure):
        assert detect.detect("oci", tmp_path, now=time.time, rng=random.Random(1)).name == "oci"
