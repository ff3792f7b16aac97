"""Sentences about addresses that could be written better, and about what classes and ingresses say in old words.

Source: k8s.io/apimachinery/pkg/util/validation/ip.go, the strategies of networking, discovery, node and storage
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from steersman.cluster.api.rules.fields import base_of, ip_family, is_ip, network_of, parsed_ip
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.objects import Obj, labels_of

#: of node labels, what they are called now
OLD_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_SOON_INVALID = "will be considered invalid in a future Kubernetes release: use"
_CLASS = "kubernetes.io/ingress.class"
_SLICES_LABEL, _ENDPOINTS_LABEL = "endpointslice.kubernetes.io/managed-by", "endpoints.kubernetes.io/managed-by"
#: controllers that write addresses well
_CAREFUL = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


def of_address(path: str, text: str) -> Iterator[str]:
    """The warning of an address that is written otherwise than it should be, or as it no longer may."""
    found = None if ip_family(text) == "IPv4" else parsed_ip(text)
    if found is None:
        return
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None or found.version == 4:
        yield f"{path}: non-standard IP address {quoted(text)} {_SOON_INVALID} {quoted(str(mapped or found))}"
    elif str(found) != text:
        yield f"{path}: IPv6 address {quoted(text)} should be in RFC 5952 canonical format ({quoted(str(found))})"


def of_range(path: str, text: str) -> Iterator[str]:
    """The same of a range of addresses, and of one that could as well mean one address."""
    base = base_of(text)
    if base is None:
        return
    found, (address, _, length) = network_of(text), text.partition("/")
    inner = getattr(found.network_address, "ipv4_mapped", None)
    better = str(found) if inner is None else f"{inner}/{found.prefixlen - 96}"
    is_ambiguous = base != found.network_address
    if is_ambiguous:
        one = f"{base}/{base.max_prefixlen}"
        said = f"{quoted(text)} is ambiguous in this context (should be {quoted(better)} or {quoted(one)}?)"
        yield f"{path}: CIDR value {said}"
    is_mapped = getattr(base, "ipv4_mapped", None) is not None
    if is_mapped or not is_ip(address) or length != str(int(length)):
        yield f"{path}: non-standard CIDR value {quoted(text)} {_SOON_INVALID} {quoted(better)}"
    elif not is_ambiguous and found.version == 6 and str(found) != text:
        yield f"{path}: IPv6 CIDR value {quoted(text)} should be in RFC 5952 canonical format ({quoted(str(found))})"


def of_service(spec: Obj) -> Iterator[str]:
    """The warnings of the addresses of a Service, but those of the cluster's own."""
    for index, text in enumerate(spec.get("externalIPs") or ()):
        yield from of_address(f"spec.externalIPs[{index}]", text)
    yield from of_address("spec.loadBalancerIP", spec.get("loadBalancerIP", ""))
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from of_range(f"spec.loadBalancerSourceRanges[{index}]", text)


def balanced(obj: Obj) -> Iterator[str]:
    """The warnings of where the status of a Service or an ingress says that its load balancer is."""
    for index, row in enumerate(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()):
        yield from of_address(f"status.loadBalancer.ingress[{index}]", row.get("ip", ""))


def pod_status(obj: Obj) -> Iterator[str]:
    """The warnings of the addresses that a pod's status tells."""
    status = obj.get("status") or {}
    for key in ("podIPs", "hostIPs"):
        for index, row in enumerate(status.get(key) or ()):
            yield from of_address(f"status.{key}[{index}].ip", row.get("ip", ""))


def node(obj: Obj) -> Iterator[str]:
    """The warnings of a Node."""
    spec = obj.get("spec") or {}
    if spec.get("configSource") is not None:
        yield "spec.configSource: the feature is removed"
    if spec.get("externalID"):
        yield "spec.externalID: this field is deprecated, and is unused by Kubernetes"
    for index, text in enumerate(spec.get("podCIDRs") or ()):
        yield from of_range(f"spec.podCIDRs[{index}]", text)


def new_ingress(obj: Obj) -> Iterable[str]:
    """The warning of an ingress whose class stands in an annotation."""
    if _CLASS in (obj["metadata"].get("annotations") or {}) and not (obj.get("spec") or {}).get("ingressClassName"):
        yield f"annotation {quoted(_CLASS)} is deprecated, please use 'spec.ingressClassName' instead"


def policy(obj: Obj) -> Iterable[str]:
    """The warnings of a NetworkPolicy."""
    spec = obj.get("spec") or {}
    for side, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(side) or ()):
            for at, peer in enumerate(rule.get(peers) or ()):
                block, path = peer.get("ipBlock") or {}, f"spec.{side}[{index}].{peers}[{at}].ipBlock"
                yield from of_range(f"{path}.cidr", block.get("cidr", ""))
                for place, text in enumerate(block.get("except") or ()):
                    yield from of_range(f"{path}.except[{place}]", text)


def endpoint_slice(obj: Obj) -> Iterable[str]:
    """The warnings of an EndpointSlice."""
    if obj.get("addressType") == "FQDN":
        yield "spec.addressType: FQDN endpoints are deprecated"
    if labels_of(obj).get(_SLICES_LABEL) in _CAREFUL:
        return
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        for at, text in enumerate(endpoint.get("addresses") or ()):
            yield from of_address(f"endpoints[{index}].addresses[{at}]", text)


def endpoints(obj: Obj) -> Iterable[str]:
    """The warnings of an Endpoints object."""
    if labels_of(obj).get(_ENDPOINTS_LABEL) == "endpoint-controller":
        return
    for index, subset in enumerate(obj.get("subsets") or ()):
        for key in ("addresses", "notReadyAddresses"):
            for at, row in enumerate(subset.get(key) or ()):
                yield from of_address(f"subsets[{index}].{key}[{at}].ip", row.get("ip", ""))


def storage_class(obj: Obj) -> Iterable[str]:
    """The warnings of a StorageClass."""
    for index, term in enumerate(obj.get("allowedTopologies") or ()):
        for at, row in enumerate(term.get("matchLabelExpressions") or ()):
            if row.get("key") in OLD_LABELS:
                yield f"allowedTopologies[{index}].matchLabelExpressions[{at}].key: {OLD_LABELS[row['key']]}"


def storage_capacity(obj: Obj) -> Iterable[str]:
    """The warnings of a CSIStorageCapacity."""
    selector = obj.get("nodeTopology") or {}
    for index, row in enumerate(selector.get("matchExpressions") or ()):
        if (key := row.get("key", "")) in OLD_LABELS:
            yield f"nodeTopology.matchExpressions[{index}].key: {key} is {OLD_LABELS[key]}"
    for key in selector.get("matchLabels") or ():
        if key in OLD_LABELS:
            yield f"nodeTopology.matchLabels.{key}: {OLD_LABELS[key]}"


def runtime_class(obj: Obj) -> Iterable[str]:
    """The warnings of a RuntimeClass."""
    for key in (obj.get("scheduling") or {}).get("nodeSelector") or ():
        if key in OLD_LABELS:
            yield f"scheduling.nodeSelector: {OLD_LABELS[key]}"
