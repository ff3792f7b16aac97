"""What extension API servers serve, as they say it themselves: resource lists in the form of aggregated discovery.

What they say is read with care: it comes from elsewhere, and must not spoil the documents of everything else.

Source: k8s.io/apiserver/pkg/endpoints (`ConvertGroupVersionIntoDiscovery`), k8s.io/kube-aggregator/pkg/apiserver
(discovery manager)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj

CURRENT, STALE = "Current", "Stale"
#: resources read of one group and version; more than any server has
RESOURCES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Extension:
    """A group and version that another server serves.

    Args:
        resources: rows of aggregated discovery.
        freshness: `Stale` when the server did not answer when it was asked last.
    """

    group: str
    version: str
    resources: tuple[Obj, ...] = ()
    freshness: str = STALE


def read_resources(group: str, version: str, answer: Any) -> tuple[Obj, ...]:
    """The rows of an `APIResourceList`.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(answer, dict) or answer.get("kind") != "APIResourceList":
        raise ValueError("the answer is no APIResourceList")
    listed = answer.get("resources")
    rows = [row for row in listed if isinstance(row, dict) and _text(row, "name")] if isinstance(listed, list) else []
    found: dict[str, Obj] = {}
    for row in sorted(rows[:RESOURCES_MAX], key=lambda row: row["name"].count("/")):
        plural, _, sub = row["name"].partition("/")
        of = {"group": _text(row, "group") or group, "version": _text(row, "version") or version}
        of["kind"] = _text(row, "kind")
        verbs = _texts(row.get("verbs"))
        if not sub:
            found[plural] = _resource(row, of, verbs)
        elif "/" not in sub:
            parent = found.setdefault(plural, {"resource": plural, "scope": _scope(row)})
            rest: Obj = {"subresource": sub, "verbs": verbs}
            parent.setdefault("subresources", []).append({**rest, "responseKind": of} if of["kind"] else rest)
    return tuple(found.values())


def _resource(row: Obj, of: Obj, verbs: list[str]) -> Obj:
    made: Obj = {"resource": row["name"], "responseKind": of, "scope": _scope(row), "verbs": verbs}
    made["singularResource"] = _text(row, "singularName")
    for key in ("shortNames", "categories"):
        if names := _texts(row.get(key)):
            made[key] = names
    return made


def _scope(row: Obj) -> str:
    return "Namespaced" if row.get("namespaced") else "Cluster"


def _text(row: Obj, key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [text for text in value if text and isinstance(text, str)] if isinstance(value, list) else []
