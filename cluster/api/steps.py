"""A decision that may have to ask somebody outside: a generator of calls, which is given their replies and goes on.

The decision stays a function of values: what it asks and what it is answered are both. A decision that has nothing to
ask yields nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

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
    """

    url: str
    body: bytes
    timeout_s: float
    service: ServiceAddress | None = None
    ca_bundle: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReply:
    """What came of a call: an HTTP answer, or a failure in the words of Go's HTTP client."""

    status: int = 0
    body: bytes = b""
    failure: str = ""


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
