"""Field labels: by which fields the objects of a kind may be selected, and what is said of any other.

Source: the field label conversion functions of k8s.io/kubernetes/pkg/apis, of which each kind has its own words.
"""

from __future__ import annotations

import json

from steersman.cluster.api.row import Kind, meta_fields
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.selectors import FieldSelector

_SAMPLE = {"metadata": {"name": "", "namespace": ""}, "spec": {}, "status": {}}
_WORDS = {
    ("batch", "jobs"): "field label {quoted} not supported for batchv1.Job",
    ("resource.k8s.io", "resourceslices"): "field label not supported for {version}, Kind={kind}: {label}",
}


def labels_of_kind(kind: Kind) -> frozenset[str]:
    """The fields by which objects of the kind may be selected.

    Every kind without fields of its own takes the namespace for one, whatever its scope.
    """
    known = frozenset(kind.selectable_fields(_SAMPLE))
    return known if _is_plain(kind) or kind.resource.namespaced else known - {"metadata.namespace"}


def _is_plain(kind: Kind) -> bool:
    return kind.selectable_fields is meta_fields and not kind.is_custom


def check_labels(kind: Kind, selector: FieldSelector) -> None:
    """Raises BadRequest when the selector names a field by which the kind's objects cannot be selected."""
    known = labels_of_kind(kind)
    for label, _, _ in selector.requirements:
        if label not in known:
            raise BadRequest(_refusal(kind, label))


def _refusal(kind: Kind, label: str) -> str:
    resource, quoted = kind.resource, json.dumps(label, ensure_ascii=False)
    if words := _WORDS.get((resource.group, resource.plural)):
        return words.format(quoted=quoted, version=kind.api_version, kind=resource.kind, label=label)
    if _is_plain(kind):
        return f'{quoted} is not a known field selector: only "metadata.name", "metadata.namespace"'
    return f"field label not supported: {label}"
