"""Objects of a definition from one version to another, by its webhook.

What is asked and what an answer is worth is decided here; the shell carries the call out.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from steersman.cluster.api.steps import HookCall, HookReply, ServiceAddress, Steps, address_of, http_failure
from steersman.cluster.api.syntax import name_of
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj

#: how long an answer may take; Kubernetes' own
TIMEOUT_S = 30
_GROUP = "apiextensions.k8s.io"


class ConversionFailed(ApiError):
    """The webhook does not answer, or not as it should; the client can only try again."""

    code, reason = 500, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """The conversion webhook of one definition.

    Args:
        storage: the `apiVersion` in which objects are stored.
        review: the version of the `ConversionReview` that it is sent.
        repairs: by `apiVersion`: what makes a stored object one of its version's schema, as the webhook may expect.
    """

    storage: str
    review: str
    url: str
    service: ServiceAddress | None
    ca_bundle: bytes
    repairs: Mapping[str, Callable[[Obj], Obj]] = field(default_factory=dict)

    def call(self, objects: Sequence[Obj], target: str, uid: str) -> HookCall:
        """Asks for objects in the `apiVersion` `target`."""
        body = {
            "kind": "ConversionReview",
            "apiVersion": f"{_GROUP}/{self.review}",
            "request": {"uid": uid, "desiredAPIVersion": target, "objects": [self._repaired(obj) for obj in objects]},
        }
        joint = "&" if "?" in self.url else "?"
        return HookCall(
            url=f"{self.url}{joint}timeout={TIMEOUT_S}s", body=orjson.dumps(body), timeout_s=TIMEOUT_S,
            service=self.service, ca_bundle=self.ca_bundle,
        )  # fmt: skip

    def _repaired(self, obj: Obj) -> Obj:
        repair = self.repairs.get(obj["apiVersion"])
        return obj if repair is None else repair(obj)

    def converted(self, objects: Sequence[Obj], target: str, uid: str, call: HookCall, reply: HookReply) -> list[Obj]:
        """Returns what a reply made of the objects, with the metadata they had but for labels and annotations.

        Raises:
            ConversionFailed
        """
        name = f"{objects[0].get('apiVersion')}, Kind={objects[0].get('kind')}"
        try:
            found = self._answer(uid, call, reply)
        except ValueError as error:
            raise ConversionFailed(f"conversion webhook for {name} failed: {error}") from None
        if len(found) != len(objects):
            raise ConversionFailed(
                f"conversion webhook for {name} returned {len(found)} objects, expected {len(objects)}"
            )
        try:
            return [
                _checked(old, new, target, index) for index, (old, new) in enumerate(zip(objects, found, strict=True))
            ]
        except ValueError as error:
            raise ConversionFailed(f"conversion webhook for {name} returned {error}") from None

    def convert(self, obj: Obj, target: str, uid: str) -> Steps[Obj]:
        """The conversion of one object as part of a decision."""
        call = self.call([obj], target, uid)
        (reply,) = yield (call,)
        return self.converted([obj], target, uid, call, reply)[0]

    def _answer(self, uid: str, call: HookCall, reply: HookReply) -> list[Any]:
        """The objects in a reply; raises ValueError."""
        if reply.failure:
            raise ValueError(f'Post "{call.url}": {reply.failure}')
        if not 200 <= reply.status < 300:
            raise ValueError(http_failure(reply))
        review = orjson.loads(reply.body)
        if not isinstance(review, dict):
            raise ValueError("the answer is no object")
        response = review.get("response")
        if self.review == "v1":
            wanted, seen = f"{_GROUP}/v1", review.get("apiVersion", "")
            if (seen, review.get("kind")) != (wanted, "ConversionReview"):
                raise ValueError(
                    f"expected webhook response of {wanted}, Kind=ConversionReview, got {seen}, "
                    f"Kind={review.get('kind', '')}"
                )
        if not isinstance(response, dict):
            raise ValueError("no response provided")
        if self.review == "v1" and response.get("uid") != uid:
            raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
        result = response.get("result") or {}
        if not isinstance(result, dict):
            field = "Go struct field ConversionResponse.response.result of type v1.Status"
            raise ValueError(f"json: cannot unmarshal {name_of(result)} into {field}")
        if result.get("status") != "Success":
            status = f"response.result.status was '{result.get('status', '')}', not 'Success'"
            raise ValueError(result.get("message") or status)
        found = response.get("convertedObjects")
        return found if isinstance(found, list) else []


def converter_of(spec: Obj, storage: str, repairs: Mapping[str, Callable[[Obj], Obj]]) -> Converter | None:
    """Returns the webhook of a definition; None when versions differ in their name alone."""
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return None
    webhook = conversion.get("webhook") or {}
    config = webhook.get("clientConfig") or {}
    url, service = address_of(config)
    versions = [row for row in webhook.get("conversionReviewVersions") or () if row in ("v1", "v1beta1")]
    bundle = base64.b64decode(config.get("caBundle") or "")
    return Converter(
        storage=storage,
        review=versions[0] if versions else "v1",
        url=url,
        service=service,
        ca_bundle=bundle,
        repairs=repairs,
    )


def _checked(old: Obj, new: Any, target: str, index: int) -> Obj:
    """A converted object with the metadata of the old one; raises ValueError when it is not the same object."""
    invalid = f"invalid converted object at index {index}"
    if not isinstance(new, dict):
        raise ValueError(f"{invalid}: it is no object")
    for key, wanted in (("apiVersion", target), ("kind", old.get("kind"))):
        if new.get(key) != wanted:
            word = "groupVersion" if key == "apiVersion" else key
            raise ValueError(f"{invalid}: invalid {word} (expected {wanted}, received {new.get(key)})")
    before, after = old["metadata"], new.get("metadata")
    if after is None:
        raise ValueError(f"invalid metadata in object at index {index}: missing metadata in converted object")
    if not isinstance(after, dict):
        raise ValueError(f"invalid metadata in object at index {index}: metadata is no object")
    for key, word in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if after.get(key, "") != before.get(key, ""):
            seen = f"{before.get(key, '')} != {after.get(key, '')}"
            raise ValueError(f"{invalid}: must have the same {word}: {seen}")
    meta = {key: value for key, value in before.items() if key not in ("labels", "annotations")}
    for key in ("labels", "annotations"):
        rows = after.get(key)
        if rows is None:
            continue
        if not isinstance(rows, dict) or not all(isinstance(value, str) for value in rows.values()):
            raise ValueError(f"invalid metadata in object at index {index}: metadata.{key} is no map of texts")
        meta[key] = rows
    return {**new, "metadata": meta}
