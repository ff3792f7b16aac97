"""Rules of CustomResourceDefinitions and webhook configurations.

A definition is established at once: its names are taken or refused in the write itself, so that nobody waits for a
controller to serve it.

Source: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, immutable, one_of, required
from steersman.cluster.api.schema.structural import structural_errors
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1035_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj, condition, with_condition
from steersman.cluster.meta.resources import CUSTOM_RESOURCE_DEFINITIONS


def default_crd(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind") and kind:
        names["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def establish(obj: Obj, ctx: WriteContext) -> None:
    """Accepts (or refuses) the names of a new definition and says so in its status."""
    spec = obj["spec"]
    obj["status"] = {
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": [row.get("name", "") for row in spec.get("versions") or () if row.get("storage")],
    }
    _accept(obj, ctx)


def establish_update(new: Obj, old: Obj, ctx: WriteContext) -> None:
    status = new["status"] = {**(old.get("status") or {})}
    stored = list(status.get("storedVersions") or ())
    storage = [row.get("name", "") for row in new["spec"].get("versions") or () if row.get("storage")]
    stored += [name for name in storage if name not in stored]
    status["storedVersions"] = stored
    if new["spec"] != old.get("spec"):
        _accept(new, ctx)


def _accept(obj: Obj, ctx: WriteContext) -> None:
    spec, status = obj["spec"], obj["status"]
    clash = _clash(obj, ctx)
    conditions = status.get("conditions") or []
    if clash:
        conditions = with_condition(conditions, "NamesAccepted", "False", ctx.now, reason=clash[0], message=clash[1])
        if not any(row["type"] == "Established" and row["status"] == "True" for row in conditions):
            conditions = with_condition(
                conditions, "Established", "False", ctx.now, reason="NotAccepted", message="not all names are accepted"
            )
    else:
        conditions = with_condition(
            conditions, "NamesAccepted", "True", ctx.now, reason="NoConflicts", message="no conflicts found"
        )
        conditions = with_condition(
            conditions, "Established", "True", ctx.now, reason="InitialNamesAccepted",
            message="the initial names have been accepted",
        )  # fmt: skip
        status["acceptedNames"] = {key: value for key, value in spec["names"].items() if value}
    status["conditions"] = conditions


def _clash(obj: Obj, ctx: WriteContext) -> tuple[str, str] | None:
    """Returns (reason, message) when another definition of the group holds one of the names."""
    spec, own = obj["spec"], obj["metadata"].get("name")
    plurals: set[str] = set()
    kinds: set[str] = set()
    for other in ctx.list(CUSTOM_RESOURCE_DEFINITIONS, None):
        if other["metadata"]["name"] == own or other["spec"].get("group") != spec.get("group"):
            continue
        held = (other.get("status") or {}).get("acceptedNames") or {}
        plurals |= {held.get("plural", ""), held.get("singular", ""), *(held.get("shortNames") or ())}
        kinds |= {held.get("kind", ""), held.get("listKind", "")}
    names = spec["names"]
    rows = (
        ("PluralConflict", [names.get("plural", "")], plurals),
        ("SingularConflict", [names.get("singular", "")], plurals),
        ("ShortNamesConflict", names.get("shortNames") or [], plurals),
        ("KindConflict", [names.get("kind", "")], kinds),
        ("ListKindConflict", [names.get("listKind", "")], kinds),
    )
    for reason, wanted, taken in rows:
        for name in wanted:
            if name and name in taken:
                return reason, f'"{name}" is already in use'
    return None


def is_established(crd: Obj) -> bool:
    row = condition(crd, "Established")
    return row is not None and row.get("status") == "True"


def validate_crd(obj: Obj) -> list[Cause]:
    """Every broken rule of a CustomResourceDefinition."""
    spec = obj["spec"]
    names, group = spec.get("names") or {}, spec.get("group", "")
    causes: list[Cause] = []
    if not group:
        causes.append(required("spec.group"))
    else:
        causes += bad_all("spec.group", group, subdomain_errors(group))
        if "." not in group:
            causes.append(bad("spec.group", group, "should be a domain with at least one dot"))
    wanted = f"{names.get('plural', '')}.{group}"
    if obj["metadata"].get("name") != wanted:
        detail = 'must be spec.names.plural+"."+spec.group'
        causes.append(bad("metadata.name", obj["metadata"].get("name", ""), detail))
    causes += one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    causes += one_of("spec.conversion.strategy", spec["conversion"]["strategy"], ("None", "Webhook"))
    for key in ("plural", "singular"):
        if not names.get(key):
            causes.append(required(f"spec.names.{key}"))
        else:
            causes += bad_all(f"spec.names.{key}", names[key], label_1035_errors(names[key]))
    for key in ("kind", "listKind"):
        if not names.get(key):
            causes.append(required(f"spec.names.{key}"))
        else:
            for detail in label_1035_errors(names[key].lower()):
                causes.append(
                    bad(f"spec.names.{key}", names[key], f"may have mixed case, but should otherwise match: {detail}")
                )
    return causes + _versions(spec)


def _versions(spec: Obj) -> list[Cause]:
    versions = spec.get("versions") or []
    causes: list[Cause] = []
    if not versions:
        causes.append(required("spec.versions", "must have at least one version"))
    storage = [row for row in versions if row.get("storage")]
    if versions and len(storage) != 1:
        detail = "must have exactly one version marked as storage version"
        causes.append(bad("spec.versions", [row.get("name") for row in versions], detail))
    seen: set[str] = set()
    for index, row in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = row.get("name", "")
        causes += bad_all(f"{path}.name", name, label_1035_errors(name))
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        schema = (row.get("schema") or {}).get("openAPIV3Schema")
        where = f"{path}.schema.openAPIV3Schema"
        if schema is None:
            causes.append(required(where, "schemas are required"))
        else:
            causes += structural_errors(where, schema, top=True)
        scale = (row.get("subresources") or {}).get("scale")
        if scale is not None:
            for key in ("specReplicasPath", "statusReplicasPath"):
                prefix = ".spec." if key.startswith("spec") else ".status."
                if not scale.get(key):
                    causes.append(required(f"{path}.subresources.scale.{key}"))
                elif not scale[key].startswith(prefix):
                    detail = f"should be a json path under {prefix[:-1]}"
                    causes.append(bad(f"{path}.subresources.scale.{key}", scale[key], detail))
    return causes


def validate_crd_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new["spec"], old.get("spec") or {}
    causes: list[Cause] = []
    if is_established(old):
        causes += immutable("spec.scope", spec.get("scope"), before.get("scope"))
        causes += immutable("spec.names.kind", spec["names"].get("kind"), (before.get("names") or {}).get("kind"))
    causes += immutable("spec.group", spec.get("group"), before.get("group"))
    causes += immutable("spec.names.plural", spec["names"].get("plural"), (before.get("names") or {}).get("plural"))
    names = [row.get("name") for row in spec.get("versions") or ()]
    for index, stored in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if stored not in names:
            detail = "must appear in spec.versions"
            causes.append(bad(f"status.storedVersions[{index}]", stored, detail))
    return causes


def default_webhooks(obj: Obj) -> None:
    """Defaults of webhooks of both sorts."""
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")


def default_mutating(obj: Obj) -> None:
    default_webhooks(obj)
    for hook in obj.get("webhooks") or ():
        hook.setdefault("reinvocationPolicy", "Never")


def validate_webhooks(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = hook.get("name", "")
        if len(name.split(".")) < 3:
            causes.append(
                bad(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
            )
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        config = hook.get("clientConfig") or {}
        if ("url" in config) == ("service" in config):
            causes.append(required(f"{path}.clientConfig", "exactly one of url or service is required"))
        if not hook.get("admissionReviewVersions"):
            causes.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
        causes += one_of(f"{path}.sideEffects", hook.get("sideEffects"), ("None", "NoneOnDryRun"))
        if not 1 <= hook["timeoutSeconds"] <= 30:
            causes.append(
                bad(
                    f"{path}.timeoutSeconds",
                    hook["timeoutSeconds"],
                    "the timeout value must be between 1 and 30 seconds",
                )
            )
    return causes
