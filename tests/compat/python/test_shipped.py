"""The tests that Python's Kubernetes clients ship, unmodified, against our clusters.

They mostly wait, so all that were selected run at the same time, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steersman import testing
from tests.compat.python.conftest import Place

_ROOT = Path(__file__).parents[3]
_DEADLINE_S = 400.0


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tests of another project, and those of them that cannot pass here.

    Args:
        words: for pytest.
        containers: whether pods must really run.
        sdist: the distribution that has the tests, where the wheel has none.
        excluded: test → why it cannot pass.
    """

    words: tuple[str, ...]
    containers: bool = False
    sdist: str = ""
    excluded: dict[str, str] = field(default_factory=dict)


_OFFICIAL = ("-p", "tests.compat.python.e2e_base", "-o", "python_files=test_*.py *_test.py", "--pyargs")
#: as kr8s' own CI reruns them: it announces a port before it listens there, and takes one that may be taken by then
_RERUN = ("--reruns", "3", "--only-rerun", "httpx.ConnectError", "--only-rerun", "address already in use")
_MISFIT = "applies a Deployment to the path of a Pod, which Kubernetes refuses, and wants it accepted"
_OLD = "makes a CustomResourceDefinition of apiextensions.k8s.io/v1beta1, which Kubernetes dropped in 1.22"


def _kopf(*examples: str) -> Suite:
    return Suite(sdist="kopf", words=("tests/e2e", "--only-e2e", "-k", " or ".join(examples)))


SUITES = {
    "kr8s": Suite(
        containers=True,
        words=(*_RERUN, "-p", "tests.compat.python.kr8s_cluster", "--pyargs", "kr8s"),
        excluded={
            "test_api_timeout": "wants an answer to take longer than the resolution of asyncio's clock, a millisecond",
        },
    ),
    "kubernetes": Suite(
        words=(*_OFFICIAL, "kubernetes.dynamic"),
        excluded={
            "test_cluster_custom_resources": _OLD,
            "test_async_namespaced_custom_resources": _OLD,
            "test_namespaced_custom_resources": _OLD,
            "test_cache_decoder_resource_and_subresource": "compares objects of two clients, which are never equal",
        },
    ),
    "kubernetes.aio": Suite(
        words=(*_OFFICIAL, "kubernetes.aio.dynamic"), excluded={"test_server_side_apply_api": _MISFIT}
    ),
    "kubernetes_asyncio": Suite(
        words=(*_OFFICIAL, "kubernetes_asyncio.dynamic"), excluded={"test_server_side_apply_api": _MISFIT}
    ),
    # 17-admission asks for certificates from a library that does not know today's OpenSSL: see `test_kopf`
    "kopf, handlers": _kopf("01-minimal", "02-children", "03-exceptions", "04-events", "05-handlers"),
    "kopf, background": _kopf("06-peering", "07-subhandlers", "08-events", "14-daemons", "15-timers", "16-indexing"),
    "kopf, hooks": _kopf("13-hooks", "99-all-at-once"),
}


class Run:
    """A suite that runs in the background."""

    def __init__(self, suite: Suite, place: Place, folder: Path, source: Path | None) -> None:
        words = [
            sys.executable, "-m", "pytest", *suite.words, "-q", "-c", "/dev/null", "--rootdir", ".", "-W", "ignore",
            "-p", "no:cacheprovider", "-p", "no:steersman", "-p", "no:unraisableexception", "-o", "asyncio_mode=auto",
        ]  # fmt: skip
        if suite.excluded:
            words += ["-k", " and ".join(f"not {name}" for name in suite.excluded)]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=source or folder, stdout=log, stderr=log,
                env={**place.environment, "PYTHONPATH": str(_ROOT), "HOME": str(folder)},
            )  # fmt: skip

    def outcome(self, deadline: float) -> tuple[int, str]:
        """Waits for the end; returns the exit code and what was printed."""
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            self.end()
        return code, self._log.read_text()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run | str]]:
    """The suites that this session selected, all started; or why one cannot run."""
    items = [item for item in request.session.items if item.path == request.path]
    names = [str(item.callspec.params["name"]) for item in items if hasattr(item, "callspec")]
    found: dict[str, Run | str] = {}
    with contextlib.ExitStack() as clusters:
        for name in names:
            suite, folder = SUITES[name], tmp_path_factory.mktemp("suite")
            source: Path | str | None = request.getfixturevalue("kopf_source") if suite.sdist else None
            if isinstance(source, str):
                found[name] = source
                continue
            if suite.containers:
                place = request.getfixturevalue("containers")
            else:
                place = Place(clusters.enter_context(testing.cluster()).kubeconfig)
            found[name] = run = Run(suite, place, folder, source)
            clusters.callback(run.end)
        yield found


@pytest.mark.parametrize("name", SUITES)
def test_the_tests_that_a_client_ships_pass(name: str, runs: dict[str, Run | str]) -> None:
    run = runs[name]
    if isinstance(run, str):
        pytest.skip(run)
    code, text = run.outcome(time.monotonic() + _DEADLINE_S)
    assert code == 0, text[-20_000:]
    summary = text.splitlines()[-1]
    assert re.search(r"[1-9]\d* passed", summary), summary
    if excluded := SUITES[name].excluded:
        assert f" {len(excluded)} deselected" in summary, "an exclusion names no test"
