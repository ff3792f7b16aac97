"""What plain processes do: their environment, their keeper, and outliving a killed agent."""

# ruff: noqa: ASYNC110, ASYNC240 (tests may block)

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from steersman.cluster.node.values import ContainerState, Mount, RuntimeFailure, SecurityContext

DEADLINE_S = 20.0


@pytest.fixture
def subject_name() -> str:
    return "process"


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


async def test_the_two_output_streams_are_told_apart(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "echo out; sleep 0.1; echo err >&2; sleep 0.1; printf end")
    assert await log_of(subject, container) == [(1, b"out\n"), (2, b"err\n"), (1, b"end")]


async def test_a_process_learns_its_pods_address(subject: Any) -> None:
    sandbox = await subject.sandbox("named")
    container = await subject.run(sandbox, "echo $POD_IP $HOST $HOSTNAME $VERSION $X", env=(("X", "y"),))
    ip = sandbox.ips[0]
    assert await log_of(subject, container) == [(1, f"{ip} {ip} named v1 y\n".encode())]


async def test_volumes_are_linked_where_the_process_can_find_them(subject: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    mounts = (Mount(host_path=str(tmp_path), container_path="/etc/conf"),)
    container = await subject.run(await subject.sandbox(), "cat $STEERSMAN_ROOT/etc/conf/file", mounts=mounts)
    assert await log_of(subject, container) == [(1, b"hello")]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
async def test_root_may_run_as_another_user(subject: Any) -> None:
    security = SecurityContext(run_as_user=65534, run_as_group=65534)
    container = await subject.run(await subject.sandbox(), "cd /; id -u; id -g", security=security, working_dir="/")
    assert await log_of(subject, container) == [(1, b"65534\n"), (1, b"65534\n")]


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


async def test_a_process_that_says_much_more_than_it_is_told_goes_on(subject: Any) -> None:
    size = 200_000
    script = f"head -c {size} | od -v -t x1 -w1; wc -c; exit 7"
    container = await subject.run(await subject.sandbox(), script, stdin=True, stdin_once=True)
    process = await subject.runtime.attach(container, stdin=True, tty=False)

    async def tell() -> None:
        await process.write(bytes(2 * size))
        await process.write(b"")

    told = asyncio.create_task(tell())
    async with asyncio.timeout(DEADLINE_S):
        while await process.read() is not None:
            pass
        await told
    assert (await log_of(subject, container))[-1] == (1, b"%d\n" % size)
    assert (await subject.status(container)).exit_code == 7


async def test_a_client_that_has_said_all_hears_the_answer(subject: Any) -> None:
    script = "sum=0; while read number; do sum=$((sum + number)); done; echo sum $sum"
    container = await subject.run(await subject.sandbox(), script, stdin=True, stdin_once=True)
    process = await subject.runtime.attach(container, stdin=True, tty=False)
    await process.write(b"40\n2\n")
    await process.write(b"")
    assert await read_until(process, b"\n") == b"sum 42\n"


async def test_a_terminal_can_be_attached_and_sized(subject: Any) -> None:
    waits = 'until [ "$(stty size)" = "44 99" ]; do sleep 0.02; done; read line; echo got $line'
    container = await subject.run(await subject.sandbox(), waits, stdin=True, tty=True)
    process = await subject.runtime.attach(container, stdin=True, tty=True)
    for size in ((100, 45), (99, 44)):  # as kubectl does, to have the screen drawn anew
        await process.resize(*size)
    await process.write(b"go\n")
    await read_until(process, b"got go")


async def test_an_exec_may_have_a_terminal(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "sleep 60")
    process = await subject.runtime.exec(container, ("sh",), stdin=True, tty=True)
    await process.resize(101, 33)
    await process.write(b"stty size; exit 4\n")
    await read_until(process, b"33 101")
    while await process.read() is not None:
        pass
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 4


async def test_what_a_container_left_in_the_background_dies_with_it(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "setsid sleep 77 & echo $!; sleep 0.3")
    lines = await log_of(subject, container)
    pid = int(lines[0][1])
    async with asyncio.timeout(DEADLINE_S):
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.01)


async def test_an_exec_of_a_missing_command_fails_clearly(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "sleep 60")
    with pytest.raises(RuntimeFailure, match="no-such"):
        await subject.runtime.exec_sync(container, ("/no-such",), 10)


async def test_the_web_server_drains_before_it_ends(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.run(sandbox, env=(("DRAIN_S", "0.5"),))
    await subject.settled(container)
    stopping = asyncio.ensure_future(subject.runtime.stop_container(container, 10))
    await asyncio.sleep(0.1)
    reader, writer = await asyncio.open_connection(sandbox.ips[0], 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b"web v1 on pod" in await reader.read()
    writer.close()
    await stopping
    assert (await subject.status(container)).exit_code == 0


AGENT = """
import asyncio, sys, time
from pathlib import Path
from steersman.cluster.node.values import ContainerSpec, SandboxSpec
from steersman.runtime.process import ProcessRuntime

async def main():
    runtime = ProcessRuntime(Path(sys.argv[1]), now=time.time)
    await runtime.start()
    await runtime.set_pod_cidr("198.19.7.0/24")
    sandbox = await runtime.run_sandbox(SandboxSpec(pod_uid="uid-a", name="a", namespace="default", hostname="a"))
    image = await runtime.image("localhost/web:v1")
    for name, command in (("long", ("sleep", "600")), ("brief", ("sh", "-c", "sleep 0.5; echo bye; exit 9"))):
        spec = ContainerSpec(
            pod_uid="uid-a", pod_name="a", namespace="default", name=name, image=image.id, command=command
        )
        container = await runtime.create_container(sandbox.id, spec)
        await runtime.start_container(container)
        print(container, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_processes_survive_the_murder_of_their_agent_and_its_whole_session(subject: Any) -> None:
    root = subject.root.with_name("murdered")
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(root), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert agent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        long, brief = [(await agent.stdout.readline()).decode().strip() for _ in range(2)]
    os.killpg(agent.pid, signal.SIGKILL)
    await agent.wait()
    async with asyncio.timeout(DEADLINE_S):
        while not (root / "exits" / brief).exists():
            await asyncio.sleep(0.02)
    fresh = subject.another(root)
    await fresh.start()
    subject.runtime, used = fresh, subject.runtime
    try:
        assert (await subject.status(long)).state is ContainerState.RUNNING
        done = await subject.status(brief)
        assert (done.state, done.exit_code) == (ContainerState.EXITED, 9)
        assert await log_of(subject, brief) == [(1, b"bye\n")]
        await fresh.stop_container(long, 5)
        assert (await subject.status(long)).exit_code == 143
    finally:
        subject.runtime = used
        await fresh.purge()
        await fresh.stop()


async def test_a_start_that_was_not_noted_is_found_again(subject: Any) -> None:
    from dataclasses import replace

    container = await subject.run(await subject.sandbox(), "sleep 60")
    ledger = subject.runtime._ledger
    record = ledger.containers[container]
    ledger.put_container(replace(record, pid=0, pid_start=0, monitor=0, monitor_start=0, starting=True, started_at=0.0))
    await subject.again()
    assert (await subject.status(container)).state is ContainerState.RUNNING
    assert subject.runtime._ledger.containers[container].pid == record.pid
