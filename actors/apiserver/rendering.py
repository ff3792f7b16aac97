"""Answers in another form than plain JSON: YAML, protobuf, or indented for people.

Source: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from steersman.actors.http.messages import Request, Response, Upgrade
from steersman.cluster.api.negotiation import JSON, YAML, Accepted, is_for_people, negotiate
from steersman.cluster.api.protobuf.codec import ProtobufError, encode
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import NotAcceptable

#: longer answers are put in another form beside the loop
_INLINE_BYTES_MAX = 32 * 1024


def is_rendered(headers: Mapping[str, str], pretty: str) -> bool:
    """Whether an answer may have to take another form than plain JSON."""
    accept = headers.get("accept", "")
    return (
        "yaml" in accept
        or "protobuf" in accept
        or "pretty" in accept
        or is_for_people(pretty, headers.get("user-agent", ""))
    )


async def rendered(request: Request, pretty: str, response: Response) -> Response:
    """Returns a response whose body is JSON, and comes to an end, in the form that the client asks for."""
    headers = request.headers
    media = response.headers.get("content-type", "")
    if not media.startswith(JSON) or request.target.startswith("/openapi/"):
        return response
    try:
        wanted = negotiate(headers.get("accept", ""))
    except NotAcceptable:
        wanted = Accepted()
    is_pretty = wanted.pretty or is_for_people(pretty, headers.get("user-agent", ""))
    if wanted.media == JSON and not is_pretty:
        return response
    body = response.body
    if wanted.media != JSON and not isinstance(body, bytes | Upgrade):
        body = b"".join([piece async for piece in body])
    if not isinstance(body, bytes) or not body:
        return response
    if len(body) <= _INLINE_BYTES_MAX:
        made = _made(body, wanted.media)
    else:
        made = await asyncio.get_running_loop().run_in_executor(None, _made, body, wanted.media)
    shown = media if wanted.media == JSON or made is body else wanted.media
    return Response(response.status, {**response.headers, "content-type": shown}, made)


def _made(body: bytes, media: str) -> bytes:
    if media == YAML:
        return yamlio.dump(orjson.loads(body)).encode()
    if media == JSON:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    try:
        return encode(orjson.loads(body))
    except ProtobufError:  # what is no object of the API, as the version, has no such form
        return body
