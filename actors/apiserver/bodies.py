"""The body of a request that says what is to be done, rather than what is to be stored."""

from __future__ import annotations

from functools import partial

from steersman.actors.apiserver.aside import aside
from steersman.actors.apiserver.call import Call
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj


async def read_body(registry: Registry, call: Call, kind: Kind, field_validation: str) -> Obj:
    """Returns the object of a kind that a request carries; the call is told the warnings.

    Raises:
        ApiError: as `pipeline.decode`.
    """
    body, media = call.request.body, call.header.get("content-type", "")
    decode = partial(pipeline.decode, registry, kind, body, media, field_validation)
    obj, warnings = await aside(decode) if pipeline.takes_long(body, media) else decode()
    call.warn(*warnings)
    return obj
