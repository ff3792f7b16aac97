"""Calls of a webhook that a kubeconfig file describes: where it is, how it proves itself, as whom it is called.

Source: https://kubernetes.io/docs/reference/access-authn-authz/webhook/
"""

from __future__ import annotations

from pathlib import Path

from steersman.actors import kubeconfig
from steersman.actors.http.client import HttpTransport
from steersman.actors.http.messages import Request, Response
from steersman.cluster.meta.errors import ServiceUnavailable

#: an answer of more bytes is none
ANSWER_BYTES_MAX = 4 << 20


class Webhook:
    """One webhook.

    Args:
        path: of the kubeconfig whose server is the webhook's whole URL.

    Raises:
        kubeconfig.KubeconfigError: it says too little.
    """

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        access = kubeconfig.load(str(path))
        self._transport = HttpTransport(
            access.servers,
            tls=access.tls(),
            token=access.token,
            server_hostname=access.server_hostname,
            connect_timeout_s=timeout_s,
            response_timeout_s=timeout_s,
            whole_bytes_max=ANSWER_BYTES_MAX,
        )
        self._target = "" if any("/" in server.partition("://")[2] for server in access.servers) else "/"

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Returns status and body of the answer.

        Raises:
            ApiError: it does not answer in time, or with too much.
        """
        response = await self._transport(Request("POST", self._target, {"content-type": "application/json"}, body))
        return response.status, await whole(response)

    async def close(self) -> None:
        """Lets go of its connections."""
        await self._transport.close()


async def whole(response: Response) -> bytes:
    """The body of an answer, however it comes.

    Raises:
        ApiError: it is too long, or breaks off.
    """
    if isinstance(response.body, bytes):
        return response.body
    pieces, count = [], 0
    async for piece in response.body:  # type: ignore[union-attr]
        pieces.append(piece)
        count += len(piece)
        if count > ANSWER_BYTES_MAX:
            raise ServiceUnavailable("the answer is too long")
    return b"".join(pieces)
