"""Asks the webhooks of an AuthorizationConfiguration, and remembers what they said for as long as it counts.

A decision is made in one go, from memory. Where that lacks a webhook's answer the decision is broken off
(`Unanswered`); whoever can wait asks the webhook and decides again.

Source: k8s.io/apiserver/plugin/pkg/authorizer/webhook/webhook.go
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import orjson

from steersman.actors import kubeconfig
from steersman.actors.apiserver.expressions import compiled
from steersman.actors.apiserver.reloading import Reloaded
from steersman.actors.apiserver.series import Series
from steersman.actors.ports import User, monotonic
from steersman.actors.webhook import Webhook as Endpoint
from steersman.cluster.auth import authorization
from steersman.cluster.auth.attributes import Attributes, Verdict
from steersman.cluster.auth.authorization import Mode, Webhook
from steersman.cluster.meta.errors import ApiError, InternalError
from steersman.cluster.meta.objects import Obj

log = logging.getLogger(__name__)

#: answers remembered of each webhook
_ANSWERS_MAX = 8192
#: how often a webhook is tried that does not answer, and how long until the second time
_TRIES_MAX, _RETRY_S, _RETRY_FACTOR = 5, 0.5, 1.5
#: questions that one request may lead to: an expression can ask anything
_QUESTIONS_MAX = 100

#: what webhooks said to the request of this task, also where it is not remembered any longer
_heard: ContextVar[dict[bytes, Verdict] | None] = ContextVar("heard", default=None)

T = TypeVar("T")


class Unanswered(Exception):
    """A decision needs what a webhook has not been asked yet."""

    def __init__(self, webhook: AskedWebhook, spec: Obj, key: bytes, about: Attributes) -> None:
        super().__init__("a webhook has to be asked")
        self.webhook, self.spec, self.key, self.about = webhook, spec, key, about


class AskedWebhook:
    """One webhook with what it said."""

    def __init__(self, name: str, settings: Webhook, rng: random.Random, series: Series) -> None:
        self.name = name
        self._series = series
        self._settings = settings
        self._endpoint = Endpoint(Path(settings.kubeconfig), timeout_s=settings.timeout_s)
        self._rng = rng
        self._answers: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()

    def judge(self, user: User, about: Attributes) -> Verdict:
        """What the webhook says; raises Unanswered when it has to be asked."""
        spec = authorization.review_spec(user.name, user.groups, user.uid, user.extra, about)
        verdict = authorization.concerns(self._settings, spec)
        if verdict is not None:
            return verdict
        key = self.name.encode() + b"\0" + orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        until, verdict = self._answers.get(key, (0.0, None))
        if verdict is not None and monotonic() < until:
            return verdict
        heard = _heard.get()
        if heard is not None and key in heard:
            return heard[key]
        raise Unanswered(self, spec, key, about)

    async def ask(self, question: Unanswered) -> Verdict:
        """Asks, and remembers the answer."""
        began, result = time.monotonic(), "success"
        try:
            answer = await self._post(orjson.dumps(authorization.review(question.spec, self._settings.version)))
        except ApiError as error:
            result = "error"
            log.error("Failed to make webhook authorizer request: %s", error)
            return authorization.failed(self._settings, str(error))
        finally:
            self._told(result, time.monotonic() - began)
        verdict = authorization.verdict_of(self._settings, answer)
        counts_s = self._settings.allowed_s if verdict.allowed else self._settings.refused_s
        if counts_s and not verdict.error and authorization.is_remembered(question.about):
            self._answers[question.key] = (monotonic() + counts_s, verdict)
            if len(self._answers) > _ANSWERS_MAX:
                self._answers.popitem(last=False)
        return verdict

    def _told(self, result: str, seconds: float) -> None:
        name = "apiserver_authorization_webhook"
        self._series.count(f"{name}_evaluations_total", name=self.name, result=result)
        self._series.observe(f"{name}_duration_seconds", seconds, name=self.name, result=result)
        if result != "success" and not self._settings.denies_on_error:
            self._series.count(f"{name}_evaluations_fail_open_total", name=self.name, result=result)

    async def _post(self, body: bytes) -> object:
        delay_s = _RETRY_S
        for left in reversed(range(_TRIES_MAX)):
            try:
                status, data = await self._endpoint.post(body)
                if status < 300:
                    return orjson.loads(data)
                error = InternalError(f"the webhook {self.name} answered {status}")
                again = status == 429 or status >= 500
            except ApiError as caught:
                error, again = InternalError(f"the webhook {self.name} does not answer: {caught}"), True
            except orjson.JSONDecodeError:
                raise InternalError(f"the answer of the webhook {self.name} is no JSON") from None
            if not again or not left:
                raise error
            await asyncio.sleep(delay_s * (1 + 0.2 * self._rng.random()))
            delay_s *= _RETRY_FACTOR
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await self._endpoint.close()


class Modes:
    """Who is asked, in order: by a file that may change, or node authorizer and RBAC; a Component.

    Args:
        path: of the AuthorizationConfiguration.

    Raises:
        InvalidAuthorization
    """

    def __init__(self, path: Path | None, rng: random.Random, series: Series) -> None:
        self._series = series
        self._rng = rng
        self.modes: tuple[Mode, ...] = authorization.DEFAULT
        self.webhooks: dict[str, AskedWebhook] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._file = Reloaded(path, self._take) if path is not None else None

    def _take(self, text: str) -> None:
        modes = read_modes(text)
        for former in self.webhooks.values():
            task = asyncio.ensure_future(former.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.webhooks = {
            mode.name: AskedWebhook(mode.name, mode.webhook, self._rng, self._series)
            for mode in modes
            if mode.webhook is not None
        }
        self.modes = modes

    def start(self) -> None:
        if self._file is not None:
            self._file.start()

    async def stop(self) -> None:
        if self._file is not None:
            await self._file.stop()
        await asyncio.gather(*self._closing, *(webhook.close() for webhook in self.webhooks.values()))


def read_modes(text: str) -> tuple[Mode, ...]:
    """Reads an AuthorizationConfiguration whose kubeconfigs are files here; raises InvalidAuthorization."""
    return authorization.read_authorization(text, compiled, kubeconfig.unusable)


async def answered(decide: Callable[[], Awaitable[T]]) -> T:
    """Returns what a decision comes to, asking every webhook that it needs to hear.

    Args:
        decide: makes it anew each time.
    """
    heard: dict[bytes, Verdict] = {}
    for _ in range(_QUESTIONS_MAX):
        token = _heard.set(heard)
        try:
            return await decide()
        except Unanswered as question:
            asked = question
        finally:
            _heard.reset(token)
        heard[asked.key] = await asked.webhook.ask(asked)
    raise InternalError("the request leads to too many questions of access")
