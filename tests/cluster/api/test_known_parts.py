"""What was found to be right is not looked at again, and nothing that is wrong hides behind it."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.rules.known import PART_BYTES_MAX, is_known_right
from steersman.cluster.api.rules.pods import validate_spec
from steersman.cluster.meta.errors import Cause


def test_the_rules_of_a_part_are_asked_once() -> None:
    asked = []

    def rules(path: str, part: Any) -> list[Cause]:
        asked.append(part)
        return [] if part["right"] else [Cause(path, "wrong")]

    for _ in range(2):
        assert is_known_right(rules, {"right": True})
        assert not is_known_right(rules, {"right": False})
    assert asked == [{"right": True}, {"right": False}]
    assert not is_known_right(rules, {"right": True, "text": "x" * PART_BYTES_MAX})


def test_a_container_that_was_right_in_another_pod_is_held_to_the_rules_of_its_own() -> None:
    main = {
        "name": "main", "image": "web", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }  # fmt: skip
    spec = {"containers": [main], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    assert validate_spec("spec", {**spec, "volumes": [{"name": "data", "emptyDir": {}}]}, pod={"name": "web"}) == []
    found = validate_spec("spec", {**spec, "containers": [main, main]}, pod={"name": "web"})
    assert [(cause.field, cause.message) for cause in found] == [
        ("spec.containers[0].volumeMounts[0].name", 'Not found: "data"'),
        ("spec.containers[1].volumeMounts[0].name", 'Not found: "data"'),
        ("spec.containers[1].name", 'Duplicate value: "main"'),
    ]
