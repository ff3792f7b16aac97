"""Rules of the smaller kinds: configuration, cluster, access, network, storage."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.errors import Invalid


def named(name: str = "a", **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **rest}


def test_a_secret_takes_plain_text_and_keeps_it_encoded(api: Any) -> None:
    found = api.create("secrets", named(stringData={"a": "b"}, data={"c": "ZA=="}))
    assert (found["data"], found["type"], "stringData" in found) == ({"a": "Yg==", "c": "ZA=="}, "Opaque", False)


@pytest.mark.parametrize(("plural", "key"), [("secrets", "data"), ("configmaps", "data")])
def test_what_is_immutable_stays(api: Any, plural: str, key: str) -> None:
    api.create(plural, named(immutable=True, data={"a": "Yg=="}))
    with pytest.raises(Invalid, match="field is immutable when `immutable` is set"):
        api.patch(plural, "a", {key: {"a": "Yw=="}})
    with pytest.raises(Invalid, match="immutable: Forbidden"):
        api.patch(plural, "a", {"immutable": False})
    api.patch(plural, "a", {"metadata": {"labels": {"x": "y"}}})


@pytest.mark.parametrize(
    ("plural", "obj", "detail"),
    [
        ("secrets", named(type="kubernetes.io/tls", data={"tls.crt": ""}), r"data\[tls.key\]: Required value"),
        ("secrets", named(type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "eA=="}), "redacted"),
        ("configmaps", named(data={"a/b": "x"}), "a valid config key must consist of"),
        ("configmaps", named(data={"a": "x"}, binaryData={"a": ""}), "duplicate of key present in binaryData"),
        ("configmaps", named(data={"a": "x" * (1024 * 1024 + 1)}), "Too long"),
        ("nodes", named(spec={"taints": [{"key": "a", "effect": "Maybe"}]}), "Unsupported value"),
        ("nodes", named(spec={"podCIDR": "10.0.0.0/99"}), "must be a valid CIDR value"),
        ("leases", named(spec={"leaseDurationSeconds": 0}), "must be greater than 0"),
        ("limitranges", named(spec={"limits": [{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}),
         "is greater"),
        ("resourcequotas", named(spec={"hard": {"pods": "-1"}}), "must be greater than or equal to 0"),
        ("priorityclasses", named("system-mine", value=5), "reserved for system use only"),
        ("priorityclasses", named(value=1_000_000_001), "maximum allowed value of a user defined priority"),
        ("roles", named(rules=[{"apiGroups": [""], "resources": ["pods"]}]), "verbs must contain at least one value"),
        ("roles", named(rules=[{"verbs": ["get"], "nonResourceURLs": ["/x"]}]), "namespaced rules cannot apply"),
        ("rolebindings", named(roleRef={"kind": "Pod", "name": "x"}), "roleRef.kind: Unsupported value"),
        ("clusterrolebindings", named(roleRef={"kind": "ClusterRole", "name": "x"},
         subjects=[{"kind": "ServiceAccount", "name": "s"}]), r"subjects\[0\].namespace: Required value"),
        ("poddisruptionbudgets", named(spec={"minAvailable": 1, "maxUnavailable": 1}), "cannot be both set"),
        ("networkpolicies", named(spec={"podSelector": {}, "ingress": [{"from": [{}]}]}), "must specify a peer"),
        ("networkpolicies", named(spec={"podSelector": {}, "ingress": [{"from": [{"ipBlock": {
            "cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}), "must be a strict subset of `cidr`"),
        ("ingresses", named(spec={}), "either `defaultBackend` or `rules` must be specified"),
        ("endpointslices", named(addressType="IPv4", endpoints=[{"addresses": ["::1"]}]),
         "must be a valid IPv4 address"),
        ("endpoints", named(subsets=[{"addresses": [{"ip": "x"}], "ports": [{"port": 1}]}]),
         "must be a valid IP address"),
        ("persistentvolumeclaims", named(spec={"accessModes": ["Any"]}), "Unsupported value"),
        ("persistentvolumes", named(spec={"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}),
         "volume type"),
        ("storageclasses", named(), "provisioner: Required value"),
        ("namespaces", named("Team"), "a lowercase RFC 1123 label"),
        ("services", named("1.st", spec={"ports": [{"port": 1}]}), "must not contain dots"),
        ("roles", named("a/b"), "may not contain '/'"),
        ("validatingwebhookconfigurations", named(webhooks=[{"name": "short"}]), "three segments"),
    ],
)  # fmt: skip
def test_a_broken_object_is_refused(api: Any, plural: str, obj: Any, detail: str) -> None:
    with pytest.raises(Invalid, match=detail):
        api.create(plural, obj)


def test_endpoints_may_lie_on_loopback(api: Any) -> None:
    api.create("endpointslices", named(addressType="IPv4", endpoints=[{"addresses": ["127.64.0.3"]}]))
    api.create("endpoints", named(subsets=[{"addresses": [{"ip": "127.64.0.3"}], "ports": [{"port": 80}]}]))


@pytest.mark.parametrize(
    ("plural", "obj", "patch", "detail"),
    [
        ("priorityclasses", named(value=5), {"value": 6}, "may not be changed in an update"),
        ("rolebindings", named(roleRef={"kind": "Role", "name": "x"}), {"roleRef": {"name": "y"}},
         "cannot change roleRef"),
        ("storageclasses", named(provisioner="x"), {"provisioner": "y"}, "updates to provisioner are forbidden"),
        ("nodes", named(spec={"podCIDR": "10.0.0.0/24"}), {"spec": {"podCIDR": "10.0.1.0/24"}},
         "may not change podCIDR"),
        ("endpointslices", named(addressType="IPv4"), {"addressType": "IPv6"}, "field is immutable"),
        ("persistentvolumeclaims", named(spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {
            "storage": "1Gi"}}}), {"spec": {"accessModes": ["ReadWriteMany"]}}, "spec is immutable after creation"),
        ("secrets", named(), {"type": "other"}, "field is immutable"),
    ],
)  # fmt: skip
def test_what_never_changes_is_refused(api: Any, plural: str, obj: Any, patch: Any, detail: str) -> None:
    api.create(plural, obj)
    with pytest.raises(Invalid, match=detail):
        api.patch(plural, "a", patch)


def test_a_binding_is_filled_in(api: Any) -> None:
    sent = named(roleRef={"kind": "ClusterRole", "name": "view"}, subjects=[{"kind": "User", "name": "u"}])
    found = api.create("rolebindings", sent)
    group = "rbac.authorization.k8s.io"
    assert (found["roleRef"]["apiGroup"], found["subjects"][0]["apiGroup"]) == (group, group)


def test_both_groups_of_events_are_one_store(api: Any) -> None:
    rows = [kind for kind in api.registry.all() if kind.resource.plural == "events"]
    assert len({kind.key("default", "e") for kind in rows}) == 1
    core = api.decode("events", {**named(), "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
                                 "message": "m", "reason": "r", "reportingComponent": "c"})  # fmt: skip
    new = rows[1].served(core)
    assert (new["regarding"]["name"], new["note"], new["reportingController"]) == ("web", "m", "c")
    assert rows[1].stored(new) == {**core, "source": {}}
    assert rows[0].selectable_fields(core)["involvedObject.name"] == "web"
    assert rows[1].selectable_fields(new)["regarding.name"] == "web"
