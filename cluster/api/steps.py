"""A decision that may have to ask somebody outside: a generator of calls, which is given their replies and goes on.

The decision stays a function of values: what it asks and what it is answered are both. A decision that has nothing to
ask yields nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A Service of the cluster as a place to call."""

    namespace: str
    name: str
    port: int = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """A JSON document to be POSTed.

    Args:
        url: where; of a service `https://NAME.NAMESPACE.svc:PORT/PATH`.
        service: the Service whose endpoints serve the URL; None when its host is a real one.
        ca_bundle: PEM of the authorities that the certificate may come from; empty for the machine's own.
        timeout_s: how long the answer may take.
        kubeconfig: file of who the caller is to it; empty for nobody.
    """

    url: str
    body: bytes
    timeout_s: float
    service: ServiceAddress | None = None
    ca_bundle: bytes = b""
    kubeconfig: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReply:
    """What came of a call: an HTTP answer, or a failure in the words of Go's HTTP client."""

    status: int = 0
    body: bytes = b""
    failure: str = ""


#: asks nobody: what follows takes long, and is best carried on where it keeps nobody waiting
TAKES_LONG: tuple[HookCall, ...] = ()
#: calls that may be made at the same time go out, their replies in the same order come in
Steps = Generator[tuple[HookCall, ...], Sequence[HookReply], T]


def settled(steps: Steps[T]) -> T:
    """Returns the outcome of a decision that has nobody to ask.

    Raises:
        LookupError: it asks all the same.
    """
    try:
        calls = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise LookupError(f"there is nobody to answer {calls}")


def address_of(config: Mapping[str, Any]) -> tuple[str, ServiceAddress | None]:
    """Where a `clientConfig` (of an admission or a conversion webhook) points."""
    service = config.get("service")
    if service is None:
        return config.get("url") or "", None
    address = ServiceAddress(service["namespace"], service["name"], service.get("port") or 443)
    path = quote(service.get("path") or "", safe="/%?=&")
    path = path if path.startswith("/") else f"/{path}"
    return f"https://{address.name}.{address.namespace}.svc:{address.port}{path}", address


#: what Kubernetes' client says of an HTTP status
_HTTP = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    403: "unknown",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def http_failure(reply: HookReply) -> str:
    """What an HTTP answer that is no success says, in the words of Kubernetes' client."""
    with contextlib.suppress(orjson.JSONDecodeError):
        said = orjson.loads(reply.body)
        if isinstance(said, dict) and (said.get("kind", "Status"), said.get("status")) == ("Status", "Failure"):
            return str(said.get("message", ""))
    text = reply.body.decode(errors="replace").strip()[:500]
    if reply.status in (403, 503) and text:
        return text
    if reply.status in _HTTP:
        return _HTTP[reply.status]
    if reply.status >= 500:
        quoted = orjson.dumps(text or "unknown").decode()
        return f"an error on the server ({quoted}) has prevented the request from succeeding"
    return f"the server responded with the status code {reply.status} but did not return more information"
