"""The AdmissionReview: what a webhook is asked, and what its reply means.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
and k8s.io/apiserver/pkg/admission/plugin/webhook/{request,errors}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from steersman.cluster.api.admission.attempt import CONNECT, Attempt
from steersman.cluster.api.admission.matching import shown
from steersman.cluster.api.admission.response import read_response
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.api.steps import HookCall, HookReply, http_failure
from steersman.cluster.meta.errors import ApiError, BadRequest, InternalError, Refused, from_status
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj

if TYPE_CHECKING:
    from steersman.cluster.api.admission.hooks import Webhook

_GROUP = "admission.k8s.io"
#: the greatest status that an HTTP answer can have
_CODE_MAX = 999
_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class CallFailed(Exception):
    """A webhook could not be called or answered nonsense: its failure policy decides what that means."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a webhook said. Args: patch: the operations of a JSON patch, or None."""

    warnings: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    refusal: ApiError | None = None
    patch: Any = None


def call_of(hook: Webhook, attempt: Attempt, kind: Kind, ctx: WriteContext, uid: str, *, mutating: bool) -> HookCall:
    """The call that asks a webhook about an attempt, shown as one on `kind`.

    Raises:
        BadRequest: a dry run, and the webhook may have effects. CallFailed: no version of the review is known to it.
    """
    if ctx.dry_run and hook.side_effects not in ("None", "NoneOnDryRun"):
        raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
    if not hook.version:
        raise CallFailed("could not create admission objects: webhook does not accept known AdmissionReview versions")
    review = {"kind": "AdmissionReview", "apiVersion": f"{_GROUP}/{hook.version}", "request": {"uid": uid}}
    request: Obj = {"uid": uid, **request_of(attempt, kind, ctx)}
    request["object"] = None if attempt.obj is None else _object(attempt.obj, attempt, kind)
    request["oldObject"] = None if attempt.old is None else _object(attempt.old, attempt, kind)
    request["dryRun"] = ctx.dry_run
    request["options"] = options_of(attempt)
    review["request"] = request
    settings = ctx.settings.admission
    joint = "&" if "?" in hook.url else "?"
    return HookCall(
        url=f"{hook.url}{joint}timeout={hook.timeout_s}s", body=orjson.dumps(review), timeout_s=hook.timeout_s,
        service=hook.service, ca_bundle=hook.ca_bundle,
        kubeconfig=settings.mutating_kubeconfig if mutating else settings.validating_kubeconfig,
    )  # fmt: skip


def _object(obj: Obj, attempt: Attempt, kind: Kind) -> Obj | None:
    return obj if attempt.subresource and attempt.body[2] != kind.resource.kind else shown(obj, attempt.kind, kind)


def request_of(attempt: Attempt, kind: Kind, ctx: WriteContext) -> Obj:
    """The part of an admission request that says what is asked of what by whom."""
    group, version, name = attempt.body
    own = group, version, name
    if kind is not attempt.kind and name == attempt.kind.resource.kind:
        own = kind.resource.group, kind.resource.version, kind.resource.kind
    request: Obj = {
        "kind": _gvk(*own),
        "resource": _gvr(kind),
        "requestKind": _gvk(group, version, name),
        "requestResource": _gvr(attempt.kind),
        "operation": attempt.operation,
        "userInfo": user_info(ctx),
    }
    if attempt.subresource:
        request["subResource"] = request["requestSubResource"] = attempt.subresource
    if attempt.name:
        request["name"] = attempt.name
    if attempt.namespace:
        request["namespace"] = attempt.namespace
    return request


def _gvk(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "version": version, "kind": kind}


def _gvr(kind: Kind) -> Obj:
    resource = kind.resource
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def user_info(ctx: WriteContext) -> Obj:
    """The `userInfo` of a request: what is empty is left out."""
    found: Obj = {"username": ctx.user, "groups": list(ctx.groups)}
    if ctx.user_uid:
        found["uid"] = ctx.user_uid
    if ctx.user_extra:
        found["extra"] = {key: list(values) for key, values in ctx.user_extra.items()}
    return found


def options_of(attempt: Attempt) -> Obj | None:
    if attempt.operation == CONNECT:
        return None
    return {**attempt.options, "kind": _OPTIONS[attempt.operation], "apiVersion": "meta.k8s.io/v1"}


def read(hook: Webhook, call: HookCall, reply: HookReply, uid: str, *, mutating: bool) -> Answer:
    """Returns what a reply means.

    Raises:
        CallFailed: it means nothing. InternalError: its patch is none.
    """
    review = _document(reply, call.url)
    try:
        review["response"] = read_response(review, hook.version)
    except ValueError as error:
        raise CallFailed(f"failed to call webhook: {error}") from None
    try:
        response = _verified(review, hook, uid, mutating=mutating)
    except CallFailed as error:
        raise CallFailed(f"received invalid webhook response: {error}") from None
    noted = [(f"{hook.name}/{key}", value) for key, value in response.get("auditAnnotations", {}).items()]
    annotations = tuple(row for row in noted if row[0].count("/") == 1 and not qualified_name_errors(row[0]))
    refusal = None if response.get("allowed") else _refusal(hook.name, response.get("status") or {})
    patch: Any = None
    if refusal is None and response.get("patch"):
        try:
            patch = orjson.loads(response["patch"])
        except ValueError as error:
            raise InternalError(f"Internal error occurred: {error}") from None
    return Answer(tuple(response.get("warnings") or ()), annotations, refusal, patch)


def _document(reply: HookReply, url: str) -> Obj:
    if reply.failure:
        raise CallFailed(f'failed to call webhook: Post "{url}": {reply.failure}')
    if not 200 <= reply.status < 300:
        raise CallFailed(f"failed to call webhook: {http_failure(reply)}")
    try:
        review = orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise CallFailed(f"failed to call webhook: couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(review, dict) or not review.get("kind"):
        text = reply.body.decode(errors="replace")[:200]
        raise CallFailed(f"failed to call webhook: Object 'Kind' is missing in '{text}'")
    return review


def _verified(review: Obj, hook: Webhook, uid: str, *, mutating: bool) -> Obj:
    response: Obj | None = review.get("response")
    if response is None:
        raise CallFailed("webhook response was absent")
    if hook.version == "v1beta1" and not response.get("uid"):
        response["uid"] = uid
    if response.get("uid") != uid:
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    if hook.version == "v1beta1":
        return response
    wanted = f"{_GROUP}/v1, Kind=AdmissionReview"
    found = f"{review.get('apiVersion', '')}, Kind={review['kind']}"
    if found != wanted:
        raise CallFailed(f"expected webhook response of {wanted}, got {found}")
    patch, patch_type = response.get("patch"), response.get("patchType")
    if not mutating:
        if patch:
            raise CallFailed("validating webhook may not return response.patch")
        if patch_type is not None:
            raise CallFailed("validating webhook may not return response.patchType")
    elif patch and patch_type is None:
        raise CallFailed("webhook returned response.patch but not response.patchType")
    elif not patch and patch_type is not None:
        raise CallFailed("webhook returned response.patchType but not response.patch")
    elif patch and patch_type == "":
        raise CallFailed('webhook returned invalid response.patchType of ""')
    elif patch and patch_type != "JSONPatch":
        raise CallFailed(f'unsupported patch type "{patch_type}"')
    return response


def _refusal(name: str, result: Obj) -> ApiError:
    """The error that a webhook's status stands for."""
    denied = f'admission webhook "{name}" denied the request'
    if result.get("message"):
        text = f"{denied}: {result['message']}"
    elif result.get("reason"):
        text = f"{denied}: {result['reason']}"
    else:
        text = f"{denied} without explanation"
    code = result.get("code") or 0
    details = from_status({**result, "message": text})
    return Refused(
        text, code if 400 <= code <= _CODE_MAX else 400, result.get("reason") or "", causes=details.causes,
        kind=details.kind, group=details.group, name=details.name, uid=details.uid, retry_after_s=details.retry_after_s,
    )  # fmt: skip
