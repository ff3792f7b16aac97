"""Rules of pods: what the server decides at creation, what may be selected by, and what makes a spec invalid.

Containers and volumes have files of their own. Pod templates of workloads go through the same functions.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go and pkg/registry/core/pod/strategy.go
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.containers import validate_containers
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    is_ip,
    label_selector,
    labels,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.metadata import validate_annotations
from steersman.cluster.api.rules.pod_volumes import validate_volumes
from steersman.cluster.api.rules.scheduling import validate_affinity, validate_spread, validate_tolerations
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import milli

RESTART_POLICIES = ("Always", "Never", "OnFailure")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_QOS_RESOURCES = ("cpu", "memory")


def fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of a pod."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.restartPolicy": spec.get("restartPolicy", ""),
        "spec.schedulerName": spec.get("schedulerName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
        "status.phase": status.get("phase", ""),
        "status.podIP": status.get("podIP", ""),
        "status.nominatedNodeName": status.get("nominatedNodeName", ""),
    }


def qos_class(spec: Obj) -> str:
    """Returns `Guaranteed`, `Burstable` or `BestEffort`."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    asked = guaranteed = False
    for index, one in enumerate(containers):
        resources = one.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        if any(milli(side.get(key, 0)) > 0 for side in (requests, limits) for key in _QOS_RESOURCES):
            asked = True
        exact = all(
            key in limits and milli(limits[key]) > 0 and milli(requests.get(key, limits[key])) == milli(limits[key])
            for key in _QOS_RESOURCES
        )
        guaranteed = exact and (guaranteed or index == 0)
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def prepare_create(obj: Obj, ctx: WriteContext) -> None:
    """A new pod is pending, and its class of service follows from its spec."""
    spec = obj["spec"]
    status: Obj = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": obj["metadata"]["creationTimestamp"],
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]
    obj["status"] = status
    for constraint in spec.get("topologySpreadConstraints") or ():
        _match_label_keys(obj, constraint)


def _match_label_keys(obj: Obj, constraint: Obj) -> None:
    """Turns `matchLabelKeys` into expressions, so that the scheduler need not look at the pod again."""
    keys = constraint.get("matchLabelKeys") or ()
    found = obj["metadata"].get("labels") or {}
    selector = constraint.get("labelSelector")
    if not keys or selector is None:
        return
    rows = selector.setdefault("matchExpressions", [])
    for key in keys:
        if key in found and not any(row.get("key") == key for row in rows):
            rows.append({"key": key, "operator": "In", "values": [found[key]]})


def validate(obj: Obj) -> list[Cause]:
    """Every broken rule of a pod."""
    spec = obj.get("spec") or {}
    causes = validate_spec("spec", spec)
    if spec.get("nodeName") and spec.get("schedulingGates"):
        causes.append(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return causes


def validate_create(obj: Obj) -> list[Cause]:
    """Every rule that only a new pod can break."""
    if obj["spec"].get("ephemeralContainers"):
        return [forbidden("spec.ephemeralContainers", "cannot be set on create")]
    return []


def validate_template(path: str, template: Obj) -> list[Cause]:
    """Every broken rule of a pod template."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    causes = labels(f"{path}.labels", meta.get("labels") or {})
    causes += validate_annotations(f"{path}.annotations", meta.get("annotations") or {})
    causes += validate_spec(f"{path}.spec", spec)
    if spec.get("ephemeralContainers"):
        causes.append(forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))
    return causes


def validate_spec(path: str, spec: Obj) -> list[Cause]:
    """Every broken rule of a PodSpec."""
    causes, volumes = validate_volumes(f"{path}.volumes", spec.get("volumes") or ())
    causes += validate_containers(path, spec, volumes)
    causes += one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    causes += one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    causes += _dns_config(f"{path}.dnsConfig", spec)
    for key, value in (spec.get("nodeSelector") or {}).items():
        causes += labels(f"{path}.nodeSelector", {key: value})
    causes += _seconds(path, spec)
    causes += _names(path, spec)
    causes += _host(path, spec)
    causes += validate_tolerations(f"{path}.tolerations", spec.get("tolerations") or ())
    if "affinity" in spec:
        causes += validate_affinity(f"{path}.affinity", spec["affinity"])
    causes += validate_spread(f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or ())
    causes += _security(f"{path}.securityContext", spec.get("securityContext") or {})
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        causes += bad_all(f"{path}.readinessGates[{index}].conditionType", kind, qualified_name_errors(kind))
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        causes += bad_all(
            f"{path}.schedulingGates[{index}].name", gate.get("name"), qualified_name_errors(gate.get("name", ""))
        )
    return causes


def _seconds(path: str, spec: Obj) -> list[Cause]:
    causes = []
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        causes.append(bad(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        causes.append(bad(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"))
    return causes


def _names(path: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    rules = (
        ("serviceAccountName", subdomain_errors),
        ("nodeName", subdomain_errors),
        ("hostname", label_1123_errors),
        ("subdomain", label_1123_errors),
        ("priorityClassName", subdomain_errors),
        ("runtimeClassName", subdomain_errors),
        ("schedulerName", subdomain_errors),
    )
    for key, rule in rules:
        value = spec.get(key)
        if value:
            causes += bad_all(f"{path}.{key}", value, rule(value))
    for index, row in enumerate(spec.get("imagePullSecrets") or ()):
        if not row.get("name"):
            causes.append(required(f"{path}.imagePullSecrets[{index}].name"))
    for index, row in enumerate(spec.get("hostAliases") or ()):
        if not is_ip(row.get("ip", "")):
            detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(bad(f"{path}.hostAliases[{index}].ip", row.get("ip", ""), detail))
        for host in row.get("hostnames") or ():
            causes += bad_all(f"{path}.hostAliases[{index}].hostnames", host, subdomain_errors(host))
    if (spec.get("os") or {}).get("name") not in (None, "linux", "windows"):
        causes.append(unsupported(f"{path}.os.name", spec["os"]["name"], ("linux", "windows")))
    return causes


def _host(path: str, spec: Obj) -> list[Cause]:
    causes = []
    if spec.get("hostNetwork"):
        for key in ("initContainers", "containers"):
            for index, one in enumerate(spec.get(key) or ()):
                for place, port in enumerate(one.get("ports") or ()):
                    if port.get("hostPort") != port.get("containerPort"):
                        where = f"{path}.{key}[{index}].ports[{place}].hostPort"
                        detail = "must match `containerPort` when `hostNetwork` is true"
                        causes.append(bad(where, port.get("hostPort", 0), detail))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(bad(f"{path}.shareProcessNamespace", True, detail))
    return causes


def _dns_config(path: str, spec: Obj) -> list[Cause]:
    config = spec.get("dnsConfig") or {}
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    causes = []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        causes.append(required(f"{path}.nameservers", detail))
    if len(servers) > 3:
        causes.append(bad(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        if not is_ip(server):
            detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(bad(f"{path}.nameservers[{index}]", server, detail))
    if len(searches) > 32:
        causes.append(bad(f"{path}.searches", searches, "must not have more than 32 search paths"))
    for index, row in enumerate(config.get("options") or ()):
        if not row.get("name"):
            causes.append(required(f"{path}.options[{index}]", "must not be empty"))
    return causes


def _security(path: str, security: Obj) -> list[Cause]:
    causes = []
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        value = security.get(key)
        if value is not None and not 0 <= value <= 2**31 - 1:
            causes.append(bad(f"{path}.{key}", value, "must be between 0 and 2147483647, inclusive"))
    for index, value in enumerate(security.get("supplementalGroups") or ()):
        if not 0 <= value <= 2**31 - 1:
            causes.append(
                bad(f"{path}.supplementalGroups[{index}]", value, "must be between 0 and 2147483647, inclusive")
            )
    policy = security.get("fsGroupChangePolicy")
    if policy is not None and policy not in ("Always", "OnRootMismatch"):
        causes.append(unsupported(f"{path}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch")))
    return causes


def validate_pod_selector(path: str, selector: Obj | None) -> list[Cause]:
    """The rules of a selector of pods that must not be left out."""
    if selector is None:
        return [required(path)]
    return label_selector(path, selector)
