"""kopf's operators where their own tests do not lead: admission webhooks, and peers that give way to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from steersman.runtime.pki import Authority, Identity
from tests.compat.python.conftest import Place
from tests.e2e.conftest import wait_for

_GROUP = ("kopf.dev", "v1", "default", "kopfexamples")

#: the certificate of kopf's example comes from a library that does not know today's OpenSSL
_SERVER = """
import kopf

@kopf.on.startup()
def serve(settings, **_):
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", cafile="{folder}/ca.crt", certfile="{folder}/hooks.crt", pkeyfile="{folder}/hooks.key"
    )
"""
_PEER = """
import kopf

@kopf.on.create("kopfexamples")
def create_fn(**_):
    return "{name}"
"""


class Operators:
    """Operator processes over one cluster."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.folder = folder
        self._environment = {**place.environment, "HOME": str(folder)}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *words: str) -> Callable[[], str]:
        """Starts one; returns what reads its log."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "kopf", "run", "--verbose", *words]
            self._running.append(subprocess.Popen(command, env=self._environment, stdout=out, stderr=out))
        return log.read_text

    def stop(self, index: int = -1) -> None:
        process = self._running.pop(index)
        process.terminate()
        process.wait(20)

    def stop_all(self) -> None:
        while self._running:
            self.stop()


@pytest.fixture
def api(simulated: Place, kopf_source: Path | str) -> Iterator[client.ApiClient]:
    if isinstance(kopf_source, str):
        pytest.skip(kopf_source)
    texts = [(kopf_source / path).read_text() for path in ("examples/crd.yaml", "peering.yaml")]
    documents = [row for text in texts for row in yaml.safe_load_all(text) if row]
    definitions = [row for row in documents if row["kind"] == "CustomResourceDefinition"]
    names = {row["metadata"]["name"] for row in definitions}
    with config.new_client_from_config(str(simulated.kubeconfig)) as found:
        extensions = client.ApiextensionsV1Api(found)
        for row in definitions:
            extensions.create_custom_resource_definition(row)
        for row in documents:
            if row["kind"] == "KopfPeering":
                client.CustomObjectsApi(found).create_namespaced_custom_object(*_GROUP[:3], "kopfpeerings", row)
        yield found
        for name in names:
            extensions.delete_custom_resource_definition(name)
        wait_for(
            "no definitions",
            lambda: not names & {row.metadata.name for row in extensions.list_custom_resource_definition().items},
        )


@pytest.fixture
def operators(simulated: Place, tmp_path: Path) -> Iterator[Operators]:
    found = Operators(simulated, tmp_path)
    yield found
    found.stop_all()


def example(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"somelabel": "somevalue"}
    return {
        "apiVersion": "kopf.dev/v1",
        "kind": "KopfExample",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def test_an_operator_serves_admission_webhooks_that_it_registers_itself(
    api: client.ApiClient, operators: Operators, kopf_source: Path
) -> None:
    authority = Authority(operators.folder)
    authority.ensure()
    authority.issue(Identity(file="hooks", common_name="hooks", hosts=("127.0.0.1",)))
    (operators.folder / "server.py").write_text(_SERVER.format(folder=operators.folder))
    shipped = kopf_source / "examples" / "17-admission" / "example.py"
    log = operators.start("hooks", "--standalone", "-n", "default", str(shipped), str(operators.folder / "server.py"))
    hooks = client.AdmissionregistrationV1Api(api)

    def registered() -> bool:
        rows = [
            *hooks.list_validating_webhook_configuration().items,
            *hooks.list_mutating_webhook_configuration().items,
        ]
        return {row.metadata.name: bool(row.webhooks) for row in rows} == {"auto.kopf.dev": True} and len(rows) == 2

    wait_for("webhooks of both sorts", registered)
    objects = client.CustomObjectsApi(api)

    def injected() -> bool:
        made = objects.create_namespaced_custom_object(*_GROUP, example("fine", field="value"), dry_run="All")
        return bool(made["spec"].get("injected") == 123)

    wait_for("webhooks that are asked", injected)
    made = objects.create_namespaced_custom_object(*_GROUP, example("fine", field="value"))
    assert made["spec"] == {"field": "value", "injected": 123}
    refusals = {}
    for field in ("wrong", "not-allowed"):
        with pytest.raises(ApiException) as refused:
            objects.create_namespaced_custom_object(*_GROUP, example("bad", field=field))
        refusals[field] = (refused.value.status, json.loads(refused.value.body)["message"])
    assert refusals == {
        "wrong": (500, 'admission webhook "validate1.auto.kopf.dev" denied the request: '
                       "Meh! I don't like it. Change the field."),
        "not-allowed": (555, 'admission webhook "validate2.spec.field.auto.kopf.dev" denied the request: '
                             "I'm too lazy anyway. Go away!"),
    }, log()  # fmt: skip
    objects.delete_namespaced_custom_object(*_GROUP, "fine")
    operators.stop()
    wait_for("webhooks without entries", lambda: not registered())


def test_of_two_peers_the_one_of_higher_priority_works_until_it_leaves(
    api: client.ApiClient, operators: Operators
) -> None:
    objects = client.CustomObjectsApi(api)
    for name in ("low", "high"):
        (operators.folder / f"{name}.py").write_text(_PEER.format(name=name))
    low = operators.start("low", "--peering=default", "--priority=1", "-n", "default", str(operators.folder / "low.py"))
    wait_for("an operator", lambda: "Starting the watch-stream for kopfexamples" in low())
    operators.start("high", "--peering=default", "--priority=2", "-n", "default", str(operators.folder / "high.py"))
    wait_for("that it freezes", lambda: "Freezing operations" in low() or "Pausing operations" in low())

    def handled_by(name: str) -> str:
        found = objects.get_namespaced_custom_object(*_GROUP, name)
        return str(found.get("status", {}).get("create_fn", ""))

    objects.create_namespaced_custom_object(*_GROUP, example("one"))
    assert wait_for("its handler", lambda: handled_by("one")) == "high"
    operators.stop()
    objects.create_namespaced_custom_object(*_GROUP, example("two"))
    assert wait_for("the other's handler", lambda: handled_by("two")) == "low"
    for name in ("one", "two"):
        objects.delete_namespaced_custom_object(*_GROUP, name)
