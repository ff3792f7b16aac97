"""The API's own OpenAPI documents as a source of requests: whatever they allow, no answer is a server error.

Every operation of every group is asked with invented parameters and bodies (JSON and YAML), in a cluster whose objects
the same requests make, change and delete. Answers must fit the schemas that the documents promise.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from steersman import testing

#: requests invented for each operation; more by STEERSMAN_FUZZ_EXAMPLES
EXAMPLES = int(os.environ.get("STEERSMAN_FUZZ_EXAMPLES", "2"))
#: seconds for the requests of one group
GROUP_S_MAX = 240 * EXAMPLES
#: the namespace exists, so that requests get further than to its absence; a watch is no JSON document; a proxy is asked
#: for Services that have nobody behind them, such as the one of the API when its Endpoints were deleted
_CONFIG = """
[parameters]
"path.namespace" = "default"
"query.watch" = "false"

[[operations]]
include-path-regex = "/services/.*/proxy"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""
GROUPS = [
    "api/v1", "apis/admissionregistration.k8s.io/v1", "apis/apiextensions.k8s.io/v1", "apis/apiregistration.k8s.io/v1",
    "apis/apps/v1", "apis/authentication.k8s.io/v1", "apis/authorization.k8s.io/v1", "apis/autoscaling/v1",
    "apis/autoscaling/v2", "apis/batch/v1", "apis/certificates.k8s.io/v1", "apis/coordination.k8s.io/v1",
    "apis/discovery.k8s.io/v1", "apis/events.k8s.io/v1", "apis/flowcontrol.apiserver.k8s.io/v1",
    "apis/networking.k8s.io/v1", "apis/node.k8s.io/v1", "apis/policy/v1", "apis/rbac.authorization.k8s.io/v1",
    "apis/resource.k8s.io/v1", "apis/scheduling.k8s.io/v1", "apis/storage.k8s.io/v1",
]  # fmt: skip


class Target:
    """A cluster, and the files with which it is asked."""

    def __init__(self, cluster: testing.Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        place, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = place["server"]
        for name, data in (
            ("ca", place["certificate-authority-data"]),
            ("crt", user["client-certificate-data"]),
            ("key", user["client-key-data"]),
        ):
            (folder / name).write_bytes(base64.b64decode(data))
        (folder / "schemathesis.toml").write_text(_CONFIG)

    def document(self, group: str) -> bytes:
        async def read() -> bytes:
            answer = await self.cluster.client.request("GET", f"/openapi/v3/{group}")
            assert answer.status == 200 and isinstance(answer.body, bytes)
            return answer.body

        return self.cluster.run(read())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with testing.cluster() as cluster:
        yield Target(cluster, tmp_path_factory.mktemp("openapi"))


@pytest.mark.parametrize("group", GROUPS)
def test_no_request_that_the_documents_allow_ends_in_a_server_error(target: Target, group: str) -> None:
    path = target.folder / (group.replace("/", "-") + ".json")
    path.write_bytes(target.document(group))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", str(path), "--url", target.server,
        "--request-cert", "crt", "--request-cert-key", "key", "--tls-verify", "ca", "--request-timeout", "30",
        "--checks", "not_a_server_error,response_schema_conformance", "--phases", "fuzzing",
        "--max-examples", str(EXAMPLES), "--generation-deterministic",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=target.folder, capture_output=True, text=True, timeout=GROUP_S_MAX, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
