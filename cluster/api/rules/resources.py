"""Rules of what containers ask for: requests, limits, claims of devices, and how they may be resized.

Source: k8s.io/kubernetes/pkg/apis/core/{helper/helpers.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, required, show, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import QuantityError, parse

_STANDARD = ("cpu", "memory", "ephemeral-storage")
OF_PODS = ("cpu", "memory")
#: resources that may not be promised beyond what is there
HUGE_PAGES = "hugepages-"
_RESTARTS = ("NotRequired", "RestartContainer")
#: resources that are counted: parts of them make no sense
COUNTED = frozenset(
    {
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
#: names without a slash that a quota may bound
QUOTA = COUNTED | {
    *_STANDARD, *(f"{side}.{name}" for side in ("requests", "limits") for name in _STANDARD), "requests.storage",
}  # fmt: skip

#: what breaks the rules of a resource's name, which stands at a path
NameRule = Callable[[str, str], list[Cause]]


def is_native(name: str) -> bool:
    """Whether a resource is Kubernetes' own."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """Whether a resource is neither Kubernetes' own nor a quota's."""
    return not is_native(name) and not name.startswith("requests.") and not qualified_name_errors(f"requests.{name}")


def can_overcommit(name: str) -> bool:
    """Whether more of a resource may be promised than there is."""
    return is_native(name) and not name.startswith(HUGE_PAGES)


def resource_name(path: str, name: str) -> list[Cause]:
    """The rules of every resource's name."""
    if errors := qualified_name_errors(name):
        return bad_all(path, name, errors)
    if "/" in name or name in QUOTA or name == "storage" or name.startswith((HUGE_PAGES, f"requests.{HUGE_PAGES}")):
        return []
    return [bad(path, name, "must be a standard resource type or fully qualified")]


def container_resource_name(path: str, name: str) -> list[Cause]:
    """The rules of the name of what a container may ask for."""
    if name in _STANDARD:
        return []
    causes = resource_name(path, name)
    if "/" not in name:
        if not name.startswith(HUGE_PAGES):
            causes.append(bad(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        causes.append(bad(path, name, "doesn't follow extended resource name standard"))
    return causes


def validate_resources(path: str, resources: Obj, claims: Set[str] = frozenset()) -> list[Cause]:
    """Every broken rule of a container's resources; `claims` are the names of the pod's claims."""
    causes = validate_amounts(path, resources, container_resource_name)
    return causes + _claims(f"{path}.claims", resources["claims"], claims) if resources.get("claims") else causes


def validate_amounts(path: str, resources: Obj, named: NameRule) -> list[Cause]:
    """Every broken rule of requests and limits; `named` are those of their names."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    causes: list[Cause] = []
    for key, value in limits.items():
        causes += _amount(f"{path}.limits[{key}]", key, value, named)
    for key, value in requests.items():
        where = f"{path}.requests[{key}]"
        causes += named(where, key) + quantity(where, key, value)
        bound = limits.get(key)
        if bound is None:
            if not can_overcommit(key):
                causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        elif parse(value) != parse(bound) and not can_overcommit(key):
            causes.append(bad(f"{path}.requests", value, f"must be equal to {key} limit of {bound}"))
        elif parse(value) > parse(bound):
            causes.append(bad(f"{path}.requests", value, f"must be less than or equal to {key} limit of {bound}"))
        causes += _pages(where, key, value)
    asked = {**limits, **requests}
    if any(key.startswith(HUGE_PAGES) for key in asked) and not any(key in asked for key in OF_PODS):
        causes.append(forbidden(path, "HugePages require cpu or memory"))
    return causes


def _amount(path: str, key: str, value: str, named: NameRule) -> list[Cause]:
    return named(path, key) + quantity(path, key, value) + _pages(path, key, value)


def _pages(path: str, key: str, value: str) -> list[Cause]:
    """The rule of huge pages: they come whole."""
    if not key.startswith(HUGE_PAGES):
        return []
    try:
        size = parse(key.removeprefix(HUGE_PAGES))
    except QuantityError:
        size = parse("0")
    if size > 0 and size == int(size) and int(parse(value)) % int(size) == 0:
        return []
    return [bad(path, value, f"{value} is not positive integer multiple of {key}")]


def quantity(path: str, key: str, value: str) -> list[Cause]:
    """The rules of an amount: not negative, and whole where parts make no sense."""
    amount = parse(value)
    causes = [bad(path, value, "must be greater than or equal to 0")] if amount < 0 else []
    if amount != int(amount) and (key in COUNTED or is_extended(key)):
        causes.append(bad(path, value, "must be an integer"))
    return causes


def _claims(path: str, rows: Sequence[Obj], known: Set[str]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name, request, where = row.get("name", ""), row.get("request", ""), f"{path}[{index}]"
        if not name:
            causes.append(required(where))
            continue
        if name in seen:
            causes.append(duplicate(where, name))
        else:
            key = f"{name}/{request}" if request else name
            causes += bad_all(f"{where}.request", request, label_1123_errors(request)) if request else []
            if key in seen or (not request and any(other.partition("/")[0] == name for other in seen)):
                causes.append(duplicate(where, key))
            seen.add(key)
        if name not in known:
            listed = f": {', '.join(sorted(known))}" if known else " which is empty"
            detail = f"Not found: {show(name)}: must be one of the names in pod.spec.resourceClaims{listed}"
            causes.append(Cause(where, detail, "FieldValueNotFound"))
    return causes


def validate_resize_policy(path: str, rows: Sequence[Obj], pod_restart: str) -> list[Cause]:
    """Every broken rule of how a container takes a change of its resources; most are said of the whole list."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name, restart = row.get("resourceName", ""), row.get("restartPolicy", "")
        if name in seen:
            causes.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
        for value, supported in ((name, OF_PODS), (restart, _RESTARTS)):
            if not value:
                causes.append(required(path))
            elif value not in supported:
                causes.append(unsupported(path, value, supported))
        if pod_restart == "Never" and restart != "NotRequired":
            causes.append(bad(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
    return causes


def claim_names(path: str, rows: Sequence[Obj]) -> tuple[list[Cause], set[str]]:
    """Every broken rule of a pod's own list of claims, and their names."""
    causes: list[Cause] = []
    names: set[str] = set()
    sources = ("resourceClaimName", "resourceClaimTemplateName")
    for index, row in enumerate(rows):
        where, name = f"{path}[{index}]", row.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif name in names:
            causes.append(duplicate(f"{where}.name", name))
        else:
            causes += bad_all(f"{where}.name", name, label_1123_errors(name))
            names.add(name)
        said = [key for key in sources if row.get(key) is not None]
        listed = " or ".join(f"`{key}`" for key in sources)
        if len(said) > 1:
            causes.append(bad(where, row, f"at most one of {listed} may be specified"))
        elif not said:
            causes.append(bad(where, row, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
        for key in said:
            causes += bad_all(f"{where}.{key}", row[key], subdomain_errors(row[key]))
    return causes, names
