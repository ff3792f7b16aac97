"""The annotation in which `kubectl apply` keeps what it applied last, where server-side apply meets it.

An object that was applied by kubectl on the client's side can be taken over by kubectl's server-side apply without
conflicts, as far as its live values still are those that were applied; from then on the annotation follows.

Source: k8s.io/apimachinery/pkg/util/managedfields/internal/{lastapplied,lastappliedmanager,lastappliedupdater}.go
"""

from __future__ import annotations

import orjson

from steersman.cluster.api.fieldset import FieldTree, declared_set, difference, differences
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.objects import Obj, annotations_of

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
#: the manager whose applies mind the annotation; any other name opts out
KUBECTL = "kubectl"
#: all annotations of an object together may not be longer
_BYTES_MAX = 256 * 1024
_TYPE = ("apiVersion", "kind")


def allowed(schema: SchemaNode | None, live: Obj) -> FieldTree:
    """The fields that kubectl applied last and that still are as it left them: they may change hands."""
    try:
        last = orjson.loads(annotations_of(live).get(ANNOTATION, ""))
    except ValueError:
        return {}
    if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
        return {}
    applied = {key: value for key, value in last.items() if key not in _TYPE}
    try:
        declared = declared_set(schema, applied)
    except BadRequest:
        return {}
    changed, removed = differences(schema, applied, {key: value for key, value in live.items() if key not in _TYPE})
    return difference(difference(declared, changed), removed)


def followed(applied: Obj, merged: Obj) -> Obj:
    """Returns the merged object with its annotation, if it has one, telling of what was applied just now."""
    annotations = annotations_of(merged)
    if ANNOTATION not in annotations:
        return merged
    meta = {key: value for key, value in applied["metadata"].items() if key != "managedFields"}
    if meta.get("annotations"):
        meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key != ANNOTATION}
    text = orjson.dumps({**applied, "metadata": meta}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    others = sum(len(key) + len(value) for key, value in annotations.items() if key != ANNOTATION)
    fresh = {**annotations, ANNOTATION: text}
    if others + len(ANNOTATION) + len(text) > _BYTES_MAX:
        del fresh[ANNOTATION]
    return {**merged, "metadata": {**merged["metadata"], "annotations": fresh}}
