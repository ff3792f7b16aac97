"""The paths of OpenAPI documents: which requests a kind takes, with the parameters clients look for.

kubectl learns here that `fieldValidation` and `dryRun` are understood, and finds a kind's schema by the
`x-kubernetes-group-version-kind` of its operations.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from steersman.cluster.api.row import Kind, Subresource
from steersman.cluster.meta.objects import Obj

_SCHEMAS = "#/components/schemas/"
_PATCHES = (
    "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)  # fmt: skip
_BODIES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCH = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_DESCRIPTIONS = {
    "dryRun": "When present, indicates that modifications should not be persisted.",
    "fieldManager": "The name of the actor or entity that is making these changes.",
    "fieldValidation": "How the server treats unknown or duplicate fields: Ignore, Warn or Strict.",
    "force": "Whether apply takes fields over that other managers own.",
    "pretty": "Whether the output is to be indented.",
    "continue": "Where to go on with a list that came in parts.",
    "fieldSelector": "A selector of objects by their fields.",
    "labelSelector": "A selector of objects by their labels.",
    "limit": "The largest number of objects to return in one answer.",
    "resourceVersion": "Which versions of the objects the answer may come from.",
    "resourceVersionMatch": "How resourceVersion is applied to a list.",
    "sendInitialEvents": "Whether a watch begins with the objects there are.",
    "timeoutSeconds": "How long the call may last.",
    "watch": "Watch for changes instead of listing.",
    "allowWatchBookmarks": "Whether bookmarks may be sent.",
    "gracePeriodSeconds": "Seconds before the object is deleted.",
    "orphanDependents": "Whether dependents are orphaned; propagationPolicy is preferred.",
    "propagationPolicy": "Orphan, Background or Foreground.",
}
_TYPES = {"force": "boolean", "watch": "boolean", "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean",
          "orphanDependents": "boolean", "limit": "integer", "timeoutSeconds": "integer",
          "gracePeriodSeconds": "integer"}  # fmt: skip
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
#: verb to (HTTP method, action, query parameters)
_ON_OBJECT = {
    "get": ("get", "get", ()),
    "update": ("put", "put", _WRITE),
    "patch": ("patch", "patch", (*_WRITE, "force")),
    "delete": ("delete", "delete", _DELETE),
}
_ON_COLLECTION = {
    "list": ("get", "list", _LIST),
    "create": ("post", "post", _WRITE),
    "deletecollection": ("delete", "deletecollection", (*_DELETE, *_LIST)),
}
Name = Callable[[str, str], str]


def paths_of(kinds: list[Kind], names: Mapping[str, str], body_name: Name) -> Obj:
    """Returns the paths of the kinds of one group and version.

    Args:
        names: plural to the name of the kind's schema.
        body_name: (apiVersion, kind) to the name of a schema, empty when there is none.
    """
    found: Obj = {}
    for kind in kinds:
        resource, name = kind.resource, names[kind.resource.plural]
        within = resource.path("{namespace}") if resource.namespaced else resource.path()
        scope = ["namespace"] if resource.namespaced else []
        found[within] = _collection(kind, name, scope)
        if resource.namespaced and "list" in kind.verbs:
            found[resource.path()] = {
                "get": _operation(kind, "list", "list", list_name(kind, name), _LIST),
                **_parameters([]),
            }
        if any(verb in kind.verbs for verb in _ON_OBJECT):
            found[f"{within}/{{name}}"] = _object(kind, name, [*scope, "name"])
        for sub in kind.subresources.values():
            own = body_name(sub.api_version, sub.kind)
            found[f"{within}/{{name}}/{sub.name}"] = _subresource(kind, sub, own, [*scope, "name"])
    return found


def list_name(kind: Kind, name: str) -> str:
    """The name of the schema of a kind's lists, given that of the kind's own."""
    return f"{name.removesuffix(kind.resource.kind)}{kind.list_kind}" if kind.listed else f"{name}List"


def _parameters(path: list[str]) -> Obj:
    rows = [_path_parameter(name) for name in path]
    return {"parameters": [*rows, _parameter("pretty")]}


def _path_parameter(name: str) -> Obj:
    description = {
        "name": "name of the object",
        "namespace": "object name and auth scope, such as for teams and projects",
    }
    return {"name": name, "in": "path", "required": True, "description": description[name],
            "schema": {"type": "string", "uniqueItems": True}}  # fmt: skip


def _parameter(name: str) -> Obj:
    schema = {"type": _TYPES.get(name, "string"), "uniqueItems": True}
    return {"name": name, "in": "query", "description": _DESCRIPTIONS[name], "schema": schema}


def _collection(kind: Kind, name: str, scope: list[str]) -> Obj:
    found: Obj = {}
    for verb, (method, action, query) in _ON_COLLECTION.items():
        if verb in kind.verbs:
            answer = {"list": list_name(kind, name), "create": name}.get(verb, _STATUS)
            found[method] = _operation(kind, verb, action, answer, query)
    return {**found, **_parameters(scope)}


def _object(kind: Kind, name: str, path: list[str]) -> Obj:
    found: Obj = {}
    for verb, (method, action, query) in _ON_OBJECT.items():
        if verb in kind.verbs:
            found[method] = _operation(kind, verb, action, name if verb != "delete" else _STATUS, query)
    return {**found, **_parameters(path)}


def _subresource(kind: Kind, sub: Subresource, name: str, path: list[str]) -> Obj:
    found: Obj = {}
    methods = {**_ON_OBJECT, "create": ("post", "post", _WRITE)}
    for verb in sub.verbs:
        method, action, query = methods[verb]
        operation = _operation(kind, verb, action, name or _STATUS, query if name else ())
        operation["x-kubernetes-group-version-kind"] = {"group": sub.group, "version": sub.version, "kind": sub.kind}
        operation["operationId"] += sub.name.capitalize()
        found[method] = operation
    return {**found, **_parameters(path)}


def _operation(kind: Kind, verb: str, action: str, answer: str, query: tuple[str, ...]) -> Obj:
    resource = kind.resource
    body = {"create": answer, "update": answer, "patch": _PATCH, "delete": _DELETE_OPTIONS,
            "deletecollection": _DELETE_OPTIONS}.get(verb)  # fmt: skip
    group = resource.group.partition(".")[0] or "core"
    tag = f"{group}_{resource.version}"
    scope = "Namespaced" if resource.namespaced else ""
    operation: Obj = {
        "description": f"{action} {resource.kind}",
        "operationId": f"{action}{group.capitalize()}{resource.version.capitalize()}{scope}{resource.kind}",
        "tags": [tag],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"$ref": _SCHEMAS + answer}}},
            },
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": resource.group, "version": resource.version, "kind": resource.kind,
        },
    }  # fmt: skip
    if query:
        operation["parameters"] = [_parameter(name) for name in query]
    if body is not None:
        # kubectl reads here whether it may send a strategic merge patch
        patches = _PATCHES[:-1] if kind.is_custom else _PATCHES
        media = patches if verb == "patch" else _BODIES
        content = {name: {"schema": {"$ref": _SCHEMAS + body}} for name in media}
        operation["requestBody"] = {"content": content, **({"required": True} if verb != "delete" else {})}
    return operation
