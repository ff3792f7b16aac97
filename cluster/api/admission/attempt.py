"""What is being attempted: the value that every admission plugin, policy and webhook looks at.

Source: k8s.io/apiserver/pkg/admission/{attributes,errors}.go
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from steersman.cluster.api.patch import copied
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import Cause, Forbidden
from steersman.cluster.meta.objects import Obj

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"
_ADMISSION = "admissionregistration.k8s.io"
#: what decides about others is not decided about by them: a mistake in it could not be undone
_EXEMPT = frozenset(
    {
        "mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies",
        "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
    }
)  # fmt: skip


def aggregated(texts: Iterable[str]) -> str:
    """Several mistakes in one text, as Go's aggregated errors print them: each once, in brackets if there are more."""
    distinct = list(dict.fromkeys(texts))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One operation on one object.

    Args:
        operation: `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
        kind: the row of the resource.
        namespace, name: the name is empty while it is still to be generated.
        obj: the object as it shall become; mutation changes or replaces it. None of a deletion.
        old: the object as it is; None of a creation.
        options: the `CreateOptions`, `UpdateOptions`, ... of the request.
        changed: a webhook or policy has replaced `obj`.
    """

    operation: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    obj: Obj | None = None
    old: Obj | None = None
    options: Obj = field(default_factory=dict)
    changed: bool = False

    def __post_init__(self) -> None:
        if self.resource == ("", "namespaces"):
            self.namespace = self.name

    def again(self) -> Attempt:
        """The same attempt with an own copy of its object, for a decision that may have to be made again."""
        return replace(self, obj=copied(self.obj))

    @property
    def resource(self) -> tuple[str, str]:
        """Group and plural."""
        return self.kind.resource.group, self.kind.resource.plural

    @property
    def body(self) -> tuple[str, str, str]:
        """Group, version and kind of the object: another one than the resource's below some subresources."""
        sub = self.kind.subresources.get(self.subresource)
        if sub is not None:
            return sub.group, sub.version, sub.kind
        resource = self.kind.resource
        return resource.group, resource.version, resource.kind

    @property
    def is_exempt(self) -> bool:
        """Whether neither webhooks nor policies are asked."""
        return self.kind.resource.group == _ADMISSION and self.kind.resource.plural in _EXEMPT

    def forbidden(self, detail: str, *causes: Cause) -> Forbidden:
        """The refusal of a plugin: `pods "web" is forbidden: ...`."""
        meta = (self.obj or {}).get("metadata") or {}
        name = self.name or meta.get("name") or meta.get("generateName") or "Unknown"
        resource = self.kind.resource
        text = f'{resource} "{name}" is forbidden: {detail}'
        return Forbidden(text, kind=resource.plural, group=resource.group, name=name, causes=causes)
