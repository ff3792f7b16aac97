"""ResourceQuota: a namespace holds no more objects, and asks for no more resources, than its quotas allow.

A write is charged to its quotas in the transaction that stores it: their `status.used` goes up with an object and down
with its end, so that no two writes, on however many servers, can both take what is left for one.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/ and
k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from steersman.cluster.api.admission.settings import Limited
from steersman.cluster.api.row import Kind
from steersman.cluster.meta import quotas
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse
from steersman.cluster.meta.quotas import Usage

#: the objects of a group and plural in a namespace, as they are stored
Stored = Callable[[str, str, str], Iterable[Obj]]


@dataclass(frozen=True, slots=True)
class Charge:
    """A write as quotas see it: None before it is a creation, None after it an end."""

    kind: Kind
    before: Obj | None
    after: Obj | None

    @property
    def namespace(self) -> str:
        found: str = (self.after or self.before or {})["metadata"].get("namespace", "")
        return found


def settle(
    charges: Sequence[Charge], found: Iterable[Obj], stored: Stored, limited: Sequence[Limited] = ()
) -> list[Obj]:
    """Returns the quotas that writes change, as they are afterwards.

    Args:
        found: every quota of the writes' namespaces.
        stored: counts what a quota's status does not tell yet.
        limited: what nobody may use without a quota that covers it.

    Raises:
        Forbidden: a quota has not enough left, obliges a pod to say what it needs, or is missing.
    """
    state = {(quota["metadata"]["namespace"], quota["metadata"]["name"]): quota for quota in found}
    changed: dict[tuple[str, str], Obj] = {}
    for charge in charges:
        resource = charge.kind.resource
        if (resource.group, resource.plural) in quotas.IGNORED:
            continue
        if limited and charge.after is not None:
            _covered(charge, [quota for key, quota in state.items() if key[0] == charge.namespace], limited)
        for key, quota in state.items():
            if key[0] == charge.namespace and (after := _charged(charge, quota, stored)) is not None:
                state[key] = changed[key] = after
    return list(changed.values())


def _charged(charge: Charge, quota: Obj, stored: Stored) -> Obj | None:
    """The quota after a write; None when it stays as it is."""
    texts = (quota.get("spec") or {}).get("hard") or {}
    hard = {key: parse(text) for key, text in texts.items()}
    before, after = (_usage(charge, quota, obj) for obj in (charge.before, charge.after))
    is_new_pod = charge.before is None and "pods" in after
    if is_new_pod and (missing := quotas.unspecified(charge.after or {}, hard)):
        raise _refused(charge, f"failed quota: {quota['metadata']['name']}: must specify {missing}")
    zero = Decimal(0)
    delta = {key: after.get(key, zero) - before.get(key, zero) for key in hard if key in before or key in after}
    delta = {key: amount for key, amount in delta.items() if amount}
    if not delta:
        return None
    used = used_of(quota, stored)
    over = [key for key, amount in sorted(delta.items()) if amount > 0 and used[key] + amount > hard[key]]
    if over:
        wanted, held, limit = (
            ",".join(f"{key}={text}" for key, text in quotas.shown({key: row[key] for key in over}, texts).items())
            for row in (delta, used, hard)
        )
        name = quota["metadata"]["name"]
        raise _refused(charge, f"exceeded quota: {name}, requested: {wanted}, used: {held}, limited: {limit}")
    for key, amount in delta.items():
        used[key] = max(zero, used[key] + amount)
    return {**quota, "status": {"hard": texts, "used": quotas.shown(used, texts)}}


def _covered(charge: Charge, found: Sequence[Obj], limited: Sequence[Limited]) -> None:
    """Refuses a write that uses more of what is limited, unless a quota covers it."""
    group, plural = charge.kind.resource.group, charge.kind.resource.plural
    obj: Obj = charge.after or {}
    used = quotas.usage(group, plural, obj)
    before = quotas.usage(group, plural, charge.before) if charge.before is not None else {}
    zero = Decimal(0)
    if not any(amount > before.get(key, zero) for key, amount in used.items()):
        return
    rows = [row for row in limited if (row.group, row.resource) == (group, plural)]
    names = {key for row in rows for key, amount in used.items() if amount > 0 and any(p in key for p in row.contains)}
    covering = [quota for quota in found if quotas.selects(quota, group, plural, obj)]
    names -= {key for quota in covering for key in (quota.get("spec") or {}).get("hard") or ()}
    if names:
        raise _refused(charge, f"insufficient quota to consume: {','.join(sorted(names))}")
    asked = [scope for row in limited for scope in row.scopes if quotas.in_scope(scope, group, plural, obj)]
    held = {
        scope["scopeName"]
        for quota in found
        for scope in quotas.scopes_of(quota)
        if quotas.in_scope(scope, group, plural, obj)
    }
    if missing := [scope for scope in asked if scope["scopeName"] not in held]:
        texts = (f"{{{row['scopeName']} {row['operator']} [{' '.join(row.get('values') or ())}]}}" for row in missing)
        raise _refused(charge, f"insufficient quota to match these scopes: [{' '.join(texts)}]")


def _usage(charge: Charge, quota: Obj, obj: Obj | None) -> Usage:
    resource = charge.kind.resource
    if obj is None or not quotas.selects(quota, resource.group, resource.plural, obj):
        return {}
    return quotas.usage(resource.group, resource.plural, obj)


def used_of(quota: Obj, stored: Stored) -> Usage:
    """What is used of every bound of a quota: from its status, else counted."""
    told = (quota.get("status") or {}).get("used") or {}
    used: Usage = {}
    for key in (quota.get("spec") or {}).get("hard") or ():
        if key in told:
            used[key] = parse(told[key])
            continue
        used[key] = Decimal(0)
        group, plural = quotas.kind_of(key)
        for obj in stored(group, plural, quota["metadata"]["namespace"]):
            if quotas.selects(quota, group, plural, obj):
                used[key] += quotas.usage(group, plural, obj).get(key, Decimal(0))
    return used


def begun(quota: Obj, stored: Stored) -> Obj:
    """The quota with a count of what it bounds by kind and has not counted yet, custom kinds among them.

    The controller watches the built-in kinds alone; of the others admission keeps the count, which begins here.
    """
    told = (quota.get("status") or {}).get("used") or {}
    fresh = {key: text for key, text in ((quota.get("spec") or {}).get("hard") or {}).items()
             if (key.startswith("count/") or quotas.kind_of(key)[0]) and key not in told}  # fmt: skip
    if not fresh:
        return quota
    used = quotas.shown(used_of({**quota, "spec": {**quota["spec"], "hard": fresh}}, stored), fresh)
    return {**quota, "status": {**(quota.get("status") or {}), "used": {**told, **used}}}


def _refused(charge: Charge, detail: str) -> Forbidden:
    resource, name = charge.kind.resource, (charge.after or {})["metadata"].get("name", "")
    return Forbidden(
        f'{resource} "{name}" is forbidden: {detail}', kind=resource.plural, group=resource.group, name=name
    )
