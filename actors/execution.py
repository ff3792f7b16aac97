"""Carries out plans: the one place where controllers write, with preconditions, and where answers are sorted.

An answer is a success, a refusal that the controller should know of, or a reason to observe and decide again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from steersman.actors.client import Client
from steersman.actors.views import LiveView
from steersman.cluster.control.plan import (
    Action,
    Batch,
    Create,
    Delete,
    DeleteCollection,
    ExpectAlive,
    ExpectEmpty,
    ExpectGone,
    Patch,
    Plan,
    Refusal,
    Replace,
)
from steersman.cluster.meta.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    ServerTimeout,
    ServiceUnavailable,
    TooManyRequests,
)
from steersman.cluster.meta.objects import Obj, controller_of, uid
from steersman.cluster.meta.resources import Resource

#: independent actions sent at once
BATCH_MAX = 128
#: uids known to be gone for good
GONE_MAX = 10_000


class NotLeading(Exception):
    """The lease was lost in the middle of a plan; another instance goes on."""


class Again(Exception):
    """A check did not hold or a write met a newer version: observe and decide again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a plan ended.

    Args:
        again: the key should be reconciled again, after a growing delay.
        refusal: what the API server refused, if it did.
    """

    again: bool = False
    refusal: Refusal | None = None


class Executor:
    """Carries out plans.

    Args:
        may_act: asked right before each write.
    """

    def __init__(self, client: Client, view: LiveView, may_act: Callable[[], bool]) -> None:
        self._client = client
        self._view = view
        self._may_act = may_act
        self._gone: dict[str, None] = {}

    async def carry_out(self, plan: Plan) -> Outcome:
        """Carries out the steps in order, up to the first that fails."""
        for step in plan.steps:
            actions = step.actions if isinstance(step, Batch) else (step,)
            outcome = await self._carry_out_all(actions)
            if outcome is not None:
                return outcome
        return Outcome()

    async def _carry_out_all(self, actions: tuple[Action, ...]) -> Outcome | None:
        start, size = 0, 1
        while start < len(actions):
            wave = actions[start : start + size]
            results = await asyncio.gather(*map(self._try, wave)) if len(wave) > 1 else [await self._try(wave[0])]
            failures = [result for result in results if result is not None]
            if failures:
                return next((failure for failure in failures if failure.refusal), failures[0])
            start += size
            size = min(size * 2, BATCH_MAX)
        return None

    async def _try(self, action: Action) -> Outcome | None:
        if not self._may_act():
            raise NotLeading
        try:
            await self._act(action)
        except Again:
            return Outcome(again=True)
        except (ServiceUnavailable, ServerTimeout, TooManyRequests, Conflict, OSError):
            return Outcome(again=True)
        except ApiError as error:
            if isinstance(error, Forbidden) and "being terminated" in error.message:
                return Outcome()  # the namespace goes, and whatever was wanted there with it
            return Outcome(again=True, refusal=Refusal(action, error.reason, error.message))
        return None

    async def _act(self, action: Action) -> None:
        match action:
            case Create():
                await self._create(action)
            case Patch():
                await self._patch(action)
            case Replace():
                obj = await self._client.update(action.resource, action.obj, subresource=action.subresource or None)
                self._view.observe(action.resource, obj)
            case Delete():
                await self._delete(action)
            case DeleteCollection():
                try:
                    await self._client.delete_collection(action.resource, action.namespace)
                except (NotFound, MethodNotAllowed):
                    return  # the kind has gone meanwhile
            case ExpectGone():
                await self._expect_gone(action)
            case ExpectAlive():
                live = await self._get(action.resource, action.namespace, action.name)
                if live is None or uid(live) != action.uid or live["metadata"].get("deletionTimestamp"):
                    raise Again
            case ExpectEmpty():
                await self._expect_empty(action)
            case _:
                assert_never(action)

    async def _create(self, action: Create) -> None:
        try:
            obj = await self._client.create(action.resource, action.obj)
        except AlreadyExists:
            if not action.owner_uid:
                return
            live = await self._own(action)
            if live is None:
                raise
            obj = live
        except (ServerTimeout, ServiceUnavailable, OSError):
            # the answer was lost, perhaps not the object: a decision that does not know of it would make a twin
            live = await self._own(action)
            if live is None:
                raise
            obj = live
        self._view.observe(action.resource, obj)

    async def _own(self, action: Create) -> Obj | None:
        """The object that this very creation, or the same one before, has made."""
        meta = action.obj["metadata"]
        live = await self._get(action.resource, meta.get("namespace", ""), meta["name"])
        reference = controller_of(live) if live is not None else None
        return live if reference is not None and reference["uid"] == action.owner_uid else None

    async def _patch(self, action: Patch) -> None:
        body = dict(action.patch)
        guards = {k: v for k, v in (("uid", action.uid), ("resourceVersion", action.resource_version)) if v}
        if guards:
            body["metadata"] = {**(body.get("metadata") or {}), **guards}
        try:
            obj = await self._client.patch(
                action.resource,
                action.name,
                body,
                action.namespace or None,
                subresource=action.subresource or None,
            )
        except NotFound as error:
            raise Again from error
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            return  # the patch took the last finalizer: the object may be gone with it, the watch will tell
        self._view.observe(action.resource, obj)

    async def _delete(self, action: Delete) -> None:
        object_key = f"{action.namespace}/{action.name}" if action.namespace else action.name
        try:
            answer = await self._client.delete(
                action.resource,
                action.name,
                action.namespace or None,
                uid=action.uid,
                resource_version=action.resource_version or None,
                propagation=action.propagation or None,
                grace_s=action.grace_s,
            )
        except NotFound:
            self._view.forget(action.resource, object_key, action.uid)
            return
        except Conflict:
            if action.resource_version:
                raise
            return  # another object of that name: the one meant is gone
        if answer.get("kind") == "Status" or not answer.get("metadata", {}).get("deletionTimestamp"):
            self._view.forget(action.resource, object_key, action.uid)
        else:
            self._view.observe(action.resource, answer)

    async def _expect_gone(self, action: ExpectGone) -> None:
        if action.uid in self._gone:
            return
        live = await self._get(action.resource, action.namespace, action.name)
        if live is not None and action.uid in ("", uid(live)):
            raise Again
        if not action.uid:
            return
        self._gone[action.uid] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]

    async def _expect_empty(self, action: ExpectEmpty) -> None:
        try:
            page = await self._client.list(action.resource, action.namespace, limit=1)
        except (NotFound, MethodNotAllowed):
            return
        if page.items:
            self.take_in(action.resource, page.items)
            raise Again

    def take_in(self, resource: Resource, items: Iterable[Obj]) -> None:
        for item in items:
            self._view.observe(resource, item)

    async def _get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        try:
            return await self._client.get(resource, name, namespace or None)
        except NotFound:
            return None
