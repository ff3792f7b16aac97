"""Open streams to what runs in a container: an exec's pipes or terminal, a monitor's attach socket, a pod's port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from steersman.cluster.node.values import ExecResult, RuntimeFailure
from steersman.runtime import netns, records

_T = TypeVar("_T")

_CHUNK_BYTES = 32 * 1024
#: pieces of output that wait for their reader; the process then waits too
_PENDING_MAX = 64
_PID_FILE_DEADLINE_S = 5.0
_CONNECT_DEADLINE_S = 10.0
#: how long sizes of a terminal are held back: of those that come at once, conmon reads the first alone
_RESIZE_INTERVAL_S = 0.05
#: how long a terminal stays silent before its output is taken to be over, once its process is gone
_LAST_WORDS_S = 0.1
#: output of a command that is run to its end is cut here
_SYNC_BYTES_MAX = 16 * 1024


class ExecProcess:
    """Implements `protocol.Process` for a command that an engine runs in a container.

    Args:
        pid_file: where the engine writes the number of the process inside; None when the child is that process.
    """

    def __init__(self, pid_file: Path | None, on_end: Callable[[], None] = lambda: None) -> None:
        self._pid_file = pid_file
        self._on_end = on_end
        self._child: asyncio.subprocess.Process | None = None
        self._terminal: Terminal | None = None
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_PENDING_MAX)
        self._pumps: list[asyncio.Task[None]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._exit: asyncio.Task[int] | None = None
        #: whether the command itself was started, known once it has ended
        self.ran = True

    async def start(
        self,
        argv: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        console: Console | None = None,
    ) -> None:
        """Starts the program.

        Args:
            console: where the program sends the terminal that it makes, instead of being given one.

        Raises:
            OSError: the program cannot be started.
        """
        if tty and console is not None:
            await self._start_with_console(argv, console)
        elif tty:
            await self._start_on_terminal(argv, env, cwd)
        else:
            pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            self._child = child = await asyncio.create_subprocess_exec(
                *argv, stdin=pipe if stdin else none, stdout=pipe, stderr=pipe, start_new_session=True, env=env, cwd=cwd
            )
            assert child.stdout is not None and child.stderr is not None
            self._writer = child.stdin
            self._pumps = [
                asyncio.create_task(self._pump(1, child.stdout)),
                asyncio.create_task(self._pump(2, child.stderr)),
            ]
        self._exit = asyncio.create_task(self._wait_for_exit())

    async def _start_on_terminal(self, argv: Sequence[str], env: dict[str, str] | None, cwd: str | None) -> None:
        master, slave = os.openpty()
        self._terminal = Terminal(master)
        try:
            self._child = await asyncio.create_subprocess_exec(
                "setsid", "--ctty", *argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd
            )
        except BaseException:
            self._terminal.close()
            raise
        finally:
            os.close(slave)
        self._pumps = [asyncio.create_task(self._pump(1, self._terminal))]

    async def _start_with_console(self, argv: Sequence[str], console: Console) -> None:
        """The program tells its troubles on stderr; the terminal is what it sends, or nothing when it fails first."""
        none, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        with console:
            self._child = child = await asyncio.create_subprocess_exec(
                *argv, stdin=none, stdout=none, stderr=pipe, start_new_session=True
            )
            assert child.stderr is not None
            self._pumps = [asyncio.create_task(self._pump(2, child.stderr))]
            self._terminal = await console.terminal(child)
        if self._terminal is not None:
            self._pumps.append(asyncio.create_task(self._pump(1, self._terminal)))

    async def _pump(self, stream: int, reader: asyncio.StreamReader | Terminal) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._output.put((stream, data))

    async def _wait_for_exit(self) -> int:
        assert self._child is not None
        code = await self._child.wait()
        if self._terminal is not None:
            self._terminal.end()
        await asyncio.wait(self._pumps)
        if self._terminal is not None:
            self._terminal.close()
        if self._pid_file is not None:
            self.ran = read_pid(self._pid_file) > 0
            self._pid_file.unlink(missing_ok=True)
        self._on_end()
        await self._output.put(None)
        return code if code >= 0 else 128 - code

    async def read(self) -> tuple[int, bytes] | None:
        if self._exit is not None and self._exit.done() and self._output.empty():
            return None
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self._terminal is not None:
            # empty: the end-of-file character, as a person at a terminal would type it
            await self._terminal.write(data or b"\x04")
        elif self._writer is not None:
            with contextlib.suppress(ConnectionError, OSError):
                if data:
                    self._writer.write(data)
                    await self._writer.drain()
                else:
                    self._writer.close()

    async def resize(self, width: int, height: int) -> None:
        if self._terminal is not None:
            self._terminal.resize(width, height)

    async def wait(self) -> int:
        assert self._exit is not None
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        if self._child is None or self._exit is None or self._exit.done():
            return
        await self._kill()
        # nobody reads any more: make room so that the pumps come to their end
        while not self._exit.done():
            while not self._output.empty():
                self._output.get_nowait()
            await asyncio.wait([self._exit], timeout=0.05)

    async def _kill(self) -> None:
        assert self._child is not None
        if self._pid_file is not None:
            loop = asyncio.get_running_loop()
            end = loop.time() + _PID_FILE_DEADLINE_S
            while self._child.returncode is None and loop.time() < end:
                if inner := read_pid(self._pid_file):
                    kill_tree(inner)
                    break
                await asyncio.sleep(0.01)
            await asyncio.wait([asyncio.ensure_future(self._child.wait())], timeout=1.0)
        if self._child.returncode is None:
            kill_tree(self._child.pid)


class Console:
    """A socket to which an engine sends the terminal of a container's process; leaving it removes the socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        #: leads through a descriptor of ours, since the address of a socket has room for 107 bytes only
        self.address = f"/proc/{os.getpid()}/fd/{self._directory}/{path.name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(self.address)
            self._socket.listen(1)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        os.close(self._directory)
        self._path.unlink(missing_ok=True)

    async def terminal(self, child: asyncio.subprocess.Process) -> Terminal | None:
        """Returns the terminal that a program sends; None when the program ends without."""
        receiving, ended = asyncio.ensure_future(self._receive()), asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait([receiving, ended], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                # it may have been sent right before the end
                await asyncio.wait([receiving], timeout=_LAST_WORDS_S)
            return receiving.result() if receiving.done() else None
        finally:
            receiving.cancel()
            ended.cancel()
            # the loop lets go of the socket before it is closed
            await asyncio.gather(receiving, ended, return_exceptions=True)

    async def _receive(self) -> Terminal | None:
        loop = asyncio.get_running_loop()
        near, _ = await loop.sock_accept(self._socket)
        with near:
            readable = asyncio.Event()
            loop.add_reader(near, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(near)
            _, descriptors, _, _ = socket.recv_fds(near, 1024, 1, socket.MSG_CMSG_CLOEXEC)
            return Terminal(descriptors[0]) if descriptors else None


class Terminal:
    """The near side of a pseudo-terminal, read and written by hand.

    Not through a loop's pipe transports: one for writing may read as well, to notice the end, and swallow the output.
    """

    def __init__(self, master: int) -> None:
        self._fd = master
        self._ended = asyncio.Event()
        os.set_blocking(master, False)

    async def read(self, size_bytes_max: int) -> bytes:
        """Returns the next output; empty when the other side is gone, or after `end` when all is read."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, size_bytes_max)
            except BlockingIOError:
                if not await self._wait_readable():
                    return b""
            except OSError:
                return b""  # a terminal whose other side is gone reports an error where a pipe reports its end
        return b""

    async def _wait_readable(self) -> bool:
        """Whether there may be more: what was written before the end takes a moment through the kernel."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._fd, readable.set)
        waits = [asyncio.ensure_future(readable.wait()), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not readable.is_set():
                await asyncio.wait(waits[:1], timeout=_LAST_WORDS_S)
            return readable.is_set()
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)
            for task in waits:
                task.cancel()

    async def write(self, data: bytes) -> None:
        """Writes all of it; what nobody will read any more is dropped."""
        loop = asyncio.get_running_loop()
        while data and self._fd >= 0 and not self._ended.is_set():
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._fd, writable.set)
                waits = [asyncio.ensure_future(writable.wait()), asyncio.ensure_future(self._ended.wait())]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if self._fd >= 0:
                        loop.remove_writer(self._fd)
                    for task in waits:
                        task.cancel()
            except OSError:
                return

    def resize(self, width: int, height: int) -> None:
        if self._fd >= 0:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def end(self) -> None:
        """The process is gone; background children may keep the terminal open for ever."""
        self._ended.set()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            asyncio.get_running_loop().remove_reader(fd)
            asyncio.get_running_loop().remove_writer(fd)
            os.close(fd)


def read_pid(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def descendants(pid: int) -> list[int]:
    """Returns a process and everything it started that has not been orphaned, parents first."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += [int(child) for child in text.split()]
    return found


def kill_tree(pid: int) -> None:
    """Kills a process and everything it started."""
    for found in [(p, records.process_start(p)) for p in descendants(pid)]:
        records.kill(*found, signal.SIGKILL)


class AttachProcess:
    """Implements `protocol.Process` over a monitor's attach socket: packets whose first byte names the stream."""

    def __init__(self, resize: Callable[[int, int], None]) -> None:
        self._socket: socket.socket | None = None
        self._resize = resize
        #: the size to tell when the timer ends
        self._size: tuple[int, int] | None = None
        self._resize_timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        #: reads and writes that wait for the socket, which is not closed under them
        self._waiting = 0

    async def start(self, directory: Path) -> None:
        """Connects to `directory/attach`, however long that path is. Raises OSError."""
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(found, f"/proc/self/fd/{fd}/attach")
        except BaseException:
            found.close()
            raise
        finally:
            os.close(fd)
        self._socket = found

    async def read(self) -> tuple[int, bytes] | None:
        if self._socket is None or self._ended.is_set():
            return None
        try:
            packet = await self._unless_left(asyncio.get_running_loop().sock_recv(self._socket, _CHUNK_BYTES))
        except OSError:
            packet = b""
        if not packet:
            self._leave()
            return None
        return packet[0] - 1, packet[1:]

    async def write(self, data: bytes) -> None:
        if self._socket is None or self._ended.is_set():
            return
        with contextlib.suppress(OSError):
            if data:
                await self._unless_left(self._send(self._socket, data))
            else:
                self._socket.shutdown(socket.SHUT_WR)

    async def _send(self, monitor: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), 4096):
            await asyncio.get_running_loop().sock_sendall(monitor, data[start : start + 4096])

    async def _unless_left(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """What work on the socket gives, or None once this side has left; the loop then watches it no more.

        A socket that is closed while it is watched leaves its number behind, and a connection that gets the number
        next is never heard.
        """
        doing, left = asyncio.ensure_future(work), asyncio.ensure_future(self._ended.wait())
        self._waiting += 1
        try:
            await asyncio.wait([doing, left], return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            left.cancel()
            await asyncio.gather(doing, left, return_exceptions=True)
            self._waiting -= 1
            if self._ended.is_set():
                self._leave()

    async def resize(self, width: int, height: int) -> None:
        """Tells the monitor; clients send two sizes at once, to have the screen drawn anew."""
        self._size = (width, height)
        if self._resize_timer is None:
            self._tell_size()

    def _tell_size(self) -> None:
        self._resize_timer = None
        if self._size is not None and not self._ended.is_set():
            size, self._size = self._size, None
            with contextlib.suppress(OSError):
                self._resize(*size)
            self._resize_timer = asyncio.get_running_loop().call_later(_RESIZE_INTERVAL_S, self._tell_size)

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    def _leave(self) -> None:
        self._ended.set()
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        if self._socket is not None and not self._waiting:
            self._socket.close()
            self._socket = None

    async def close(self) -> None:
        self._leave()


class SocketStream:
    """Implements `protocol.ByteStream` over a connected TCP socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(
        cls, open_socket: Callable[[], Awaitable[socket.socket]], addresses: Sequence[str], port: int, deadline_s: float
    ) -> SocketStream:
        """Connects to the first address that answers, with a socket opened in the right namespace. Raises OSError."""
        loop = asyncio.get_running_loop()
        problem: OSError = ConnectionRefusedError(f"nothing listens on port {port}")
        for address in addresses:
            found = await open_socket()
            try:
                async with asyncio.timeout(deadline_s):
                    await loop.sock_connect(found, (address, port))
            except (OSError, TimeoutError) as error:
                found.close()
                problem = error
                continue
            reader, writer = await asyncio.open_connection(sock=found, limit=_CHUNK_BYTES)
            return cls(reader, writer)
        raise problem

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK_BYTES)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._writer.can_write_eof():
                self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await self._writer.wait_closed()


async def connect_in(pin: Path | None, addresses: Sequence[str], port: int, whose: str) -> SocketStream:
    """Connects to a TCP port from inside a network namespace, or from our own for None.

    Raises:
        RuntimeFailure: `ConnectionRefused` or `ConnectionFailed`.
    """
    try:
        return await SocketStream.connect(lambda: _socket_in(pin), addresses, port, _CONNECT_DEADLINE_S)
    except OSError as error:
        raise connect_failure(error, port, whose) from error


def connect_failure(error: OSError, port: int, whose: str) -> RuntimeFailure:
    """Returns what is told of a port of a pod that cannot be reached, in containerd's words."""
    refused = error.errno == errno.ECONNREFUSED
    why = "connect: connection refused" if refused else str(error)
    message = f'failed to connect to localhost:{port} inside namespace "{whose}": dial tcp 127.0.0.1:{port}: {why}'
    return RuntimeFailure("ConnectionRefused" if refused else "ConnectionFailed", message)


async def _socket_in(pin: Path | None) -> socket.socket:
    """Opens a TCP socket in a network namespace that a file stands for, or in our own."""

    def work() -> socket.socket:
        if pin is not None:
            netns.enter_network(pin)
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    return await netns.in_thread(work) if pin is not None else work()


async def collect(process: ExecProcess, command: Sequence[str], deadline_s: float) -> ExecResult:
    """Runs an exec to its end and returns its output, cut at 16 KiB a stream.

    Raises:
        TimeoutError: past the deadline; the process is then gone.
        RuntimeFailure: `ExecError`: the command could not be started.
    """
    output = {1: b"", 2: b""}
    try:
        async with asyncio.timeout(deadline_s):
            while (piece := await process.read()) is not None:
                output[piece[0]] = (output[piece[0]] + piece[1])[:_SYNC_BYTES_MAX]
            code = await process.wait()
    except TimeoutError:
        await process.close()
        raise TimeoutError(f"command {' '.join(command)!r} timed out after {deadline_s:g} s") from None
    except asyncio.CancelledError:
        await process.close()
        raise
    if not process.ran:
        raise RuntimeFailure("ExecError", output[2].decode(errors="replace").strip() or f"exit code {code}")
    return ExecResult(exit_code=code, stdout=output[1], stderr=output[2])
