"""Secrets whose key a plugin keeps: a real process on a unix socket, its key changed, the plugin away, and a reload."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.actors.apiserver.test_encryption import SECRETS, put_anew, secret, stored

from steersman.cluster.auth import envelope
from steersman.cluster.store.values import Range

PREFIX = b"k8s:enc:kms:v2:plug:"


class Plugin:
    """A running plugin."""

    def __init__(self, directory: Path) -> None:
        self.socket, self._state = directory / "kms.sock", directory / "state.json"
        self.says()
        program = Path(__file__).with_name("kmsplugin.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(self.socket), str(self._state)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def says(self, key: str = "k1", healthz: str = "ok") -> None:
        self._state.write_text(json.dumps({"key": key, "healthz": healthz}))

    def calls(self, what: str) -> int:
        path = self._state.with_suffix(".calls")
        return path.read_text().splitlines().count(what) if path.exists() else 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def config(self, path: Path, *more: Any) -> Path:
        kms = {"kms": {"apiVersion": "v2", "name": "plug", "endpoint": f"unix://{self.socket}", "timeout": "2s"}}
        return write(path, kms, *more)


def write(path: Path, *providers: Any) -> Path:
    rows = [{"resources": ["secrets"], "providers": list(providers)}]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
    path.write_text(yaml.safe_dump({**kind, "resources": rows}))
    return path


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    found = Plugin(tmp_path)
    yield found
    found.stop()


async def key_of(api: Any, name: str) -> str:
    value = await stored(api, name)
    assert value.startswith(PREFIX) and b"hunter2" not in value
    return envelope.decode(value.removeprefix(PREFIX)).key_id


async def test_a_plugin_keeps_the_key_of_secrets_and_changes_it(
    make_api: Any, make_store: Any, tmp_path: Path, plugin: Plugin
) -> None:
    store = make_store(time.time)
    await store.start()
    config = plugin.config(tmp_path / "e.yaml", {"identity": {}})
    api = await make_api(store, encryption=config)
    for name in ("a", "b"):
        await api.ok("POST", SECRETS, secret(name))
    assert await key_of(api, "a") == "k1"
    await api.server.stop()
    assert (plugin.calls("encrypt"), plugin.calls("decrypt")) == (1, 0)
    again = await make_api(store, encryption=config)
    assert len((await again.ok("GET", SECRETS))["items"]) == 2
    assert plugin.calls("decrypt") == 1, "one seed is opened once"
    before = await stored(again, "a")
    await put_anew(again, "a")
    assert await stored(again, "a") == before, "another seed of the same key is as good"
    plugin.says(key="k2")
    await again.server._sealed._plugins.probe()
    await put_anew(again, "a")
    assert (await key_of(again, "a"), await key_of(again, "b")) == ("k2", "k1")
    assert len((await again.ok("GET", SECRETS))["items"]) == 2
    await again.server.stop()
    await store.stop()


async def test_a_plugin_that_is_not_well_shows_in_the_health_and_writes_end_later(
    make_api: Any, make_store: Any, tmp_path: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, encryption=plugin.config(tmp_path / "e.yaml"))
    assert (await api.call("GET", "/healthz/kms-providers")).status == 200
    plugin.says(healthz="the token is locked")
    probe = api.server._sealed._plugins.probe
    await probe()
    page = (await api.call("GET", "/metrics")).body.decode()
    method = 'grpc_status_code="OK",method_name="/v2.KeyManagementService/Status",provider_name="plug"'
    assert f"apiserver_envelope_encryption_kms_operations_latency_seconds_count{{{method}}} " in page
    answer = await api.call("GET", "/readyz/kms-providers")
    assert answer.status == 500 and b"the token is locked" in answer.body
    answer = await api.call("GET", "/healthz?verbose=1")
    assert answer.status == 500 and b"[-]kms-providers failed: reason withheld" in answer.body
    assert (await api.call("GET", "/healthz?exclude=kms-providers")).status == 200
    await api.refused(404, "GET", "/healthz/kms-provider-0")
    await api.ok("POST", SECRETS, secret("a"))
    monkeypatch.setattr(envelope, "WRITER_AGE_MAX_S", 0.0)
    await probe()
    refused = await api.refused(500, "POST", SECRETS, secret("b"))
    assert refused["message"].startswith("Internal error occurred: the KMS plugin plug is not healthy")
    await api.ok("GET", f"{SECRETS}/a")
    plugin.says()
    await probe()
    await api.ok("POST", SECRETS, secret("b"))
    await api.server.stop()
    await store.stop()


async def test_a_plugin_comes_and_goes_with_the_file(
    make_api: Any, make_store: Any, tmp_path: Path, plugin: Plugin
) -> None:
    store = make_store(time.time)
    await store.start()
    path = write(tmp_path / "e.yaml", {"identity": {}})
    api = await make_api(store, encryption=path)
    await api.ok("POST", SECRETS, secret("a"))
    plugin.config(path, {"identity": {}})
    assert api.server._sealed.reload()
    await api.server._sealed._plugins.probe()
    await put_anew(api, "a")
    assert await key_of(api, "a") == "k1"
    write(path, {"identity": {}}, yaml.safe_load(path.read_text())["resources"][0]["providers"][0])
    assert api.server._sealed.reload()
    assert plugin.calls("encrypt") == 1, "what is known of a plugin stays known"
    await put_anew(api, "a")
    result = await store.range(Range(key=b"/registry/core/secrets/default/a"))
    assert result.kvs[0].value.startswith(b"{")
    await api.server.stop()
    await store.stop()
