from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.errors import Conflict, Forbidden, Invalid


def running(api: Any, name: str = "web", **spec: Any) -> None:
    api.create("pods", api.pod(name, nodeName="n1", **spec))
    api.change("pods", name, lambda obj: obj.update(status={"phase": "Running"}), "status")


def test_a_pod_on_a_node_waits_for_its_grace_and_goes_at_grace_zero(api: Any) -> None:
    running(api)
    deletion = api.delete("pods", "web")
    assert not deletion.remove
    meta = deletion.obj["metadata"]
    assert (meta["deletionGracePeriodSeconds"], meta["deletionTimestamp"]) == (30, "2025-10-09T08:53:50Z")
    assert meta["generation"] == 2
    assert not api.delete("pods", "web").changed
    shorter = api.delete("pods", "web", {"gracePeriodSeconds": 5}).obj["metadata"]
    assert (shorter["deletionGracePeriodSeconds"], shorter["deletionTimestamp"]) == (5, "2025-10-09T08:53:25Z")
    assert api.delete("pods", "web", {"gracePeriodSeconds": 60}).obj["metadata"] == shorter
    assert api.delete("pods", "web", {"gracePeriodSeconds": 0}).remove


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_or_unscheduled_pod_goes_at_once(api: Any, phase: str) -> None:
    api.create("pods", api.pod("pending"))
    assert api.delete("pods", "pending").remove
    running(api)
    api.change("pods", "web", lambda obj: obj.update(status={"phase": phase}), "status")
    assert api.delete("pods", "web").remove


def test_an_object_with_finalizers_goes_when_the_last_is_taken_off(api: Any) -> None:
    api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/wait"]}})
    assert not api.delete("configmaps", "a").remove
    assert api.get("configmaps", "a")["metadata"]["deletionTimestamp"]
    with pytest.raises(Invalid, match="no new finalizers can be added if the object is being deleted"):
        api.patch("configmaps", "a", {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}})
    api.patch("configmaps", "a", {"metadata": {"finalizers": None}})
    assert api.row("configmaps").key("default", "a") not in api.objects


@pytest.mark.parametrize(
    ("options", "finalizers"),
    [
        ({"propagationPolicy": "Foreground"}, ["foregroundDeletion"]),
        ({"propagationPolicy": "Orphan"}, ["orphan"]),
        ({"orphanDependents": True}, ["orphan"]),
        ({"propagationPolicy": "Background"}, []),
        (None, []),
    ],
)
def test_propagation_is_a_matter_of_finalizers(api: Any, options: Any, finalizers: list[str]) -> None:
    api.create("deployments", api.deployment())
    deletion = api.delete("deployments", "web", options)
    assert deletion.remove is not bool(finalizers)
    assert deletion.obj["metadata"].get("finalizers", []) == finalizers


def test_a_job_orphans_its_pods_unless_told_otherwise_and_says_so(api: Any) -> None:
    job = {"metadata": {"name": "j"}, "spec": {"template": api.template(restartPolicy="Never")}}
    api.create("jobs", job)
    deletion = api.delete("jobs", "j")
    assert deletion.obj["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default" in deletion.warnings[0]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"preconditions": {"uid": "other"}}, Conflict),
        ({"preconditions": {"resourceVersion": "0"}}, Conflict),
        ({"propagationPolicy": "Sideways"}, Invalid),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, Invalid),
    ],
)
def test_a_precondition_or_policy_that_does_not_hold_is_refused(api: Any, options: Any, error: type[Exception]) -> None:
    api.create("configmaps", {"metadata": {"name": "a"}})
    with pytest.raises(error):
        api.delete("configmaps", "a", options)


def test_a_namespace_goes_when_its_own_finalizer_has_been_taken_off(api: Any) -> None:
    api.create("namespaces", {"metadata": {"name": "team"}})
    deletion = api.delete("namespaces", "team")
    assert (deletion.remove, deletion.obj["status"]["phase"]) == (False, "Terminating")
    found = api.change("namespaces", "team", lambda obj: obj.update(spec={}))
    assert found["spec"]["finalizers"] == ["kubernetes"]
    api.change("namespaces", "team", lambda obj: obj["spec"].update(finalizers=[]), "finalize")
    assert api.row("namespaces").key("", "team") not in api.objects
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        api.delete("namespaces", "default")
