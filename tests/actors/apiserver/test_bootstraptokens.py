"""Bootstrap tokens in a running server: `cluster-info` is published, signed and readable by anybody; tokens expire."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from steersman.cluster.meta.times import format_time

SECRETS = "/api/v1/namespaces/kube-system/secrets"
INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"


def token(**more: str) -> Any:
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", **more}
    return {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": data}


async def test_the_info_is_signed_for_a_token_until_that_is_gone(api: Any) -> None:
    info = {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "clusters: []"}}
    await api.ok("POST", INFO.rpartition("/")[0], info)
    watch = await api.watch(f"{INFO.rpartition('/')[0]}?watch=1&fieldSelector=metadata.name%3Dcluster-info")
    assert (await watch.next())[0] == "ADDED"
    await api.ok("POST", SECRETS, token())
    assert "jws-kubeconfig-abcdef" in (await watch.next())[1]["data"]
    shown = await api.ok("GET", INFO, user=None)
    assert "jws-kubeconfig-abcdef" in shown["data"], "anybody may read it"
    await api.refused(401, "GET", INFO.rpartition("/")[0], user=None)
    await api.refused(403, "DELETE", INFO, user=None)
    await api.ok("DELETE", f"{SECRETS}/bootstrap-token-abcdef")
    assert (await watch.next())[1]["data"] == {"kubeconfig": "clusters: []"}
    await watch.close()


async def test_an_expired_token_is_removed(api: Any) -> None:
    watch = await api.watch(f"{SECRETS}?watch=1")
    await api.ok("POST", SECRETS, token(expiration=format_time(time.time() + 1.2)))
    events = []
    async with asyncio.timeout(10):
        while not events or events[-1] != "DELETED":
            events.append((await watch.next())[0])
    await watch.close()
    assert events == ["ADDED", "DELETED"]


def test_a_server_publishes_where_it_is(remote: Any) -> None:
    text = remote.kubectl("get", "configmap", "cluster-info", "-n", "kube-public", "-o", "jsonpath={.data.kubeconfig}")
    assert f"https://127.0.0.1:{remote.port}" in text and "certificate-authority-data" in text
