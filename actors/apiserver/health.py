"""Whether an API server lives and can serve: `/livez`, `/readyz` and `/healthz`, by the checks that kube-apiserver has.

Those of steps that a server takes before it answers anybody are always good; they are there for who names them.

Source: k8s.io/apiserver/pkg/server/healthz, .../server/options/etcd.go
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import orjson

from steersman.actors.apiserver.cache import Behind, WatchCache
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.forms import TEXT_HEADERS
from steersman.actors.http.messages import Response
from steersman.cluster.store.values import StoreError

#: how long the store may take to say how far it is, as of Kubernetes' checks of etcd
_STORE_S = 2.0
#: what has been done when the first request is answered
_HOOKS = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "start-legacy-token-tracking-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
)
_HOOKS_AFTER = ("apiservice-openapi-controller", "apiservice-openapiv3-controller")
_STARTED = {
    **{f"poststarthook/{name}": "" for name in _HOOKS},
    "autoregister-completion": "",
    **{f"poststarthook/{name}": "" for name in _HOOKS_AFTER},
}


class Health:
    """Answers how an API server is.

    Args:
        more: further checks by name, each with what is wrong, empty where nothing is.
    """

    def __init__(self, cache: WatchCache, more: Callable[[], Mapping[str, str]]) -> None:
        self._cache = cache
        self._more = more
        self.stopping = False

    async def __call__(self, call: Call, kind: str, only: str) -> Response | None:
        """Answers for `livez`, `readyz` or `healthz`, or one check of it; None when there is no such check."""
        checks = await self._checks(kind)
        if only:
            if (wrong := checks.get(only)) is None:
                return None
            if wrong:
                return Response(500, TEXT_HEADERS, f"internal server error: {wrong}\n".encode())
            return Response(200, TEXT_HEADERS, b"ok")
        excluded = call.query.every("exclude")
        failed = any(wrong for name, wrong in checks.items() if name not in excluded)
        if not failed and "verbose" not in call.query:
            return Response(200, TEXT_HEADERS, b"ok")
        lines = [_line(name, wrong, name in excluded) for name, wrong in checks.items()]
        if unknown := [name for name in dict.fromkeys(excluded) if name not in checks]:
            names = ",".join(orjson.dumps(name).decode() for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        lines.append(f"{kind} check {'failed' if failed else 'passed'}")
        return Response(500 if failed else 200, TEXT_HEADERS, ("\n".join(lines) + "\n").encode())

    async def fault_of_store(self) -> str:
        """What is wrong with the store; empty where nothing is."""
        return (await self._checks("livez"))["etcd"]

    async def _checks(self, kind: str) -> dict[str, str]:
        """Every check by name, with what is wrong."""
        ready, store, followed = kind == "readyz", "", ""
        try:
            async with asyncio.timeout(_STORE_S):
                revision = await self._cache.newest()
            if ready:
                await self._cache.reach(revision)
        except StoreError as error:
            store = f"error getting data from etcd: {error}"
        except Behind as error:
            followed = f"the store is not followed: {error}"
        except TimeoutError:
            store = "error getting data from etcd: context deadline exceeded"
        return {
            "ping": "",
            "log": "",
            "etcd": store,
            **({"etcd-readiness": store} if ready else {}),
            **self._more(),
            **({"informer-sync": followed} if ready else {}),
            **_STARTED,
            **({"shutdown": "process is shutting down" if self.stopping else ""} if ready else {}),
        }


def _line(name: str, wrong: str, is_excluded: bool) -> str:
    if is_excluded:
        return f"[+]{name} excluded: ok"
    return f"[-]{name} failed: reason withheld" if wrong else f"[+]{name} ok"
