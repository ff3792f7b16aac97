"""What every namespace is given: the service account `default`, and the cluster's CA in `kube-root-ca.crt`.

Source: https://kubernetes.io/docs/concepts/security/service-accounts/#default-service-accounts
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.plan import NOTHING_TO_DO, Create, Plan, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting, name, namespace
from steersman.cluster.meta.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS

DEFAULT = "default"
ROOT_CA = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: present: the object that the namespace should have, if it has it; root_ca: PEM."""

    namespace: Obj
    present: Obj | None
    root_ca: str = ""


def keys_of_account(obj: Obj, view: View) -> Iterable[str]:
    return (namespace(obj),) if name(obj) == DEFAULT else ()


def keys_of_config_map(obj: Obj, view: View) -> Iterable[str]:
    return (namespace(obj),) if name(obj) == ROOT_CA else ()


def observe_account(view: View, key: str) -> Observed | None:
    found = view.get(NAMESPACES, key)
    if found is None or is_deleting(found):
        return None
    return Observed(namespace=found, present=view.get(SERVICE_ACCOUNTS, f"{key}/{DEFAULT}"))


def reconcile_account(observed: Observed, now: float) -> Plan:
    if observed.present is not None:
        return NOTHING_TO_DO
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": DEFAULT, "namespace": name(observed.namespace)},
    }
    return Plan(steps=(Create(resource=SERVICE_ACCOUNTS, obj=account),))


def observe_root_ca(view: View, key: str) -> Observed | None:
    found = view.get(NAMESPACES, key)
    if found is None or is_deleting(found) or not view.settings.root_ca:
        return None
    return Observed(namespace=found, present=view.get(CONFIG_MAPS, f"{key}/{ROOT_CA}"), root_ca=view.settings.root_ca)


def reconcile_root_ca(observed: Observed, now: float) -> Plan:
    data = {"ca.crt": observed.root_ca}
    if observed.present is None:
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_CA,
                "namespace": name(observed.namespace),
                "annotations": {"kubernetes.io/description": _DESCRIPTION},
            },
            "data": data,
        }
        return Plan(steps=(Create(resource=CONFIG_MAPS, obj=config_map),))
    if observed.present.get("data") == data:
        return NOTHING_TO_DO
    strangers = {field: None for field in observed.present.get("data") or {} if field not in data}
    return Plan(steps=(patch(CONFIG_MAPS, observed.present, {"data": {**strangers, **data}}),))


SERVICE_ACCOUNT = ControllerSpec(
    name="serviceaccount",
    watches=(
        Watch(resource=NAMESPACES, keys=own_key),
        Watch(resource=SERVICE_ACCOUNTS, keys=keys_of_account),
    ),
    observe=observe_account,
    reconcile=reconcile_account,
)

ROOT_CA_PUBLISHER = ControllerSpec(
    name="root-ca",
    watches=(
        Watch(resource=NAMESPACES, keys=own_key),
        Watch(resource=CONFIG_MAPS, keys=keys_of_config_map),
    ),
    observe=observe_root_ca,
    reconcile=reconcile_root_ca,
)
