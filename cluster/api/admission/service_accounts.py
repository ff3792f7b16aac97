"""ServiceAccount: every pod runs as an account and gets that account's token, certificate and namespace mounted.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import SERVICE_ACCOUNTS

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MIRROR = "kubernetes.io/config.mirror"
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
