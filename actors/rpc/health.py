"""Asks a server over `grpc.health.v1.Health/Check`, as gRPC probes do.

The two messages have one field each, so they are written and read by hand.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import grpc

_METHOD = "/grpc.health.v1.Health/Check"
#: of `HealthCheckResponse.ServingStatus`
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def _request(service: str) -> bytes:
    name = service.encode()[:127]
    return bytes((0x0A, len(name))) + name if name else b""


def _status(answer: bytes) -> str:
    return _STATUSES.get(answer[1] if len(answer) > 1 and answer[0] == 0x08 else 0, "UNKNOWN")


async def check_health(address: str, service: str, deadline_s: float) -> str:
    """Returns an empty text when the server says SERVING, else what is wrong."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
        try:
            answer = await call(_request(service), timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            match error.code():
                case grpc.StatusCode.UNIMPLEMENTED:
                    return "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"timeout: health rpc did not complete within {deadline_s:g}s"
                case _:
                    return f"health rpc failed: {error.details()}"
        except TimeoutError:
            return f"timeout: health rpc did not complete within {deadline_s:g}s"
    status = _status(answer)
    return "" if status == "SERVING" else f"service unhealthy (responded with {status!r})"
