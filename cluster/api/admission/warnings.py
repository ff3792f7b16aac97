"""Sentences for the client about what is accepted but will not do what it seems to.

Source: k8s.io/kubernetes/pkg/api/{pod,service,persistentvolume,persistentvolumeclaim}/*.go and the strategies of kinds
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from steersman.cluster.api.admission import network_warnings as network
from steersman.cluster.api.admission.pod_warnings import OLD_VOLUMES, claim_spec, fraction, node_term, of_pod
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.cluster_ips import is_headless
from steersman.cluster.api.rules.metadata import is_distinct
from steersman.cluster.api.schema.formats import unrecognized
from steersman.cluster.meta.gotext import quoted
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj

_SURPRISING = "which can result in surprising behavior; a DNS label is recommended"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_BETA_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_RECYCLED = (
    "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
)
#: an indexed Job with more of both may lose track of its indexes
_COMPLETIONS_MAX, _PARALLELISM_MAX = 100_000, 10_000


def of(kind: Kind, obj: Obj, old: Obj | None = None) -> list[str]:
    """Returns the warnings that a kind's object deserves when it is made, or when its specification has changed."""
    if kind.is_custom:
        return _new_finalizers(obj, old)
    where = (kind.resource.group, kind.resource.plural)
    if old is not None and (where == ("", "pods") or _unchanged(obj, old)):
        return []
    found = list(_SENTENCES[where](obj)) if where in _SENTENCES else []
    if old is None and where == ("networking.k8s.io", "ingresses"):
        found += network.new_ingress(obj)
    if old is not None and where in _TOLD_ONCE:
        told = set(_SENTENCES[where](old))
        found = [sentence for sentence in found if sentence not in told]
    if old is None and where in _NAMED and (errors := label_1123_errors(obj["metadata"].get("name", ""))):
        used = "the Pod's hostname" if where == ("", "pods") else "Pod names and hostnames"
        found.insert(0, f"metadata.name: this is used in {used}, {_SURPRISING}: [{' '.join(errors)}]")
    return found


def of_status(kind: Kind, obj: Obj) -> list[str]:
    """Returns the warnings that a change of a kind's status deserves."""
    rule = _STATUS_SENTENCES.get((kind.resource.group, kind.resource.plural))
    return list(rule(obj)) if rule is not None else []


def _new_finalizers(obj: Obj, old: Obj | None) -> list[str]:
    """k8s.io/apiextensions-apiserver/pkg/registry/customresource/strategy.go"""
    names = set(obj["metadata"].get("finalizers") or ())
    if old is not None:
        names -= set(old["metadata"].get("finalizers") or ())
    advice = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other"
    return [
        f"metadata.finalizers: {quoted(name)}: {advice} finalizer writers"
        for name in sorted(names)
        if not is_distinct(name)
    ]


def _unchanged(obj: Obj, old: Obj) -> bool:
    """Whether a change leaves alone what is counted by the generation, where there is one."""
    generation = obj["metadata"].get("generation")
    return generation is not None and generation == old["metadata"].get("generation")


def _pod(obj: Obj) -> Iterable[str]:
    return of_pod("", obj["metadata"], obj.get("spec") or {})


def _template(path: str, template: Obj) -> Iterable[str]:
    return of_pod(f"{path}.", template.get("metadata") or {}, template.get("spec") or {})


def _workload(obj: Obj) -> Iterable[str]:
    return _template("spec.template", (obj.get("spec") or {}).get("template") or {})


def _stateful_set(obj: Obj) -> Iterable[str]:
    spec = obj.get("spec") or {}
    yield from _workload(obj)
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        yield from claim_spec(f"spec.volumeClaimTemplates[{index}].Spec", claim.get("spec") or {})
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        text = "a negative value retains all historical revisions; a value >= 0 is recommended"
        yield f"spec.revisionHistoryLimit: {text}"


def _job(obj: Obj) -> Iterable[str]:
    return _job_spec("spec", obj.get("spec") or {})


def _cron_job(obj: Obj) -> Iterable[str]:
    template = (obj.get("spec") or {}).get("jobTemplate") or {}
    return _job_spec("spec.jobTemplate.spec", template.get("spec") or {})


def _job_spec(path: str, spec: Obj) -> Iterable[str]:
    is_huge = (spec.get("completions") or 0) > _COMPLETIONS_MAX and (spec.get("parallelism") or 0) > _PARALLELISM_MAX
    if spec.get("completionMode") == "Indexed" and is_huge:
        yield (
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "
            "10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    yield from _template(f"{path}.template", spec.get("template") or {})


def _claim(obj: Obj) -> Iterable[str]:
    if _BETA_CLASS in (obj["metadata"].get("annotations") or {}):
        yield f'metadata.annotations[{_BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
    yield from claim_spec("spec", obj.get("spec") or {})


def _volume(obj: Obj) -> Iterable[str]:
    spec, marks = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
    if _BETA_CLASS in marks:
        yield f'metadata.annotations[{_BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
    if _BETA_OPTIONS in marks:
        yield f'metadata.annotations[{_BETA_OPTIONS}]: deprecated since v1.31; use "mountOptions" attribute instead'
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        yield f"spec.persistentVolumeReclaimPolicy: {_RECYCLED}"
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for index, term in enumerate(terms):
        yield from node_term(f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]", term)
    yield from (f"spec.{key}: {text}" for key, text in OLD_VOLUMES.items() if spec.get(key) is not None)
    yield from fraction("spec.capacity[storage]", (spec.get("capacity") or {}).get("storage"))


def _account(obj: Obj) -> Iterable[str]:
    if _ENFORCE in (obj["metadata"].get("annotations") or {}):
        text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        yield f"metadata.annotations[{_ENFORCE}]: {text}"


def _service(obj: Obj) -> Iterable[str]:
    spec = obj.get("spec") or {}
    kind, ips = spec.get("type"), spec.get("externalIPs") or []
    headless = kind == "ClusterIP" and is_headless(spec)
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        yield f"annotation {_HINTS} is deprecated, please use {_MODE} instead"
    if not headless:
        for index, text in enumerate(spec.get("clusterIPs") or ()):
            yield from network.of_address(f"spec.clusterIPs[{index}]", text)
    if headless:
        ignored = {"loadBalancerIP": spec.get("loadBalancerIP"), "externalIPs": ips}
        ignored["SessionAffinity"] = spec.get("sessionAffinity") != "None"
        yield from (f"spec.{key} is ignored for headless services" for key, said in ignored.items() if said)
    yield from network.of_service(spec)
    if ips and not headless and kind != "ExternalName":
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    if ips and kind == "ExternalName":
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if spec.get("externalName") and kind != "ExternalName":
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _definition(obj: Obj) -> Iterable[str]:
    for version in obj["spec"].get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        yield from (f"unrecognized format {quoted(form)}" for form in unrecognized(schema))


_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
#: kinds of which a change repeats no warning
_TOLD_ONCE = frozenset({_DEFINITIONS, ("", "serviceaccounts")})
_SENTENCES: Mapping[tuple[str, str], Callable[[Obj], Iterable[str]]] = {
    ("", "pods"): _pod,
    ("", "podtemplates"): lambda obj: _template("template", obj.get("template") or {}),
    ("", "replicationcontrollers"): _workload,
    ("", "serviceaccounts"): _account,
    ("", "services"): _service,
    ("", "nodes"): network.node,
    ("", "persistentvolumes"): _volume,
    ("", "persistentvolumeclaims"): _claim,
    ("apps", "deployments"): _workload,
    ("apps", "replicasets"): _workload,
    ("apps", "daemonsets"): _workload,
    ("apps", "statefulsets"): _stateful_set,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
    _DEFINITIONS: _definition,
    ("", "endpoints"): network.endpoints,
    ("discovery.k8s.io", "endpointslices"): network.endpoint_slice,
    ("networking.k8s.io", "networkpolicies"): network.policy,
    ("node.k8s.io", "runtimeclasses"): network.runtime_class,
    ("storage.k8s.io", "csistoragecapacities"): network.storage_capacity,
    ("storage.k8s.io", "storageclasses"): network.storage_class,
}
_STATUS_SENTENCES: Mapping[tuple[str, str], Callable[[Obj], Iterable[str]]] = {
    ("", "pods"): network.pod_status,
    ("", "services"): network.balanced,
    ("networking.k8s.io", "ingresses"): network.balanced,
}
#: kinds whose names become those of pods
_NAMED = frozenset(
    {
        ("", "pods"), ("", "replicationcontrollers"), ("apps", "deployments"), ("apps", "replicasets"),
        ("batch", "jobs"), ("batch", "cronjobs"),
    }
)  # fmt: skip
