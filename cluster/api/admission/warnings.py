"""Sentences for the client about what is accepted but will not do what it seems to.

Source: k8s.io/kubernetes/pkg/api/pod/warnings.go
"""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

_WITH_TEMPLATE = {
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
}


def of(kind: Kind, obj: Obj) -> list[str]:
    """Returns the warnings that a kind's object deserves."""
    group, plural = kind.resource.group, kind.resource.plural
    if plural == "pods" and not group:
        return _pod_spec("spec", obj.get("spec") or {})
    if (group, plural) in _WITH_TEMPLATE:
        template = (obj.get("spec") or {}).get("template") or {}
        return _pod_spec("spec.template.spec", template.get("spec") or {})
    return []


def _pod_spec(path: str, spec: Obj) -> list[str]:
    found = []
    for key in spec.get("nodeSelector") or ():
        if key.startswith("beta.kubernetes.io/"):
            stable = key.removeprefix("beta.")
            found.append(f'{path}.nodeSelector[{key}]: deprecated since v1.14; use "{stable}" instead')
    for index, container in enumerate(spec.get("containers") or ()):
        rows = container.get("env") or ()
        if len({row.get("name", "") for row in rows}) == len(rows):
            continue
        names: set[str] = set()
        for place, row in enumerate(rows):
            name = row.get("name", "")
            if name in names:
                where = f"{path}.containers[{index}].env[{place}]"
                found.append(f'{where}: hides previous definition of "{name}", which may be dropped when using apply')
            names.add(name)
    return found
