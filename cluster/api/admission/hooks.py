"""The webhooks and policies of a cluster, compiled: everything outside the built-in plugins that has a say in writes.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from steersman.cluster.api.admission.expressions import Conditions
from steersman.cluster.api.admission.matching import Match
from steersman.cluster.api.admission.names import Names
from steersman.cluster.api.admission.policies import Policy, compile_policies
from steersman.cluster.api.steps import ServiceAddress, address_of
from steersman.cluster.meta.objects import Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook of a configuration.

    Args:
        uid: tells it from all others while its configuration stays as it is.
        url: where it is called; service: the Service meant, if it is one.
        version: of the AdmissionReview, `v1` or `v1beta1`; empty when it speaks none that is known.
        ignores_failure: a call that fails counts as an approval.
        reinvoked: may be asked again when others have changed the object after it.
    """

    configuration: str
    name: str
    uid: str
    match: Match
    url: str
    service: ServiceAddress | None
    ca_bundle: bytes
    version: str
    ignores_failure: bool
    side_effects: str
    timeout_s: int
    reinvoked: bool
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Hooks:
    """All of them, in the order in which they are asked."""

    mutating: tuple[Webhook, ...] = ()
    validating: tuple[Webhook, ...] = ()
    mutations: tuple[Policy, ...] = ()
    validations: tuple[Policy, ...] = ()


def compile_hooks(
    mutating: Iterable[Obj],
    validating: Iterable[Obj],
    mutations: tuple[Iterable[Obj], Iterable[Obj]] = ((), ()),
    validations: tuple[Iterable[Obj], Iterable[Obj]] = ((), ()),
) -> Hooks | None:
    """Compiles what is configured; None when there is nothing to ask.

    Args:
        mutating, validating: configurations of webhooks.
        mutations, validations: policies and their bindings.
    """
    hooks = Hooks(
        tuple(_webhooks(mutating)),
        tuple(_webhooks(validating)),
        tuple(compile_policies(*mutations, makes=True)),
        tuple(compile_policies(*validations, makes=False)),
    )
    return hooks if hooks != Hooks() else None


def _webhooks(configurations: Iterable[Obj]) -> Iterator[Webhook]:
    for configuration in sorted(configurations, key=lambda obj: str(obj["metadata"]["name"])):
        seen: dict[str, int] = {}
        for row in configuration.get("webhooks") or ():
            nth = seen[row["name"]] = seen.get(row["name"], -1) + 1
            yield _webhook(configuration["metadata"]["name"], row, nth)


def _webhook(configuration: str, row: Obj, nth: int) -> Webhook:
    url, service = address_of(row.get("clientConfig") or {})
    versions = [version for version in row.get("admissionReviewVersions") or () if version in ("v1", "v1beta1")]
    return Webhook(
        configuration=configuration,
        name=row["name"],
        uid=f"{configuration}/{row['name']}/{nth}",
        match=Match.of(row, row.get("rules") or ()),
        url=url,
        service=service,
        ca_bundle=_decoded((row.get("clientConfig") or {}).get("caBundle") or ""),
        version=versions[0] if versions else "",
        ignores_failure=row.get("failurePolicy") == "Ignore",
        side_effects=row.get("sideEffects") or "Unknown",
        timeout_s=row.get("timeoutSeconds") or 10,
        reinvoked=row.get("reinvocationPolicy") == "IfNeeded",
        conditions=Conditions.of(
            row.get("matchConditions") or (), row.get("failurePolicy") == "Ignore", Names(policy=False)
        ),
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return text.encode()
