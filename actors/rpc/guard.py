"""Which certificates of the cluster may use a gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]


class NameGuard(grpc.aio.ServerInterceptor):  # type: ignore[misc, type-arg]
    """Refuses clients whose certificate bears none of the names that may use a server."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(details)
        return None if handler is None else self._guarded(handler)

    def _guarded(self, handler: Any) -> Handler:
        kinds = {
            (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
            (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
            (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
            (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
        }
        attribute, make = kinds[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, attribute)
        guarded: Any
        if handler.response_streaming and not asyncio.iscoroutinefunction(behaviour):

            async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
                await self._check(context)
                async for response in behaviour(request, context):
                    yield response
        else:

            async def guarded(request: Any, context: Context) -> Any:
                await self._check(context)
                return await behaviour(request, context)

        return make(guarded, handler.request_deserializer, handler.response_serializer)

    async def _check(self, context: Context) -> None:
        found = context.auth_context().get("x509_common_name", [])
        if not any(name.decode(errors="replace") in self._names for name in found):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this certificate may not do this")
