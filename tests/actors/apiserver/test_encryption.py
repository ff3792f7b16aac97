"""Secrets in the store: encrypted there, plain to clients; keys changed while the server runs."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steersman.actors.apiserver.sealed import Undecryptable
from steersman.cluster.auth.encryption import render_encryption
from steersman.cluster.store.values import Range

SECRETS = "/api/v1/namespaces/default/secrets"
FIRST, SECOND = bytes(32), bytes(range(32))


def config(path: Path, *named: tuple[str, bytes]) -> Path:
    rows = [f"      - {{name: {name}, secret: {base64.b64encode(secret).decode()}}}\n" for name, secret in named]
    text = render_encryption("x", FIRST)
    start, end = text.index("      - {name"), text.index("  - identity")
    path.write_text(text[:start] + "".join(rows) + text[end:])
    return path


async def stored(api: Any, name: str) -> bytes:
    result = await api.store.range(Range(key=f"/registry/core/secrets/default/{name}".encode()))
    return bytes(result.kvs[0].value)


async def put_anew(api: Any, name: str) -> None:
    await api.ok("PUT", f"{SECRETS}/{name}", await api.ok("GET", f"{SECRETS}/{name}"))


def secret(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "stringData": {"password": "hunter2-hunter2"}}


async def test_a_secret_is_ciphertext_in_the_store_and_plain_in_every_answer(
    make_api: Any, make_store: Any, tmp_path: Path
) -> None:
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, encryption=config(tmp_path / "e.yaml", ("k1", FIRST)))
    watch = await api.watch(f"{SECRETS}?watch=1")
    await api.ok("POST", SECRETS, secret("a"))
    value = await stored(api, "a")
    assert value.startswith(b"k8s:enc:secretbox:v1:k1:") and b"hunter2" not in value and b"password" not in value
    encoded = base64.b64encode(b"hunter2-hunter2").decode()
    assert (await api.ok("GET", f"{SECRETS}/a"))["data"] == {"password": encoded}
    assert (await watch.next())[1]["data"] == {"password": encoded}
    await watch.close()
    await api.ok(
        "PATCH", f"{SECRETS}/a", {"metadata": {"labels": {"x": "y"}}}, content_type="application/merge-patch+json"
    )
    assert (await stored(api, "a")).startswith(b"k8s:enc:secretbox:v1:k1:")
    await api.server.stop()
    again = await make_api(store, encryption=tmp_path / "e.yaml")
    listed = await again.ok("GET", f"{SECRETS}?limit=500")
    assert [row["data"] for row in listed["items"]] == [{"password": encoded}]
    await again.server.stop()
    await store.stop()


async def test_keys_are_changed_by_writing_what_has_not_changed(make_api: Any, make_store: Any, tmp_path: Path) -> None:
    store = make_store(time.time)
    await store.start()
    plain = await make_api(store)
    await plain.ok("POST", SECRETS, secret("a"))
    await plain.server.stop()
    api = await make_api(store, encryption=config(tmp_path / "e.yaml", ("k1", FIRST)))
    assert (await stored(api, "a")).startswith(b"{"), "written before there was a key"
    await put_anew(api, "a")
    assert (await stored(api, "a")).startswith(b"k8s:enc:secretbox:v1:k1:")
    before = await stored(api, "a")
    await put_anew(api, "a")
    assert await stored(api, "a") == before, "a write that changes nothing writes nothing"
    config(tmp_path / "e.yaml", ("k2", SECOND), ("k1", FIRST))
    api.server._sealed.reload()
    await api.ok("GET", f"{SECRETS}/a")
    await put_anew(api, "a")
    assert (await stored(api, "a")).startswith(b"k8s:enc:secretbox:v1:k2:")
    config(tmp_path / "e.yaml", ("k2", SECOND))
    await api.server.stop()
    last = await make_api(store, encryption=tmp_path / "e.yaml")
    await last.ok("GET", f"{SECRETS}/a")
    await last.server.stop()
    await store.stop()


async def test_a_server_without_the_key_does_not_start_rather_than_hide_secrets(
    make_api: Any, make_store: Any, tmp_path: Path
) -> None:
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, encryption=config(tmp_path / "e.yaml", ("k1", FIRST)))
    await api.ok("POST", SECRETS, secret("a"))
    await api.server.stop()
    with pytest.raises(Undecryptable, match='unable to transform key "/registry/core/secrets/default/a"'):
        await make_api(store, encryption=config(tmp_path / "e.yaml", ("k1", SECOND)))
    await store.stop()


async def test_a_key_that_another_server_uses_first_is_read_from_the_file_when_it_is_met(
    make_api: Any, make_store: Any, tmp_path: Path
) -> None:
    store = make_store(time.time)
    await store.start()
    path = config(tmp_path / "e.yaml", ("k1", FIRST))
    behind = await make_api(store, encryption=path)
    ahead = await make_api(store, encryption=config(path, ("k2", SECOND), ("k1", FIRST)))
    await ahead.ok("POST", SECRETS, secret("a"))
    await behind.ok("GET", f"{SECRETS}/a")
    path.write_text("nonsense")
    behind.server._sealed.reload()
    await behind.ok("POST", SECRETS, secret("b"))
    assert (await stored(behind, "b")).startswith(b"k8s:enc:secretbox:v1:k2:"), "the last good configuration stays"
    for api in (behind, ahead):
        await api.server.stop()
    await store.stop()


async def test_keys_change_under_requests(make_api: Any, make_store: Any, tmp_path: Path) -> None:
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, encryption=config(tmp_path / "e.yaml", ("k1", FIRST), ("k2", SECOND)))
    stopping, used = False, Counter[str]()

    async def use(name: str) -> None:
        await api.ok("POST", SECRETS, secret(name))
        while not stopping:
            await put_anew(api, name)
            await api.ok("GET", f"{SECRETS}/{name}")
            await api.ok("GET", SECRETS)
            used[name] += 1
            await asyncio.sleep(0)

    using = [asyncio.create_task(use(f"s{number}")) for number in range(4)]
    async with asyncio.timeout(20):
        for round_ in range(20):
            before = min(used.values(), default=0)
            while min(used.values(), default=0) < before + 2:  # noqa: ASYNC110  (used by whom the test starts)
                await asyncio.sleep(0)
            keys = (("k1", FIRST), ("k2", SECOND))
            config(tmp_path / "e.yaml", *(keys if round_ % 2 else reversed(keys)))
            assert api.server._sealed.reload()
    stopping = True
    await asyncio.gather(*using)
    await api.server.stop()
    await store.stop()
