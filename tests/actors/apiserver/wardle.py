"""An extension API server, with nothing of the product in it: flunders and fischers of `wardle.example.com/v1alpha1`.

It trusts front proxies as the ConfigMap `extension-apiserver-authentication` says, asks the cluster by
SubjectAccessReviews whether a user may, and keeps its objects in memory. It prints its port when it serves.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import json
import queue
import ssl
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

GROUP, VERSION = "wardle.example.com", "v1alpha1"
BASE = f"/apis/{GROUP}/{VERSION}"
COLLECTION = f"{BASE}/namespaces/{{namespace}}/flunders"
KINDS = {"flunders": ("Flunder", True), "fischers": ("Fischer", False)}
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
SCHEMA = {
    "type": "object",
    "description": "Flunder is an example type with a spec and a status.",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "description": "What a flunder is to be like.",
            "properties": {"flunderReference": {"type": "string", "description": "The flunder beside it."}},
        },
    },
    "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "Flunder"}],
}
NAME = "com.example.wardle.v1alpha1.Flunder"


class Store:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.revision = 1
        self.objects: dict[tuple[str, str, str], Any] = {}
        self.watchers: list[tuple[str, str, queue.Queue[Any]]] = []

    def put(self, key: tuple[str, str, str], obj: Any, event: str) -> Any:
        with self.lock:
            self.revision += 1
            obj["metadata"]["resourceVersion"] = str(self.revision)
            if event == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = obj
            for plural, namespace, waiting in self.watchers:
                if plural == key[0] and namespace in ("", key[1]):
                    waiting.put({"type": event, "object": copy.deepcopy(obj)})
            return obj


class Cluster:
    """The API server that this one extends."""

    def __init__(self, url: str, token: str, ca: str) -> None:
        self.url, self.token = url, token
        self.context = ssl.create_default_context(cafile=ca)

    def call(self, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, context=self.context, timeout=10) as answer:
            return json.load(answer)

    def allows(self, user: dict[str, Any], attributes: dict[str, str]) -> bool:
        spec = {"user": user["name"], "groups": user["groups"], "extra": user["extra"], **attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool(self.call("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": message,
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store
    cluster: Cluster
    allowed: list[str]

    def log_message(self, *values: Any) -> None:
        return

    # ---- answers

    def answer(self, code: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def user(self) -> dict[str, Any]:
        certificate = self.connection.getpeercert()  # type: ignore[attr-defined]
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
        name = self.headers.get("X-Remote-User", "")
        if not name or not set(names) & set(self.allowed):
            raise Refused(401, "Unauthorized", "Unauthorized")
        extra: dict[str, list[str]] = {}
        for key in self.headers:
            if key.lower().startswith("x-remote-extra-"):
                extra[key[len("x-remote-extra-") :].lower()] = self.headers.get_all(key) or []
        return {"name": name, "groups": self.headers.get_all("X-Remote-Group") or [], "extra": extra}

    def handle_any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        try:
            self.serve(urlsplit(self.path).path.rstrip("/"), parse_qs(urlsplit(self.path).query), body)
        except Refused as refusal:
            self.answer(refusal.status["code"], refusal.status)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def serve(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        user = self.user()
        parts = path.removeprefix(BASE).strip("/").split("/") if path.startswith(f"{BASE}/") else []
        namespace = parts[1] if parts[:1] == ["namespaces"] else ""
        parts = parts[2:] if namespace else parts
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(self.command, "get")
        if parts and len(parts) < 2:
            verb = {"get": "watch" if query.get("watch") else "list", "delete": "deletecollection"}.get(verb, verb)
        if parts:
            attributes = {
                "verb": verb,
                "group": GROUP,
                "version": VERSION,
                "resource": parts[0],
                "namespace": namespace,
            }
            if not self.cluster.allows(user, {"resourceAttributes": attributes}):  # type: ignore[dict-item]
                where = f'{parts[0]}.{GROUP} is forbidden: User "{user["name"]}" cannot {verb} resource'
                raise Refused(403, "Forbidden", where)
            self.resource(verb, namespace, parts, query, body, user)
        elif not self.cluster.allows(user, {"nonResourceAttributes": {"verb": "get", "path": path}}):  # type: ignore[dict-item]
            raise Refused(403, "Forbidden", f'User "{user["name"]}" cannot get path "{path}"')
        else:
            self.document(path)

    # ---- documents

    def document(self, path: str) -> None:
        versions = [{"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}]
        group = {"name": GROUP, "versions": versions, "preferredVersion": versions[0]}
        rows = [
            {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": VERBS,
             **({"shortNames": ["fl"], "categories": ["wardle"]} if plural == "flunders" else {})}
            for plural, (kind, namespaced) in KINDS.items()
        ]  # fmt: skip
        rows.append(
            {"name": "flunders/echo", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]}
        )
        listed = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{GROUP}/{VERSION}",
            "resources": rows,
        }
        paths = {COLLECTION: {"post": self.operation("#/definitions/")}}
        found = {
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
            f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **group},
            BASE: listed,
            "/healthz": {},
            "/openapi/v2": {"swagger": "2.0", "info": {"title": "wardle", "version": "1"}, "paths": paths,
                            "definitions": {NAME: SCHEMA}},
            "/openapi/v3": {"paths": {BASE[1:]: {"serverRelativeURL": f"/openapi/v3{BASE}?hash=1"}}},
            f"/openapi/v3{BASE}": {
                "openapi": "3.0.0", "info": {"title": "wardle", "version": "1"},
                "paths": {COLLECTION: {"post": self.operation("#/components/schemas/")}},
                "components": {"schemas": {NAME: SCHEMA}},
            },
        }.get(path)  # fmt: skip
        if found is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        self.answer(200, found)

    def operation(self, base: str) -> Any:
        return {
            "operationId": "createFlunder",
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": "Flunder"},
            "responses": {"200": {"description": "OK", "schema": {"$ref": base + NAME}}},
        }

    # ---- objects

    def resource(
        self, verb: str, namespace: str, parts: list[str], query: dict[str, list[str]], body: bytes, user: Any
    ) -> None:
        plural, name = parts[0], parts[1] if len(parts) > 1 else ""
        if plural not in KINDS:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        kind, key = KINDS[plural][0], (plural, namespace, name)
        if parts[2:] == ["echo"]:
            return self.echo()
        held = [obj for (p, n, _), obj in sorted(self.store.objects.items()) if p == plural and namespace in ("", n)]
        if verb == "watch":
            return self.watch(plural, namespace, float((query.get("timeoutSeconds") or ["30"])[0]))
        if verb == "list":
            return self.listed(kind, held)
        if verb == "create":
            obj = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, **json.loads(body)}
            obj["metadata"] = {**obj["metadata"], "uid": f"u-{self.store.revision}"}
            obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
            obj["metadata"].setdefault("annotations", {})["wardle.example.com/by"] = user["name"]
            if namespace:
                obj["metadata"]["namespace"] = namespace
            return self.answer(201, self.store.put((plural, namespace, obj["metadata"]["name"]), obj, "ADDED"))
        if verb == "deletecollection":
            for obj in held:
                self.store.put((plural, namespace, obj["metadata"]["name"]), obj, "DELETED")
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        obj = self.store.objects.get(key)
        if obj is None:
            raise Refused(404, "NotFound", f'{plural}.{GROUP} "{name}" not found')
        if verb == "delete":
            self.store.put(key, obj, "DELETED")
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if verb == "update":
            obj = self.store.put(key, json.loads(body), "MODIFIED")
        elif verb == "patch":
            obj = self.store.put(key, merged(obj, json.loads(body)), "MODIFIED")
        return self.answer(200, obj)

    def listed(self, kind: str, held: list[Any]) -> None:
        meta = {"resourceVersion": str(self.store.revision)}
        if "as=Table" not in self.headers.get("accept", ""):
            items = {"apiVersion": f"{GROUP}/{VERSION}", "kind": f"{kind}List", "metadata": meta, "items": held}
            return self.answer(200, items)
        columns = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
                   {"name": "Neighbour", "type": "string", "format": "", "description": "", "priority": 0}]  # fmt: skip
        rows = [
            {"cells": [obj["metadata"]["name"], obj.get("spec", {}).get("flunderReference", "")],
             "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}}
            for obj in held
        ]  # fmt: skip
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return self.answer(200, {**table, "columnDefinitions": columns, "rows": rows})

    def watch(self, plural: str, namespace: str, timeout_s: float) -> None:
        waiting: queue.Queue[Any] = queue.Queue()
        watcher = (plural, namespace, waiting)
        self.store.watchers.append(watcher)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            while True:
                line = json.dumps(waiting.get(timeout=timeout_s)).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        except queue.Empty:
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            self.store.watchers.remove(watcher)

    def echo(self) -> None:
        """Takes over the connection and says every byte back."""
        key = self.headers.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while data := self.connection.recv(4096):
            self.connection.sendall(data)
        self.close_connection = True


def merged(old: Any, patch: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    found = {**old, **{key: merged(old.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in found.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("host", "port", "cert", "key", "api", "token", "ca"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    cluster = Cluster(options.api, options.token, options.ca)
    trust = cluster.call("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]
    Handler.store, Handler.cluster = Store(), cluster
    Handler.allowed = json.loads(trust["requestheader-allowed-names"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    context.load_verify_locations(cadata=trust["requestheader-client-ca-file"])
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer((options.host, int(options.port)), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
