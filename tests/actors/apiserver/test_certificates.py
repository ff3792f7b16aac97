"""Certificates from a request of openssl to a login over TLS: approval, signing, and who may do either."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl on this machine")


def openssl(directory: Path, subject: str) -> str:
    """Makes key and request; returns the request in base64."""
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         subject, "-keyout", directory / "key.pem", "-out", directory / "request.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return base64.b64encode((directory / "request.pem").read_bytes()).decode()


def manifest(name: str, signer: str, request: str, *usages: str) -> str:
    spec = {"signerName": f"kubernetes.io/{signer}", "request": request, "usages": list(usages)}
    return json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {**spec, "expirationSeconds": 3600},
        }
    )


def wait_for(remote: Any, name: str, path: str) -> str:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if found := remote.kubectl("get", "csr", name, "-o", f"jsonpath={path}"):
            return str(found)
        time.sleep(0.05)
    raise AssertionError(f"{name} has no {path}")


def log_in(remote: Any, directory: Path, user: str, certificate: str) -> None:
    """Makes a kubeconfig with the certificate."""
    (directory / "cert.pem").write_bytes(base64.b64decode(certificate))
    text = Path(remote.kubeconfig("jane")).read_text()
    lines = [
        f'users: [{{name: u, user: {{client-certificate: "{directory}/cert.pem", client-key: "{directory}/key.pem"}}}}]'
        if line.startswith("users:")
        else line
        for line in text.splitlines()
    ]
    Path(remote.kubeconfig(user)).write_text("\n".join(lines))


def test_an_approved_request_of_openssl_is_a_login(remote: Any, tmp_path: Path) -> None:
    request = openssl(tmp_path, "/O=team/CN=mary")
    remote.kubectl("apply", "-f", "-", stdin=manifest("mary", "kube-apiserver-client", request, "client auth"))
    assert remote.kubectl("get", "csr", "mary", "-o", "jsonpath={.spec.username}") == "admin"
    assert "Forbidden" in remote.kubectl("certificate", "approve", "mary", user="jane", fails=True)
    remote.kubectl("certificate", "approve", "mary")
    log_in(remote, tmp_path, "mary", wait_for(remote, "mary", "{.status.certificate}"))
    found = json.loads(remote.kubectl("auth", "whoami", "-o", "json", user="mary"))["status"]["userInfo"]
    assert (found["username"], found["groups"]) == ("mary", ["team", "system:authenticated"])
    shown = subprocess.run(
        ["openssl", "verify", "-CAfile", remote.directory / "ca.crt", tmp_path / "cert.pem"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.endswith("cert.pem: OK\n")


def test_a_denied_request_gets_no_certificate_and_a_wrong_one_fails(remote: Any, tmp_path: Path) -> None:
    request = openssl(tmp_path, "/CN=eve")
    remote.kubectl("apply", "-f", "-", stdin=manifest("eve", "kube-apiserver-client", request, "client auth"))
    remote.kubectl("certificate", "deny", "eve")
    remote.kubectl("apply", "-f", "-", stdin=manifest("odd", "kube-apiserver-client", request, "server auth"))
    remote.kubectl("certificate", "approve", "odd")
    reason = wait_for(remote, "odd", "{.status.conditions[?(@.type=='Failed')].reason}")
    assert reason == "SignerValidationFailure"
    assert remote.kubectl("get", "csr", "eve", "-o", "jsonpath={.status.certificate}") == ""
    assert "Denied" in remote.kubectl("get", "csr", "eve")


def test_a_node_that_joins_with_a_bootstrap_token_gets_its_certificate_by_itself(remote: Any, tmp_path: Path) -> None:
    literals = {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
    }  # fmt: skip
    words = [f"--from-literal={key}={value}" for key, value in literals.items()]
    kind = "--type=bootstrap.kubernetes.io/token"
    remote.kubectl("create", "secret", "generic", "bootstrap-token-abcdef", "-n", "kube-system", kind, *words)
    request = openssl(tmp_path, "/O=system:nodes/CN=system:node:n9")
    text = manifest("n9", "kube-apiserver-client-kubelet", request, "digital signature", "client auth")
    bootstrap = Path(remote.kubeconfig("jane")).read_text().splitlines()
    lines = [
        "users: [{name: u, user: {token: abcdef.0123456789abcdef}}]" if row.startswith("users:") else row
        for row in bootstrap
    ]
    Path(remote.kubeconfig("bootstrap")).write_text("\n".join(lines))
    remote.kubectl("create", "-f", "-", stdin=text, user="bootstrap")
    log_in(remote, tmp_path, "n9", wait_for(remote, "n9", "{.status.certificate}"))
    reason = remote.kubectl("get", "csr", "n9", "-o", "jsonpath={.status.conditions[0].reason}")
    assert reason == "AutoApproved"
    assert "system:node:n9" in remote.kubectl("auth", "whoami", user="n9")
    remote.kubectl("get", "services", user="n9")
    assert "Forbidden" in remote.kubectl("get", "secrets", "-A", user="n9", fails=True)
