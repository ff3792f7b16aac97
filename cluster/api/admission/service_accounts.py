"""ServiceAccount: every pod runs as an account and gets that account's token, certificate and namespace mounted.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller
"""

from __future__ import annotations

from collections.abc import Iterator

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.noderestriction import references
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.resources import SERVICE_ACCOUNTS

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MIRROR = "kubernetes.io/config.mirror"
#: on an account: its pods may use the secrets that it names, and no others
_ENFORCES = "kubernetes.io/enforce-mountable-secrets"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
#: seconds a mounted token is valid; an hour and a little so that it never looks expired while being renewed
TOKEN_S = 3607


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Gives a pod its account, the account's pull secrets and the token volume."""
    meta, spec = pod["metadata"], pod.setdefault("spec", {})
    if _MIRROR in (meta.get("annotations") or {}):
        return
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = ctx.lookup(SERVICE_ACCOUNTS, meta.get("namespace", ""), name)
    if account is None:
        own = meta.get("name", "")
        raise Forbidden(
            f'pods "{own}" is forbidden: error looking up service account {meta.get("namespace")}/{name}: '
            f'serviceaccount "{name}" not found',
            kind="pods",
            name=own,
        )
    if _wants_token(spec, account):
        _mount_token(spec, ctx)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(row) for row in account["imagePullSecrets"]]


def _wants_token(spec: Obj, account: Obj) -> bool:
    if spec.get("automountServiceAccountToken") is not None:
        return bool(spec["automountServiceAccountToken"])
    return account.get("automountServiceAccountToken") is not False


def _mount_token(spec: Obj, ctx: WriteContext) -> None:
    volumes = spec.setdefault("volumes", [])
    found = next((row["name"] for row in volumes if str(row.get("name", "")).startswith("kube-api-access-")), None)
    name = found or f"kube-api-access-{ctx.random_suffix()}"
    needed = False
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = container.setdefault("volumeMounts", [])
        if all(row.get("mountPath") != MOUNT_PATH for row in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": MOUNT_PATH})
            needed = True
        elif not mounts:
            del container["volumeMounts"]
    if needed and not found:
        volumes.append({"name": name, "projected": {"sources": _sources(), "defaultMode": 0o644}})
    if not volumes:
        del spec["volumes"]


def _sources() -> list[Obj]:
    return [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_S, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]


# ---- what a pod may refer to


def validate_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses secrets that a pod's account does not name, where it has to; and what a mirror pod may not have."""
    pod = attempt.obj or {}
    spec = pod.get("spec") or {}
    if _MIRROR in annotations_of(pod):
        if wrong := _wrong_of_mirror(spec):
            raise attempt.forbidden(wrong)
        return
    name = spec.get("serviceAccountName", "")
    account = ctx.lookup(SERVICE_ACCOUNTS, attempt.namespace, name)
    if account is None or annotations_of(account).get(_ENFORCES) not in _TRUE:
        return
    for wrong in _unnamed(spec, account, begun=bool(attempt.subresource)):
        raise attempt.forbidden(wrong)


def _wrong_of_mirror(spec: Obj) -> str:
    if spec.get("serviceAccountName"):
        return "a mirror pod may not reference service accounts"
    if dict(references(spec))["secrets"]:
        return "a mirror pod may not reference secrets"
    sources = [
        source for row in spec.get("volumes") or () for source in (row.get("projected") or {}).get("sources") or ()
    ]
    if any(source.get("serviceAccountToken") for source in sources):
        return "a mirror pod may not use ServiceAccountToken volume projections"
    return ""


def _unnamed(spec: Obj, account: Obj, *, begun: bool) -> Iterator[str]:
    """Every use of a secret that an account does not name; of a pod that exists only what it can still be given."""
    named = {row.get("name") for row in account.get("secrets") or ()}
    end = f"is not allowed because service account {account['metadata']['name']} does not reference that"
    volumes = () if begun else spec.get("volumes") or ()
    for name in (row["secret"].get("secretName", "") for row in volumes if row.get("secret")):
        if name not in named:
            yield f'volume with secret.secretName="{name}" {end} secret'
    ephemeral = (("ephemeralContainers", "ephemeral container"),)
    fields = ephemeral if begun else (("initContainers", "init container"), ("containers", "container"))
    for field, noun in fields:
        for container in spec.get(field) or ():
            for row in container.get("env") or ():
                source = (row.get("valueFrom") or {}).get("secretKeyRef")
                if source and source.get("name") not in named:
                    who = f"{noun} {container.get('name')} with envVar {row.get('name')}"
                    yield f'{who} referencing secret.secretName="{source.get("name", "")}" {end} secret'
            for source in (row["secretRef"] for row in container.get("envFrom") or () if row.get("secretRef")):
                if source.get("name") not in named:
                    who = f"{noun} {container.get('name')} with envFrom"
                    yield f'{who} referencing secret.secretName="{source.get("name", "")}" {end} secret'
    pulls = {row.get("name") for row in account.get("imagePullSecrets") or ()}
    for index, row in enumerate(() if begun else spec.get("imagePullSecrets") or ()):
        if row.get("name") not in pulls:
            yield f'imagePullSecrets[{index}].name="{row.get("name", "")}" {end} imagePullSecret'
