"""What a connection looks like to admission: the query of exec, attach, port-forward and proxy as an object.

Source: k8s.io/kubernetes/pkg/apis/core (PodExecOptions, ...), k8s.io/apiserver/pkg/endpoints/handlers/rest.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.admission.attempt import CONNECT, Attempt
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

_FLAGS = ("stdin", "stdout", "stderr", "tty")


def connection(
    kind: Kind, subresource: str, namespace: str, name: str, query: Sequence[tuple[str, str]], path: str
) -> Attempt:
    """Returns the attempt to connect.

    Args:
        query: decoded pairs; path: what follows the subresource, of a proxy.
    """
    sub = kind.subresources[subresource]
    options: Obj = {"kind": sub.kind, "apiVersion": sub.api_version}
    if subresource in ("exec", "attach"):
        for key in _FLAGS:
            if any(name == key and value.lower() in ("true", "1", "t") for name, value in query):
                options[key] = True
        containers = [value for key, value in query if key == "container" and value]
        if containers:
            options["container"] = containers[0]
        if subresource == "exec":
            options["command"] = [value for key, value in query if key == "command"]
    elif subresource == "portforward":
        texts = [text for key, value in query if key == "ports" for text in value.split(",")]
        options["ports"] = [int(text) for text in texts if text.isascii() and text.isdigit()]
    elif path:
        options["path"] = path
    return Attempt(operation=CONNECT, kind=kind, subresource=subresource, namespace=namespace, name=name, obj=options)
