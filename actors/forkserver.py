"""Makes Ray's workers by forking: one process imports the components once, and every worker begins with them.

A worker by itself spends most of a second of a core on imports and keeps 50 MB of its own for them. `worker.py` sends
what Ray told it, and a fork becomes that worker. Ray's library reads the names of its job and of its raylet once, when
it is imported: so for each pair of them a *branch* forks first, imports Ray, and forks the workers.

Nothing here runs threads or opens connections before it forks. A branch ends with the server, a worker does not.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steersman.actors.worker import SOCKET
from steersman.cluster.control import CONTROLLERS

_ORDER_BYTES_MAX = 1 << 20
#: Ray's library reads these once
_FROZEN = ("RAY_JOB_ID", "RAY_RAYLET_PID")
#: a raylet started anew, or a second launch, needs one more; older ones have made their workers
_BRANCHES_MAX = 3
#: what actors need besides every controller
_PARTS = (
    "numpy",
    "pydantic",
    "steersman.actors.apiserver.server",
    "steersman.actors.controllers",
    "steersman.actors.dns",
    "steersman.actors.proxy",
    "steersman.actors.rpc.node",
    "steersman.actors.scheduler",
    "steersman.actors.shell",
    "steersman.actors.store.client",
    "steersman.actors.store.service",
    "steersman.actors.thisnode",
    "steersman.deploy",
    "steersman.runtime.oci",
)
_RAY_WORKER = "ray._private.workers.default_worker"
#: what Ray imports only once a worker has begun
_RAY_PARTS = (
    _RAY_WORKER,
    "ray._common.pydantic_compat",
    "ray._common.usage.usage_lib",
    "ray._private.arrow_serialization",
)


def main() -> None:
    """Serves in the folder it was started in, which only its owner may enter."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Path(SOCKET).unlink(missing_ok=True)
    mask = os.umask(0o077)
    listener.bind(SOCKET)
    os.umask(mask)  # the workers' own: what a node makes is for containers of every user
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in _PARTS:
        importlib.import_module(name)
    list(CONTROLLERS.values())
    gc.freeze()
    become(*grow(serve(listener)))


def serve(listener: socket.socket) -> socket.socket:
    """Passes every order on to its branch for as long as this process lives; returns in each new branch."""
    branches: dict[tuple[str, ...], socket.socket] = {}
    while True:
        connection, _ = listener.accept()
        with connection:
            message, streams, _, _ = socket.recv_fds(connection, _ORDER_BYTES_MAX, 3)
            environ = json.loads(message)["environ"]
            key = tuple(environ.get(name, "") for name in _FROZEN)
            if key not in branches:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                if os.fork() == 0:
                    _close([listener, connection, ours, *branches.values()], streams)
                    os.environ.update(zip(_FROZEN, key, strict=True))
                    return theirs
                theirs.close()
                branches[key] = ours
                if len(branches) > _BRANCHES_MAX:
                    branches.pop(next(iter(branches))).close()
            try:
                socket.send_fds(branches[key], [message], [*streams, connection.fileno()])
            except OSError:
                branches.pop(key).close()
            _close([], streams)


def grow(orders: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Takes orders until the server is gone; returns each of them in a fork, with its streams."""
    for name in _RAY_PARTS:
        importlib.import_module(name)
    gc.freeze()
    while True:
        message, streams, _, _ = socket.recv_fds(orders, _ORDER_BYTES_MAX, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            orders.close()
            return json.loads(message), streams
        _close([], streams)


def become(order: dict[str, Any], streams: list[int]) -> None:
    """Tells that the order is taken, and runs Ray's own worker program in this process."""
    # the raylet ends the whole group of a worker that has died
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, connection = streams
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.write(connection, b"taken")
    _close([], streams)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    program = sys.modules[_RAY_WORKER].__file__
    assert program is not None
    sys.argv = [program, *order["argv"]]
    runpy.run_path(program, run_name="__main__")


def _close(sockets: Iterable[socket.socket], descriptors: Iterable[int]) -> None:
    for each in sockets:
        each.close()
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    main()
