"""By which fields objects may be selected, as the field label conversions of Kubernetes 1.36 have it."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.crd import rows_of
from steersman.cluster.api.fieldlabels import check_labels, labels_of_kind
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.selectors import parse_fields

NAME, NAMESPACED = {"metadata.name"}, {"metadata.name", "metadata.namespace"}
ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
OWN = {
    ("", "v1", "pods"): NAMESPACED
    | {f"spec.{key}" for key in ("nodeName", "host", "restartPolicy", "schedulerName", "serviceAccountName")}
    | {"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"},
    ("", "v1", "nodes"): NAME | {"spec.unschedulable"},
    ("", "v1", "namespaces"): NAME | {"status.phase"},
    ("", "v1", "secrets"): NAMESPACED | {"type"},
    ("", "v1", "services"): NAMESPACED | {"spec.clusterIP", "spec.type"},
    ("", "v1", "replicationcontrollers"): NAMESPACED | {"status.replicas"},
    ("", "v1", "events"): NAMESPACED
    | {f"involvedObject.{key}" for key in ABOUT}
    | {"reason", "reportingComponent", "source", "type"},
    ("events.k8s.io", "v1", "events"): NAMESPACED
    | {f"regarding.{key}" for key in ABOUT}
    | {"reason", "reportingController", "source", "type"},
    ("apps", "v1", "replicasets"): NAMESPACED | {"status.replicas"},
    ("batch", "v1", "jobs"): NAMESPACED | {"status.successful"},
    ("certificates.k8s.io", "v1", "certificatesigningrequests"): NAME | {"spec.signerName"},
    ("resource.k8s.io", "v1", "resourceslices"): NAME | {"spec.nodeName", "spec.driver"},
    ("networking.k8s.io", "v1", "ipaddresses"): NAME
    | {f"spec.parentRef.{key}" for key in ("group", "resource", "namespace", "name")},
}


def test_each_kind_has_its_fields_and_every_other_the_two_of_its_metadata(api: Any) -> None:
    found = {
        (kind.resource.group, kind.resource.version, kind.resource.plural): labels_of_kind(kind)
        for kind in api.registry.all()
    }
    assert set(OWN) <= set(found)
    assert {key: labels for key, labels in found.items() if labels != NAMESPACED} == OWN


REFUSED = {
    ("", "v1", "pods"): "field label not supported: spec.x",
    ("", "v1", "configmaps"): '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
    ("apps", "v1", "deployments"): '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
    ("batch", "v1", "jobs"): 'field label "spec.x" not supported for batchv1.Job',
    ("resource.k8s.io", "v1", "resourceslices"): "field label not supported for resource.k8s.io/v1, "
    "Kind=ResourceSlice: spec.x",
}


@pytest.mark.parametrize("address", REFUSED)
def test_any_other_field_is_refused_in_the_words_of_its_kind(api: Any, address: tuple[str, str, str]) -> None:
    kind = api.registry.kind(*address)
    check_labels(kind, parse_fields("metadata.name=a,metadata.name!=b"))
    with pytest.raises(BadRequest) as raised:
        check_labels(kind, parse_fields("metadata.name=a,spec.x=b"))
    assert raised.value.message == REFUSED[address]


@pytest.mark.parametrize("scope", ["Namespaced", "Cluster"])
def test_a_custom_kind_has_the_fields_of_its_definition(scope: str) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    version["selectableFields"] = [{"jsonPath": ".spec.color"}]
    spec = {
        "group": "example.com", "scope": scope, "versions": [version],
        "names": {"plural": "boxes", "kind": "Box", "listKind": "BoxList"},
    }  # fmt: skip
    (kind,) = rows_of({"metadata": {"name": "boxes.example.com"}, "spec": spec})
    assert labels_of_kind(kind) == (NAMESPACED if scope == "Namespaced" else NAME) | {"spec.color"}
    with pytest.raises(BadRequest, match=r"^field label not supported: spec\.x$"):
        check_labels(kind, parse_fields("spec.x=b"))
