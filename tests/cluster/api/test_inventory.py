"""Every GA kind of Kubernetes 1.36 against what is served: the table is what a real server's discovery says."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import ALL_VERBS, Kind

#: group/version of the rows below; then: plural kind [cluster] [short=..] [all|ext] [verbs=..] [sub[:verbs]]...
DISCOVERY = """
v1
bindings Binding verbs=create
componentstatuses ComponentStatus cluster short=cs verbs=get,list
configmaps ConfigMap short=cm
endpoints Endpoints short=ep
events Event short=ev
limitranges LimitRange short=limits
namespaces Namespace cluster short=ns verbs=create,delete,get,list,patch,update,watch finalize:update status
nodes Node cluster short=no proxy:create,delete,get,patch,update status
persistentvolumeclaims PersistentVolumeClaim short=pvc status
persistentvolumes PersistentVolume cluster short=pv status
pods Pod short=po all attach:create,get binding:create ephemeralcontainers eviction:create exec:create,get log:get \
 portforward:create,get proxy:create,delete,get,patch,update resize status
podtemplates PodTemplate
replicationcontrollers ReplicationController short=rc all scale status
resourcequotas ResourceQuota short=quota status
secrets Secret
serviceaccounts ServiceAccount short=sa token:create
services Service short=svc all proxy:create,delete,get,patch,update status
apiregistration.k8s.io/v1
apiservices APIService cluster ext status
apps/v1
controllerrevisions ControllerRevision
daemonsets DaemonSet short=ds all status
deployments Deployment short=deploy all scale status
replicasets ReplicaSet short=rs all scale status
statefulsets StatefulSet short=sts all scale status
events.k8s.io/v1
events Event short=ev
authentication.k8s.io/v1
selfsubjectreviews SelfSubjectReview cluster verbs=create
tokenreviews TokenReview cluster verbs=create
authorization.k8s.io/v1
localsubjectaccessreviews LocalSubjectAccessReview verbs=create
selfsubjectaccessreviews SelfSubjectAccessReview cluster verbs=create
selfsubjectrulesreviews SelfSubjectRulesReview cluster verbs=create
subjectaccessreviews SubjectAccessReview cluster verbs=create
autoscaling/v2
horizontalpodautoscalers HorizontalPodAutoscaler short=hpa all status
autoscaling/v1
horizontalpodautoscalers HorizontalPodAutoscaler short=hpa all status
batch/v1
cronjobs CronJob short=cj all status
jobs Job all status
certificates.k8s.io/v1
certificatesigningrequests CertificateSigningRequest cluster short=csr approval status
networking.k8s.io/v1
ingressclasses IngressClass cluster
ingresses Ingress short=ing status
ipaddresses IPAddress cluster short=ip
networkpolicies NetworkPolicy short=netpol
servicecidrs ServiceCIDR cluster status
policy/v1
poddisruptionbudgets PodDisruptionBudget short=pdb status
rbac.authorization.k8s.io/v1
clusterrolebindings ClusterRoleBinding cluster
clusterroles ClusterRole cluster
rolebindings RoleBinding
roles Role
storage.k8s.io/v1
csidrivers CSIDriver cluster
csinodes CSINode cluster
csistoragecapacities CSIStorageCapacity
storageclasses StorageClass cluster short=sc
volumeattachments VolumeAttachment cluster status
volumeattributesclasses VolumeAttributesClass cluster short=vac
admissionregistration.k8s.io/v1
mutatingwebhookconfigurations MutatingWebhookConfiguration cluster ext
validatingwebhookconfigurations ValidatingWebhookConfiguration cluster ext
validatingadmissionpolicies ValidatingAdmissionPolicy cluster ext status
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding cluster ext
mutatingadmissionpolicies MutatingAdmissionPolicy cluster ext
mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding cluster ext
validatingadmissionpolicies ValidatingAdmissionPolicy cluster ext status
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding cluster ext
mutatingadmissionpolicies MutatingAdmissionPolicy cluster ext
mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding cluster ext
apiextensions.k8s.io/v1
customresourcedefinitions CustomResourceDefinition cluster short=crd,crds ext status
scheduling.k8s.io/v1
priorityclasses PriorityClass cluster short=pc
coordination.k8s.io/v1
leases Lease
node.k8s.io/v1
runtimeclasses RuntimeClass cluster
discovery.k8s.io/v1
endpointslices EndpointSlice
flowcontrol.apiserver.k8s.io/v1
flowschemas FlowSchema cluster status
prioritylevelconfigurations PriorityLevelConfiguration cluster status
resource.k8s.io/v1
deviceclasses DeviceClass cluster
resourceclaims ResourceClaim status
resourceclaimtemplates ResourceClaimTemplate
resourceslices ResourceSlice cluster
"""
_STATUS = ("get", "patch", "update")
_CATEGORIES = {"all": ("all",), "ext": ("api-extensions",)}


def _rows() -> list[Any]:
    found, api_version = [], ""
    for line in DISCOVERY.replace("\\\n", "").split("\n"):
        words = line.split()
        if len(words) == 1:
            api_version = words[0]
        elif words:
            found.append(pytest.param(api_version, words, id=f"{api_version}/{words[0]}"))
    return found


def _expected(api_version: str, words: list[str]) -> dict[str, Any]:
    plural, kind, *marks = words
    row: dict[str, Any] = {
        "api_version": api_version, "plural": plural, "kind": kind, "namespaced": True, "short": (), "categories": (),
        "verbs": ALL_VERBS, "subresources": {},
    }  # fmt: skip
    for mark in marks:
        name, equals, value = mark.partition("=")
        if equals:
            row[name] = tuple(value.split(","))
        elif mark == "cluster":
            row["namespaced"] = False
        elif mark in _CATEGORIES:
            row["categories"] = _CATEGORIES[mark]
        else:
            sub, _, verbs = mark.partition(":")
            row["subresources"][sub] = tuple(verbs.split(",")) if verbs else _STATUS
    return row


def _served(row: Kind) -> dict[str, Any]:
    return {
        "api_version": row.api_version, "plural": row.resource.plural, "kind": row.resource.kind,
        "namespaced": row.resource.namespaced, "short": row.short_names, "categories": row.categories,
        "verbs": row.verbs, "subresources": {name: sub.verbs for name, sub in row.subresources.items()},
    }  # fmt: skip


@pytest.mark.parametrize(("api_version", "words"), _rows())
def test_a_kind_is_served_as_kubernetes_serves_it(
    session_registry: Registry, api_version: str, words: list[str]
) -> None:
    group, _, version = api_version.rpartition("/")
    row = session_registry.kind(group, version, words[0])
    assert row is not None
    assert _served(row) == _expected(api_version, words)
    assert row.singular == words[1].lower()
    assert session_registry.schema(row).type == "object"
