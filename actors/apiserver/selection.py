"""What a list or watch is about: a kind's objects in a namespace, chosen by labels and fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from steersman.actors.apiserver.call import Call, fields_of, labels_of
from steersman.actors.apiserver.entry import Entry
from steersman.cluster.api.fieldlabels import check_labels
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.selectors import FieldSelector, LabelSelector


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch is about."""

    kind: Kind
    namespace: str
    labels: LabelSelector
    fields: FieldSelector

    @property
    def selects_all(self) -> bool:
        return not self.labels.requirements and not self.fields.requirements

    def test(self) -> Callable[[Entry], bool] | None:
        """Returns the predicate on entries; None when everything is selected."""
        if self.selects_all:
            return None
        kind, fits_labels, fits_fields = self.kind, self.labels.matcher(), self.fields.matcher()
        has_labels, has_fields = bool(self.labels.requirements), bool(self.fields.requirements)
        prefix = f'{{"apiVersion":"{kind.api_version}",'.encode()
        exact = dict.fromkeys(value for _, equal, value in self.fields.requirements if equal)
        verbatim = [value.encode() for value in exact if _stands_verbatim(value)]

        def selects(entry: Entry) -> bool:
            if has_labels and not fits_labels(entry.labels):
                return False
            if verbatim and not all(value in entry.raw for value in verbatim):
                return False
            return not has_fields or fits_fields(kind.selectable_fields(entry.served(kind, prefix)))

        return selects

    def exact(self, path: str) -> str:
        """The value that a field must have; empty when it may vary."""
        return next((value for key, equal, value in self.fields.requirements if key == path and equal), "")

    def key(self) -> str:
        """The key of the only object that can be selected; empty when there may be several."""
        name = self.exact("metadata.name")
        if self.namespace or not self.kind.resource.namespaced:
            return f"{self.namespace}/{name}" if self.namespace and name else name
        return ""

    def trigger(self) -> tuple[str, str] | None:
        """The field by which the cache finds a watcher of this selection."""
        for path in ("metadata.name", "spec.nodeName"):
            if value := self.exact(path):
                return path, value
        return ("metadata.namespace", self.namespace) if self.namespace else None


def _stands_verbatim(value: str) -> bool:
    """Whether an object of which a field has this value shows it in its bytes as it is."""
    text = value.isascii() and value.isprintable() and not {'"', "\\"} & {*value}
    return text and value not in ("true", "false", "") and not value.isdigit()


def read_selection(call: Call, kind: Kind) -> Selection:
    """Returns what a request for several objects, or for changes of one, is about.

    Raises:
        BadRequest: a selector cannot be read, or does not fit the kind or the name in the path.
    """
    fields = fields_of(call.query.get("fieldSelector", ""))
    if fields.requirements:
        check_labels(kind, fields)
    namespace = call.attributes.namespace if kind.resource.namespaced else ""
    selection = Selection(kind, namespace, labels_of(call.query.get("labelSelector", "")), fields)
    if not (name := call.attributes.name):
        return selection
    if not fields.requirements:
        return replace(selection, fields=FieldSelector((("metadata.name", True, name),)))
    if selection.exact("metadata.name") != name:
        raise BadRequest("fieldSelector metadata.name doesn't match requested name")
    return selection
