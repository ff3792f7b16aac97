"""The program of a Ray worker: has the fork server make the process, and becomes it itself where there is none.

Ray starts this file in place of its own program (`launch.trim` says so). It must be quick to start: it imports two
modules of the standard library and nothing of ours.
"""

from __future__ import annotations

import sys

#: a program's own folder comes first on the path, and ours holds a module `http`
_folder = sys.path.pop(0)

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402

#: of the fork server, in the folder that Ray's processes start in
SOCKET = "run/forks.sock"


def hand_over() -> bool:
    """Sends arguments, environment, folder and standard streams to the fork server; returns whether it took them."""
    message = json.dumps({"argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(SOCKET)
            socket.send_fds(server, [message], [0, 1, 2])
            return bool(server.recv(16))
        except OSError:
            return False


if __name__ == "__main__" and not hand_over():
    import importlib.util
    import runpy

    found = importlib.util.find_spec("ray")
    assert found is not None and found.submodule_search_locations
    runpy.run_path(f"{found.submodule_search_locations[0]}/_private/workers/default_worker.py", run_name="__main__")
