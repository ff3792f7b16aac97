"""Rules of Services: defaults, validation, and what happens to addresses and ports when the type changes.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}, pkg/registry/core/service
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    cidr,
    duplicate,
    forbidden,
    immutable,
    is_ip,
    labels,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.ingresses import balancer
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("NodePort", "LoadBalancer")
#: fields, and the types that have them: they go with a change of type, unless the client changes them too
_OF_TYPES = (
    (("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"), ("ClusterIP", "NodePort", "LoadBalancer")),
    (("externalTrafficPolicy", "healthCheckNodePort"), _EXTERNAL),
    (("allocateLoadBalancerNodePorts", "loadBalancerClass"), ("LoadBalancer",)),
)
_BALANCED_ONLY = "may only be used when `type` is 'LoadBalancer'"
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_KUBELET_PORT = 10250
#: seconds a client sticks to an endpoint
_STICKY_S = 10800


def fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of a Service."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "spec.clusterIP": spec.get("clusterIP", ""),
        "spec.type": spec.get("type", ""),
    }


def default_service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", _STICKY_S)
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if spec["type"] in _EXTERNAL and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for row in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if row.get("ip"):
                row.setdefault("ipMode", "VIP")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["type"] == "ExternalName":
        spec.pop("internalTrafficPolicy", None)


def prepare_create(obj: Obj, _ctx: WriteContext) -> None:
    spec = obj["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]


def prepare_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    spec, before = new["spec"], old.get("spec") or {}
    same_type = spec["type"] != "ExternalName" and before.get("type") != "ExternalName"
    if same_type:
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(key) and key in before:
                spec[key] = before[key]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    if before.get("type") in _EXTERNAL and spec["type"] not in _EXTERNAL:
        kept = {row.get("nodePort") for row in before.get("ports") or ()}
        for row in spec.get("ports") or ():
            if row.get("nodePort") in kept:
                row.pop("nodePort", None)
    for keys, types in _OF_TYPES:
        if before.get("type") in types and spec["type"] not in types:
            for key in keys:
                if spec.get(key) == before.get(key):
                    spec.pop(key, None)


def validate_service(obj: Obj) -> list[Cause]:
    """Every broken rule of a Service."""
    spec = obj.get("spec") or {}
    kind = spec.get("type")
    causes = _ports(spec)
    causes += labels("spec.selector", spec.get("selector") or {})
    causes += one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = (((spec.get("sessionAffinityConfig") or {}).get("clientIP")) or {}).get("timeoutSeconds")
        if seconds is None or not 0 < seconds <= 86400:
            path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            causes.append(bad(path, seconds or 0, "must be greater than 0 and less than or equal to 86400"))
    causes += one_of("spec.type", kind, _TYPES)
    causes += _addresses(spec)
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            causes.append(required("spec.externalName"))
        else:
            causes += bad_all("spec.externalName", name, subdomain_errors(name))
    for index, ip in enumerate(spec.get("externalIPs") or ()):
        if not is_ip(ip):
            detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(bad(f"spec.externalIPs[{index}]", ip, detail))
    causes += _external(spec)
    if kind != "ExternalName":
        causes += one_of("spec.internalTrafficPolicy", spec.get("internalTrafficPolicy"), ("Cluster", "Local"))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        causes.append(unsupported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))
    return causes


def _external(spec: Obj) -> list[Cause]:
    """The rules of how a Service is reached from outside."""
    kind, policy, probe = spec.get("type"), spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort")
    causes: list[Cause] = []
    if policy is not None:
        if kind not in _EXTERNAL and not (kind == "ClusterIP" and spec.get("externalIPs")):
            detail = "may only be set for externally-accessible services"
            causes.append(bad("spec.externalTrafficPolicy", policy, detail))
        else:
            causes += one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    if probe and (kind != "LoadBalancer" or policy != "Local"):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        causes.append(bad("spec.healthCheckNodePort", probe, detail))
    if kind != "LoadBalancer":
        for key in ("loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"):
            if spec.get(key) not in (None, []):
                causes.append(forbidden(f"spec.{key}", _BALANCED_ONLY))
        return causes
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        causes += cidr(f"spec.loadBalancerSourceRanges[{index}]", text.strip())
    if spec.get("loadBalancerClass") is not None:
        causes += bad_all(
            "spec.loadBalancerClass", spec["loadBalancerClass"], qualified_name_errors(spec["loadBalancerClass"])
        )
    for index, port in enumerate(spec.get("ports") or ()):
        if port.get("port") == _KUBELET_PORT:
            detail = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
            causes.append(bad(f"spec.ports[{index}].port", _KUBELET_PORT, detail))
    return causes


def validate_status(new: Obj, _old: Obj) -> list[Cause]:
    found = ((new.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    if found and new["spec"].get("type") != "LoadBalancer":
        return [forbidden("status.loadBalancer.ingress", "may only be used when `spec.type` is LoadBalancer")]
    return balancer("status.loadBalancer", found)


def _ports(spec: Obj) -> list[Cause]:
    ports, kind = spec.get("ports") or [], spec.get("type")
    causes: list[Cause] = []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind in _EXTERNAL and headless:
        detail = f"may not be set to 'None' for {kind} services"
        causes.append(bad("spec.clusterIPs[0]", "None", detail))
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        causes += _port(path, port, names, required_name=len(ports) > 1)
        found = (port.get("protocol", ""), port.get("port", 0))
        if found in numbers:
            causes.append(duplicate(path, {"protocol": found[0], "port": found[1]}))
        numbers.add(found)
        if port.get("nodePort"):
            if kind not in _EXTERNAL:
                causes.append(forbidden(f"{path}.nodePort", f"may not be used when `type` is '{kind}'"))
            where = (port.get("protocol", ""), port["nodePort"])
            if where in node_ports:
                causes.append(duplicate(f"{path}.nodePort", port["nodePort"]))
            node_ports.add(where)
    return causes


def _port(path: str, port: Obj, names: set[str], *, required_name: bool) -> list[Cause]:
    causes: list[Cause] = []
    name = port.get("name", "")
    if not name:
        if required_name:
            causes.append(required(f"{path}.name"))
    else:
        causes += bad_all(f"{path}.name", name, label_1123_errors(name))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
    causes += port_number(f"{path}.port", port.get("port", 0))
    causes += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    causes += port_or_name(f"{path}.targetPort", port.get("targetPort"))
    if port.get("appProtocol"):
        causes += bad_all(f"{path}.appProtocol", port["appProtocol"], qualified_name_errors(port["appProtocol"]))
    return causes


def _addresses(spec: Obj) -> list[Cause]:
    address, addresses, kind = spec.get("clusterIP", ""), spec.get("clusterIPs") or [], spec.get("type")
    if kind == "ExternalName":
        detail = "may not be set for ExternalName services"
        return [
            forbidden(f"spec.{key}", detail) for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy") if spec.get(key)
        ]
    causes = []
    if addresses and address and addresses[0] != address:
        causes.append(bad("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    if len(addresses) > 1:
        causes.append(bad("spec.clusterIPs", addresses, "may only hold up to 1 value in a single-stack cluster"))
    for index, ip in enumerate(addresses[:1]):
        if ip and ip != "None" and not is_ip(ip):
            detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(bad(f"spec.clusterIPs[{index}]", ip, detail))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None:
        causes += one_of("spec.ipFamilyPolicy", policy, ("PreferDualStack", "RequireDualStack", "SingleStack"))
    if policy == "RequireDualStack":
        detail = "this cluster is not configured for dual-stack services"
        causes.append(bad("spec.ipFamilyPolicy", policy, detail))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        causes += one_of(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
    return causes


def validate_service_update(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change breaks: a cluster IP stays."""
    spec, before = new["spec"], old.get("spec") or {}
    causes: list[Cause] = []
    if "ExternalName" in (spec["type"], before.get("type")):
        return causes
    if before.get("clusterIP") and spec.get("clusterIP") != before["clusterIP"]:
        detail = "may not change once set"
        causes.append(bad("spec.clusterIPs[0]", spec.get("clusterIP", ""), detail))
    if before.get("ipFamilies") and (spec.get("ipFamilies") or [""])[0] != before["ipFamilies"][0]:
        causes.append(bad("spec.ipFamilies[0]", (spec.get("ipFamilies") or [""])[0], "may not change once set"))
    if spec["type"] == before.get("type") == "LoadBalancer":
        causes += immutable("spec.loadBalancerClass", spec.get("loadBalancerClass"), before.get("loadBalancerClass"))
    return causes
