"""What a client, and all clients together, can make the HTTP server hold and wait for.

Where Kubernetes has a bound it is that one (k8s.io/apiserver/pkg/server/secure_serving.go, Go's net/http); each of the
others says why it is there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The bounds of a server and of each of its connections."""

    header_bytes_max: int = 1024 * 1024
    body_bytes_max: int = 3 * 1024 * 1024
    #: requests of one connection that wait behind the one being answered, beside `body_bytes_max` of their bodies
    pipelined_max: int = 16
    #: at most, and fewer where the process may not have so many descriptors; for one more the idlest has to go
    connections_max: int = 20_000
    #: requests that are incomplete or unanswered, of all connections; with more the oldest incomplete one has to go:
    #: nobody has yet been asked who they are
    received_bytes_max: int = 256 * 1024 * 1024
    #: answers that readers who stall have not taken, of all connections; with more the one who stalls longest has to go
    unsent_bytes_max: int = 512 * 1024 * 1024
    #: answers smaller than this are not worth compressing
    gzip_bytes_min: int = 128 * 1024 + 1
    write_buffer_bytes_max: int = 512 * 1024
    header_timeout_s: float = 32.0
    #: of a whole body, as of a whole request in Kubernetes
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 90.0
    #: conversations (exec, attach, port-forward) in which neither side says anything, as of the kubelet
    conversation_idle_timeout_s: float = 4 * 3600.0
    #: how long a program may work on what its client sent before leaving; Kubernetes lets it run on
    last_work_s: float = 10.0
    #: a reader who takes less than `write_bytes_min` in so long is cut off
    write_timeout_s: float = 30.0
    write_bytes_min: int = 64 * 1024
    #: a client that was refused in the middle of its request may go on sending for so long: closing at once would
    #: throw the answer away
    linger_s: float = 0.5


class Refused(Exception):
    """The request cannot be read any further: answer with `status` and close."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after_s = status, reason, message, retry_after_s
