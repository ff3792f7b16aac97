"""Workers of Ray as forks: who makes them, what they are given, and what happens where nobody forks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.actors import launch, worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers fork on Linux only")

#: what Ray's worker program says to words that it does not know: how it is used, as wide as the terminal
USAGE, REFUSED = "usage: default_worker.py", 2


async def _start(folder: Path, *words: str, columns: int = 80, job: str = "01000000") -> asyncio.subprocess.Process:
    environ = {**os.environ, "COLUMNS": str(columns), "RAY_JOB_ID": job, "RAY_RAYLET_PID": "1"}
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def _work(folder: Path, columns: int, job: str = "01000000") -> tuple[int | None, str]:
    """Returns the exit code of the program that Ray starts, and what the worker said of wrong words."""
    process = await _start(folder, worker.__file__, "--wrong", columns=columns, job=job)
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder in which a fork server serves."""
    (tmp_path / "run").mkdir()
    server = await _start(tmp_path, "-m", "steersman.actors.forkserver")
    async with asyncio.timeout(20):
        while not (tmp_path / worker.SOCKET).exists():  # noqa: ASYNC110  # a file tells nobody of its coming
            await asyncio.sleep(0.02)
    yield tmp_path
    server.kill()
    await server.communicate()


async def test_a_fork_takes_over_words_environment_and_streams(folder: Path) -> None:
    for columns, job in ((60, "01000000"), (100, "01000000"), (100, "02000000")):
        code, said = await _work(folder, columns, job)
        assert code == 0, "the program has handed over, and the worker ends by itself"
        assert said.startswith(USAGE) and "--cluster-id" in said
        assert (said.count("\n") > 30) == (columns == 60), said


async def test_only_its_owner_reaches_the_server(folder: Path) -> None:
    assert (folder / worker.SOCKET).stat().st_mode & 0o077 == 0


async def test_without_a_server_the_program_becomes_the_worker(tmp_path: Path) -> None:
    code, said = await _work(tmp_path, 80)
    assert code == REFUSED and said.startswith(USAGE)


def test_the_raylet_is_told_that_its_agents_serve_at_no_port(tmp_path: Path) -> None:
    command = ["raylet", f"--session_dir={tmp_path}", "--node_id=abc", "--head", "--python_worker_command=python w.py"]
    agents = ["--dashboard_agent_command=python agent.py -x=1", "--runtime_env_agent_command=python main.py"]
    waiting = [word.partition("=")[0] + '=sh -c "exec cat"' for word in agents]
    assert launch.without_agents([*command, *agents]) == [*command, *waiting]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        f"{port}_abc": "-1"
        for port in (
            "metrics_agent_port",
            "metrics_export_port",
            "dashboard_agent_listen_port",
            "runtime_env_agent_port",
        )
    }
