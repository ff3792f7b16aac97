"""The web server of the built-in image where there are no containers: the same page, port and farewell.

Run as a script; reads `HOST`, `PORT`, `VERSION`, `HOSTNAME` and `DRAIN_S` from the environment. On SIGTERM it goes on
serving for `DRAIN_S` seconds and ends.
"""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Page(BaseHTTPRequestHandler):
    """Answers every GET."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        version, host = os.environ.get("VERSION", ""), os.environ.get("HOSTNAME", "")
        body = b"ok\n" if self.path == "/healthz" else f"web {version} on {host}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing about single requests, as the busybox server does."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080"))
    server = Server((host, port), Page)

    def leave(_number: int, _frame: object) -> None:
        threading.Timer(float(os.environ.get("DRAIN_S", "2")), server.shutdown).start()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"web {os.environ.get('VERSION', '')} serves on port {port}", flush=True)
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
