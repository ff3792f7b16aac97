"""The configuration of admission plugins: an `AdmissionConfiguration` and what it holds, as values.

Refuses to know how a file is read. A plugin that cannot be configured here is a mistake, as is one that does not exist:
who names it expects something of it.

Source: k8s.io/apiserver/pkg/admission/config.go and the validation of each plugin's own configuration
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from steersman.cluster.api.admission import node_selectors
from steersman.cluster.api.admission.event_rates import KEYS, EventLimit
from steersman.cluster.api.admission.podsecurity import LEVELS, VERSION
from steersman.cluster.api.admission.settings import AdmissionSettings, Limited, PodSecurity
from steersman.cluster.meta.configfile import Mistakes, read_tree
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

#: groups of events whose limits are remembered, unless a limit says otherwise
_KEYS_MAX = 4096
_MODES = ("enforce", "audit", "warn")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)  # fmt: skip
_APISERVER, _TOLERATIONS = "apiserver.config.k8s.io", "podtolerationrestriction.admission.k8s.io"
#: apiVersions and kinds in which a plugin's configuration may be written
_WEBHOOKS = {
    (f"{_APISERVER}/v1", "WebhookAdmissionConfiguration"), (f"{_APISERVER}/v1alpha1", "WebhookAdmission"),
}  # fmt: skip
_QUOTAS = {
    (f"{_APISERVER}/v1", "ResourceQuotaConfiguration"),
    *((f"resourcequota.admission.k8s.io/{version}", "Configuration") for version in ("v1beta1", "v1alpha1")),
}
_STANDARDS = {
    (f"pod-security.admission.config.k8s.io/{version}", "PodSecurityConfiguration")
    for version in ("v1", "v1beta1", "v1alpha1")
}
_EVENTS = {("eventratelimit.admission.k8s.io/v1alpha1", "Configuration")}
_LISTS = {(f"{_TOLERATIONS}/v1alpha1", "Configuration")}


class InvalidAdmission(ValueError):
    """The text is no AdmissionConfiguration; the message names every mistake with its field."""


def read_admission(text: str, read: Callable[[str], str], unusable: Callable[[str], str]) -> AdmissionSettings:
    """What an `AdmissionConfiguration` tells the plugins.

    Args:
        read: the text of another file that it names; raises ValueError.
        unusable: says why a path is of no kubeconfig that can be used; empty when it is of one.

    Raises:
        InvalidAdmission
    """
    try:
        tree = read_tree(text, "AdmissionConfiguration", ("v1", "v1alpha1"))
    except ValueError as error:
        raise InvalidAdmission(str(error)) from None
    mistakes = Mistakes()
    mistakes.unknown(tree, ("apiVersion", "kind", "plugins"), "")
    found: dict[str, Any] = {}
    names: set[str] = set()
    for at, one in enumerate(mistakes.rows(tree.get("plugins"), "plugins")):
        path = f"plugins[{at}]"
        row = mistakes.mapping(one, path, ("name", "path", "configuration"))
        name = row.get("name") or ""
        if not name:
            mistakes.required(f"{path}.name")
        elif name in names:
            mistakes.duplicate(f"{path}.name", name)
        elif name not in _READERS:
            mistakes.unsupported(f"{path}.name", name, sorted(_READERS))
        else:
            _Reader(mistakes, f"{path}.configuration", unusable).read(name, _own(row, path, read, mistakes), found)
        names.add(name)
    if mistakes:
        raise InvalidAdmission("; ".join(mistakes))
    return AdmissionSettings(**found)


def _own(row: Mapping[str, Any], path: str, read: Callable[[str], str], mistakes: Mistakes) -> Any:
    """What a plugin is told, here or in a file of its own."""
    if row.get("configuration") is not None or not row.get("path"):
        return row.get("configuration")
    try:
        return yaml.safe_load(read(str(row["path"])))
    except (ValueError, yaml.YAMLError) as error:
        mistakes.invalid(f"{path}.path", row["path"], str(error))
        return None


class _Reader:
    """Reads the configuration of one plugin and collects what is wrong with it."""

    def __init__(self, mistakes: Mistakes, path: str, unusable: Callable[[str], str]) -> None:
        self._mistakes = mistakes
        self._path = path
        self._unusable = unusable

    def read(self, name: str, tree: Any, found: dict[str, Any]) -> None:
        if tree is None:
            return
        if not isinstance(tree, dict):
            self._mistakes.append(f"{self._path}: must be a mapping")
            return
        forms, reader = _READERS[name]
        if forms and (tree.get("apiVersion"), tree.get("kind")) not in forms:
            known = " or ".join(f"{kind} of {version}" for version, kind in sorted(forms))
            self._mistakes.append(f"{self._path}: must be a {known}")
            return
        found.update(reader(self, tree))

    def _known(self, tree: Mapping[str, Any], *fields: str) -> None:
        self._mistakes.unknown(tree, ("apiVersion", "kind", *fields), self._path)

    # ---- PodSecurity

    def standards(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        self._known(tree, "defaults", "exemptions")
        modes = dict.fromkeys(_MODES, LEVELS) | {f"{mode}-version": None for mode in _MODES}
        defaults = self._mistakes.mapping(tree.get("defaults"), f"{self._path}.defaults", modes)
        for field, value in defaults.items():
            path = f"{self._path}.defaults.{field}"
            if modes.get(field) and value not in LEVELS:
                self._mistakes.invalid(path, value, f"must be one of {', '.join(LEVELS)}")
            elif field.endswith("-version") and value != "latest" and not VERSION.match(str(value)):
                self._mistakes.invalid(path, value, 'must be "latest" or "v1.x"')
        path = f"{self._path}.exemptions"
        exempt = self._mistakes.mapping(tree.get("exemptions"), path, ("usernames", "namespaces", "runtimeClasses"))
        return {
            "pod_security": PodSecurity(
                defaults={field: str(value) for field, value in defaults.items()},
                users=self._names(exempt, path, "usernames", lambda _name: []),
                namespaces=self._names(exempt, path, "namespaces", label_1123_errors),
                runtime_classes=self._names(exempt, path, "runtimeClasses", subdomain_errors),
            )
        }

    def _names(
        self, exempt: Mapping[str, Any], path: str, field: str, errors: Callable[[str], list[str]]
    ) -> frozenset[str]:
        found: set[str] = set()
        for at, name in enumerate(self._mistakes.rows(exempt.get(field), f"{path}.{field}")):
            place = f"{path}.{field}[{at}]"
            if name in (None, ""):
                self._mistakes.required(place)
            elif wrong := errors(str(name)):
                self._mistakes.invalid(place, name, ", ".join(wrong))
            elif str(name) in found:
                self._mistakes.duplicate(place, str(name))
            else:
                found.add(str(name))
        return frozenset(found)

    # ---- ResourceQuota

    def quotas(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        self._known(tree, "limitedResources")
        rows = self._mistakes.rows(tree.get("limitedResources"), f"{self._path}.limitedResources")
        return {
            "limited": tuple(self._limited(row, f"{self._path}.limitedResources[{at}]") for at, row in enumerate(rows))
        }

    def _limited(self, row: Any, path: str) -> Limited:
        row = self._mistakes.mapping(row, path, ("apiGroup", "resource", "matchContains", "matchScopes"))
        if not row.get("resource"):
            self._mistakes.required(f"{path}.resource")
        parts = self._mistakes.rows(row.get("matchContains"), f"{path}.matchContains")
        scopes = self._mistakes.rows(row.get("matchScopes"), f"{path}.matchScopes")
        return Limited(
            group=str(row.get("apiGroup") or ""), resource=str(row.get("resource") or ""),
            contains=tuple(map(str, parts)),
            scopes=tuple(self._scope(scope, f"{path}.matchScopes[{at}]") for at, scope in enumerate(scopes)),
        )  # fmt: skip

    def _scope(self, row: Any, path: str) -> Obj:
        row = self._mistakes.mapping(row, path, ("scopeName", "operator", "values"))
        if row.get("scopeName") not in _SCOPES:
            self._mistakes.unsupported(f"{path}.scopeName", row.get("scopeName") or "", _SCOPES)
        if row.get("operator") not in _OPERATORS:
            self._mistakes.unsupported(f"{path}.operator", row.get("operator") or "", _OPERATORS)
        self._mistakes.rows(row.get("values"), f"{path}.values")
        return dict(row)

    # ---- the others

    def webhooks(self, tree: Mapping[str, Any], setting: str) -> dict[str, Any]:
        self._known(tree, "kubeConfigFile")
        path = str(tree.get("kubeConfigFile") or "")
        if path and not path.startswith("/"):
            detail = "must be an absolute file path"
            self._mistakes.invalid(f"{self._path}.kubeConfigFile", path, detail)
        elif path and (wrong := self._unusable(path)):
            self._mistakes.invalid(f"{self._path}.kubeConfigFile", path, wrong)
        return {setting: path}

    def events(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        self._known(tree, "limits")
        path = f"{self._path}.limits"
        rows = self._mistakes.rows(tree.get("limits"), path)
        if not rows:
            self._mistakes.invalid(path, None, "must not be empty")
        return {"events": tuple(self._limit(row, f"{path}[{at}]") for at, row in enumerate(rows))}

    def _limit(self, row: Any, path: str) -> EventLimit:
        row = self._mistakes.mapping(row, path, ("type", "qps", "burst", "cacheSize"))
        sort = row.get("type") or ""
        if sort not in KEYS:
            self._mistakes.unsupported(f"{path}.type", sort, sorted(KEYS))
        burst = self._number(row, path, "burst", 1, "must be positive")
        per_s = self._number(row, path, "qps", 1, "must be positive")
        kept = self._number(row, path, "cacheSize", 0, "must not be negative") if sort != "Server" else 1
        return EventLimit(sort, per_s, burst, kept or _KEYS_MAX)

    def _number(self, row: Mapping[str, Any], path: str, field: str, least: int, detail: str) -> int:
        value = row.get(field) or 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._mistakes.invalid(f"{path}.{field}", value, detail)
            return least
        return value

    def selectors(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        self._mistakes.unknown(tree, ("podNodeSelectorPluginConfig",), self._path)
        path = f"{self._path}.podNodeSelectorPluginConfig"
        rows = tree.get("podNodeSelectorPluginConfig")
        found: dict[str, Mapping[str, str]] = {}
        for name, text in self._mistakes.mapping(rows, path, rows if isinstance(rows, dict) else ()).items():
            try:
                space = "" if name == "clusterDefaultNodeSelector" else str(name)
                found[space] = node_selectors.labels_in(str(text or ""))
            except ValueError as error:
                self._mistakes.invalid(f"{path}.{name}", text, str(error))
        return {"node_selectors": found}

    def tolerations(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        self._known(tree, "default", "whitelist")
        return {
            setting: tuple(
                dict(self._mistakes.mapping(row, f"{self._path}.{field}[{at}]", _TOLERATION))
                for at, row in enumerate(self._mistakes.rows(tree.get(field), f"{self._path}.{field}"))
            )
            for setting, field in (("tolerations", "default"), ("tolerable", "whitelist"))
        }


_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
#: by plugin in which forms its configuration may be written, if it says so at all, and what reads it
_READERS: Mapping[str, tuple[set[tuple[str, str]], Callable[[_Reader, Mapping[str, Any]], dict[str, Any]]]] = {
    "PodSecurity": (_STANDARDS, _Reader.standards),
    "ResourceQuota": (_QUOTAS, _Reader.quotas),
    "MutatingAdmissionWebhook": (_WEBHOOKS, lambda reader, tree: reader.webhooks(tree, "mutating_kubeconfig")),
    "ValidatingAdmissionWebhook": (_WEBHOOKS, lambda reader, tree: reader.webhooks(tree, "validating_kubeconfig")),
    "EventRateLimit": (_EVENTS, _Reader.events),
    "PodNodeSelector": (set(), _Reader.selectors),
    "PodTolerationRestriction": (_LISTS, _Reader.tolerations),
}
