from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from steersman.cluster.api import write
from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.binding import bind
from steersman.cluster.api.cel import Decision
from steersman.cluster.api.context import ApiSettings
from steersman.cluster.api.eviction import budget_status, evict
from steersman.cluster.api.steps import settled
from steersman.cluster.meta.errors import Conflict, Forbidden, InternalError, Invalid, TooManyRequests


def test_a_pod_gets_its_accounts_token_where_containers_have_no_mount_of_their_own(api: Any) -> None:
    sent = api.pod()
    own = {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    sent["spec"]["volumes"] = [{"name": "own", "emptyDir": {}}]
    sent["spec"]["containers"].append({"name": "side", "image": "x:1", "volumeMounts": [own]})
    spec = api.create("pods", sent)["spec"]
    volume = spec["volumes"][1]
    assert volume["name"].startswith("kube-api-access-")
    assert [next(iter(row)) for row in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    mounts = [one["volumeMounts"] for one in spec["containers"]]
    assert mounts == [[{"name": volume["name"], "readOnly": True, "mountPath": own["mountPath"]}], [own]]


STRICT = {
    "metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
    "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "pull"}],
}  # fmt: skip
MIRROR = {"kubernetes.io/config.mirror": "x"}


def _with_secret(**container: Any) -> Any:
    return {"containers": [{"name": "main", "image": "x:1", **container}]}


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]},
         'volume with secret.secretName="other" is not allowed because service account strict does not reference that '
         "secret"),
        (_with_secret(env=[{"name": "E", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]),
         'container main with envVar E referencing secret.secretName="other" is not allowed because service account '
         "strict does not reference that secret"),
        (_with_secret(envFrom=[{"secretRef": {"name": "other"}}]),
         'container main with envFrom referencing secret.secretName="other" is not allowed because service account '
         "strict does not reference that secret"),
        ({"imagePullSecrets": [{"name": "other"}]},
         'imagePullSecrets[0].name="other" is not allowed because service account strict does not reference that '
         "imagePullSecret"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}, ""),
    ],
)  # fmt: skip
def test_a_strict_account_names_every_secret_that_its_pods_use(api: Any, spec: Any, wrong: str) -> None:
    api.create("serviceaccounts", STRICT)
    pod = api.pod(serviceAccountName="strict", **spec)
    if not wrong:
        api.create("pods", pod)
        return
    with pytest.raises(Forbidden) as refused:
        api.create("pods", pod)
    assert refused.value.message == f'pods "web" is forbidden: {wrong}'


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"serviceAccountName": "default"}, "a mirror pod may not reference service accounts"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "a mirror pod may not reference secrets"),
        ({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
         "a mirror pod may not use ServiceAccountToken volume projections"),
    ],
)  # fmt: skip
def test_a_mirror_pod_has_neither_account_nor_secrets(api: Any, spec: Any, wrong: str) -> None:
    pod = api.pod(nodeName="n1", **spec)
    pod["metadata"]["annotations"] = MIRROR
    with pytest.raises(Forbidden) as refused:
        api.create("pods", pod)
    assert refused.value.message == f'pods "web" is forbidden: {wrong}'


def test_nothing_new_comes_to_a_namespace_that_is_going_away(api: Any) -> None:
    api.get("namespaces", "default", "")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    told = "unable to create new content in namespace default because it is being terminated"
    with pytest.raises(Forbidden) as refused:
        api.create("configmaps", {"metadata": {"generateName": "a-"}})
    assert refused.value.message == f'configmaps "a-" is forbidden: {told}'
    for plural, below in (("pods", "eviction"), ("pods", "binding"), ("serviceaccounts", "token")):
        attempt = Attempt(
            operation="CREATE", kind=api.row(plural), subresource=below, namespace="default", name="web", obj={}
        )
        with pytest.raises(Forbidden) as refused:
            settled(write.admit(api.registry, attempt, api.context()))
        assert refused.value.message == f'{plural} "web" is forbidden: {told}'
        assert refused.value.causes[0].reason == "NamespaceTerminating"


def test_an_account_says_whether_its_token_is_mounted_and_what_secrets_pull(api: Any) -> None:
    quiet = {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False, "imagePullSecrets": [{"name": "s"}]}
    api.create("serviceaccounts", quiet)
    spec = api.create("pods", api.pod(serviceAccountName="quiet"))["spec"]
    assert (spec.get("volumes"), spec["imagePullSecrets"]) == (None, [{"name": "s"}])
    with pytest.raises(Forbidden, match="error looking up service account default/nobody"):
        api.create("pods", api.pod("b", serviceAccountName="nobody"))


def test_priority_comes_from_the_class(api: Any) -> None:
    api.create("priorityclasses", {"metadata": {"name": "high"}, "value": 100, "preemptionPolicy": "Never"})
    spec = api.create("pods", api.pod("a", priorityClassName="high"))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (100, "Never")
    assert api.create("pods", api.pod("b", priorityClassName="system-node-critical"))["spec"]["priority"] == 2000001000
    with pytest.raises(Forbidden, match="no PriorityClass with name nothing was found"):
        api.create("pods", api.pod("c", priorityClassName="nothing"))
    with pytest.raises(Forbidden, match="must not be provided in pod spec"):
        api.create("pods", api.pod("c", priority=7))
    api.create("priorityclasses", {"metadata": {"name": "usual"}, "value": 10, "globalDefault": True})
    spec = api.create("pods", api.pod("d"))["spec"]
    assert (spec["priority"], spec["priorityClassName"]) == (10, "usual")
    with pytest.raises(Forbidden, match="already marked as default"):
        api.create("priorityclasses", {"metadata": {"name": "other"}, "value": 1, "globalDefault": True})


def test_a_limit_range_fills_in_and_bounds(api: Any) -> None:
    item = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}
    api.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [item]}})
    resources = api.create("pods", api.pod())["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    big = {"name": "main", "image": "x:1", "resources": {"limits": {"cpu": "2"}}}
    with pytest.raises(Forbidden, match="maximum cpu usage per Container is 1, but limit is 2"):
        api.create("pods", api.pod("big", containers=[big]))


def test_a_quota_counts_what_is_there(api: Any) -> None:
    hard = {"pods": "2", "requests.cpu": "1", "configmaps": "1"}
    api.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    half = {"name": "main", "image": "x:1", "resources": {"requests": {"cpu": "500m"}}}
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify requests\.cpu for: main"):
        api.create("pods", api.pod())
    api.create("pods", api.pod("a", containers=[half]))
    more = {**half, "resources": {"requests": {"cpu": "600m"}}}
    with pytest.raises(Forbidden, match=r"exceeded quota: q, requested: requests\.cpu=600m, used: requests\.cpu=500m"):
        api.create("pods", api.pod("b", containers=[more]))
    api.create("pods", api.pod("b", containers=[half]))
    with pytest.raises(Forbidden, match=r"requested: pods=1,requests\.cpu=500m, used: pods=2,requests\.cpu=1"):
        api.create("pods", api.pod("c", containers=[half]))
    api.create("configmaps", {"metadata": {"name": "a"}})
    with pytest.raises(Forbidden, match="requested: configmaps=1, used: configmaps=1, limited: configmaps=1"):
        api.create("configmaps", {"metadata": {"name": "b"}})


def test_a_new_node_begins_tainted_and_a_claim_with_the_default_class(api: Any) -> None:
    node = api.create("nodes", {"metadata": {"name": "n"}})
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    evicting = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    assert len(api.create("nodes", {"metadata": {"name": "m"}, "spec": {"taints": [evicting]}})["spec"]["taints"]) == 2
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    api.create("storageclasses", {"metadata": {"name": "fast", "annotations": default}, "provisioner": "x"})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    assert (
        api.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})["spec"]["storageClassName"]
        == "fast"
    )


def test_a_binding_puts_a_pod_on_a_node_once(api: Any) -> None:
    pod = api.create("pods", api.pod())
    binding = {"metadata": {"name": "web", "uid": pod["metadata"]["uid"]}, "target": {"kind": "Node", "name": "n1"}}
    bound = bind(pod, binding, api.context()).obj
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    assert "nodeName" not in pod["spec"]
    with pytest.raises(Conflict, match='pod web is already assigned to node "n1"'):
        bind(bound, binding, api.context())
    with pytest.raises(Conflict, match="Precondition failed"):
        bind(pod, {**binding, "metadata": {"uid": "other"}}, api.context())
    with pytest.raises(Invalid, match=r"target\.name: Required value"):
        bind(pod, {"target": {}}, api.context())


def ready_pods(api: Any, count: int) -> None:
    for index in range(count):
        sent = api.pod(f"p{index}", nodeName="n1")
        sent["metadata"]["labels"] = {"app": "web"}
        api.create("pods", sent)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        api.change("pods", f"p{index}", lambda obj, found=status: obj.update(status=found), "status")


def test_an_eviction_asks_the_budget_and_spends_it(api: Any) -> None:
    ready_pods(api, 3)
    selector = {"matchLabels": {"app": "web"}}
    api.create("poddisruptionbudgets", {"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": selector}})
    first = evict(api.registry, api.get("pods", "p0"), {}, api.context())
    assert first.budget is not None
    assert first.budget["status"]["disruptionsAllowed"] == 0
    assert list(first.budget["status"]["disruptedPods"]) == ["p0"]
    assert first.deletion.obj["metadata"]["deletionTimestamp"]
    api.change("poddisruptionbudgets", "b", lambda obj: obj.update(status=first.budget["status"]), "status")
    with pytest.raises(TooManyRequests) as refused:
        evict(api.registry, api.get("pods", "p1"), {}, api.context())
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused.value.retry_after_s == 0, "clients that are told a time wait for it, and say nothing meanwhile"
    assert refused.value.causes[0].reason == "DisruptionBudget"
    api.create("poddisruptionbudgets", {"metadata": {"name": "c"}, "spec": {"maxUnavailable": 1, "selector": selector}})
    with pytest.raises(InternalError, match="more than one PodDisruptionBudget"):
        evict(api.registry, api.get("pods", "p1"), {}, api.context())


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"minAvailable": "50%"}, 2),
        ({"maxUnavailable": "25%"}, 1),
        ({"minAvailable": 4}, 0),
        ({"maxUnavailable": 9}, 4),
    ],
)
def test_a_budget_is_reckoned_from_its_pods(api: Any, spec: Any, allowed: int) -> None:
    ready_pods(api, 4)
    budget = {"metadata": {"name": "b"}, "spec": {**spec, "selector": {"matchLabels": {"app": "web"}}}}
    pods = [obj for obj in api.objects.values() if obj["kind"] == "Pod"]
    assert budget_status(budget, pods, api.now)["disruptionsAllowed"] == allowed


def test_a_pod_that_never_ran_is_evicted_whatever_the_budget(api: Any) -> None:
    api.create("pods", api.pod())
    assert evict(api.registry, api.get("pods", "web"), {}, api.context()).deletion.remove
    assert write.representation(api.row("pods"), api.get("pods", "web"))["metadata"]["name"] == "web"


def _range(api: Any, **item: Any) -> None:
    api.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [item]}})


def _container(requests: Any = None, limits: Any = None) -> list[Any]:
    return [{"name": "main", "image": "x:1", "resources": {"requests": requests or {}, "limits": limits or {}}}]


def test_a_limit_range_notes_what_it_fills_in(api: Any) -> None:
    _range(api, type="Container", default={"cpu": "1", "memory": "1Gi"}, defaultRequest={"cpu": "500m"})
    pod = api.create("pods", api.pod())
    assert pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container main; cpu, memory limit for container main"
    )


@pytest.mark.parametrize(
    ("item", "requests", "limits", "wrong"),
    [
        ({"type": "Container", "min": {"cpu": "1"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}},
         {"cpu": "500m"}, {}, "minimum cpu usage per Container is 1, but request is 500m"),
        ({"type": "Pod", "max": {"cpu": "1"}}, {"cpu": "2"}, {"cpu": "3"},
         "maximum cpu usage per Pod is 1, but limit is 3"),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, {}, {},
         "maximum memory usage per Pod is 1Gi.  No limit is specified"),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, {"cpu": "1"}, {"cpu": "3"},
         "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
    ],
)  # fmt: skip
def test_a_limit_range_bounds_containers_and_pods(api: Any, item: Any, requests: Any, limits: Any, wrong: str) -> None:
    _range(api, **item)
    with pytest.raises(Forbidden) as refused:
        api.create("pods", api.pod(containers=_container(requests, limits)))
    assert refused.value.message == f'pods "web" is forbidden: {wrong}'


def _claim(size: str, **spec: Any) -> Any:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"metadata": {"name": "c"}, "spec": asked}


def test_a_resize_keeps_within_the_limit_range(api: Any) -> None:
    api.create("pods", api.pod(containers=_container({"cpu": "500m"})))
    _range(api, type="Container", max={"cpu": "1"})

    def grow(obj: Any) -> None:
        obj["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}

    with pytest.raises(Forbidden, match="maximum cpu usage per Container is 1, but limit is 2"):
        api.change("pods", "web", grow, "resize")


def test_a_limit_range_bounds_claims(api: Any) -> None:
    _range(api, type="PersistentVolumeClaim", min={"storage": "1Gi"}, max={"storage": "2Gi"})
    api.create("persistentvolumeclaims", _claim("1Gi"))
    for size, wrong in (("1Mi", "minimum"), ("3Gi", "maximum")):
        with pytest.raises(Forbidden, match=f"{wrong} storage usage per PersistentVolumeClaim is .Gi, but request is"):
            api.create("persistentvolumeclaims", {**_claim(size), "metadata": {"name": "d"}})


def test_a_claim_grows_only_where_its_class_provides_for_it(api: Any) -> None:
    for name, grows in (("fixed", False), ("grows", True)):
        cls = {"metadata": {"name": name}, "provisioner": "x/y", "allowVolumeExpansion": grows}
        api.create("storageclasses", cls)
        claim = {**_claim("1Gi", storageClassName=name), "metadata": {"name": name}}
        api.create("persistentvolumeclaims", claim)
        api.change("persistentvolumeclaims", name, lambda obj: obj.update(status={"phase": "Bound"}), "status")

    def grow(obj: Any) -> None:
        obj["spec"]["resources"]["requests"]["storage"] = "2Gi"

    with pytest.raises(Forbidden, match="the storageclass that provisions the pvc must support resize"):
        api.change("persistentvolumeclaims", "fixed", grow)
    api.change("persistentvolumeclaims", "grows", grow)


def test_an_ingress_without_a_class_gets_the_default_one(api: Any) -> None:
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    for name in ("b", "a"):
        row = {"metadata": {"name": name, "annotations": mark}, "spec": {"controller": "x.example/y"}}
        api.create("ingressclasses", row)
    backend = {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}
    made = api.create("ingresses", {"metadata": {"name": "i"}, "spec": backend})
    assert made["spec"]["ingressClassName"] == "a"


def test_a_runtime_class_gives_a_pod_its_overhead_and_place(api: Any) -> None:
    row = {
        "metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
    }  # fmt: skip
    api.create("runtimeclasses", row)
    spec = api.create("pods", api.pod(runtimeClassName="vm"))["spec"]
    assert spec["overhead"] == {"cpu": "100m"} and spec["nodeSelector"] == {"vm": "yes"}
    assert {"key": "vm", "operator": "Exists"} in spec["tolerations"]
    for bad, wrong in (
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        ({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}, "conflict: runtimeClass.scheduling.nodeSelector"),
        ({"overhead": {"cpu": "1"}}, "pod rejected: Pod overhead set without corresponding RuntimeClass"),
    ):
        with pytest.raises(Forbidden) as refused:
            api.create("pods", api.pod("other", **bad))
        assert wrong in refused.value.message


def test_a_node_may_not_give_itself_what_sets_it_apart(api: Any) -> None:
    me = {"user": "system:node:n1", "groups": ("system:nodes",)}
    apart = {"node-restriction.kubernetes.io/team": "a"}
    with pytest.raises(Forbidden, match="not allowed to set the following labels: node-restriction"):
        api.create("nodes", {"metadata": {"name": "n1", "labels": apart}}, **me)
    own = {"kubernetes.io/hostname": "n1", "example.com/x": "y", "node.kubernetes.io/z": ""}
    api.create("nodes", {"metadata": {"name": "n1", "labels": own}}, **me)
    with pytest.raises(Forbidden, match=r"is not allowed to modify labels: k8s\.io/x"):
        api.change("nodes", "n1", lambda obj: obj["metadata"]["labels"].update({"k8s.io/x": "1"}), **me)
    with pytest.raises(Forbidden, match='node "n1" is not allowed to modify taints'):
        api.change("nodes", "n1", lambda obj: obj["spec"].update(taints=[]), **me)
    api.change("nodes", "n1", lambda obj: obj["metadata"]["labels"].update(apart))


def test_who_may_not_approve_or_sign_for_a_signer_does_not(api: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def request(*groups: str) -> str:
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
        return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()

    def made(name: str, *groups: str) -> Any:
        spec = {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
        return {"metadata": {"name": name}, "spec": {**spec, "request": request(*groups)}}

    with pytest.raises(Forbidden, match="signer with system:masters group is not allowed"):
        api.create("certificatesigningrequests", made("a", "system:masters"))
    api.create("certificatesigningrequests", made("a", "devs"))
    asked: list[Any] = []

    def nobody(question: Any) -> Decision:
        asked.append((question.verb, question.resource, question.name))
        return Decision(allowed=False)

    row = {"type": "Approved", "status": "True", "reason": "x"}
    with pytest.raises(Forbidden, match='not permitted to approve requests with signerName "kubernetes'):
        api.change("certificatesigningrequests", "a", lambda obj: obj["status"].update(conditions=[row]), "approval",
                   authorize=nobody)  # fmt: skip
    assert asked == [
        ("approve", "signers", "kubernetes.io/kube-apiserver-client"), ("approve", "signers", "kubernetes.io/*"),
    ]  # fmt: skip


def test_a_pod_learns_the_zone_of_its_node_as_it_is_bound(api: Any) -> None:
    labels = {"topology.kubernetes.io/zone": "z", "other": "x"}
    api.create("nodes", {"metadata": {"name": "n1", "labels": labels}})
    binding = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}}
    attempt = Attempt(
        operation="CREATE", kind=api.row("pods"), subresource="binding", namespace="default", name="web", obj=binding
    )
    settled(write.admit(api.registry, attempt, api.context()))
    assert binding["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z"}


def test_plugins_that_are_off_by_default_can_be_had(api: Any) -> None:
    pulls = ApiSettings(plugins=frozenset({"AlwaysPullImages"}))
    for settings, policy in ((ApiSettings(), "IfNotPresent"), (pulls, "Always")):
        made = api.prepare("pods", api.pod(), settings=settings).obj
        assert made["spec"]["containers"][0]["imagePullPolicy"] == policy
    devices = ApiSettings(plugins=frozenset({"ExtendedResourceToleration"}))
    asking = api.pod(containers=_container({"example.com/gpu": "1", "cpu": "1"}, {"example.com/gpu": "1", "cpu": "1"}))
    for settings, keys in ((ApiSettings(), []), (devices, ["example.com/gpu"])):
        made = api.prepare("pods", asking, settings=settings).obj
        rows = made["spec"]["tolerations"]
        assert [row["key"] for row in rows if (row["operator"], row["effect"]) == ("Exists", "NoSchedule")] == keys
    owners = {"settings": ApiSettings(plugins=frozenset({"OwnerReferencesPermissionEnforcement"}))}
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "1", "blockOwnerDeletion": True}
    owned = {"metadata": {"name": "a", "ownerReferences": [reference]}}
    api.create("configmaps", {"metadata": {"name": "a"}})
    for denied, wrong in (("delete", "you can't delete"), ("update", "you can't set finalizers on")):
        with pytest.raises(Forbidden, match=wrong):
            api.change("configmaps", "a", lambda obj: obj["metadata"].update(ownerReferences=[reference]),
                       authorize=lambda row, denied=denied: Decision(allowed=row.verb != denied), **owners)  # fmt: skip
    with pytest.raises(Forbidden, match="you can't set finalizers on"):
        api.prepare("configmaps", owned, authorize=lambda row: Decision(allowed=row.verb != "update"), **owners)
    api.prepare("configmaps", owned, authorize=lambda row: Decision(allowed=row.verb != "delete"), **owners)
    api.prepare("configmaps", owned, **owners)
    api.prepare("configmaps", owned, authorize=lambda row: Decision(allowed=False))
