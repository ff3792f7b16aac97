"""What is done with bootstrap tokens: each signs the ConfigMap `cluster-info`, and goes when its time is over.

Whoever has a token can so tell the cluster's own `cluster-info`, which anybody may read, from somebody else's.

Source: k8s.io/kubernetes/pkg/controller/bootstrap and
https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable
from hashlib import sha256

from steersman.cluster.auth.jwt import encode
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import parse_time

TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE, PREFIX = "kube-system", "bootstrap-token-"
INFO_NAMESPACE, INFO = "kube-public", "cluster-info"
_CONTENT, _SIGNATURE = "kubeconfig", "jws-kubeconfig-"


def data_of(secret: Obj) -> dict[str, str]:
    """The data of a Secret as text."""
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}


def expires_at(secret: Obj) -> float | None:
    """When a token expires; None for never. What cannot be read as a time has passed."""
    text = data_of(secret).get("expiration", "")
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return 0.0


def signature(content: str, token_id: str, token_secret: str) -> str:
    """The JSON web signature of a text by a token, without the text (RFC 7515, appendix F)."""
    header = encode(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{encode(content.encode())}".encode()
    return f"{header}..{encode(hmac.digest(token_secret.encode(), signed, sha256))}"


def signed(config_map: Obj, secrets: Iterable[Obj], now: float) -> Obj | None:
    """Returns the data of `cluster-info` with the signatures of all tokens that sign; None when it has just these."""
    data = config_map.get("data") or {}
    if _CONTENT not in data:
        return None
    wanted = {key: value for key, value in data.items() if not key.startswith(_SIGNATURE)}
    for secret in secrets:
        token = data_of(secret)
        token_id, token_secret = token.get("token-id", ""), token.get("token-secret", "")
        expires = expires_at(secret)
        if (
            token_id
            and token_secret
            and secret["metadata"]["name"] == PREFIX + token_id
            and token.get("usage-bootstrap-signing") == "true"
            and (expires is None or now < expires)
        ):
            wanted[_SIGNATURE + token_id] = signature(data[_CONTENT], token_id, token_secret)
    return None if wanted == data else wanted


def cluster_info(server: str, ca_pem: bytes) -> Obj:
    """The ConfigMap that tells machines that want to join where the cluster is, and its authority."""
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    config: Obj = {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster, "name": ""}],
        "contexts": None,
        "current-context": "",
        "kind": "Config",
        "preferences": {},
        "users": None,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": INFO, "namespace": INFO_NAMESPACE},
        "data": {_CONTENT: json.dumps(config)},
    }
