"""Admission plugins as a cluster chooses and configures them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from steersman.cluster import config
from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.configuration import InvalidAdmission, read_admission
from steersman.cluster.api.admission.optional import validate_pulls
from steersman.cluster.api.admission.plugins import PLUGINS
from steersman.cluster.api.admission.toleration_lists import merged
from steersman.cluster.api.context import ApiSettings
from steersman.cluster.meta.errors import Forbidden, NotFound, TooManyRequests

V1 = "apiserver.config.k8s.io/v1"
POD_SECURITY = {"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration"}
EVENTS = {"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration"}
TOLERATIONS = {"apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration"}
QUOTA = {"apiVersion": V1, "kind": "ResourceQuotaConfiguration"}
HOOKS = {"apiVersion": V1, "kind": "WebhookAdmissionConfiguration"}


def admission(*plugins: Any, files: Any = None) -> Any:
    """Reads a configuration of these plugins; paths are names of `files`, and no kubeconfig below /no can be used."""
    tree = {"apiVersion": V1, "kind": "AdmissionConfiguration", "plugins": list(plugins)}
    return read_admission(
        yaml.safe_dump(tree), lambda path: (files or {})[path], lambda path: "no" if path.startswith("/no") else ""
    )


def told(name: str, tree: Any) -> Any:
    return admission({"name": name, "configuration": tree})


def on(*names: str, off: Any = (), **changes: Any) -> ApiSettings:
    return ApiSettings(plugins=frozenset(names), plugins_off=frozenset(off), **changes)


def test_the_plugins_that_can_be_chosen_are_those_of_the_table() -> None:
    optional = tuple(plugin.name for plugin in PLUGINS if not plugin.default)
    assert get_args(config.OptionalPlugin) == optional
    assert get_args(config.UsualPlugin) == tuple(plugin.name for plugin in PLUGINS if plugin.default)


@pytest.mark.parametrize(
    ("plural", "sent", "plugin", "found"),
    [
        ("pods", None, "ServiceAccount", lambda obj: obj["spec"].get("serviceAccountName")),
        ("pods", None, "Priority", lambda obj: obj["spec"].get("priority") is not None),
        ("pods", None, "DefaultTolerationSeconds", lambda obj: obj["spec"].get("tolerations")),
        ("nodes", {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}}, "TaintNodesByCondition",
         lambda obj: obj["spec"].get("taints")),
        ("persistentvolumes",
         {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                                              "hostPath": {"path": "/x"}}},
         "StorageObjectInUseProtection", lambda obj: obj["metadata"].get("finalizers")),
    ],
)  # fmt: skip
def test_a_usual_plugin_can_be_switched_off(api: Any, plural: str, sent: Any, plugin: str, found: Any) -> None:
    assert found(api.prepare(plural, sent or api.pod()).obj)
    assert not found(api.prepare(plural, sent or api.pod(), settings=on(off=[plugin])).obj)


def test_new_images_are_always_pulled_and_old_ones_left_alone(api: Any) -> None:
    settings = on("AlwaysPullImages")
    sent = api.pod(volumes=[{"name": "v", "image": {"reference": "x:1", "pullPolicy": "Never"}}])
    assert api.prepare("pods", sent, settings=settings).obj["spec"]["volumes"][0]["image"]["pullPolicy"] == "Always"
    assert api.create("pods", sent)["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    api.change("pods", "web", lambda obj: obj["metadata"].update(labels={"a": "b"}), settings=settings)
    attempt = Attempt(operation="CREATE", kind=api.row("pods"), namespace="default", name="web", obj=sent)
    sent["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    with pytest.raises(Forbidden) as refused:
        validate_pulls(attempt, api.context())
    assert refused.value.message == (
        'pods "web" is forbidden: [spec.containers[0].imagePullPolicy: Unsupported value: "IfNotPresent": supported '
        'values: "Always", spec.volumes[0].image.pullPolicy: Unsupported value: "Never": supported values: "Always"]'
    )


def test_a_pod_may_keep_off_others_only_on_the_same_node(api: Any) -> None:
    settings = on("LimitPodHardAntiAffinityTopology")
    for key, wrong in (("kubernetes.io/hostname", False), ("topology.kubernetes.io/zone", True)):
        term = {"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}}
        rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        if wrong:
            with pytest.raises(Forbidden, match=f"has TopologyKey {key} but only key kubernetes"):
                api.prepare("pods", api.pod(affinity=rule), settings=settings)
        else:
            api.prepare("pods", api.pod(affinity=rule), settings=settings)


def test_a_service_keeps_the_external_addresses_it_has_and_gets_no_others(api: Any) -> None:
    settings = on("DenyServiceExternalIPs")
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.7"]}}
    with pytest.raises(Forbidden, match=r'^services "s" is forbidden: Use of external IPs is denied by admission'):
        api.prepare("services", service, settings=settings)
    api.create("services", service)
    api.change("services", "s", lambda obj: obj["metadata"].update(labels={"a": "b"}), settings=settings)
    with pytest.raises(Forbidden):
        api.change("services", "s", lambda obj: obj["spec"]["externalIPs"].append("192.0.2.8"), settings=settings)


def test_what_is_changed_is_in_a_namespace_that_exists(api: Any) -> None:
    api.create("configmaps", {"metadata": {"name": "a"}})
    api.objects.pop(api.row("namespaces").key("", "default"))
    api.change("configmaps", "a", lambda obj: obj.update(data={"a": "b"}))
    with pytest.raises(NotFound):
        api.change("configmaps", "a", lambda obj: obj.update(data={}), settings=on("NamespaceExists"))


def annotate(api: Any, key: str, value: str) -> None:
    name = f"scheduler.alpha.kubernetes.io/{key}"
    api.change("namespaces", "default", lambda obj: obj["metadata"].update(annotations={name: value}))


def test_the_pods_of_a_namespace_go_where_it_says(api: Any) -> None:
    rows = {"clusterDefaultNodeSelector": "disk=ssd", "default": "disk=ssd,zone=a,env=test"}
    told_ = told("PodNodeSelector", {"podNodeSelectorPluginConfig": rows})
    settings = on("PodNodeSelector", admission=told_)

    def made(**selector: str) -> Any:
        return api.prepare("pods", api.pod(nodeSelector=selector), settings=settings).obj["spec"]["nodeSelector"]

    assert made() == {"disk": "ssd"} and made(zone="a") == {"disk": "ssd", "zone": "a"}
    with pytest.raises(Forbidden, match="selector conflicts with its namespace node label selector"):
        made(disk="hdd")
    with pytest.raises(Forbidden, match="labels conflict with its namespace whitelist"):
        made(zone="b")
    annotate(api, "node-selector", "env=test")
    assert made() == {"env": "test"}
    annotate(api, "node-selector", "nonsense")
    with pytest.raises(Forbidden, match=r"invalid selector: \[nonsense\]"):
        made()


def test_the_pods_of_a_namespace_bear_what_it_says_and_nothing_else(api: Any) -> None:
    gpu = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    ready = {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}
    lost = {"key": "node.kubernetes.io/unreachable", "operator": "Exists"}
    told_ = told("PodTolerationRestriction", {**TOLERATIONS, "default": [gpu], "whitelist": [gpu, ready, lost]})
    settings = on("PodTolerationRestriction", admission=told_)

    def made(*own: Any) -> list[str]:
        rows = api.prepare("pods", api.pod(tolerations=list(own)), settings=settings).obj["spec"]["tolerations"]
        return [row["key"].rpartition("/")[2] for row in rows]

    assert sorted(made()) == ["gpu", "not-ready", "unreachable"]
    with pytest.raises(Forbidden, match="conflict with its cluster whitelist"):
        made({"key": "other", "operator": "Exists"})
    annotate(api, "tolerationsWhitelist", '[{"operator": "Exists", "effect": "NoExecute"}]')
    with pytest.raises(Forbidden, match="conflict with its namespace whitelist"):
        made()
    annotate(api, "tolerationsWhitelist", "{}")
    with pytest.raises(Forbidden, match="must be a list of tolerations"):
        made()


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([{"key": "a", "value": "1"}, {"key": "a", "operator": "Exists"}], [1]),
        ([{"operator": "Exists"}, {"key": "a", "value": "1", "effect": "NoSchedule"}], [0]),
        ([{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}], [0]),
        ([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
          {"key": "a", "operator": "Exists", "effect": "NoExecute"}], [1]),
        ([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}], [0, 1]),
    ],
)  # fmt: skip
def test_tolerations_that_others_cover_are_left_out(rows: Any, kept: list[int]) -> None:
    assert merged(rows) == [rows[at] for at in kept]


@pytest.mark.parametrize("sort", ["Server", "Namespace", "User", "SourceAndObject"])
def test_who_makes_too_many_events_is_told_to_wait(api: Any, sort: str) -> None:
    limits = told("EventRateLimit", {**EVENTS, "limits": [{"type": sort, "qps": 1, "burst": 2}]})
    settings = on("EventRateLimit", admission=limits)

    def make(name: str = "x", user: str = "jane") -> None:
        event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": name}}
        api.prepare("events", event, settings=settings, user=user)

    make(), make()
    with pytest.raises(TooManyRequests, match=f"^limit reached on type {sort} for key "):
        make()
    if sort == "User":
        make(user="joe")
    if sort == "SourceAndObject":
        make(name="y")
    api.now += 1
    make()


def test_standards_count_where_a_namespace_says_nothing(api: Any) -> None:
    tree = {
        **POD_SECURITY, "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "audit": "restricted"},
        "exemptions": {"usernames": ["root"], "namespaces": ["kube-system"], "runtimeClasses": ["vm"]},
    }  # fmt: skip
    settings = on(admission=told("PodSecurity", tree))
    bad = api.pod(hostNetwork=True)
    with pytest.raises(Forbidden, match=r'violates PodSecurity "baseline:v1\.30": host namespaces'):
        api.prepare("pods", bad, settings=settings)
    api.create("runtimeclasses", {"metadata": {"name": "vm"}, "handler": "vm"})
    notes: dict[str, str] = {}
    told_ = {"settings": settings, "annotate": notes.__setitem__}
    for why, sent, changes in (
        ("user", bad, {"user": "root"}),
        ("runtimeClass", api.pod(hostNetwork=True, runtimeClassName="vm"), {}),
    ):
        notes.clear()
        api.prepare("pods", sent, **told_, **changes)
        assert notes == {"pod-security.kubernetes.io/exempt": why}
    api.prepare("pods", api.pod(), **told_)
    assert notes["pod-security.kubernetes.io/enforce-policy"] == "baseline:v1.30"
    assert notes["pod-security.kubernetes.io/audit-violations"].startswith('would violate PodSecurity "restricted:lat')
    api.change("namespaces", "default", lambda obj: obj["metadata"].update(
        labels={"pod-security.kubernetes.io/enforce": "privileged"}))  # fmt: skip
    api.prepare("pods", bad, settings=settings)
    warnings: list[str] = []
    exempt = {"metadata": {"name": "kube-system", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    api.prepare("namespaces", exempt, settings=settings, warn=warnings.append)
    asked = "enforce=restricted:v1.30, audit=restricted:latest, warn=restricted:v1.30"
    assert warnings == [
        f'namespace "kube-system" is exempt from Pod Security, and the policy ({asked}) will be ignored'
    ]


@pytest.mark.parametrize(
    ("plugin", "tree", "wrong"),
    [
        ("Nonsense", {}, 'plugins[0].name: Unsupported value: "Nonsense": supported values: "EventRateLimit", '),
        ("", {}, "plugins[0].name: Required value"),
        ("PodSecurity", {"kind": "Pod"}, "plugins[0].configuration: must be a PodSecurityConfiguration of "),
        ("PodSecurity", {**POD_SECURITY, "defaults": {"enforce": "strict", "warn-version": "1.3", "x": "y"}},
         'strict decoding error: unknown field "plugins[0].configuration.defaults.x"; plugins[0].configuration.'
         'defaults.enforce: Invalid value: "strict": must be one of privileged, baseline, restricted; '
         'plugins[0].configuration.defaults.warn-version: Invalid value: "1.3": must be "latest" or "v1.x"'),
        ("PodSecurity", {**POD_SECURITY, "exemptions": {"usernames": [""], "namespaces": ["A", "b", "b"]}},
         "plugins[0].configuration.exemptions.usernames[0]: Required value; "
         'plugins[0].configuration.exemptions.namespaces[0]: Invalid value: "A": '),
        ("EventRateLimit", {**EVENTS}, "plugins[0].configuration.limits: Invalid value: null: must not be empty"),
        ("EventRateLimit", {**EVENTS, "limits": [{"type": "Pod", "qps": 0, "burst": -1, "cacheSize": -2}]},
         'plugins[0].configuration.limits[0].type: Unsupported value: "Pod": supported values: "Namespace", "Server", '
         '"SourceAndObject", "User"; plugins[0].configuration.limits[0].burst: Invalid value: -1: must be positive; '
         "plugins[0].configuration.limits[0].qps: Invalid value: 0: must be positive; "
         "plugins[0].configuration.limits[0].cacheSize: Invalid value: -2: must not be negative"),
        ("ResourceQuota", {**QUOTA, "limitedResources": [{"matchScopes": [{"scopeName": "x", "operator": "In"}]}]},
         "plugins[0].configuration.limitedResources[0].resource: Required value; "
         'plugins[0].configuration.limitedResources[0].matchScopes[0].scopeName: Unsupported value: "x"'),
        ("PodNodeSelector", {"podNodeSelectorPluginConfig": {"a": "b"}},
         'plugins[0].configuration.podNodeSelectorPluginConfig.a: Invalid value: "b": invalid selector: [b]'),
        ("PodTolerationRestriction", {**TOLERATIONS, "default": [{"kee": "x"}]},
         'unknown field "plugins[0].configuration.default[0].kee"'),
        ("MutatingAdmissionWebhook", {**HOOKS, "kubeConfigFile": "hooks"},
         'plugins[0].configuration.kubeConfigFile: Invalid value: "hooks": must be an absolute file path'),
        ("ValidatingAdmissionWebhook", {**HOOKS, "kubeConfigFile": "/no/hooks"},
         'plugins[0].configuration.kubeConfigFile: Invalid value: "/no/hooks": no'),
        ("PodSecurity", 7, "plugins[0].configuration: must be a mapping"),
    ],
)  # fmt: skip
def test_every_mistake_in_a_configuration_is_told_with_its_field(plugin: str, tree: Any, wrong: str) -> None:
    with pytest.raises(InvalidAdmission) as refused:
        told(plugin, tree)
    assert wrong in str(refused.value)


def test_a_plugin_may_be_configured_in_a_file_of_its_own() -> None:
    row = {"name": "PodSecurity", "path": "ps.yaml"}
    found = admission(row, files={"ps.yaml": yaml.safe_dump({**POD_SECURITY, "defaults": {"warn": "baseline"}})})
    assert found.pod_security.defaults == {"warn": "baseline"}
    with pytest.raises(InvalidAdmission, match=r"plugins\[1\]\.name: Duplicate value"):
        admission(row, row, files={"ps.yaml": "null"})
    with pytest.raises(InvalidAdmission, match=r'plugins\[0\]\.path: Invalid value: "ps\.yaml": '):
        admission(row, files={"ps.yaml": "{"})
    with pytest.raises(InvalidAdmission, match="kind: must be AdmissionConfiguration"):
        read_admission("kind: Pod", lambda path: Path(path).read_text(), lambda path: "")
