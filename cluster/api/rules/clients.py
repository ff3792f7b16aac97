"""Rules of the `clientConfig` of webhooks, of admission and of conversion alike.

Source: k8s.io/apiserver/pkg/util/webhook/validation.go
"""

from __future__ import annotations

from urllib.parse import urlsplit

from steersman.cluster.api.rules.fields import bad, bad_all, required
from steersman.cluster.api.rules.ports import is_port
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj

_URL_FORM = "; desired format: https://host[/path]"


def validate_client(path: str, config: Obj) -> list[Cause]:
    """Rules of a `clientConfig`: a URL or a Service, not both."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [required(path, "exactly one of url or service is required")]
    return _url(f"{path}.url", url or "") if service is None else _service(f"{path}.service", service)


def _url(path: str, text: str) -> list[Cause]:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        return [required(path, f"url must be a valid URL: {error}{_URL_FORM}")]
    causes: list[Cause] = []
    if parts.scheme != "https":
        causes.append(bad(path, parts.scheme, f"'https' is the only allowed URL scheme{_URL_FORM}"))
    if not parts.netloc:
        causes.append(bad(path, parts.netloc, f"host must be provided{_URL_FORM}"))
    if "@" in parts.netloc:
        causes.append(bad(path, parts.netloc.rpartition("@")[0], "user information is not permitted in the URL"))
    if parts.fragment:
        causes.append(bad(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        causes.append(bad(path, parts.query, "query parameters are not permitted in the URL"))
    return causes


def _service(path: str, service: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if not service.get("name"):
        causes.append(required(f"{path}.name", "service name is required"))
    if not service.get("namespace"):
        causes.append(required(f"{path}.namespace", "service namespace is required"))
    if not is_port(service.get("port", 443)):
        detail = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(bad(f"{path}.port", service["port"], detail))
    return causes + _path(f"{path}.path", service.get("path") or "/")


def _path(path: str, text: str) -> list[Cause]:
    if text == "/":
        return []
    if text == "//":
        return [bad(path, text, "segment[0] may not be empty")]
    causes = [] if text.startswith("/") else [bad(path, text, "must start with a '/'")]
    for index, step in enumerate(text[1:].removesuffix("/").split("/")):
        details = [f": {detail}" for detail in subdomain_errors(step)] if step else [" may not be empty"]
        causes += bad_all(path, text, [f"segment[{index}]{detail}" for detail in details])
    return causes
