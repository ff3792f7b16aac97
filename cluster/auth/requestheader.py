"""Who asks, as an authenticating proxy says it in headers: read of requests that come through one, written on our own.

Whoever calls `identity_of` has made sure by its certificate that the sender is such a proxy.

Source: k8s.io/apiserver/pkg/authentication/request/headerrequest/requestheader.go, k8s.io/client-go/transport
(`SetAuthProxyHeaders`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from steersman.cluster.auth.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, extra_key, header_text
from steersman.cluster.auth.tokens import Identity

USER, UID, GROUP, EXTRA = "x-remote-user", "x-remote-uid", "x-remote-group", "x-remote-extra-"
#: begins the subprotocol in which a browser's WebSocket carries a token
SOCKET_TOKEN = "base64url.bearer.authorization.k8s.io."
_PROTOCOLS = "sec-websocket-protocol"
#: between the values of a header that is sent more than once
AGAIN = "\n"
#: characters of a header's name beside letters and digits (RFC 9110); all others of a key are percent-encoded
_TOKEN = "!#$&'*+-.^_`|~"


def identity_of(headers: Mapping[str, str]) -> Identity | None:
    """The identity that a proxy vouches for; None when it names nobody.

    Args:
        headers: names in lower case; values as Latin-1 of the bytes that came, repeated ones joined by `AGAIN`.
    """
    name = header_text(headers.get(USER, "").split(AGAIN)[0]).strip()
    if not name:
        return None
    groups = tuple(header_text(value).strip() for value in headers.get(GROUP, "").split(AGAIN) if value)
    extra = {
        extra_key(key[len(EXTRA) :]): tuple(header_text(one).strip() for one in value.split(AGAIN))
        for key, value in headers.items()
        if key.startswith(EXTRA)
    }
    if name != ANONYMOUS.name and AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups += (AUTHENTICATED,)
    uid = header_text(headers.get(UID, "").split(AGAIN)[0])
    return Identity(name=name, groups=groups, uid=uid, extra=tuple(sorted(extra.items())))


def headers_of(
    name: str, groups: Sequence[str], uid: str = "", extra: Mapping[str, Sequence[str]] | None = None
) -> dict[str, str]:
    """The headers that tell an extension API server who asks; values as `identity_of` takes them.

    Raises:
        ValueError: a name holds what no header can carry, as a line's end.
    """
    found = {USER: _value(USER, name)}
    if groups:
        found[GROUP] = AGAIN.join(_value(GROUP, group) for group in groups)
    if uid:
        found[UID] = _value(UID, uid)
    for key, values in (extra or {}).items():
        header = EXTRA + quote(key.lower(), safe=_TOKEN)
        if values:
            found[header] = AGAIN.join(_value(header, value) for value in values)
    return found


def without_claims(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without those by which a sender says who it is or wants to be, and without its token."""
    found = {
        key: value
        for key, value in headers.items()
        if key != "authorization" and not key.startswith(("x-remote-", "impersonate-"))
    }
    if SOCKET_TOKEN in (protocols := found.get(_PROTOCOLS, "")):
        rest = [name for part in protocols.split(",") if not (name := part.strip()).startswith(SOCKET_TOKEN)]
        found[_PROTOCOLS] = ",".join(rest)
    return found


def _value(header: str, text: str) -> str:
    if any((character < " " and character != "\t") or character == "\x7f" for character in text):
        raise ValueError(f'net/http: invalid header field value for "{header.title()}"')
    return text.encode().decode("latin-1")


# ---- what extension API servers are told

#: the ConfigMap in kube-system that they read
TRUST = "extension-apiserver-authentication"
_CLIENT_CA, _PROXY_CA = "client-ca-file", "requestheader-client-ca-file"
_END = "-----END CERTIFICATE-----"


def trust(client_ca: str, proxy_ca: str, names: Sequence[str], present: Mapping[str, str]) -> dict[str, str]:
    """The data of that ConfigMap: whose certificates name users, whose name proxies, and where proxies say for whom.

    Args:
        client_ca, proxy_ca: PEM; empty for none.
        present: its data now; authorities there are kept, as another API server may have them.
    """
    found = dict(present)
    if client_ca:
        found[_CLIENT_CA] = _united(present.get(_CLIENT_CA, ""), client_ca)
    if proxy_ca:
        found[_PROXY_CA] = _united(present.get(_PROXY_CA, ""), proxy_ca)
        lists = {
            "allowed-names": names,
            "username-headers": ["X-Remote-User"],
            "uid-headers": ["X-Remote-Uid"],
            "group-headers": ["X-Remote-Group"],
            "extra-headers-prefix": ["X-Remote-Extra-"],
        }
        found |= {f"requestheader-{key}": _json_list(values) for key, values in lists.items()}
    return found


def _json_list(values: Sequence[str]) -> str:
    return json.dumps(list(values), separators=(",", ":"))


def _united(present: str, ours: str) -> str:
    blocks = [f"{block.strip()}\n{_END}\n" for text in (present, ours) for block in text.split(_END) if block.strip()]
    return "".join(dict.fromkeys(blocks))
