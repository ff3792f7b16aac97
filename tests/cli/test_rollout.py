from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from steersman.cli.progress import Stage, Verdict, stage
from steersman.cluster.meta.resources import DEPLOYMENTS, REPLICA_SETS

if TYPE_CHECKING:
    from tests.cli.conftest import Steer

Obj = dict[str, Any]


def deployment(wanted: int, updated: int, total: int, available: int, *, observed: int = 1, reason: str = "") -> Obj:
    conditions = [{"type": "Progressing", "status": "False", "reason": reason}] if reason else []
    status = {
        "observedGeneration": observed,
        "updatedReplicas": updated,
        "replicas": total,
        "readyReplicas": available,
        "availableReplicas": available,
        "conditions": conditions,
    }
    metadata = {"name": "web", "generation": 1}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": wanted}, "status": status}


HEAD = 'Waiting for deployment "web" rollout to finish: '
STAGES = [
    (deployment(3, 0, 0, 0, observed=0), Verdict.RUNNING, "Waiting for deployment spec update to be observed..."),
    (deployment(3, 1, 3, 3), Verdict.RUNNING, HEAD + "1 out of 3 new replicas have been updated..."),
    (deployment(3, 3, 4, 3), Verdict.RUNNING, HEAD + "1 old replicas are pending termination..."),
    (deployment(3, 3, 3, 2), Verdict.RUNNING, HEAD + "2 of 3 updated replicas are available..."),
    (deployment(3, 3, 3, 3), Verdict.DONE, 'deployment "web" successfully rolled out'),
    (
        deployment(3, 1, 3, 3, reason="ProgressDeadlineExceeded"),
        Verdict.FAILED,
        'deployment "web" exceeded its progress deadline',
    ),
]


@pytest.mark.parametrize("obj,verdict,text", STAGES, ids=[row[2][-30:] for row in STAGES])
def test_stages_of_a_deployment(obj: Obj, verdict: Verdict, text: str) -> None:
    found = stage(obj)
    assert (found.verdict, found.text) == (verdict, text)


def test_stages_of_other_workloads() -> None:
    daemons = {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 1}
    obj: Obj = {"kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {}, "status": daemons}
    assert stage(obj).text == 'Waiting for daemon set "d" rollout to finish: 1 of 3 updated pods are available...'
    obj = {"kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}
    assert stage(obj) == Stage(Verdict.RUNNING, "Waiting for 1 pods to be ready...", 1, 2)


def set_status(steer: Steer, **counts: int) -> None:
    live = steer.wait(steer.client.get(DEPLOYMENTS, "web", steer.namespace))
    live["status"] = {"observedGeneration": live["metadata"]["generation"], **counts}
    steer.wait(steer.client.update(DEPLOYMENTS, live, subresource="status"))


def test_status_follows_a_rollout_to_its_end(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i", "-r", "2")
    set_status(steer, replicas=2, updatedReplicas=1)
    out = []
    following = threading.Thread(target=lambda: out.append(steer("rollout", "status", "deployment/web")))
    following.start()
    set_status(steer, replicas=2, updatedReplicas=2, readyReplicas=1, availableReplicas=1)
    set_status(steer, replicas=2, updatedReplicas=2, readyReplicas=2, availableReplicas=2)
    following.join(20)
    assert out and out[0].splitlines()[-1] == 'deployment "web" successfully rolled out'


def test_status_ends_with_its_time_or_at_once(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i")
    assert "timed out" in steer.fails("rollout", "status", "deploy/web", "--timeout=200ms")
    assert "to be observed" in steer("rollout", "status", "deploy/web", "--no-watch")
    steer("create", "cm", "c")
    assert "no rollouts of ConfigMap" in steer.fails("rollout", "status", "cm/c")


def revision(steer: Steer, number: int, image: str) -> None:
    """What the deployment controller would have made."""
    live = steer.wait(steer.client.get(DEPLOYMENTS, "web", steer.namespace))
    labels = {"app": "web", "pod-template-hash": f"h{number}"}
    template = {**live["spec"]["template"], "metadata": {"labels": labels}}
    template["spec"] = {**template["spec"], "containers": [{"name": "web", "image": image}]}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": live["metadata"]["uid"]}
    annotations = {"deployment.kubernetes.io/revision": str(number), "kubernetes.io/change-cause": f"image {image}"}
    obj = {
        "metadata": {
            "name": f"web-h{number}",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    steer.wait(steer.client.create(REPLICA_SETS, obj, steer.namespace))


def image_of(steer: Steer) -> str:
    found: str = json.loads(steer("get", "deploy", "web", "-o", "json"))["spec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    return found


def test_history_and_undo(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=web:3")
    assert "no rollout history" in steer.fails("rollout", "undo", "deploy/web")
    for number in (1, 2, 3):
        revision(steer, number, f"web:{number}")
    lines = steer("rollout", "history", "deploy/web").splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["REVISION", "CHANGE-CAUSE"],
        ["1", "image", "web:1"],
        ["2", "image", "web:2"],
    ]
    assert "image: web:2" in steer("rollout", "history", "deploy/web", "--revision=2")
    assert steer("rollout", "undo", "deploy/web") == "deployment.apps/web rolled back\n"
    assert image_of(steer) == "web:2"
    assert steer("rollout", "undo", "deploy/web", "--to-revision=1") == "deployment.apps/web rolled back\n"
    assert image_of(steer) == "web:1"
    labels = steer("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.labels}")
    assert labels == '{"app":"web"}'
    assert "unable to find" in steer.fails("rollout", "undo", "deploy/web", "--to-revision=9")


def test_pause_resume_restart(steer: Steer) -> None:
    steer("create", "deployment", "web", "--image=i")
    assert steer("rollout", "pause", "deploy/web") == "deployment.apps/web paused\n"
    assert "already paused" in steer.fails("rollout", "pause", "deploy/web")
    assert "paused" in steer.fails("rollout", "restart", "deploy/web")
    assert "paused" in steer.fails("rollout", "undo", "deploy/web")
    assert steer("rollout", "resume", "deploy/web") == "deployment.apps/web resumed\n"
    assert "is not paused" in steer.fails("rollout", "resume", "deploy/web")
    assert steer("rollout", "restart", "deploy/web") == "deployment.apps/web restarted\n"
    assert "restartedAt" in steer("get", "deploy", "web", "-o", "yaml")
