"""Discovery: what is served, as clients ask for it before anything else.

Both the aggregated form (one document for all groups) and the older lists, since clients of either sort exist.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from steersman.cluster.api.apiservices import BY_DEFAULT, Order
from steersman.cluster.api.extensions import CURRENT, Extension
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind, Subresource
from steersman.cluster.meta.objects import Obj

#: media type of the aggregated form
AGGREGATED = "{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
#: version to what is served of it: rows of this server, or another server's
Versions = dict[str, list[Kind] | Extension]


def groups(registry: Registry, order: Order = BY_DEFAULT) -> dict[str, dict[str, list[Kind]]]:
    """Returns group to version to rows of this server, all in the order in which they are listed."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for kind in registry.all():
        found.setdefault(kind.resource.group, {}).setdefault(kind.resource.version, []).append(kind)
    return {
        name: {
            version: sorted(found[name][version], key=lambda kind: kind.resource.plural)
            for version in sorted(found[name], key=lambda version: order.of_version(name, version))
        }
        for name in sorted(found, key=order.of_group)
    }


def all_groups(registry: Registry, order: Order, extensions: Iterable[Extension]) -> dict[str, Versions]:
    """As `groups`, with what other servers serve, also in the place of rows of this one."""
    found: dict[str, Versions] = {name: dict(versions) for name, versions in groups(registry, order).items()}
    for extension in extensions:
        found.setdefault(extension.group, {})[extension.version] = extension
    return {
        name: dict(sorted(found[name].items(), key=lambda row: order.of_version(name, row[0])))
        for name in sorted(found, key=order.of_group)
    }


def _storage_hash(kind: Kind) -> str:
    text = f"{kind.resource.group}/{kind.resource.version}/{kind.resource.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def resource_list(registry: Registry, group: str, version: str) -> Obj | None:
    """Returns the `APIResourceList` of a group's version; None when it is not served."""
    kinds = groups(registry).get(group, {}).get(version)
    if not kinds:
        return None
    rows: list[Obj] = []
    for kind in kinds:
        rows.append(_row(kind))
        rows += [_sub_row(kind, sub) for _, sub in sorted(kind.subresources.items())]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}


def _row(kind: Kind) -> Obj:
    row: Obj = {
        "name": kind.resource.plural,
        "singularName": kind.singular,
        "namespaced": kind.resource.namespaced,
        "kind": kind.resource.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if not kind.virtual:
        row["storageVersionHash"] = _storage_hash(kind)
    return row


def _sub_row(kind: Kind, sub: Subresource) -> Obj:
    row: Obj = {
        "name": f"{kind.resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.resource.namespaced,
    }
    if (sub.group, sub.version) != (kind.resource.group, kind.resource.version):
        row["group"], row["version"] = sub.group, sub.version
    return {**row, "kind": sub.kind, "verbs": list(sub.verbs)}


def _group(name: str, versions: Iterable[str]) -> Obj:
    rows = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


def group_list(registry: Registry, order: Order = BY_DEFAULT, extensions: Iterable[Extension] = ()) -> Obj:
    """Returns the `APIGroupList` of `/apis`."""
    found = [_group(name, versions) for name, versions in all_groups(registry, order, extensions).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(registry: Registry, name: str, order: Order = BY_DEFAULT, extensions: Iterable[Extension] = ()) -> Obj | None:
    """Returns the `APIGroup` of `/apis/NAME`; None when it is not served."""
    versions = all_groups(registry, order, extensions).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if name and versions else None


def api_versions(server: str) -> Obj:
    """Returns the `APIVersions` of `/api`; `server` is host:port."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def aggregated(
    registry: Registry, *, core: bool, order: Order = BY_DEFAULT, extensions: Iterable[Extension] = ()
) -> Obj:
    """Returns the `APIGroupDiscoveryList` of `/api` (core) or `/apis` (all named groups)."""
    items: list[Obj] = []
    for name, versions in all_groups(registry, order, extensions).items():
        if core is not (name == ""):
            continue
        rows = [_aggregated_version(version, what) for version, what in versions.items()]
        items.append({"metadata": {"name": name} if name else {}, "versions": rows})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_version(version: str, what: list[Kind] | Extension) -> Obj:
    if isinstance(what, Extension):
        return {"version": version, "resources": list(what.resources), "freshness": what.freshness}
    return {"version": version, "resources": [_aggregated_row(kind) for kind in what], "freshness": CURRENT}


def _aggregated_row(kind: Kind) -> Obj:
    resource = kind.resource
    row: Obj = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if kind.subresources:
        row["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": list(sub.verbs),
            }
            for _, sub in sorted(kind.subresources.items())
        ]
    return row
