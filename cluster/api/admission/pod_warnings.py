"""Sentences about pods and templates of pods that are accepted but will not do what they seem to.

Source: k8s.io/kubernetes/pkg/api/pod/warnings.go, pkg/api/node/util.go
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from steersman.cluster.api.admission.network_warnings import OLD_LABELS, of_address
from steersman.cluster.api.rules.fields import show
from steersman.cluster.api.rules.pod_marks import APPARMOR, SECCOMP_CONTAINER, SECCOMP_POD
from steersman.cluster.meta.names import label_value_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

#: paths, and what is to be there, empty where that is plain
Files = list[tuple[str, str]]
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
#: sources of volumes that are gone or will go
OLD_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageOS": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_NO_SELECTOR = "a null labelSelector results in matching no pod"
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_CERTIFICATE = (
    ("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle"),
)  # fmt: skip
_NEGATIVE = "must be >= 0; negative values are invalid and will be treated as 1"
_BYTES = ("memory", "ephemeral-storage")
#: fields that few pods have, looked at only then: every new pod comes by here
_PLACED = ("nodeSelector", "affinity", "topologySpreadConstraints")
_ADDRESSED = ("dnsConfig", "hostAliases")
_LISTED = ("hostAliases", "imagePullSecrets", "overhead")
#: numbers of bytes that are whole at a glance
_WHOLE = re.compile(r"[0-9]+(k|[KMGTPE]i?)?\Z")


def of_pod(path: str, meta: Obj, spec: Obj) -> list[str]:
    """Returns the warnings that a pod or a template deserves.

    Args:
        path: of the template, with a dot at its end; empty of a pod.
    """
    where, marks = f"{path}spec", meta.get("annotations") or {}
    found: list[str] = []
    if not spec.keys().isdisjoint(_PLACED):
        found += _placement(where, spec)
    if marks:
        found += [f"{path}metadata.annotations[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in marks]
    if spec.get("volumes"):
        found += _volumes(f"{where}.volumes", spec["volumes"])
    if not spec.keys().isdisjoint(_LISTED):
        found += _twice(f"{where}.hostAliases", spec.get("hostAliases") or [], "ip")
        found += _twice(f"{where}.imagePullSecrets", spec.get("imagePullSecrets") or [], "name")
        found += _nameless(f"{where}.imagePullSecrets", spec.get("imagePullSecrets") or [])
        found += _fractions(f"{where}.overhead", spec.get("overhead") or {})
    if marks:
        found += _profiles(path, spec, marks)
    containers = list(_containers(where, spec))
    for place, one in containers:
        found += _container(place, one)
    found += _ports(containers)
    if len(containers) > 1:
        found += _port_names(containers)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        found.append(f"{where}.terminationGracePeriodSeconds: {_NEGATIVE}")
    if spec.get("affinity"):
        found += _affinities(f"{where}.affinity", spec["affinity"])
    if not spec.keys().isdisjoint(_ADDRESSED):
        found += _addresses(where, spec)
    return found


def _addresses(path: str, spec: Obj) -> Iterator[str]:
    for index, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        yield from of_address(f"{path}.dnsConfig.nameservers[{index}]", server)
    for index, row in enumerate(spec.get("hostAliases") or ()):
        yield from of_address(f"{path}.hostAliases[{index}].ip", row.get("ip", ""))


def fraction(path: str, value: str | None) -> Iterator[str]:
    """The warning of a number of bytes that is not whole."""
    if value is None or _WHOLE.match(value):
        return
    if (amount := parse(value)) != int(amount):
        yield f"{path}: fractional byte value {show(value)} is invalid, must be an integer"


def node_term(path: str, term: Obj, *, values: bool = False) -> Iterator[str]:
    """The warnings of a term that selects nodes by labels that have other names now.

    Args:
        values: also warn of what no label's value can be.
    """
    for index, row in enumerate(term.get("matchExpressions") or ()):
        if (key := row.get("key", "")) in OLD_LABELS:
            yield f"{path}.matchExpressions[{index}].key: {key} is {OLD_LABELS[key]}"
        for at, value in enumerate((row.get("values") or ()) if values else ()):
            for error in label_value_errors(value):
                yield f"{path}.matchExpressions[{index}].values[{at}]: {value} is invalid, {error}"


def _containers(path: str, spec: Obj) -> Iterator[tuple[str, Obj]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, one in enumerate(spec.get(key) or ()):
            yield f"{path}.{key}[{index}]", one


def _placement(path: str, spec: Obj) -> Iterator[str]:
    for key in spec.get("nodeSelector") or ():
        if key in OLD_LABELS:
            yield f"{path}.nodeSelector[{key}]: {OLD_LABELS[key]}"
    nodes = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    base = f"{path}.affinity.nodeAffinity"
    for index, term in enumerate((nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()):
        yield from node_term(f"{base}.{_REQUIRED}.nodeSelectorTerms[{index}]", term)
    for index, row in enumerate(nodes.get(_PREFERRED) or ()):
        yield from node_term(f"{base}.{_PREFERRED}[{index}].preference", row.get("preference") or {}, values=True)
    for index, row in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, key = f"{path}.topologySpreadConstraints[{index}]", row.get("topologyKey", "")
        if key in OLD_LABELS:
            yield f"{where}.topologyKey: {key} is {OLD_LABELS[key]}"
        if row.get("labelSelector") is None:
            yield f"{where}.labelSelector: {_NO_SELECTOR}"


def _volumes(path: str, volumes: list[Obj]) -> Iterator[str]:
    for index, volume in enumerate(volumes):
        if not volume.keys().isdisjoint(OLD_VOLUMES):
            for key, text in OLD_VOLUMES.items():
                if volume.get(key) is not None:
                    yield f"{path}[{index}].{'storageOS' if key == 'storageos' else key}: {text}"
        if claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            yield from claim_spec(f"{path}[{index}].ephemeral.volumeClaimTemplate.spec", claim.get("spec") or {})
    for volume in volumes:
        yield from _overlaps(volume)


def _overlaps(volume: Obj) -> Iterator[str]:
    """The warnings of files that a volume puts where others of it are."""
    about = f"volume {show(volume.get('name', ''))}"
    for key, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
        if items := (volume.get(key) or {}).get("items"):
            what = f"{kind} {show(volume[key].get(name, ''))}"
            yield from _overlapping(f"{about} ({what})", [(item.get("path", ""), "") for item in items], [])
    if items := (volume.get("downwardAPI") or {}).get("items"):
        yield from _overlapping(f"{about} (DownwardAPI)", [(item.get("path", ""), "") for item in items], [])
    before: Files = []
    for source in (volume.get("projected") or {}).get("sources") or ():
        if not source:
            yield f"{about} (Projected) has no sources provided"
        yield from _overlapping(f"{about} (Projected)", _projected(source), before)


def _projected(source: Obj) -> Files:
    """The files that a source of a projected volume puts there, and what they are said to be of."""
    for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if (found := source.get(key)) is not None and found.get("items"):
            return [(item.get("path", ""), f"{kind} {show(found.get('name', ''))}") for item in found["items"]]
    if items := (source.get("downwardAPI") or {}).get("items"):
        return [(item.get("path", ""), "DownwardAPI") for item in items]
    if (token := source.get("serviceAccountToken")) is not None:
        return [(token.get("path", ""), "ServiceAccountToken")]
    if (bundle := source.get("clusterTrustBundle")) is not None:
        name = bundle.get("name", bundle.get("signerName", ""))
        return [(bundle.get("path", ""), f"ClusterTrustBundle {show(name)}")]
    made = source.get("podCertificate") or {}
    return [(made[key], f"PodCertificate {what}") for key, what in _CERTIFICATE if made.get(key)]


def _overlapping(about: str, files: Files, before: Files) -> Iterator[str]:
    """The warnings of files that are where others are; those looked at are put to those that were `before`."""
    for path, source in files:
        place = path.rstrip("/")
        for other, of in before:
            if place and other and (f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/")):
                yield f"{about}: overlapping paths: {_file(place, source)} with {_file(other, of)}"
        before.append((place, source))


def _file(path: str, source: str) -> str:
    return f"{show(path)} ({source})" if source else show(path)


def claim_spec(path: str, spec: Obj) -> Iterator[str]:
    """The warnings of a claim of storage."""
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    yield from fraction(f"{path}.resources.requests[storage]", asked)


def _twice(path: str, rows: list[Obj], key: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if (value := row.get(key, "")) in seen:
            yield f"{path}[{index}].{key}: duplicate {key} {show(value)}"
        seen.add(value)


def _nameless(path: str, rows: list[Obj]) -> Iterator[str]:
    for index, row in enumerate(rows):
        if not row.get("name"):
            yield f'{path}[{index}].name: invalid empty name ""'


def _fractions(path: str, amounts: Mapping[str, str]) -> Iterator[str]:
    for key in _BYTES:
        yield from fraction(f"{path}[{key}]", amounts.get(key))


def _profiles(path: str, spec: Obj, marks: Obj) -> Iterator[str]:
    """The warnings of annotations that fields have replaced."""
    pod = spec.get("securityContext") or {}
    if SECCOMP_POD in marks and pod.get("seccompProfile") is None:
        yield f"{path}metadata.annotations[{SECCOMP_POD}]: {_SECCOMP}"
    for _, one in _containers("", spec):
        own, name = one.get("securityContext") or {}, one.get("name", "")
        if f"{SECCOMP_CONTAINER}{name}" in marks and own.get("seccompProfile") is None:
            yield f"{path}metadata.annotations[{SECCOMP_CONTAINER}{name}]: {_SECCOMP}"
        if f"{APPARMOR}{name}" in marks and (own.get("appArmorProfile") or pod.get("appArmorProfile")) is None:
            yield f"{path}metadata.annotations[{APPARMOR}{name}]: {_APPARMOR}"


def _container(path: str, one: Obj) -> Iterator[str]:
    resources = one.get("resources")
    if resources:
        for key in _BYTES:
            for side in ("limits", "requests"):
                yield from fraction(f"{path}.resources.{side}[{key}]", (resources.get(side) or {}).get(key))
    rows = one.get("env") or ()
    if len(rows) < 2 or len({row.get("name", "") for row in rows}) == len(rows):
        return
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name, value = row.get("name", ""), row.get("value", "")
        reference = f"$({name})"
        if name in seen and (row.get("valueFrom") is not None or value == reference or reference not in value):
            text = f"hides previous definition of {show(name)}, which may be dropped when using apply"
            yield f"{path}.env[{index}]: {text}"
        seen.add(name)


def _ports(containers: list[tuple[str, Obj]]) -> Iterator[str]:
    known: dict[tuple[int, str], list[tuple[str, str, int]]] = {}
    for place, one in containers:
        for index, port in enumerate(one.get("ports") or ()):
            where, ip, host = f"{place}.ports[{index}]", port.get("hostIP", ""), port.get("hostPort", 0)
            number, protocol = port.get("containerPort", 0), port.get("protocol", "")
            if ip and not host:
                shown = f"Name:{port.get('name', '')} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}"
                yield f"{where}: hostIP set without hostPort: {{{shown}}}"
            others = known.setdefault((number, protocol), [])
            for other, other_ip, other_host in others:
                if (ip, host) == (other_ip, other_host):
                    yield f"{where}: duplicate port definition with {other}"
                elif not host or not other_host:
                    yield f"{where}: overlapping port definition with {other}"
                elif host == other_host and bool(ip) != bool(other_ip):
                    yield f"{where}: dangerously ambiguous port definition with {other}"
            others.append((where, ip, host))


def _port_names(containers: list[tuple[str, Obj]]) -> Iterator[str]:
    known: dict[str, str] = {}
    for place, one in containers:
        for index, port in enumerate(one.get("ports") or ()):
            where, name = f"{place}.ports[{index}]", port.get("name", "")
            if name and name in known:
                first = known[name]
                text = f"duplicate port name {show(name)} with {first}"
                yield f"{where}: {text}, services and probes that select ports by name will use {first}"
            elif name:
                known[name] = where


def _affinities(path: str, affinity: Obj) -> Iterator[str]:
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                yield f"{path}.{kind}.{_REQUIRED}[{index}].labelSelector: {_NO_SELECTOR}"
        for index, row in enumerate(terms.get(_PREFERRED) or ()):
            if (row.get("podAffinityTerm") or {}).get("labelSelector") is None:
                yield f"{path}.{kind}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector: {_NO_SELECTOR}"
