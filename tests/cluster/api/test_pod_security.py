"""Pod security standards: every check with the words of Kubernetes, and what the labels of a namespace do."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.admission.podsecurity import PREFIX, Level, level_of, violations
from steersman.cluster.meta.errors import Forbidden, Invalid

LATEST = 10_000
SAFE = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def pod(context: Any = None, container: Any = None, pod_context: Any = None, **spec: Any) -> Any:
    row = {"name": "a", "image": "x", **({"securityContext": context} if context else {}), **(container or {})}
    if pod_context:
        spec["securityContext"] = pod_context
    return {"metadata": {"name": "web"}, "spec": {"containers": [row], **spec}}


BASELINE = [
    (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
    (pod({"privileged": True}), 'privileged (container "a" must not set securityContext.privileged=true)'),
    (pod({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}),
     'non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)'),
    (pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "h")'),
    (pod(container={"ports": [{"hostPort": 80}, {"hostPort": 81}]}), 'hostPort (container "a" uses hostPorts 80, 81)'),
    (pod({"procMount": "Unmasked"}),
     'procMount (container "a" must not set securityContext.procMount to "Unmasked")'),
    (pod({"seLinuxOptions": {"type": "x", "user": "u"}}, pod_context={"seLinuxOptions": {"role": "r"}}),
     'seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "x"; user may not be '
     'set; role may not be set)'),
    (pod(pod_context={"seccompProfile": {"type": "Unconfined"}}),
     'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'),
    (pod(pod_context={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "forbidden sysctls (kernel.msgmax)"),
    (pod(pod_context={"windowsOptions": {"hostProcess": True}}),
     "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"),
    (pod(container={"livenessProbe": {"httpGet": {"host": "1.1.1.1"}}}),
     'probe or lifecycle host (container "a" uses probe or lifecycle host "1.1.1.1")'),
]  # fmt: skip
RESTRICTED = [
    (pod(SAFE | {"allowPrivilegeEscalation": True}),
     'allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)'),
    (pod(SAFE | {"capabilities": {"add": ["CHOWN"]}}),
     'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must '
     'not include "CHOWN" in securityContext.capabilities.add)'),
    (pod(SAFE, volumes=[{"name": "v", "nfs": {}}]),
     'restricted volume types (volume "v" uses restricted volume type "nfs")'),
    (pod(SAFE | {"runAsNonRoot": None}),
     'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)'),
    (pod(SAFE | {"runAsNonRoot": False}),
     'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)'),
    (pod(SAFE, pod_context={"runAsUser": 0}), "runAsUser=0 (pod must not set runAsUser=0)"),
    (pod(SAFE | {"seccompProfile": None}),
     'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
     '"Localhost")'),
]  # fmt: skip


def text(found: Any) -> str:
    return ", ".join(f"{reason} ({detail})" for reason, detail in found)


@pytest.mark.parametrize(("obj", "wanted"), BASELINE, ids=[row[1].partition(" (")[0] for row in BASELINE])
def test_the_baseline_says_what_it_minds(obj: Any, wanted: str) -> None:
    assert text(violations(obj, Level("baseline", LATEST))) == wanted
    assert violations(obj, Level("privileged", LATEST)) == []


@pytest.mark.parametrize(("obj", "wanted"), RESTRICTED, ids=[f"{n} {row[1][:20]}" for n, row in enumerate(RESTRICTED)])
def test_the_restricted_standard_says_what_it_minds(obj: Any, wanted: str) -> None:
    assert text(violations(obj, Level("restricted", LATEST))) == wanted
    assert violations(obj, Level("baseline", LATEST)) == []


def test_a_safe_pod_keeps_every_standard() -> None:
    assert violations(pod(SAFE), Level("restricted", LATEST)) == []


def test_older_versions_know_fewer_rules() -> None:
    wmem = pod(pod_context={"sysctls": [{"name": "net.ipv4.tcp_wmem", "value": "1"}]})
    assert violations(wmem, Level("baseline", 32)) == [] != violations(wmem, Level("baseline", 31))
    root = pod(SAFE | {"runAsUser": 0})
    assert violations(root, Level("restricted", 22)) == [] != violations(root, Level("restricted", 23))
    assert str(Level("restricted", 22)) == "restricted:v1.22"


def label(api: Any, **modes: str) -> list[str]:
    """Sets the labels of the default namespace; returns the warnings."""
    warnings: list[str] = []
    labels = {PREFIX + key.replace("_", "-"): value for key, value in modes.items()}
    api.change("namespaces", "default", lambda obj: obj["metadata"].update(labels=labels), warn=warnings.append)
    return warnings


def test_a_namespace_refuses_what_it_enforces_and_warns_of_the_rest(api: Any) -> None:
    label(api, enforce="baseline", warn="restricted", audit="restricted", audit_version="v1.25")
    host = api.pod("h", hostNetwork=True)
    with pytest.raises(Forbidden) as refused:
        api.create("pods", host)
    wanted = 'pods "h" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    assert refused.value.message == wanted
    warnings: list[str] = []
    notes: dict[str, str] = {}
    api.create("pods", api.pod(), warn=warnings.append, annotate=notes.__setitem__)
    assert len(warnings) == 1
    assert warnings[0].startswith(
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "main" must set '
        "securityContext.allowPrivilegeEscalation=false), unrestricted capabilities ("
    )
    assert notes[f"{PREFIX}enforce-policy"] == "baseline:latest"
    assert notes[f"{PREFIX}audit-violations"].startswith('would violate PodSecurity "restricted:v1.25"')
    warnings.clear()
    api.create("deployments", api.deployment(), warn=warnings.append)
    assert len(warnings) == 1 and warnings[0].startswith('would violate PodSecurity "restricted:latest"')


def test_a_namespace_that_becomes_stricter_warns_of_its_pods(api: Any) -> None:
    for name in "ab":
        api.create("pods", api.pod(name, hostNetwork=True))
    assert label(api, enforce="baseline") == [
        'existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 1 other pod): host namespaces",
    ]
    with pytest.raises(
        Invalid, match=r'enforce\]: Invalid value: "x": must be one of privileged, baseline, restricted'
    ):
        label(api, enforce="x")


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        ({}, {"enforce": "baseline"}, True),
        ({"enforce": "restricted"}, {"enforce": "baseline"}, False),
        ({"enforce": "restricted"}, {"enforce": "baseline", "enforce_version": "v1.30"}, True),
        ({"enforce": "baseline"}, {"enforce": "privileged", "enforce_version": "v1.30"}, False),
        ({"enforce": "baseline"}, {"enforce": "baseline"}, False),
    ],
)
def test_pods_are_looked_at_where_the_standard_is_not_only_relaxed(
    api: Any, before: Any, after: Any, warns: bool
) -> None:
    api.create("pods", api.pod(hostNetwork=True))
    label(api, **before)
    assert bool(label(api, **after)) is warns


def test_what_is_enforced_is_warned_of_unless_something_else_is(api: Any) -> None:
    for modes, level in (
        ({"enforce": "restricted"}, "restricted:latest"),
        ({"enforce": "restricted", "enforce_version": "v1.25"}, "restricted:v1.25"),
        ({"enforce": "baseline", "enforce_version": "v1.25", "warn_version": "v1.20"}, "baseline:v1.20"),
        ({"enforce": "restricted", "warn": "privileged"}, "privileged:latest"),
        ({"warn": "baseline"}, "baseline:latest"),
    ):
        assert str(level_of({PREFIX + key.replace("_", "-"): value for key, value in modes.items()}, "warn")) == level


def test_another_image_is_looked_at_and_another_label_is_not(api: Any) -> None:
    api.create("pods", api.pod(hostNetwork=True))
    label(api, enforce="baseline")
    api.change("pods", "web", lambda obj: obj["metadata"].update(labels={"a": "b"}))
    with pytest.raises(Forbidden, match=r"host namespaces \(hostNetwork=true\)"):
        api.change("pods", "web", lambda obj: obj["spec"]["containers"][0].update(image="nginx:2"))


def test_labels_that_were_wrong_before_may_stay_wrong_and_count_as_the_strictest(api: Any) -> None:
    labels = {PREFIX + "enforce": "x", PREFIX + "audit": "y"}
    api.get("namespaces", "default", "")["metadata"]["labels"] = labels
    api.change("namespaces", "default", lambda obj: obj["metadata"].update(annotations={"a": "b"}))
    assert [str(level_of(labels, mode)) for mode in ("enforce", "audit")] == ["restricted:latest", "privileged:latest"]
    notes: dict[str, str] = {}
    with pytest.raises(Forbidden, match='violates PodSecurity "restricted:latest"'):
        api.create("pods", api.pod(), annotate=notes.__setitem__)
    assert notes[f"{PREFIX}error"].startswith(
        f"Failed to parse policy: [metadata.labels[{PREFIX}enforce]: Invalid value"
    )
