"""What every runtime promises to the node agent: one suite over all of them (`subject` is conftest's `Subject`)."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from steersman.cluster.node.values import ContainerState, RuntimeFailure
from steersman.runtime import ownership
from steersman.runtime.addresses import loopback_cidr

DEADLINE_S = 20.0


async def output_of(process: Any) -> bytes:
    found = b""
    async with asyncio.timeout(DEADLINE_S):
        while (piece := await process.read()) is not None:
            found += piece[1]
    return found


async def lines_of(subject: Any, container: str, *, follow: bool = False) -> list[tuple[int, bytes]]:
    async with asyncio.timeout(DEADLINE_S):
        return [(stream, line) async for _, stream, line in subject.runtime.log_lines(container, follow=follow)]


async def get(subject: Any, sandbox_id: str, port: int) -> bytes:
    """Asks a pod's web server for its page, waiting until it listens."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                stream = await subject.runtime.connect(sandbox_id, port)
                break
            except RuntimeFailure:
                await asyncio.sleep(0.02)
        await stream.write(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := await stream.read():
            answer += data
        await stream.close()
    return answer


async def test_a_sandbox_gets_an_address_of_the_nodes_range(subject: Any) -> None:
    one, two = await subject.sandbox("one"), await subject.sandbox("two")
    network = ipaddress.ip_network(loopback_cidr(subject.cidr) if subject.name == "process" else subject.cidr)
    assert one.ready and two.ready
    assert one.ips != two.ips
    assert all(ipaddress.ip_address(ip) in network for ip in one.ips + two.ips)
    assert [s.pod_uid for s in await subject.runtime.sandboxes()] == ["uid-one", "uid-two"]


async def test_a_sandbox_without_a_pod_range_is_refused(subject: Any) -> None:
    bare = subject.another()
    await bare.start()
    try:
        subject.runtime, used = bare, subject.runtime
        with pytest.raises(RuntimeFailure, match="range") as caught:
            await subject.sandbox("early")
        assert caught.value.reason == "FailedCreatePodSandBox"
        host = await subject.sandbox("host", host_network=True)
        assert host.ready and host.ips == ()
    finally:
        subject.runtime = used
        await bare.purge()
        await bare.stop()


async def test_a_container_goes_from_created_through_running_to_exited(subject: Any) -> None:
    sandbox = await subject.sandbox()
    spec = await subject.spec(
        sandbox,
        "sleep 0.3; exit 7",
        simulation=(("exit-after-s", "0.3"), ("exit-code", "7")),
        spec_hash="abc",
        attempt=2,
    )
    container = await subject.runtime.create_container(sandbox.id, spec)
    created = await subject.status(container)
    assert (created.state, created.started_at) == (ContainerState.CREATED, 0)
    await subject.runtime.start_container(container)
    running = await subject.status(container)
    assert running.state is ContainerState.RUNNING
    assert running.started_at >= created.created_at > 0
    done = await subject.exited(container)
    assert (done.exit_code, done.reason, done.attempt, done.spec_hash) == (7, "Error", 2, "abc")
    assert (done.sandbox_id, done.pod_uid, done.name) == (sandbox.id, "uid-pod", "main")
    assert done.finished_at >= done.started_at


async def test_a_container_that_ends_well_is_completed(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "exit 0", simulation=(("exit-after-s", "0"),))
    done = await subject.exited(container)
    assert (done.exit_code, done.reason) == (0, "Completed")


async def test_a_container_may_see_the_processes_of_another(subject: Any) -> None:
    if subject.name in ("process", "simulated"):
        pytest.skip(f"the {subject.name} runtime has no process namespaces")
    sandbox = await subject.sandbox()
    target = await subject.run(sandbox, "sleep 61", name="target")
    look = "tr '\\0' ' ' < /proc/1/cmdline"
    beside = await subject.run(sandbox, look, name="beside")
    inside = await subject.run(sandbox, look, name="inside", target=target)
    await subject.exited(beside)
    assert (await subject.exited(inside)).exit_code == 0
    assert "sleep 61" not in str(await lines_of(subject, beside))
    assert "sleep 61" in str(await lines_of(subject, inside))
    assert (await subject.status(target)).state is ContainerState.RUNNING
    await subject.runtime.stop_container(target, 0)
    with pytest.raises(RuntimeFailure):
        await subject.run(sandbox, look, name="late", target=target)


async def test_a_stopped_container_may_end_by_itself(subject: Any) -> None:
    script = "trap 'exit 143' TERM; echo ready; while :; do sleep 0.05; done"
    container = await subject.run(await subject.sandbox(), script)
    await subject.settled(container)
    await subject.runtime.stop_container(container, 10)
    done = await subject.status(container)
    assert done.state is ContainerState.EXITED
    assert done.exit_code == 143


async def test_a_container_that_ignores_its_stop_signal_is_killed_after_the_grace(subject: Any) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    container = await subject.run(await subject.sandbox(), script, simulation=(("stop-after-s", "60"),))
    await subject.settled(container)
    started = asyncio.get_running_loop().time()
    await subject.runtime.stop_container(container, 0.3)
    assert 0.25 < asyncio.get_running_loop().time() - started < 5
    assert (await subject.status(container)).exit_code == 137


async def test_stopping_and_removing_what_is_gone_succeeds(subject: Any) -> None:
    await subject.runtime.stop_container("0" * 32, 1)
    await subject.runtime.remove_container("0" * 32)
    await subject.runtime.stop_sandbox("0" * 32)
    await subject.runtime.remove_sandbox("0" * 32)
    await subject.runtime.remove_image("sha256:" + "0" * 64)
    assert await subject.runtime.sandboxes() == []


async def test_a_command_that_does_not_exist_cannot_be_started(subject: Any) -> None:
    sandbox = await subject.sandbox()
    spec = await subject.spec(sandbox, command=("/no/such/command",), simulation=(("fail-start", "no such file"),))
    with pytest.raises(RuntimeFailure) as caught:
        container = await subject.runtime.create_container(sandbox.id, spec)
        await subject.runtime.start_container(container)
    assert caught.value.reason in ("CreateContainerError", "RunContainerError")
    assert "no such file" in caught.value.message.lower()


async def test_a_running_container_cannot_be_removed(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    with pytest.raises(RuntimeFailure, match="running"):
        await subject.runtime.remove_container(container)
    await subject.runtime.stop_container(container, 0)
    await subject.runtime.remove_container(container)
    assert await subject.runtime.containers() == []


async def test_a_command_in_a_container_is_run_to_its_end(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    result = await subject.runtime.exec_sync(container, ("echo", "hello", "there"), 10)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"hello there\n", b"")
    assert (await subject.runtime.exec_sync(container, ("sh", "-c", "exit 3"), 10)).exit_code == 3


async def test_a_command_that_takes_too_long_is_ended(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    with pytest.raises(TimeoutError):
        await subject.runtime.exec_sync(container, ("sleep", "60"), 0.2)


async def test_nothing_can_be_run_in_a_container_that_is_not_running(subject: Any) -> None:
    container = await subject.run(await subject.sandbox(), "exit 0", simulation=(("exit-after-s", "0"),))
    await subject.exited(container)
    with pytest.raises(RuntimeFailure):
        await subject.runtime.exec_sync(container, ("true",), 5)
    with pytest.raises(RuntimeFailure):
        await subject.runtime.attach(container, stdin=False, tty=False)


async def test_an_exec_talks_both_ways(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("cat",), stdin=True, tty=False)
    await process.write(b"one\n")
    assert await asyncio.wait_for(process.read(), DEADLINE_S) == (1, b"one\n")
    await process.write(b"two\n")
    await process.write(b"")
    assert await output_of(process) == b"two\n"
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0
    await process.close()


async def test_an_exec_tells_its_exit_code(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("sh", "-c", "exit 5"), stdin=False, tty=False)
    assert await output_of(process) == b""
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 5


async def test_a_closed_exec_ends(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.exec(container, ("cat",), stdin=True, tty=False)
    await process.close()
    await asyncio.wait_for(process.wait(), DEADLINE_S)


async def test_an_attachment_lasts_as_long_as_the_container(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.attach(container, stdin=False, tty=False)
    await subject.runtime.stop_container(container, 0)
    await output_of(process)
    assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0


async def test_a_left_attachment_does_not_end_the_container(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    process = await subject.runtime.attach(container, stdin=False, tty=False)
    await process.close()
    assert await process.wait() == 0
    assert (await subject.status(container)).state is ContainerState.RUNNING


async def test_the_log_keeps_lines_in_order_with_their_streams(subject: Any) -> None:
    container = await subject.run(
        await subject.sandbox(),
        "echo one; sleep 0.05; echo two; printf three",
        simulation=(("log", "one\ntwo\nthree"), ("exit-after-s", "0.05")),
    )
    await subject.exited(container)
    lines = await lines_of(subject, container)
    assert [line.rstrip(b"\n") for _, line in lines] == [b"one", b"two", b"three"]
    assert {stream for stream, _ in lines} == {1}


async def test_a_followed_log_ends_with_the_container(subject: Any) -> None:
    container = await subject.run(
        await subject.sandbox(),
        "echo one; sleep 0.3; echo two",
        simulation=(("log", "one\ntwo"), ("exit-after-s", "0.3")),
    )
    assert await lines_of(subject, container, follow=True) == [(1, b"one\n"), (1, b"two\n")]


async def test_an_exit_is_announced(subject: Any) -> None:
    changes = subject.runtime.changes()
    await subject.run(await subject.sandbox(), "exit 1", simulation=(("exit-after-s", "0"),))
    assert await asyncio.wait_for(anext(changes), DEADLINE_S) == "uid-pod"


async def test_the_built_in_image_serves_on_a_port_of_the_pod(subject: Any) -> None:
    sandbox = await subject.sandbox()
    await subject.run(sandbox)
    answer = await get(subject, sandbox.id, 8080)
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))


async def test_a_port_where_nobody_listens_refuses(subject: Any) -> None:
    sandbox = await subject.sandbox()
    await subject.run(sandbox, "sleep 60", simulation=(("fail-probe", ""),))
    with pytest.raises(RuntimeFailure) as caught:
        await subject.runtime.connect(sandbox.id, 8099)
    assert caught.value.reason == "ConnectionRefused"


async def test_containers_outlive_the_agent_and_are_seen_again(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.run(sandbox)
    before = await subject.status(container)
    ended = await subject.run(sandbox, "exit 4", name="ended", simulation=(("exit-after-s", "0"), ("exit-code", "4")))
    await subject.exited(ended)
    await subject.again()
    assert await subject.runtime.sandboxes() == [sandbox]
    assert await subject.status(container) == before
    assert (await subject.status(ended)).exit_code == 4
    fresh = await subject.sandbox("fresh")
    assert fresh.ips != sandbox.ips
    await subject.runtime.stop_container(container, 0)
    assert (await subject.status(container)).exit_code == 137


async def test_a_second_agent_over_the_same_directory_is_refused(subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if subject.name == "simulated":
        pytest.skip("simulated containers live in one process")
    monkeypatch.setattr(ownership, "_DEADLINE_S", 0.1)
    container = await subject.run(await subject.sandbox())
    second = subject.another(subject.root)
    with pytest.raises(RuntimeFailure, match="another process") as caught:
        await second.start()
    assert caught.value.reason == "RuntimeNotReady"
    assert (await subject.status(container)).state is ContainerState.RUNNING


async def test_a_stopped_sandbox_is_not_ready_and_nothing_runs_in_it(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.run(sandbox)
    await subject.runtime.stop_sandbox(sandbox.id)
    assert not (await subject.runtime.sandboxes())[0].ready
    assert (await subject.exited(container)).exit_code == 137
    with pytest.raises(RuntimeFailure):
        await subject.runtime.create_container(sandbox.id, await subject.spec(sandbox))
    await subject.runtime.remove_sandbox(sandbox.id)
    assert await subject.runtime.sandboxes() == []
    assert await subject.runtime.containers() == []


async def test_statistics_show_running_containers(subject: Any) -> None:
    container = await subject.run(await subject.sandbox())
    await subject.settled(container)
    (row,) = await subject.runtime.stats()
    assert (row.id, row.pod_uid, row.name) == (container, "uid-pod", "main")
    assert row.memory_usage_bytes >= row.memory_working_set_bytes > 0
    assert row.cpu_usage_ns >= 0


async def test_the_built_in_images_are_there(subject: Any) -> None:
    names = {name for image in await subject.runtime.images() for name in image.names}
    assert {"localhost/web:v1", "localhost/web:v2"} <= names
    one = await subject.runtime.image("localhost/web:v1")
    assert one == await subject.runtime.image(one.id)
    assert one.id != (await subject.runtime.image("localhost/web:v2")).id
    assert await subject.runtime.image("localhost/none:v1") is None


async def test_a_removed_image_is_gone(subject: Any) -> None:
    found = await subject.runtime.image("localhost/web:v2")
    await subject.runtime.remove_image(found.id)
    assert await subject.runtime.image("localhost/web:v2") is None


async def test_a_reference_that_is_none_is_refused(subject: Any) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await subject.runtime.pull("Not A Reference", ())
    assert caught.value.reason == "InvalidImageName"


async def test_purge_leaves_nothing(subject: Any) -> None:
    sandbox = await subject.sandbox()
    container = await subject.run(sandbox)
    await subject.settled(container)
    await subject.runtime.exec_sync(container, ("true",), 10)
    await subject.runtime.purge()
    assert await subject.runtime.sandboxes() == []
    assert await subject.runtime.containers() == []
    assert subject.leftovers() == []
