"""Answers in another form than plain JSON: YAML, protobuf, or indented for people.

Source: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec
import orjson

from steersman.actors.apiserver.aside import aside
from steersman.actors.http.feed import Pieces
from steersman.actors.http.messages import Request, Response
from steersman.cluster.api.negotiation import JSON, PROTOBUF, YAML, Accepted, is_for_people, negotiate
from steersman.cluster.api.protobuf.codec import ProtobufError, encode
from steersman.cluster.meta import yamlio
from steersman.cluster.meta.errors import NotAcceptable, RequestEntityTooLarge
from steersman.cluster.meta.objects import Obj

#: longer answers are put in another form beside the loop
_INLINE_BYTES_MAX = 16 * 1024
#: up to this answers are indented or laid out as YAML, which takes 0.6 s for a mebibyte; beyond, JSON is YAML as well
_LAID_OUT_BYTES_MAX = 1024 * 1024
#: longer lists have to be asked for in pages by who takes protobuf alone, at 0.1 s for a mebibyte
_PROTOBUF_BYTES_MAX = 16 * 1024 * 1024
_read_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_items = msgspec.json.Decoder(list[msgspec.Raw]).decode

_TOO_LONG = "the list is too long for protobuf in one piece: set a limit, or accept application/json"


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
        wanted = Accepted() if ";" in media else negotiate(headers.get("accept", ""))
    except NotAcceptable:
        wanted = Accepted()
    is_pretty = wanted.pretty or is_for_people(pretty, headers.get("user-agent", ""))
    if wanted.media == JSON and not is_pretty:
        return response
    body = response.body
    if isinstance(body, Pieces) and wanted.media != JSON:
        limit = _LAID_OUT_BYTES_MAX if wanted.media == YAML else _PROTOBUF_BYTES_MAX
        first = await _beginning(body, limit)
        if wanted.media == YAML and len(first) > limit:
            return Response(response.status, {**response.headers, "content-type": YAML}, _whole(first, body))
        body = first
    if not isinstance(body, bytes) or not body:
        return response
    if wanted.media == PROTOBUF and len(body) > _PROTOBUF_BYTES_MAX:
        return Response(413, response.headers, orjson.dumps(RequestEntityTooLarge(_TOO_LONG).to_status()))
    if len(body) <= _INLINE_BYTES_MAX:
        made = made_as(wanted.media, body)
    else:
        made = await aside(made_as, wanted.media, body)
    shown = wanted.media if wanted.media == YAML or (wanted.media == PROTOBUF and made is not body) else media
    return Response(response.status, {**response.headers, "content-type": shown}, made)


async def _beginning(pieces: Pieces, size_bytes_max: int) -> bytes:
    """A body put together, until it is longer than so much."""
    found, size_bytes = [], 0
    async for piece in pieces:
        found.append(piece)
        size_bytes += len(piece)
        if size_bytes > size_bytes_max:
            break
    return b"".join(found)


async def _whole(first: bytes, rest: Pieces) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def made_as(media: str, body: bytes) -> bytes:
    """Returns JSON in another media type, or indented as JSON; what is too long, or has no such form, as it is."""
    if media != PROTOBUF and len(body) > _LAID_OUT_BYTES_MAX:
        return body
    if media == YAML:
        return yamlio.dump(orjson.loads(body)).encode()
    if media == JSON:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    try:
        return encode(_tree(body))
    except ProtobufError:  # what is no object of the API, as the version, has no such form
        return body


def _tree(body: bytes) -> Obj:
    """An object of JSON; the items of a long list are read as they are asked for: reading holds the interpreter."""
    found: Obj
    if len(body) <= _LAID_OUT_BYTES_MAX:
        found = orjson.loads(body)
        return found
    parts = _read_parts(body)
    found = {key: orjson.loads(memoryview(part)) for key, part in parts.items() if key != "items"}
    if "items" in parts:
        found["items"] = (orjson.loads(memoryview(part)) for part in _read_items(parts["items"]))
    return found
