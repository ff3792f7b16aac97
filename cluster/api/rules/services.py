"""Rules of Services: defaults, validation, and what happens to addresses and ports when the type changes.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}, pkg/registry/core/service
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, is_ip, labels, one_of, required
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("NodePort", "LoadBalancer")
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


def prepare_create(obj: Obj, _ctx: WriteContext) -> None:
    spec = obj["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]
    _drop_by_type(spec)


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
    _drop_by_type(spec)


def _drop_by_type(spec: Obj) -> None:
    """Takes away what the type cannot have."""
    if spec["type"] == "ExternalName":
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            spec.pop(key, None)
    if spec["type"] not in _EXTERNAL:
        for key in ("externalTrafficPolicy", "healthCheckNodePort"):
            spec.pop(key, None)
    if spec["type"] != "LoadBalancer":
        spec.pop("allocateLoadBalancerNodePorts", None)
    if spec.get("sessionAffinity") == "None":
        spec.pop("sessionAffinityConfig", None)


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
    if "externalTrafficPolicy" in spec:
        causes += one_of("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], ("Cluster", "Local"))
    if kind != "ExternalName":
        causes += one_of("spec.internalTrafficPolicy", spec.get("internalTrafficPolicy"), ("Cluster", "Local"))
    return causes


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
                detail = "may not be used when `type` is 'ClusterIP'" if kind == "ClusterIP" else "may not be used here"
                causes.append(forbidden(f"{path}.nodePort", detail))
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
        return [forbidden("spec.clusterIPs", "may not be set when `type` is 'ExternalName'")] if addresses else []
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
    return causes
