"""A container's keeper where there is no engine: starts one process and stays with it, whatever becomes of the agent.

Run as `python -I -S shim.py STATUS_FD ID DIRECTORY EXITS USER FLAGS CWD COMMAND...` with the process's environment. It
forks twice, leads a session of its own, keeps `DIRECTORY/log` in the CRI's format (rotated to `log.1`), serves
`DIRECTORY/attach`, listens to `DIRECTORY/ctl` for the terminal's size, and at the end writes the exit code to
`EXITS/ID`. On STATUS_FD it says `pid NUMBER SHIM` or `error TEXT`. Imports little: one of these runs per container.
"""

# ruff: noqa: SIM105 (contextlib would double the memory of every container's keeper)

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import os
import select
import sys
import termios
import time

_LOG_BYTES_MAX = 10 * 1024 * 1024
_CHUNK_BYTES = 16 * 1024
_CLIENTS_MAX = 16
_ACCEPT_TYPE = _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
#: what would end the keeper before its process
IGNORED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE)
#: marks every process of a container, wherever it has moved in the process tree
MARK = "STEERSMAN_CONTAINER"


class Log:
    """Writes entries, one a line or part of a line."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self.fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self.fd).st_size

    def write(self, stream: bytes, data: bytes) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode()
        stamp += b".%09dZ " % (now % 10**9)
        *whole, rest = data.split(b"\n")
        entries = [stamp + stream + b" F " + line + b"\n" for line in whole]
        if rest:
            entries.append(stamp + stream + b" P " + rest + b"\n")
        text = b"".join(entries)
        if self._size + len(text) > _LOG_BYTES_MAX:
            os.close(self.fd)
            os.replace("log", "log.1")
            self._open()
        try:
            os.write(self.fd, text)
        except OSError:
            # a full disk must not end the process whose output this is
            return
        self._size += len(text)


class Keeper:
    """Serves the streams of one process until it has ended."""

    def __init__(self, pid: int, outputs: dict[int, tuple[bytes, bytes]], stdin: int, *, leave_open: bool) -> None:
        self._pid = pid
        #: descriptor to (packet prefix, name in the log)
        self._outputs = outputs
        self._stdin = stdin
        self._leave_open = leave_open
        #: what the process has not taken of its input yet; clients are not heard meanwhile (`_is_full`)
        self._input = b""
        self._is_full = False
        self._log = Log()
        self._clients: dict[int, object] = {}
        self._code = -1
        self._poll = select.poll()
        for fd in outputs:
            self._poll.register(fd, select.POLLIN)
        self._wake, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._poll.register(self._wake, select.POLLIN)
        self._listener = _socket.socket(_socket.AF_UNIX, _ACCEPT_TYPE)
        try:
            os.unlink("attach")
        except FileNotFoundError:
            pass
        self._listener.bind("attach")
        os.chmod("attach", 0o600)
        self._listener.listen(4)
        self._poll.register(self._listener.fileno(), select.POLLIN)
        if not os.path.exists("ctl"):
            os.mkfifo("ctl", 0o600)
        # open for both, so that it never reports its end
        self._ctl = os.open("ctl", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._ctl, select.POLLIN)

    def run(self) -> int:
        """Returns the exit code once the process has ended and its output is read."""
        self._reap()
        while self._code < 0:
            for fd, events in self._poll.poll(1000):
                self._on_ready(fd, events)
            self._reap()
        return self._code

    def _on_ready(self, fd: int, events: int) -> None:
        if fd == self._stdin and self._is_full:
            self._push()
        if fd in self._outputs:
            self._on_output(fd)
        elif fd == self._wake:
            os.read(self._wake, 64)
        elif fd == self._listener.fileno():
            self._accept()
        elif fd == self._ctl:
            self._on_control()
        elif fd in self._clients and not self._is_full:
            self._on_input(fd, has_left=bool(events & select.POLLHUP))

    def _on_output(self, fd: int) -> bool:
        """Passes on what there is; returns whether there may be more."""
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(fd)
            del self._outputs[fd]
            return False
        prefix, name = self._outputs[fd]
        self._log.write(name, data)
        for client in list(self._clients.values()):
            try:
                client.send(prefix + data)  # type: ignore[attr-defined]
            except OSError as error:
                # a client that does not read loses output rather than holding up the process
                if error.errno != errno.EAGAIN:
                    self._leave(client.fileno())  # type: ignore[attr-defined]
        return True

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        client = _socket.socket(_socket.AF_UNIX, _ACCEPT_TYPE, 0, fd)
        if len(self._clients) >= _CLIENTS_MAX:
            client.close()
            return
        client.setblocking(False)
        self._clients[fd] = client
        if not self._is_full:
            self._poll.register(fd, select.POLLIN)

    def _on_input(self, fd: int, *, has_left: bool) -> None:
        try:
            data = self._clients[fd].recv(_CHUNK_BYTES)  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if has_left:
                self._leave(fd)
            else:
                # one that has only closed its writing half goes on listening; that it leaves is told in any case
                self._poll.register(fd, 0)
            if self._stdin >= 0 and not self._leave_open:
                os.close(self._stdin)
                self._stdin = -1
        elif self._stdin >= 0:
            self._input = data
            self._push()

    def _push(self) -> None:
        """Gives the process what it takes of its input: one that waits to be read from takes none."""
        try:
            self._input = self._input[os.write(self._stdin, self._input) :]
        except BlockingIOError:
            pass
        except OSError:
            self._input = b""  # nobody reads it any more
        if self._is_full == bool(self._input):
            return
        self._is_full = bool(self._input)
        for fd in self._clients:
            if self._is_full:
                self._poll.unregister(fd)
            else:
                self._poll.register(fd, select.POLLIN)
        events = (select.POLLIN if self._stdin in self._outputs else 0) | (select.POLLOUT if self._is_full else 0)
        if events:
            self._poll.register(self._stdin, events)
        else:
            self._poll.unregister(self._stdin)

    def _leave(self, fd: int) -> None:
        if not self._is_full:
            self._poll.unregister(fd)
        self._clients.pop(fd).close()  # type: ignore[attr-defined]

    def _on_control(self) -> None:
        for line in os.read(self._ctl, 4096).split(b"\n"):
            fields = line.split()
            if len(fields) == 3 and fields[0] == b"1" and self._stdin >= 0:
                size = b"".join(int(field).to_bytes(2, sys.byteorder) for field in fields[1:]) + bytes(4)
                try:
                    fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, size)
                except OSError:
                    pass

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self._pid, 255 << 8
        if pid == 0:
            return
        kill_marked(os.environ[MARK])
        for fd in list(self._outputs):
            os.set_blocking(fd, False)
            while self._on_output(fd):
                pass
        code = os.waitstatus_to_exitcode(status)
        self._code = code if code >= 0 else 128 - code


def kill_marked(mark: str) -> None:
    """Kills every process that carries the container's mark, but this one."""
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            fd = os.open(f"/proc/{name}/environ", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if wanted in os.read(fd, 1 << 20).split(b"\0"):
                    os.kill(int(name), 9)
            finally:
                os.close(fd)
        except OSError:
            pass


def execute(command: list[str]) -> None:
    """Becomes the command. `os.execvpe` would import, which another user may not be able to. Raises OSError."""
    name = command[0]
    places = [name] if "/" in name else [f"{place}/{name}" for place in os.environ.get("PATH", os.defpath).split(":")]
    problem: OSError = FileNotFoundError(errno.ENOENT, "No such file or directory", name)
    for place in places:
        try:
            os.execve(place, command, os.environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problem = error
    raise problem


def start(command: list[str], cwd: str, user: str, fds: tuple[int, int, int], *, tty: bool) -> int:
    """Starts the process on these descriptors and returns its number. Raises OSError."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            if tty:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if user:
                uid, gid, groups = user.split(":")
                os.setgroups([int(group) for group in groups.split(",") if group])
                os.setgid(int(gid))
                os.setuid(int(uid))
            os.chdir(cwd)
            for signal in IGNORED:
                _signal.signal(signal, _signal.SIG_DFL)
            execute(command)
        except BaseException as error:
            os.write(writing, str(error).encode())
        os._exit(127)
    os.close(writing)
    problem = os.read(reading, 4096)
    os.close(reading)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(problem.decode())
    return pid


def keep(arguments: list[str]) -> None:
    """What the grandchild does: start, say so, keep, write the exit file."""
    status, container, _directory, exits, user, flags, cwd, *command = arguments
    with_stdin, tty = "i" in flags, "t" in flags
    os.set_inheritable(int(status), False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    outputs: dict[int, tuple[bytes, bytes]]
    if tty:
        master, slave = os.openpty()
        os.set_inheritable(master, False)
        fds, stdin, outputs = (slave, slave, slave), master, {master: (b"\x02", b"stdout")}
    else:
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        in_end, stdin = os.pipe2(os.O_CLOEXEC) if with_stdin else (os.open("/dev/null", os.O_RDONLY), -1)
        fds, outputs = (in_end, out_end, err_end), {out: (b"\x02", b"stdout"), err: (b"\x03", b"stderr")}
    try:
        pid = start(command, cwd, user, fds, tty=tty)
    except OSError as error:
        os.write(int(status), f"error {error}\n".encode())
        os._exit(1)
    for fd in set(fds):
        os.close(fd)
    if stdin >= 0:
        os.set_blocking(stdin, False)
    keeper = Keeper(pid, outputs, stdin, leave_open="l" in flags)
    for name, number in (("pid", pid), ("conmon.pid", os.getpid())):
        with open(f"{name}.tmp", "w") as file:
            file.write(str(number))
        os.replace(f"{name}.tmp", name)
    os.write(int(status), f"pid {pid} {os.getpid()}\n".encode())
    os.close(int(status))
    code = keeper.run()
    with open(f"{exits}/.{container}", "w") as file:
        file.write(str(code))
    os.replace(f"{exits}/.{container}", f"{exits}/{container}")
    os._exit(0)


def main() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir(sys.argv[3])
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for number in IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    keep(sys.argv[1:])


if __name__ == "__main__":
    main()
