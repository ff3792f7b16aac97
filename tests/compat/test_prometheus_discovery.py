"""Prometheus' service discovery: finds what runs in a cluster by watching its API, and scrapes the API server.

Debian's own prometheus is built without Kubernetes; VictoriaMetrics reads the same configuration and has a discovery of
its own in Go.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from steersman import testing
from steersman.cluster.meta.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    DEPLOYMENTS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from tests.e2e.conftest import wait_for

pytestmark = pytest.mark.skipif(shutil.which("victoria-metrics") is None, reason="needs victoria-metrics")

SPACE = "default"
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
ROLES = ("node", "pod", "service", "endpoints", "endpointslice", "ingress")
#: what a scraper may do, as the charts of Prometheus grant it
RULES = [
    {"apiGroups": [""], "resources": ["nodes", "pods", "services", "endpoints"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["get", "list", "watch"]},
    {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
]
WEB = {
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {"prometheus.io/scrape": "true"}},
            "spec": {
                "containers": [{"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 80}]}]
            },
        },
    },
}
DOOR = {
    "metadata": {"name": "door"},
    "spec": {
        "rules": [
            {
                "host": "web.example.org",
                "http": {
                    "paths": [
                        {
                            "path": "/shop",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "web", "port": {"name": "http"}}},
                        }
                    ]
                },
            }
        ]
    },
}
SERVICE = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}}


class Scraper:
    """A running server, asked over its own API."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        try:
            self._ask("/api/v1/status/buildinfo")
        except OSError:
            return False
        return True

    def found(self, role: str) -> list[dict[str, str]]:
        """The labels of what is discovered by a role, before they are relabelled."""
        active = self._ask("/api/v1/targets?state=active")["activeTargets"]
        return [one["discoveredLabels"] for one in active if one["discoveredLabels"]["job"] == role]

    def health(self, job: str) -> list[str]:
        active = self._ask("/api/v1/targets?state=active")["activeTargets"]
        return [one["health"] for one in active if one["labels"]["job"] == job]

    def value(self, query: str) -> list[Any]:
        return self._ask(f"/api/v1/query?query={urllib.parse.quote(query)}")["result"]  # type: ignore[no-any-return]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def credentials(cluster: testing.Cluster, folder: Path) -> dict[str, Any]:
    """How a server in a pod would reach the API: by the token of its service account and the authority."""
    create = cluster.client.create
    meta = {"metadata": {"name": "scraper"}}
    cluster.run(create(SERVICE_ACCOUNTS, meta, SPACE))
    cluster.run(create(CLUSTER_ROLES, {**meta, "rules": RULES}))
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scraper"}
    subject = {"kind": "ServiceAccount", "namespace": SPACE, "name": "scraper"}
    cluster.run(create(CLUSTER_ROLE_BINDINGS, {**meta, "roleRef": role, "subjects": [subject]}))
    kubectl = shutil.which("kubectl")
    assert kubectl is not None
    command = [kubectl, "--kubeconfig", str(cluster.kubeconfig), "create", "token", "scraper", "-n", SPACE]
    token = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    (folder / "token").write_text(token)
    given = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    (folder / "ca.crt").write_bytes(base64.b64decode(given["certificate-authority-data"]))
    return {
        "server": given["server"],
        "authorization": {"credentials_file": str(folder / "token")},
        "tls_config": {"ca_file": str(folder / "ca.crt")},
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[testing.Cluster]:
    with testing.cluster(nodes=2) as running:
        yield running


@pytest.fixture(scope="module")
def scraper(cluster: testing.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraper]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    folder = tmp_path_factory.mktemp("scraper")
    access = credentials(cluster, folder)
    server = access.pop("server")
    # of what is discovered only the labels are looked at: a simulated node serves nothing
    jobs: list[dict[str, Any]] = [
        {
            "job_name": role,
            "scrape_interval": "1h",
            "kubernetes_sd_configs": [{"role": role, "api_server": server, **access}],
        }
        for role in ROLES
    ]
    address = server.removeprefix("https://")
    jobs.append(
        {
            "job_name": "apiserver",
            "scheme": "https",
            "scrape_interval": "200ms",
            "scrape_timeout": "200ms",
            **access,
            "static_configs": [{"targets": [address]}],
        }
    )
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "victoria-metrics",
                f"-promscrape.config={folder / 'prometheus.yml'}",
                "-promscrape.kubernetesSDCheckInterval=500ms",
                "-search.latencyOffset=0s",
                f"-storageDataPath={folder / 'data'}",
                f"-httpListenAddr=127.0.0.1:{port}",
            ],
            stderr=log,
        )
    try:
        running = Scraper(port)
        wait_for("the scraper", running.ready)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def all_of(role: str, scraper: Scraper, key: str, wanted: set[str]) -> Callable[[], bool]:
    """Whether what is discovered by a role has just these values of a label."""
    label = f"__meta_kubernetes_{key}"
    return lambda: {labels[label] for labels in scraper.found(role) if label in labels} == wanted


def test_what_runs_is_found_by_every_role_and_forgotten_when_it_goes(
    cluster: testing.Cluster, scraper: Scraper
) -> None:
    create, delete = cluster.client.create, cluster.client.delete
    wait_for("nodes", all_of("node", scraper, "node_name", {"node-0", "node-1"}))
    cluster.run(create(DEPLOYMENTS, WEB, SPACE))
    cluster.run(create(SERVICES, SERVICE, SPACE))
    cluster.run(create(INGRESSES, DOOR, SPACE))

    def both(role: str) -> Callable[[], bool]:
        label = "__meta_kubernetes_pod_label_app"
        return lambda: (
            len({one["__meta_kubernetes_pod_name"] for one in scraper.found(role) if one.get(label) == "web"}) == 2
        )

    def service() -> list[dict[str, str]]:
        named = scraper.found("service")
        return [labels for labels in named if labels["__meta_kubernetes_service_name"] == "web"]

    for role in ("pod", "endpoints", "endpointslice"):
        wait_for(f"both pods by role {role}", both(role))
    wait_for("the service", service)
    assert service()[0]["__address__"] == "web.default.svc:80"
    wait_for("the ingress", all_of("ingress", scraper, "ingress_host", {"web.example.org"}))
    assert scraper.found("ingress")[0]["__meta_kubernetes_ingress_path"] == "/shop"

    pod = next(labels for labels in scraper.found("pod") if labels["__meta_kubernetes_pod_label_app"] == "web")
    assert pod["__meta_kubernetes_pod_controller_kind"] == "ReplicaSet"
    assert pod["__meta_kubernetes_pod_annotation_prometheus_io_scrape"] == "true"
    assert pod["__address__"] == f"{pod['__meta_kubernetes_pod_ip']}:80"
    wait_for("readiness", all_of("pod", scraper, "pod_ready", {"true"}))

    for resource, name in ((INGRESSES, "door"), (SERVICES, "web"), (DEPLOYMENTS, "web")):
        cluster.run(delete(resource, name, SPACE))
    for role in ("pod", "endpointslice", "ingress"):
        key = "ingress_host" if role == "ingress" else "pod_label_app"
        wait_for(f"the end of role {role}", all_of(role, scraper, key, set()))
    wait_for("the end of the service", lambda: not service())


def test_the_api_server_is_scraped_with_a_service_accounts_token(scraper: Scraper) -> None:
    wait_for("a scrape", lambda: scraper.health("apiserver") == ["up"])
    wait_for(
        "requests that are counted", lambda: scraper.value('apiserver_request_total{verb="WATCH",resource="pods"}')
    )
    assert float(scraper.value('up{job="apiserver"}')[0]["value"][1]) == 1.0
