"""The command line on a terminal: raw keys, sizes, colours and tables redrawn in place."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from steersman.cluster.meta.resources import DEPLOYMENTS, PODS

if TYPE_CHECKING:
    from tests.cli.conftest import Steer


class Terminal:
    """`steer` on a pseudo terminal of 100 by 30."""

    def __init__(self, steer: Steer, *words: str) -> None:
        self._mine, theirs = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(theirs)
        program = str(Path(sys.executable).parent / "steer")
        env = {"KUBECONFIG": str(steer.kubeconfig), "HOME": str(steer.directory), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [program, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        self._theirs = theirs
        self.seen = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._mine, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def expect(self, text: str, timeout_s: float = 15) -> str:
        """Returns what was shown, which must come to hold `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} was not shown, only {self.seen!r}"
            if select.select([self._mine], [], [], left)[0]:
                self.seen += os.read(self._mine, 65536).decode(errors="replace")
        return self.seen

    def type(self, data: bytes) -> None:
        os.write(self._mine, data)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._theirs)[3] & termios.ECHO

    def end(self) -> int:
        code = self.process.wait(15)
        os.close(self._mine)
        os.close(self._theirs)
        return code


def start_pod(steer: Steer, name: str) -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": name},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }
    made = steer.wait(steer.client.create(PODS, pod, steer.namespace))
    made["status"] = {"phase": "Running"}
    steer.wait(steer.client.update(PODS, made, subresource="status"))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_exec_with_a_terminal_passes_raw_keys_and_restores_it(steer: Steer) -> None:
    start_pod(steer, "a")
    terminal = Terminal(steer, "exec", "-it", "a", "--", "sh")
    deadline = time.monotonic() + 15
    while not terminal.is_raw():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)
    terminal.type(b"abc\x03")
    terminal.expect("ABC\x03")
    request = steer.server.nodes.agents["n1"].requests[-1]
    assert request.tty and request.stdin and not request.stderr
    terminal.resize(120, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(10) != 0


def test_a_table_on_a_terminal_is_coloured_and_fits(steer: Steer) -> None:
    steer("create", "deployment", "web", f"--image=registry.example.com/{'x' * 150}:1")
    start_pod(steer, "a")
    terminal = Terminal(steer, "get", "pods")
    assert "\x1b[32mRunning" in terminal.expect("Running")
    assert terminal.end() == 0
    terminal = Terminal(steer, "get", "deploy", "-o", "wide")
    lines = plain(terminal.expect("…")).splitlines()
    assert terminal.end() == 0 and max(map(len, lines)) <= 100


def test_a_watch_on_a_terminal_redraws_its_table(steer: Steer) -> None:
    start_pod(steer, "a")
    terminal = Terminal(steer, "get", "pods", "-w")
    terminal.expect("Running")
    start_pod(steer, "b")
    shown = plain(terminal.expect("b "))
    assert shown.count("NAME") >= 2, "the heading is drawn again with each change"
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130


def test_a_rollout_on_a_terminal_shows_a_bar(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i", "-r", "4")
    live = steer.wait(steer.client.get(DEPLOYMENTS, "web", steer.namespace))
    generation = live["metadata"]["generation"]

    def report(available: int) -> None:
        now = steer.wait(steer.client.get(DEPLOYMENTS, "web", steer.namespace))
        counts = {"replicas": 4, "updatedReplicas": 4, "readyReplicas": available, "availableReplicas": available}
        now["status"] = {"observedGeneration": generation, **counts}
        steer.wait(steer.client.update(DEPLOYMENTS, now, subresource="status"))

    report(1)
    terminal = Terminal(steer, "rollout", "status", "deployment/web")
    terminal.expect("1/4")
    report(4)
    terminal.expect("successfully rolled out")
    assert terminal.end() == 0


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_colour_can_be_refused(steer: Steer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from steersman.cli import output

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, "dumb")
    assert not output.is_terminal()
