"""Helm 4 itself installs, upgrades and removes charts, as the library of `helm-sdkpy`; our API says what came of it.

The library wants a newer Python than ours, so it runs in a process of its own (`helm_sdk.py`). It has no dry runs and
no `--keep-history`, and its `Rollback` names no way to wait, for which Helm 4.3 refuses it after having marked the
release: rollbacks happen here as Helm does them when an upgrade fails.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compat.conftest import APPLY, House

_PACKAGE = "helm-sdkpy==0.1.32"
_PYTHONS = ("python3.12", "python3.13", "python3.14")
_HERE = Path(__file__).parent
_CHART = str(_HERE / "charts" / "web")
#: how long Helm waits for what comes, and for what never comes
_SOON_S = 25
_NEVER_S = 1
_BROKEN = {"behaviour": {"fail-probe": "it does not answer"}}


class HelmFailed(AssertionError):
    """What Helm says went wrong."""


class Helm:
    """Helm's actions in one namespace."""

    def __init__(self, driver: subprocess.Popen[str], kubeconfig: str, namespace: str) -> None:
        self.driver, self._kubeconfig, self.namespace = driver, kubeconfig, namespace

    def ask(self, action: str, *arguments: Any, **options: Any) -> Any:
        """The answer of an action.

        Raises:
            HelmFailed: what Helm said of it.
        """
        assert self.driver.stdin is not None and self.driver.stdout is not None
        print(json.dumps([action, self._kubeconfig, self.namespace, arguments, options]), file=self.driver.stdin)
        answer = json.loads(self.driver.stdout.readline())
        if "error" in answer:
            raise HelmFailed(f"{answer['error']}: {answer['message']}")
        return answer["result"]

    def install(self, name: str, values: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.ask("Install", name, _CHART, values, timeout=options.pop("timeout", _SOON_S), **options)

    def upgrade(self, name: str, values: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.ask("Upgrade", name, _CHART, values, timeout=options.pop("timeout", _SOON_S), **options)

    def states(self, name: str) -> list[str]:
        """The state of each revision."""
        return [revision["info"]["status"] for revision in self.ask("History", name)]


def _find_python() -> str | None:
    """A Python that the package runs on: of the PATH, or one that pyenv has."""
    found = [path for name in _PYTHONS if (path := shutil.which(name))]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        found += [str(path) for name in _PYTHONS for path in sorted(Path(root).glob(f"versions/*/bin/{name}"))]
    # what pyenv puts on the PATH may run nothing, and what Debian has may make no environments
    runs = [
        path
        for path in found
        if subprocess.run([path, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    ]
    return runs[0] if runs else None


@pytest.fixture(scope="module")
def helm_python() -> Iterator[Path]:
    """The Python of an environment that has the package."""
    base = _find_python()
    if base is None:
        pytest.skip("Helm's library needs Python 3.12 or later")
    with tempfile.TemporaryDirectory(prefix="steersman-helm-") as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([base, "-m", "venv", folder], check=True, timeout=120)
        words = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", _PACKAGE]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.skip(f"{_PACKAGE} cannot be had: {done.stderr[-500:]}")
        yield python


@pytest.fixture(scope="module")
def driver(helm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The process that runs Helm."""
    home = tmp_path_factory.mktemp("helm")
    with subprocess.Popen(
        [helm_python, _HERE / "helm_sdk.py"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={"HOME": str(home)},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def helm(driver: subprocess.Popen[str], house: House, space: str) -> Helm:
    """Helm as an administrator, in a namespace of the test's own."""
    return Helm(driver, str(house.cluster.kubeconfig), space)


def _deployment(house: House, helm: Helm, name: str) -> Any:
    return house.ok("GET", f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/{name}")


def _config(house: House, helm: Helm, name: str) -> Any:
    return house.ok("GET", f"/api/v1/namespaces/{helm.namespace}/configmaps/{name}")


def _password(house: House, helm: Helm, name: str) -> str:
    return str(house.ok("GET", f"/api/v1/namespaces/{helm.namespace}/secrets/{name}")["data"]["password"])


def _ready(house: House, helm: Helm, name: str) -> dict[str, str]:
    """Names and images of the ready pods of a release's Deployment."""
    selector = f"labelSelector=app.kubernetes.io/instance%3D{name}"
    pods = house.ok("GET", f"/api/v1/namespaces/{helm.namespace}/pods?{selector}")["items"]
    return {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(found["type"] == "Ready" and found["status"] == "True" for found in pod["status"]["conditions"])
    }


def test_an_install_makes_its_namespace_and_types_runs_hooks_and_waits_until_all_is_ready(
    house: House, helm: Helm
) -> None:
    helm.namespace = f"{helm.namespace}-made"
    done = helm.install("shop", create_namespace=True, wait_for_jobs=True)
    assert done["info"]["status"] == "deployed" and done["info"]["notes"] == f"shop says hello in {helm.namespace}.\n"

    found = _deployment(house, helm, "shop")
    assert found["status"]["readyReplicas"] == 2 == len(_ready(house, helm, "shop"))
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert found["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == helm.namespace
    apps = f"/apis/apps/v1/namespaces/{helm.namespace}"
    assert house.ok("GET", f"{apps}/statefulsets/shop")["status"]["readyReplicas"] == 2
    assert house.ok("GET", f"{apps}/daemonsets/shop")["status"]["numberReady"] == 2
    gadget = house.ok("GET", f"/apis/helm.example/v1/namespaces/{helm.namespace}/gadgets/shop")
    assert gadget["spec"] == {"size": 3, "colour": "red"}
    version = house.ok("GET", "/version")["gitVersion"]
    assert _config(house, helm, "shop")["data"] == {"greeting": "hello", "server": version, "policies": "true"}

    job = house.ok("GET", f"/apis/batch/v1/namespaces/{helm.namespace}/jobs/shop-migrate")
    assert job["status"]["succeeded"] == 1
    assert job["status"]["completionTime"] <= found["metadata"]["creationTimestamp"], "the hook came first"
    house.refused(404, "GET", f"/api/v1/namespaces/{helm.namespace}/pods/shop-announce")


def test_a_release_is_a_secret_that_helm_reads_back_and_lists(house: House, helm: Helm) -> None:
    helm.install("shop", {"extra": False, "replicas": 1})
    helm.install("other", {"extra": False, "replicas": 1})
    secret = house.ok("GET", f"/api/v1/namespaces/{helm.namespace}/secrets/sh.helm.release.v1.shop.v1")
    assert secret["type"] == "helm.sh/release.v1"
    assert {"name": "shop", "owner": "helm", "status": "deployed", "version": "1"}.items() <= secret["metadata"][
        "labels"
    ].items()
    release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    assert release["name"] == "shop" and release["config"] == {"extra": False, "replicas": 1}

    assert {found["name"] for found in helm.ask("List")} == {"shop", "other"}
    assert helm.ask("GetValues", "shop") == {"extra": False, "replicas": 1}
    assert helm.ask("GetValues", "shop", all=True)["greeting"] == "hello"
    status = helm.ask("Status", "shop")["info"]
    assert status["status"] == "deployed" and status["resources"]["v1/Service"][0]["metadata"]["name"] == "shop"
    with pytest.raises(HelmFailed, match="ReleaseNotFoundError"):
        helm.ask("Status", "nothing")
    with pytest.raises(HelmFailed, match="cannot reuse a name that is still in use"):
        helm.install("shop")


def test_an_upgrade_rolls_pods_keeps_what_it_looks_up_and_drops_what_the_chart_no_longer_has(
    house: House, helm: Helm
) -> None:
    helm.install("shop")
    before, password = _ready(house, helm, "shop"), _password(house, helm, "shop")
    helm.upgrade("shop", {"image": "localhost/web:v2", "greeting": "moin", "replicas": 3, "extra": False})

    after = _ready(house, helm, "shop")
    assert set(after.values()) == {"localhost/web:v2"} and len(after) == 3 and not before.keys() & after.keys()
    assert _config(house, helm, "shop")["data"]["greeting"] == "moin"
    assert _password(house, helm, "shop") == password, "`lookup` finds the Secret of the first revision"
    apps = f"/apis/apps/v1/namespaces/{helm.namespace}"
    house.gone(f"{apps}/statefulsets/shop")
    house.gone(f"{apps}/daemonsets/shop")
    house.gone(f"/apis/helm.example/v1/namespaces/{helm.namespace}/gadgets/shop")
    assert helm.states("shop") == ["superseded", "deployed"]

    helm.upgrade("shop", {"greeting": "hi"}, reuse_values=True, max_history=2)
    assert helm.ask("GetValues", "shop")["replicas"] == 3
    house.gone(f"/api/v1/namespaces/{helm.namespace}/secrets/sh.helm.release.v1.shop.v1")
    assert helm.states("shop") == ["superseded", "deployed"], "no more than two are kept"
    helm.upgrade("fresh", {"extra": False, "replicas": 1}, install=True)
    assert helm.states("fresh") == ["deployed"]


@pytest.mark.parametrize("server_side_apply", [False, True], ids=["patch", "apply"])
def test_an_upgrade_that_never_gets_ready_fails_leaves_old_pods_and_is_rolled_back_where_that_was_asked(
    house: House, helm: Helm, server_side_apply: bool
) -> None:
    helm.install("shop", {"extra": False}, server_side_apply=server_side_apply)
    before = _ready(house, helm, "shop")
    with pytest.raises(HelmFailed, match=r"resource Deployment/\S+/shop not ready. status: InProgress"):
        helm.upgrade("shop", {"extra": False, "greeting": "bad", **_BROKEN}, timeout=_NEVER_S)
    assert helm.states("shop") == ["deployed", "failed"]
    assert _config(house, helm, "shop")["data"]["greeting"] == "bad"
    assert _ready(house, helm, "shop").keys() <= before.keys() and _ready(house, helm, "shop")

    with pytest.raises(HelmFailed, match="release shop failed, and has been rolled back"):
        helm.upgrade("shop", {"extra": False, **_BROKEN}, timeout=_NEVER_S, rollback_on_failure=True)
    assert helm.states("shop") == ["superseded", "failed", "failed", "deployed"]
    assert helm.ask("Status", "shop")["info"]["description"] == "Rollback to 1"
    assert _config(house, helm, "shop")["data"]["greeting"] == "hello"
    assert len(_ready(house, helm, "shop")) == 2
    template = _deployment(house, helm, "shop")["spec"]["template"]
    assert "simulated.steersman/fail-probe" not in template["metadata"]["annotations"]


def test_a_hook_that_fails_ends_an_install_before_anything_else_is_made(house: House, helm: Helm) -> None:
    with pytest.raises(HelmFailed, match=r"failed pre-install: .*Job Failed. failed: 1/1"):
        helm.install("shop", {"hookCode": 3})
    assert helm.states("shop") == ["failed"]
    house.refused(404, "GET", f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/shop")
    job = house.ok("GET", f"/apis/batch/v1/namespaces/{helm.namespace}/jobs/shop-migrate")
    assert job["status"]["failed"] == 1

    with pytest.raises(HelmFailed, match="been uninstalled due to rollback-on-failure being set"):
        helm.install("again", {"extra": False, **_BROKEN}, timeout=_NEVER_S, rollback_on_failure=True)
    house.gone(f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/again")
    with pytest.raises(HelmFailed, match="ReleaseNotFoundError"):
        helm.ask("Status", "again")


def test_the_tests_of_a_release_run_as_pods_whose_end_decides(house: House, helm: Helm) -> None:
    helm.install("shop", {"extra": False, "replicas": 1})
    helm.ask("ReleaseTest", "shop")
    pod = f"/api/v1/namespaces/{helm.namespace}/pods/shop-test"
    first = house.ok("GET", pod)
    assert first["status"]["phase"] == "Succeeded"

    helm.upgrade("shop", {"extra": False, "replicas": 1, "testCode": 1})
    with pytest.raises(HelmFailed, match="pod shop-test failed"):
        helm.ask("ReleaseTest", "shop")
    second = house.ok("GET", pod)
    assert second["status"]["phase"] == "Failed" and second["metadata"]["uid"] != first["metadata"]["uid"]


def test_an_uninstall_leaves_nothing_but_hooks_and_types(house: House, helm: Helm) -> None:
    helm.install("shop")
    done = helm.ask("Uninstall", "shop", timeout=_SOON_S)
    assert done["release"]["info"]["status"] == "uninstalled"
    left = {}
    for group in ("/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/policy/v1", "/apis/rbac.authorization.k8s.io/v1",
                  "/apis/discovery.k8s.io/v1", "/apis/helm.example/v1"):  # fmt: skip
        for resource in house.ok("GET", group)["resources"]:
            if resource["namespaced"] and {"list", "delete"} <= set(resource["verbs"]) and resource["name"] != "events":
                target = f"{group}/namespaces/{helm.namespace}/{resource['name']}"
                house.until(target, lambda found: all(map(_may_stay, found["items"])))
                names = [found["metadata"]["name"] for found in house.ok("GET", target)["items"]]
                left[resource["name"]] = sorted(name for name in names if name.startswith("shop"))
    assert {kind: names for kind, names in left.items() if names and kind != "pods"} == {
        "configmaps": ["shop-farewell"],
        "jobs": ["shop-migrate"],
    }
    assert _config(house, helm, "shop-farewell")["data"] == {"revision": "1"}
    assert house.ok("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.helm.example")
    assert not helm.ask("List", all=True)


def _may_stay(found: Any) -> bool:
    """Whether an uninstall leaves this: what hooks made, or what every namespace has."""
    name = found["metadata"]["name"]
    return name in ("default", "kube-root-ca.crt") or name.startswith(("shop-migrate", "shop-farewell"))


def test_an_upgrade_on_the_clients_side_merges_what_was_changed_by_hand(house: House, helm: Helm) -> None:
    helm.install("shop", {"extra": False})
    path = f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/shop"
    by_hand = {"metadata": {"annotations": {"by": "hand"}}, "spec": {"replicas": 4, "minReadySeconds": 1}}
    house.ok("PATCH", path, by_hand)
    sidecar = {"name": "sidecar", "image": "localhost/sidecar:v1"}
    house.ok(
        "PATCH", path, {"spec": {"template": {"spec": {"containers": [sidecar]}}}},
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip
    helm.upgrade("shop", {"extra": False, "image": "localhost/web:v2"})

    found = _deployment(house, helm, "shop")
    assert found["metadata"]["annotations"]["by"] == "hand" and found["spec"]["minReadySeconds"] == 1
    assert found["spec"]["replicas"] == 2, "what the chart says wins"
    images = {one["name"]: one["image"] for one in found["spec"]["template"]["spec"]["containers"]}
    assert images == {"web": "localhost/web:v2", "sidecar": "localhost/sidecar:v1"}


def test_server_side_apply_owns_what_the_chart_says_and_conflicts_with_who_took_it(house: House, helm: Helm) -> None:
    helm.install("shop", {"extra": False}, server_side_apply=True)
    path = f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/shop"
    owner = next(
        one for one in _deployment(house, helm, "shop")["metadata"]["managedFields"] if one["operation"] == "Apply"
    )
    assert "f:replicas" in owner["fieldsV1"]["f:spec"] and "f:strategy" not in owner["fieldsV1"]["f:spec"]

    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": {"replicas": 4}}
    house.ok("PATCH", f"{path}?fieldManager=scaler&force=true", scaled, content_type=APPLY)
    with pytest.raises(HelmFailed, match=r'(?s)conflict with "scaler".*\.spec\.replicas'):
        helm.upgrade("shop", {"extra": False, "replicas": 3})
    assert _deployment(house, helm, "shop")["spec"]["replicas"] == 4
    assert helm.states("shop") == ["deployed", "failed"]

    helm.upgrade("shop", {"extra": False, "replicas": 3}, force_conflicts=True)
    found = _deployment(house, helm, "shop")
    assert found["spec"]["replicas"] == 3 == len(_ready(house, helm, "shop"))
    managers = {one["manager"] for one in found["metadata"]["managedFields"] if one["operation"] == "Apply"}
    assert managers == {owner["manager"]}, "who owns nothing any more is no owner"


def test_a_release_moves_from_the_clients_side_to_server_side_apply_and_drops_fields_there(
    house: House, helm: Helm
) -> None:
    helm.install("shop", {"extra": False, "behaviour": {"cpu": "5m"}}, server_side_apply=False)
    helm.upgrade("shop", {"extra": False}, server_side_apply=True)
    found = _deployment(house, helm, "shop")
    assert "simulated.steersman/cpu" not in found["spec"]["template"]["metadata"]["annotations"]
    ways = [one["operation"] for one in found["metadata"]["managedFields"] if "subresource" not in one]
    assert ways == ["Apply"]


def test_what_is_there_already_is_taken_only_where_that_was_asked(house: House, helm: Helm) -> None:
    path = f"/api/v1/namespaces/{helm.namespace}/configmaps"
    house.ok("POST", path, {"metadata": {"name": "shop"}, "data": {"own": "kept"}})
    with pytest.raises(HelmFailed, match="invalid ownership metadata"):
        helm.install("shop", {"extra": False})
    helm.upgrade("shop", {"extra": False, "replicas": 1}, install=True, take_ownership=True)
    found = house.ok("GET", f"{path}/shop")
    assert found["metadata"]["annotations"]["meta.helm.sh/release-name"] == "shop"
    assert found["data"]["greeting"] == "hello"


def test_helm_may_do_what_its_service_account_may(house: House, helm: Helm, tmp_path: Path) -> None:
    # types are made by who may: Helm asks for those of a chart before anything else
    chart = shutil.copytree(_CHART, tmp_path / "web", ignore=shutil.ignore_patterns("crds"))
    accounts = f"/api/v1/namespaces/{helm.namespace}/serviceaccounts"
    house.ok("POST", accounts, {"metadata": {"name": "deployer"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = house.ok("POST", f"{accounts}/deployer/token", request)["status"]["token"]
    access = yaml.safe_load(house.cluster.kubeconfig.read_text())
    access["users"][0]["user"] = {"token": token}
    limited = Helm(helm.driver, yaml.safe_dump(access), helm.namespace)
    refused = rf'User "system:serviceaccount:{helm.namespace}:deployer" cannot \w+ resource "secrets" in API group ""'
    with pytest.raises(HelmFailed, match=refused):
        limited.ask("Install", "shop", str(chart), {"extra": False}, timeout=_SOON_S)
    binding = {
        "metadata": {"name": "deployer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": helm.namespace}],
    }
    house.ok("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{helm.namespace}/rolebindings", binding)
    limited.ask("Install", "shop", str(chart), {"extra": False}, timeout=_SOON_S)
    assert len(_ready(house, helm, "shop")) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"replicas": "two"}, "got string, want integer", id="the chart's schema"),
        pytest.param({"greeting": "a", "image": ""}, "spec.template.spec.containers\\[0\\].image: Required", id="ours"),
    ],
)
def test_an_install_that_is_refused_says_why(helm: Helm, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmFailed, match=message):
        helm.install("shop", {"extra": False, **values}, disable_openapi_validation=False)
