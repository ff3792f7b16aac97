"""Rules of pods: what the server decides at creation, what may be selected by, and what makes a spec invalid.

Containers, volumes, network, security and scheduling have files of their own. Pod templates of workloads go
through the same functions.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go and pkg/registry/core/pod/strategy.go
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.containers import validate_containers, validate_image
from steersman.cluster.api.rules.environment import validate_file_keys
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    label_selector,
    labels,
    one_of,
    required,
)
from steersman.cluster.api.rules.metadata import validate_annotations
from steersman.cluster.api.rules.pod_marks import validate_pod_annotations, validate_profiles_match
from steersman.cluster.api.rules.pod_network import (
    validate_aliases,
    validate_dns,
    validate_dns_policy,
    validate_host_ports,
    validate_override,
)
from steersman.cluster.api.rules.pod_resources import validate_pod_resources
from steersman.cluster.api.rules.pod_volumes import validate_volumes
from steersman.cluster.api.rules.resources import claim_names, validate_resources
from steersman.cluster.api.rules.scheduling import validate_affinity, validate_spread, validate_tolerations
from steersman.cluster.api.rules.security import validate_host_users, validate_pod_context
from steersman.cluster.api.rules.windows import validate_host_process, validate_os
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import milli

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_QOS_RESOURCES = ("cpu", "memory")


def fields(obj: Obj) -> dict[str, str]:
    """The selectable fields of a pod."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    return {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.host": spec.get("nodeName", ""),
        "spec.restartPolicy": spec.get("restartPolicy", ""),
        "spec.schedulerName": spec.get("schedulerName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
        "status.phase": status.get("phase", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": "",  # may be asked for, and no pod has one: as in Kubernetes
        "status.nominatedNodeName": status.get("nominatedNodeName", ""),
    }


def qos_class(spec: Obj) -> str:
    """Returns `Guaranteed`, `Burstable` or `BestEffort`."""
    whole = spec.get("resources") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    asked = guaranteed = False
    for index, one in enumerate([spec] if whole.get("requests") or whole.get("limits") else containers):
        resources = one.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        if not (requests or limits):
            guaranteed = False
            continue
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
    found = obj["metadata"].get("labels") or {}
    for constraint in spec.get("topologySpreadConstraints") or ():
        _match_label_keys(found, constraint)
    for key in ("podAffinity", "podAntiAffinity"):
        side = (spec.get("affinity") or {}).get(key) or {}
        for term in side.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            _match_label_keys(found, term)
        for row in side.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            _match_label_keys(found, row.get("podAffinityTerm") or {})


def _match_label_keys(found: Obj, term: Obj) -> None:
    """Turns label keys into expressions, so that the scheduler need not look at the pod again."""
    selector = term.get("labelSelector")
    if selector is None:
        return
    for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
        for key in term.get(field) or ():
            if key in found:
                row = {"key": key, "operator": operator, "values": [found[key]]}
                selector.setdefault("matchExpressions", []).append(row)


def validate(obj: Obj) -> list[Cause]:
    """Every broken rule of a pod."""
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    causes = validate_pod_annotations("metadata.annotations", meta.get("annotations") or {}, spec)
    causes += validate_spec("spec", spec, pod=meta)
    for key in ("containers", "initContainers"):
        for index, one in enumerate(spec.get(key) or ()):
            causes += validate_image(f"spec.{key}[{index}]", one)
    return causes


def validate_create(obj: Obj) -> list[Cause]:
    """Every rule that only a new pod can break."""
    spec = obj["spec"]
    causes: list[Cause] = []
    if spec.get("ephemeralContainers"):
        causes.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        causes.append(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return causes + validate_profiles_match("spec", spec, obj["metadata"].get("annotations") or {})


def validate_template(path: str, template: Obj) -> list[Cause]:
    """Every broken rule of a pod template."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    marks = meta.get("annotations") or {}
    causes = labels(f"{path}.labels", meta.get("labels") or {})
    if marks:
        causes += validate_annotations(f"{path}.annotations", marks)
        causes += validate_pod_annotations(f"{path}.annotations", marks, spec)
    causes += validate_spec(f"{path}.spec", spec)
    if marks:
        causes += validate_profiles_match(f"{path}.spec", spec, marks)
    if spec.get("ephemeralContainers"):
        causes.append(forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))
    return causes


def validate_spec(path: str, spec: Obj, pod: Obj | None = None) -> list[Cause]:
    """Every broken rule of a PodSpec. Args: pod: the metadata of the pod whose it is; None for that of a template."""
    name = pod.get("name", "") if pod else ""
    causes, volumes = validate_volumes(f"{path}.volumes", spec.get("volumes") or (), name)
    claims: set[str] = set()
    if spec.get("resourceClaims"):
        wrong, claims = claim_names(f"{path}.resourceClaims", spec["resourceClaims"])
        causes += wrong
    causes += validate_containers(path, spec, volumes, claims)
    if spec.get("resources"):
        causes += validate_pod_resources(f"{path}.resources", spec)
    if spec.get("hostNetwork"):
        causes += validate_host_ports(f"{path}.containers", spec.get("containers") or (), is_pod=pod is not None)
    causes += one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES, in_order=True)
    causes += validate_dns_policy(f"{path}.dnsPolicy", spec.get("dnsPolicy", ""))
    if spec.get("nodeSelector"):
        causes += labels(f"{path}.nodeSelector", spec["nodeSelector"])
    if spec.get("securityContext"):
        causes += validate_pod_context(f"{path}.securityContext", spec["securityContext"], spec)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(bad(f"{path}.shareProcessNamespace", True, detail))
    if "affinity" in spec:
        causes += validate_affinity(f"{path}.affinity", spec["affinity"])
    causes += validate_dns(f"{path}.dnsConfig", spec.get("dnsConfig"), spec.get("dnsPolicy", ""))
    return causes + _gates(path, spec) + _names(path, spec) + _rarer(path, spec)


def _gates(path: str, spec: Obj) -> list[Cause]:
    """The rules of what a pod waits for, how it spreads, and whose it is on its host."""
    causes: list[Cause] = []
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        causes += bad_all(f"{path}.readinessGates[{index}].conditionType", kind, qualified_name_errors(kind))
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        where, name = f"{path}.schedulingGates[{index}]", gate.get("name", "")
        causes += bad_all(where, name, qualified_name_errors(name))
        if name in seen:
            causes.append(duplicate(where, name))
        seen.add(name)
    if spec.get("topologySpreadConstraints"):
        causes += validate_spread(f"{path}.topologySpreadConstraints", spec["topologySpreadConstraints"])
    causes += validate_host_process(path, spec)
    if spec.get("hostUsers") is False:
        causes += validate_host_users(path, spec)
    if spec.get("hostnameOverride") is not None:
        causes += validate_override(f"{path}.hostnameOverride", spec)
    return causes


def _names(path: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("serviceAccountName", "nodeName"):
        if spec.get(key) and (errors := subdomain_errors(spec[key])):
            causes += bad_all(f"{path}.{key}", spec[key], errors)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        causes.append(bad(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            causes += bad_all(f"{path}.{key}", spec[key], label_1123_errors(spec[key]))
    causes += validate_tolerations(f"{path}.tolerations", spec.get("tolerations") or ())
    if spec.get("hostAliases"):
        causes += validate_aliases(f"{path}.hostAliases", spec["hostAliases"])
    if spec.get("priorityClassName"):
        causes += bad_all(
            f"{path}.priorityClassName", spec["priorityClassName"], subdomain_errors(spec["priorityClassName"])
        )
    if spec.get("runtimeClassName") is not None:
        causes += bad_all(
            f"{path}.runtimeClassName", spec["runtimeClassName"], subdomain_errors(spec["runtimeClassName"])
        )
    return causes


def _rarer(path: str, spec: Obj) -> list[Cause]:
    """The rules of what few pods have."""
    causes: list[Cause] = []
    if spec.get("preemptionPolicy") is not None:
        policies = ("PreemptLowerPriority", "Never")
        causes += one_of(f"{path}.preemptionPolicy", spec["preemptionPolicy"], policies, in_order=True)
    if spec.get("overhead"):
        causes += validate_resources(f"{path}.overhead", {"limits": spec["overhead"]})
    if "os" in spec:
        causes += validate_os(path, spec)
    group = spec.get("schedulingGroup")
    if group is not None:
        name, where = group.get("podGroupName"), f"{path}.schedulingGroup.podGroupName"
        lacks = [bad(where, None, "must specify one of: `podGroupName`")]
        causes += lacks if name is None else bad_all(where, name, subdomain_errors(name))
    return causes + validate_file_keys(path, spec)


def validate_pod_selector(path: str, selector: Obj | None) -> list[Cause]:
    """The rules of a selector of pods that must not be left out."""
    if selector is None:
        return [required(path)]
    return label_selector(path, selector)
