"""What a node's agent answers itself below `nodes/NAME/proxy/`: the paths of a kubelet, and of images.

Source: k8s.io/kubernetes/pkg/kubelet/server/server.go
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.forms import JSON_HEADERS
from steersman.actors.apiserver.reads import Reader
from steersman.actors.http.messages import Response
from steersman.actors.ports import LogRequest, NodeStreams
from steersman.cluster.api.kinds import Registry
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import PODS
from steersman.cluster.node.metrics import resource_metrics, running_metrics

_METRICS = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_TEXT = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}


class NodeEndpoints:
    """Answers from a node's agent, and from what the cluster knows of the node."""

    def __init__(self, registry: Registry, reader: Reader) -> None:
        kind = registry.kind(PODS.group, PODS.version, PODS.plural)
        assert kind is not None
        self._pods = kind
        self._reader = reader

    async def __call__(self, call: Call, agent: NodeStreams, node: str) -> Response:
        """Raises ApiError: the agent refuses."""
        method, rest = call.request.method, list(call.attributes.rest)
        if method == "POST" and rest == ["images"]:
            archive = call.request.upload or _once(call.request.body)
            return _json({"loaded": await agent.load_image(archive)})
        if method not in ("GET", "HEAD"):
            return Response(405, _TEXT, b"Method Not Allowed")
        match rest:
            case ["images"]:
                return _json({"images": await agent.list_images()})
            case ["stats", "summary"]:
                return _json(await agent.stats())
            case ["metrics"]:
                return Response(200, _METRICS, running_metrics(node, self._pods_on(node)).encode())
            case ["metrics", "resource"]:
                return Response(200, _METRICS, resource_metrics(await agent.stats()).encode())
            case ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]:
                return Response(200, _TEXT, b"ok")
            case ["pods"]:
                return _json(self._list(node, running=False))
            case ["runningpods"]:
                return _json(self._list(node, running=True))
            case ["containerLogs", namespace, pod, container]:
                return await self._logs(call, agent, namespace, pod, container)
        return Response(404, _TEXT, b"404 page not found\n")

    def _list(self, node: str, *, running: bool) -> Obj:
        pods = self._pods_on(node)
        items = [pod for pod in pods if not running or (pod.get("status") or {}).get("phase") == "Running"]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def _pods_on(self, node: str) -> Iterator[Obj]:
        for entry in self._reader.shelf(self._pods).within():
            if (entry.obj.get("spec") or {}).get("nodeName") == node:
                yield entry.obj

    async def _logs(self, call: Call, agent: NodeStreams, namespace: str, pod: str, container: str) -> Response:
        query = call.query
        since_s = query.number("sinceSeconds")
        pieces = await agent.logs(
            LogRequest(
                namespace=namespace,
                pod=pod,
                container=container,
                follow=query.flag("follow"),
                previous=query.flag("previous"),
                timestamps=query.flag("timestamps"),
                tail_lines=query.number("tailLines"),
                limit_bytes=query.number("limitBytes"),
                since_s=None if since_s is None else float(since_s),
            )
        )
        return Response(200, {"content-type": "text/plain"}, pieces)


def _json(obj: Any) -> Response:
    return Response(200, JSON_HEADERS, orjson.dumps(obj))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
