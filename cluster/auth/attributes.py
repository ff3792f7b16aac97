"""What a request asks for, read from its method and path alone: the input of every authorizer.

Refuses to know who asks, and whether the resource exists.

Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from msgspec import Struct

from steersman.cluster.meta.names import path_segment_errors
from steersman.cluster.meta.parameters import is_true
from steersman.cluster.meta.remembered import remembered
from steersman.cluster.meta.selectors import Requirement, SelectorError, parse_fields, parse_labels

_VERBS = {
    "GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
}  # fmt: skip
#: subresources of Namespace; any other third segment below `namespaces/NAME` is a resource in that namespace
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
#: the field and operator of a selector for one object
_NAMED = ("metadata.name", "In")
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


class Attributes(Struct, frozen=True):
    """The action of a request.

    Args:
        verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; empty for a method that
            is none of these; for a path that is no resource the method in lower case; also `impersonate`, `bind`,
            `escalate` when asked by the server itself.
        resource: plural; empty when the path is no resource.
        fields, labels: what a list, watch or deletion of many is restricted to by its selectors; empty where they
            cannot be read.
        rest: path segments after the subresource, as of `nodes/NAME/proxy/images`.
        path: the whole decoded path.
    """

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: tuple[str, ...] = ()
    fields: tuple[Requirement, ...] = ()
    labels: tuple[Requirement, ...] = ()

    @property
    def selected(self) -> tuple[tuple[str, str], ...]:
        """The fields that the request is restricted to one value of, with the value."""
        return tuple((row.key, row.values[0]) for row in self.fields if row.operator == "In")

    @property
    def is_resource(self) -> bool:
        return bool(self.resource)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an action is allowed.

    Args:
        reason: why, or why not, as far as there is something to say.
        denied: somebody forbids it, and nobody else is asked; otherwise a refusal only means that nobody allows it.
        error: what went wrong on the way to the verdict.
    """

    allowed: bool
    reason: str = ""
    denied: bool = False
    error: str = ""


ALLOWED = Verdict(True)
NO_OPINION = Verdict(False)


def plain(path: str) -> str:
    """A percent-encoded path with its encoded slashes as slashes: no server of Kubernetes tells one from the other."""
    return _ENCODED_SLASH.sub("/", path) if "%" in path else path


def read_attributes(method: str, path: str, query: Mapping[str, str]) -> Attributes:
    """Returns what a request asks for; a segment that is empty counts as one.

    Args:
        path: percent-encoded, without the query.
        query: decoded; of repeated parameters the first.
    """
    if "%" in path:
        path = unquote(path)
    parts = path.strip("/").split("/")
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return Attributes(method.lower(), path)
    verb = _VERBS.get(method, "")
    by_path = rest[0] == "watch" and len(rest) > 1
    if by_path:
        rest, verb = rest[1:], "watch"
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 2:
        namespace = rest[1]
    name = rest[1] if len(rest) > 1 else ""
    fields: tuple[Requirement, ...] = ()
    labels: tuple[Requirement, ...] = ()
    if not (name or by_path) and verb in ("get", "delete"):
        if text := query.get("fieldSelector", ""):
            fields = selected_fields(text)
        if text := query.get("labelSelector", ""):
            labels = selected_labels(text)
        if verb == "delete":
            verb = "deletecollection"
        else:
            verb = "watch" if is_true(query.get("watch", "false")) else "list"
            name = next((row.values[0] for row in fields if (row.key, row.operator) == _NAMED), "") if fields else ""
            if name and path_segment_errors(name):
                name = ""
    return Attributes(
        verb,
        path,
        group,
        version,
        rest[0],
        rest[2] if len(rest) > 2 else "",
        namespace,
        name,
        tuple(rest[3:]),
        fields,
        labels,
    )


@remembered(1024)
def selected_fields(selector: str) -> tuple[Requirement, ...]:
    """What a field selector asks for; nothing when it cannot be read."""
    try:
        rows = parse_fields(selector).requirements
    except SelectorError:
        return ()
    return tuple(Requirement(path, "In" if equal else "NotIn", (value,)) for path, equal, value in rows)


@remembered(1024)
def selected_labels(selector: str) -> tuple[Requirement, ...]:
    """What a label selector asks for; nothing when it cannot be read."""
    try:
        return parse_labels(selector).requirements
    except SelectorError:
        return ()


def forbidden_message(user: str, attributes: Attributes, detail: str = "") -> str:
    """The sentence of a 403, word for word as Kubernetes says it."""
    if not attributes.is_resource:
        text = f'User "{user}" cannot {attributes.verb} path "{attributes.path}"'
        return f"forbidden: {text}{': ' + detail if detail else ''}"
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    target = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
    if attributes.name:
        target += f' "{attributes.name}"'
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    text = (
        f'{target} is forbidden: User "{user}" cannot {attributes.verb} resource "{resource}" '
        f'in API group "{attributes.group}" {where}'
    )
    return f"{text}: {detail}" if detail else text
