"""The only module that knows Ray: turns component specifications into named, detached, supervised actors.

It runs as a short-lived process of its own (`python -m steersman.actors.launch`), so that a Ray that hangs or dies
takes nobody with it. Specifications come as JSON on stdin; a line of JSON per actor goes to stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._private import node, ray_constants, services
from ray._private.parameter import RayParams

from steersman.actors import worker

_LISTEN_S_MAX = 30.0
_KILL_S_MAX = 5.0


class RayActor:
    """A component in a Ray actor.

    Its constructor never raises (Ray would give such an actor up for good): a component that fails to start leaves
    its reason in a file, waits out its back-off and ends the process, and Ray starts it again.
    """

    async def __init__(self, payload: str) -> None:  # type: ignore[misc]  # Ray awaits it
        from steersman.actors.shell import Shell

        # Ray makes uvloop the loop of every thread; libraries that open netlink sockets in threads need asyncio's
        asyncio.set_event_loop_policy(None)
        shell = Shell(payload)
        self._task = asyncio.get_running_loop().create_task(shell.run_forever())

    async def pid(self) -> int:
        return os.getpid()


def trim(parameters: RayParams, head: bool) -> None:
    """Has `ray start` run only what actors need; it calls this through `RAY_START_HOOK`.

    Left out are the monitor of a scaler that scales nothing, the server for clients that are no drivers, the dashboard
    (what is left of it without its dependencies only waits), and the agents for metrics and for runtime environments,
    in whose places a process waits for the raylet's end. Workers are forked.
    """
    parameters.no_monitor = True
    parameters.ray_client_server_port = None
    parameters.worker_path = worker.__file__
    node.Node.start_api_server = lambda self, **_: None
    start = services.start_ray_process

    def start_process(command: list[str], process_type: str, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = without_agents(command)
        return start(command, process_type, **options)

    services.start_ray_process = start_process


#: the raylet waits until its agents have written the ports at which they serve, -1 for none
_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")

_AGENT_COMMANDS = ("--dashboard_agent_command", "--runtime_env_agent_command")


def without_agents(command: list[str]) -> list[str]:
    """Returns the command of a raylet whose agents only wait for its end; they serve at no port."""
    given = dict(word.split("=", 1) for word in command if "=" in word)
    for name in _AGENT_PORTS:
        Path(given["--session_dir"], f"{name}_{given['--node_id']}").write_text("-1")
    return [
        f'{name}=sh -c "exec cat"' if (name := word.partition("=")[0]) in _AGENT_COMMANDS else word for word in command
    ]


def ensure(plan: dict[str, Any]) -> None:
    """Makes every actor of the plan that is missing or dead, and replaces those named in `replace`."""
    _wait_for(plan["address"])
    ray.init(address=plan["address"], namespace=plan["namespace"], log_to_driver=False, configure_logging=False)
    wanted = plan["actors"]
    for name in plan["replace"]:
        _kill(name, restart=name in wanted)
    # nobody knows the name of a Ray of somebody else on this machine
    own = f"node:{ray.util.get_node_ip_address()}" if plan["foreign"] else ""
    cls = ray.remote(RayActor)
    for name, actor in wanted.items():
        try:
            ray.get_actor(name)
            state = "present"
        except ValueError:
            cls.options(
                name=name,
                lifetime="detached",
                max_restarts=-1,
                max_task_retries=0,
                num_cpus=0,
                resources={own or f"node:{actor['ip']}": 0.0001},
            ).remote(actor["payload"])
            state = "created"
        print(json.dumps({"actor": name, "state": state}), flush=True)
    # an actor whose creation has not reached the control store when its driver leaves is never made
    handles = [ray.get_actor(name) for name in wanted]
    if plan["foreign"]:  # it may run in an environment without the actors' code, and says so only when asked
        ray.get([handle.pid.remote() for handle in handles])


def _wait_for(address: str) -> None:
    """Returns when the global control store listens; this process was started beside it, to load Ray meanwhile."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + _LISTEN_S_MAX
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)


def _kill(name: str, *, restart: bool) -> None:
    """Returns when an actor that is not to come again is gone from Ray's books."""
    try:
        ray.kill(ray.get_actor(name), no_restart=not restart)
        end = time.monotonic() + _KILL_S_MAX
        while not restart and time.monotonic() < end:
            ray.get_actor(name)
            time.sleep(0.02)
    except (ValueError, ray.exceptions.RayError):
        return


def main() -> None:
    ensure(json.load(sys.stdin))


if __name__ == "__main__":
    main()
