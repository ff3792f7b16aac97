"""Rows of questions that are answered and never stored, and of kinds that only travel in bodies."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.meta.resources import Resource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def _review(group: str, plural: str, kind: str, *, namespaced: bool = False) -> Kind:
    resource = Resource(group, "v1", plural, kind, namespaced=namespaced)
    return Kind(resource=resource, singular=kind.lower(), verbs=("create",), virtual=True)


ROWS: tuple[Kind, ...] = (
    _review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    _review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    _review("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    _review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
)


def _body(group: str, kind: str, definition: str = "") -> Kind:
    resource = Resource(group, "v1", kind.lower() + "s", kind)
    return Kind(resource=resource, singular=kind.lower(), verbs=("create",), virtual=True, definition=definition)


BODY_ROWS: tuple[Kind, ...] = (
    _body("policy", "Eviction"),
    _body("autoscaling", "Scale"),
    _body("authentication.k8s.io", "TokenRequest"),
    _body("", "DeleteOptions", f"{_META}DeleteOptions"),
)
