"""Which endpoint a userspace proxy gives a client: each in turn, or the one the client had before."""

from __future__ import annotations

from collections import OrderedDict

from steersman.cluster.net.services import Backend

#: clients remembered per service port
CLIENTS_MAX = 10_000


class Balancer:
    """The endpoints of one frontend."""

    def __init__(self) -> None:
        self._backends: tuple[Backend, ...] = ()
        self._affinity_s = 0
        self._next = 0
        #: client -> (its endpoint, when it was last used)
        self._clients: OrderedDict[str, tuple[Backend, float]] = OrderedDict()

    def set(self, backends: tuple[Backend, ...], affinity_s: int) -> None:
        self._backends = backends
        self._affinity_s = affinity_s
        if not affinity_s:
            self._clients.clear()

    def __contains__(self, backend: Backend) -> bool:
        return backend in self._backends

    def pick(self, client: str, now: float) -> list[Backend]:
        """Returns the endpoints to try, the best first; empty when there is none.

        Args:
            now: any clock that does not go back, in seconds.
        """
        if not self._backends:
            return []
        start = self._next % len(self._backends)
        self._next = (start + 1) % len(self._backends)
        order = [*self._backends[start:], *self._backends[:start]]
        if self._affinity_s:
            held = self._clients.get(client)
            if held is not None and held[0] in self._backends and now - held[1] < self._affinity_s:
                order.remove(held[0])
                order.insert(0, held[0])
        return order

    def used(self, client: str, backend: Backend, now: float) -> None:
        """Notes where a client ended up."""
        if self._affinity_s:
            self._clients[client] = (backend, now)
            self._clients.move_to_end(client)
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
