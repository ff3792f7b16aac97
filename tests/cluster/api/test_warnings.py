"""Tests of what clients are warned of, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import write
from steersman.cluster.api.admission import network_warnings, warnings
from steersman.cluster.api.steps import settled

_MAIN = {"name": "a", "image": "x:1"}
_TERM = {"topologyKey": "zone"}
_OLD_NODES = {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": {"beta.kubernetes.io/instance-type": "big"}},
         ['spec.nodeSelector[beta.kubernetes.io/instance-type]: deprecated since v1.17; use '
          '"node.kubernetes.io/instance-type" instead']),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                                        {"nodeSelectorTerms": [_OLD_NODES]}}}},
         ["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
          ".matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "
          '"topology.kubernetes.io/zone" instead']),
        ({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_TERM]}}},
         ["spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: "
          "a null labelSelector results in matching no pod"]),
        ({"topologySpreadConstraints": [{**_TERM, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]},
         ["spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"]),
        ({"hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}], "imagePullSecrets": [{"name": "a"}, {"name": "a"}]},
         ['spec.hostAliases[1].ip: duplicate ip "10.0.0.1"', 'spec.imagePullSecrets[1].name: duplicate name "a"']),
        ({"imagePullSecrets": [{}]}, ['spec.imagePullSecrets[0].name: invalid empty name ""']),
        ({"terminationGracePeriodSeconds": -1},
         ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"]),
        ({"volumes": [{"name": "g", "gitRepo": {"repository": "r"}}]},
         ["spec.volumes[0].gitRepo: deprecated in v1.11"]),
        ({"volumes": [{"name": "p", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t"}},
            {"secret": {"name": "s", "items": [{"key": "k", "path": "t"}]}}, {},
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "t/u"}, {"key": "l", "path": "v"}]}},
        ]}}]}, ['volume "p" (Projected): overlapping paths: "t" (Secret "s") with "t" (ServiceAccountToken)',
                'volume "p" (Projected) has no sources provided',
                'volume "p" (Projected): overlapping paths: "t/u" (ConfigMap "c") with "t" (ServiceAccountToken)',
                'volume "p" (Projected): overlapping paths: "t/u" (ConfigMap "c") with "t" (Secret "s")']),
        ({"volumes": [
            {"name": "a", "configMap": {"name": "c", "items": [
                {"key": "k", "path": "t/u"}, {"key": "l", "path": "t"}]}},
            {"name": "b", "secret": {"secretName": "s", "items": [
                {"key": "k", "path": "t"}, {"key": "l", "path": "tt"}]}},
        ]}, ['volume "a" (ConfigMap "c"): overlapping paths: "t" with "t/u"']),
        ({"containers": [{**_MAIN, "ports": [{"name": "web", "containerPort": 80}]},
                         {"name": "b", "image": "x:1", "ports": [{"name": "web", "containerPort": 81}]}]},
         ['spec.containers[1].ports[0]: duplicate port name "web" with spec.containers[0].ports[0], services and '
          "probes that select ports by name will use spec.containers[0].ports[0]"]),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["2001:db8:0::1"]},
          "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::0:1"}]},
         [f'spec.{place}: IPv6 address "{text}" should be in RFC 5952 canonical format ("2001:db8::1")'
          for place, text in (("dnsConfig.nameservers[0]", "2001:db8:0::1"), ("hostAliases[1].ip", "2001:db8::0:1"))]),
        ({"containers": [{**_MAIN, "resources": {"limits": {"memory": "100m"}}}]},
         [f'spec.containers[0].resources.{side}[memory]: fractional byte value "100m" is invalid, must be an integer'
          for side in ("limits", "requests")]),
        ({"containers": [{**_MAIN, "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}, []),
        ({"containers": [{**_MAIN, "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]},
         ['spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply']),
        ({"containers": [{**_MAIN, "ports": [{"containerPort": 80}]},
                         {"name": "b", "image": "x:1", "ports": [{"containerPort": 80}]}]},
         ["spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"]),
        ({"containers": [{**_MAIN, "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80},
                                             {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}]}]},
         ["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
          "spec.containers[0].ports[2]: dangerously ambiguous port definition with spec.containers[0].ports[0]",
          "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]"]),
        ({"containers": [{**_MAIN, "ports": [{"containerPort": 80, "hostIP": "10.0.0.1"}]}]},
         ["spec.containers[0].ports[0]: hostIP set without hostPort: "
          "{Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}"]),
    ],
)  # fmt: skip
def test_a_pod_that_will_not_do_what_it_seems_is_warned_of(api: Any, spec: Any, expected: list[str]) -> None:
    assert list(api.prepare("pods", api.pod(**spec)).warnings) == expected


@pytest.mark.parametrize(
    ("plural", "spec", "meta", "expected"),
    [
        ("services", {"ports": [{"port": 1}], "clusterIP": "None", "sessionAffinity": "ClientIP"}, {},
         ["spec.SessionAffinity is ignored for headless services"]),
        ("services", {"ports": [{"port": 1}], "externalIPs": ["10.0.0.1"], "trafficDistribution": "PreferClose"}, {},
         ["spec.externalIPs is deprecated and may no longer be implemented in some clusters",
          'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"']),
        ("services", {"ports": [{"port": 1}], "externalName": "a.example.com"}, {},
         ['spec.externalName is ignored when spec.type is not "ExternalName"']),
        ("persistentvolumeclaims",
         {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100m"}}},
         {"annotations": {_BETA_CLASS: "x"}},
         [f'metadata.annotations[{_BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead',
          'spec.resources.requests[storage]: fractional byte value "100m" is invalid, must be an integer']),
        ("persistentvolumes",
         {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"},
          "persistentVolumeReclaimPolicy": "Recycle"}, {},
         ["spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
          "approach is to use dynamic provisioning."]),
        ("jobs", {"template": {"spec": {"restartPolicy": "Never", "containers": [_MAIN],
                                        "nodeSelector": {"beta.kubernetes.io/os": "linux"}}}}, {},
         ["spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "
          '"kubernetes.io/os" instead']),
        ("jobs", {"template": {"spec": {"restartPolicy": "Never", "containers": [_MAIN]}}}, {"name": "a.b"},
         ["metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
          "label is recommended: [must not contain dots]"]),
    ],
)  # fmt: skip
def test_other_kinds_have_warnings_of_their_own(
    api: Any, plural: str, spec: Any, meta: Any, expected: list[str]
) -> None:
    written = api.prepare(plural, {"metadata": {"name": "web", **meta}, "spec": spec})
    assert list(written.warnings) == expected


def _definition(**formats: dict[str, Any]) -> dict[str, Any]:
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": formats}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}}
    names = {"plural": "gadgets", "kind": "Gadget"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    return {"metadata": {"name": "gadgets.example.com", "generation": len(formats)}, "spec": spec}


def test_formats_that_nobody_checks_are_told_once_they_appear(api: Any) -> None:
    known = {"a": {"type": "string", "format": "date-time"}, "b": {"type": "integer", "format": "int32"},
             "c": {"type": "number", "format": "double"}, "d": {"type": "string", "format": "isbn-10"}}  # fmt: skip
    assert list(api.prepare("customresourcedefinitions", _definition(**known)).warnings) == []
    vain = {"e": {"type": "array", "format": "cidr", "items": {"type": "string", "format": "semver"}},
            "f": {"type": "integer", "format": "uint8"}}  # fmt: skip
    told = [f'unrecognized format "{form}"' for form in ("cidr", "semver", "uint8")]
    new = _definition(**known, **vain)
    assert list(api.prepare("customresourcedefinitions", new).warnings) == told
    old = _definition(**known, f=vain["f"])
    assert warnings.of(api.row("customresourcedefinitions"), new, old) == told[:2]


def test_an_account_names_secrets_and_is_warned_of_once(api: Any) -> None:
    meta = {"name": "me", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    secrets = [{"name": "a", "namespace": "other", "kind": "Secret"}, {"kind": "Secret"}]
    written = api.prepare("serviceaccounts", {"metadata": meta, "secrets": secrets})
    assert written.obj["secrets"] == [{"name": "a"}, {}]
    assert list(written.warnings) == [
        "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate "
        "namespaces to isolate access to mounted secrets"
    ]


_ZONE = "failure-domain.beta.kubernetes.io/zone"
_NOW = 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
_LOOSE, _TIGHT = "2001:DB8::1", "2001:db8::1"


@pytest.mark.parametrize(
    ("plural", "obj", "expected"),
    [
        ("ingresses", {"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}},
                       "spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 1}}}}},
         ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]),
        ("networkpolicies", {"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {
            "cidr": "2001:DB8::/64", "except": ["2001:db8::0/96"]}}]}]}},
         ['spec.ingress[0].from[0].ipBlock.cidr: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical '
          'format ("2001:db8::/64")',
          'spec.ingress[0].from[0].ipBlock.except[0]: IPv6 CIDR value "2001:db8::0/96" should be in RFC 5952 canonical '
          'format ("2001:db8::/96")']),
        ("endpointslices", {"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com"]}]},
         ["spec.addressType: FQDN endpoints are deprecated"]),
        ("endpointslices", {"addressType": "IPv6", "endpoints": [{"addresses": [_LOOSE]}]},
         [f'endpoints[0].addresses[0]: IPv6 address "{_LOOSE}" should be in RFC 5952 canonical format ("{_TIGHT}")']),
        ("endpoints", {"subsets": [{"addresses": [{"ip": _LOOSE}], "ports": [{"port": 1}]}]},
         [f'subsets[0].addresses[0].ip: IPv6 address "{_LOOSE}" should be in RFC 5952 canonical format ("{_TIGHT}")']),
        ("services", {"spec": {"ports": [{"port": 1}], "type": "LoadBalancer",
                               "loadBalancerSourceRanges": ["2001:DB8::/64"]}},
         ['spec.loadBalancerSourceRanges[0]: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format '
          '("2001:db8::/64")']),
        ("storageclasses", {"provisioner": "x", "allowedTopologies": [
            {"matchLabelExpressions": [{"key": _ZONE, "values": ["a"]}]}]},
         [f"allowedTopologies[0].matchLabelExpressions[0].key: {_NOW}"]),
        ("csistoragecapacities", {"storageClassName": "x", "nodeTopology": {"matchLabels": {_ZONE: "a"}}},
         [f"nodeTopology.matchLabels.{_ZONE}: {_NOW}"]),
        ("runtimeclasses", {"handler": "x", "scheduling": {"nodeSelector": {_ZONE: "a"}}},
         [f"scheduling.nodeSelector: {_NOW}"]),
    ],
)  # fmt: skip
def test_old_words_and_loose_addresses_are_warned_of(api: Any, plural: str, obj: Any, expected: list[str]) -> None:
    written = api.prepare(plural, {**obj, "metadata": {"name": "a", **obj.get("metadata", {})}})
    assert list(written.warnings) == expected
    if plural == "ingresses":
        assert warnings.of(api.row(plural), written.obj, written.obj) == []


_BALANCED = {"loadBalancer": {"ingress": [{"hostname": "a.example.com"}, {"ip": "2001:DB8::1", "ipMode": "VIP"}]}}
_AT_BALANCER = "status.loadBalancer.ingress[1]"


@pytest.mark.parametrize(
    ("plural", "spec", "status", "paths"),
    [
        ("services", {"type": "LoadBalancer", "ports": [{"port": 1}]}, _BALANCED, [_AT_BALANCER]),
        ("ingresses", {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}},
         {"loadBalancer": {"ingress": [{}, {"ip": "2001:DB8::1"}]}}, [_AT_BALANCER]),
        ("pods", {"containers": [_MAIN]},
         {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:DB8::1"}], "hostIP": "2001:DB8::1",
          "hostIPs": [{"ip": "2001:DB8::1"}]}, ["status.podIPs[1].ip", "status.hostIPs[0].ip"]),
    ],
)  # fmt: skip
def test_addresses_in_a_status_are_warned_of(api: Any, plural: str, spec: Any, status: Any, paths: list[str]) -> None:
    made = api.create(plural, {"metadata": {"name": "a"}, "spec": spec})
    said = 'IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'
    kind, context = api.row(plural), api.context()
    steps = write.update(api.registry, kind, {**made, "status": status}, made, "status", context)
    assert list(settled(steps).warnings) == [f"{path}: {said}" for path in paths]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("192.012.2.2", ('non-standard IP address "192.012.2.2"', "192.12.2.2")),
        ("::ffff:192.12.2.2", ('non-standard IP address "::ffff:192.12.2.2"', "192.12.2.2")),
        ("192.012.2.0/24", ('non-standard CIDR value "192.012.2.0/24"', "192.12.2.0/24")),
        ("::ffff:192.12.2.0/120", ('non-standard CIDR value "::ffff:192.12.2.0/120"', "192.12.2.0/24")),
        ("::ffff:192.12.2.0/64", None),
    ],
)
def test_what_is_only_taken_since_it_was_there_is_warned_of(text: str, said: tuple[str, str] | None) -> None:
    rule = network_warnings.of_range if "/" in text else network_warnings.of_address
    found = list(rule("spec.x", text))
    if said is None:
        one = 'CIDR value "::ffff:192.12.2.0/64" is ambiguous in this context (should be "::/64" or'
        assert found[0].startswith(f"spec.x: {one}")
        return
    what, better = said
    assert found == [f'spec.x: {what} will be considered invalid in a future Kubernetes release: use "{better}"']


def test_a_node_is_warned_of_what_is_gone(api: Any) -> None:
    node = {"metadata": {"name": "n"}, "spec": {"externalID": "x", "podCIDRs": ["2001:DB8::/64"], "configSource": {}}}
    assert list(api.prepare("nodes", node).warnings)[1:] == [
        "spec.externalID: this field is deprecated, and is unused by Kubernetes",
        'spec.podCIDRs[0]: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")',
    ]
