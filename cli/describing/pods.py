"""Pods and pod templates in words."""

from __future__ import annotations

from typing import Any

from steersman.cli.describing.sheet import Sheet, head, moment
from steersman.cluster.api.columns.pods import status_word
from steersman.cluster.meta.objects import Obj

_PROBES = (("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe"))


def pod(sheet: Sheet, obj: Obj) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(sheet, obj, created=False)
    sheet.field("Priority", spec.get("priority", 0))
    sheet.optional("Priority Class Name", spec.get("priorityClassName"))
    sheet.optional("Runtime Class Name", spec.get("runtimeClassName"))
    sheet.field("Service Account", spec.get("serviceAccountName", ""))
    host = f"/{status['hostIP']}" if status.get("hostIP") else ""
    sheet.field("Node", f"{spec['nodeName']}{host}" if spec.get("nodeName") else "<none>")
    sheet.optional("Start Time", moment(status.get("startTime")))
    sheet.field("Status", status_word(obj))
    sheet.optional("Reason", status.get("reason"))
    sheet.optional("Message", status.get("message"))
    sheet.optional("Nominated Node", status.get("nominatedNodeName"))
    sheet.field("IP", status.get("podIP", ""))
    sheet.optional("IPs", ", ".join(row["ip"] for row in status.get("podIPs") or ()))
    containers(sheet, "Init Containers", spec.get("initContainers"), status.get("initContainerStatuses"))
    containers(sheet, "Containers", spec.get("containers"), status.get("containerStatuses"))
    containers(sheet, "Ephemeral Containers", spec.get("ephemeralContainers"), status.get("ephemeralContainerStatuses"))
    if status.get("conditions"):
        with sheet.section("Conditions"):
            sheet.table(["Type", "Status"], [[row["type"], row["status"]] for row in status["conditions"]])
    volumes(sheet, spec)
    sheet.field("QoS Class", status.get("qosClass", ""))
    sheet.pairs("Node-Selectors", spec.get("nodeSelector"))
    sheet.field("Tolerations", "\n".join(_toleration(row) for row in spec.get("tolerations") or ()) or "<none>")


def template(sheet: Sheet, obj: Obj) -> None:
    """The pod template of a workload."""
    found = obj["spec"].get("template") or {}
    metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
    with sheet.section("Pod Template"):
        sheet.pairs("Labels", metadata.get("labels"))
        if metadata.get("annotations"):
            sheet.pairs("Annotations", metadata["annotations"], ": ")
        sheet.optional("Service Account", spec.get("serviceAccountName"))
        containers(sheet, "Init Containers", spec.get("initContainers"), None)
        containers(sheet, "Containers", spec.get("containers"), None)
        volumes(sheet, spec)
        sheet.optional("Priority Class Name", spec.get("priorityClassName"))
        sheet.pairs("Node-Selectors", spec.get("nodeSelector"))
        sheet.field("Tolerations", "\n".join(_toleration(row) for row in spec.get("tolerations") or ()) or "<none>")


def containers(sheet: Sheet, label: str, rows: list[Obj] | None, statuses: list[Obj] | None) -> None:
    """Containers as written, and as they are where statuses are given."""
    if not rows:
        return
    by_name = {row["name"]: row for row in statuses or ()}
    with sheet.section(label):
        for row in rows:
            with sheet.section(row["name"]):
                _container(sheet, row, by_name.get(row["name"]), with_status=statuses is not None)


def _container(sheet: Sheet, row: Obj, status: Obj | None, *, with_status: bool) -> None:
    if status:
        sheet.optional("Container ID", status.get("containerID"))
    sheet.field("Image", row.get("image", ""))
    if status:
        sheet.optional("Image ID", status.get("imageID"))
    ports = row.get("ports") or ()
    sheet.field("Ports", ", ".join(f"{p['containerPort']}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>")
    host_ports = [f"{p['hostPort']}/{p.get('protocol', 'TCP')}" for p in ports if p.get("hostPort")]
    sheet.optional("Host Ports", ", ".join(host_ports))
    sheet.optional("Command", "\n".join(row.get("command") or ()))
    sheet.optional("Args", "\n".join(row.get("args") or ()))
    if with_status:
        _state(sheet, "State", (status or {}).get("state") or {})
        if (status or {}).get("lastState"):
            _state(sheet, "Last State", (status or {})["lastState"])
        sheet.field("Ready", bool((status or {}).get("ready")))
        sheet.field("Restart Count", (status or {}).get("restartCount", 0))
    resources = row.get("resources") or {}
    for label, key in (("Limits", "limits"), ("Requests", "requests")):
        if resources.get(key):
            with sheet.section(label):
                for name, amount in sorted(resources[key].items()):
                    sheet.field(name, amount)
    for label, key in _PROBES:
        if row.get(key):
            sheet.field(label, _probe(row[key]))
    sheet.optional("Environment Variables from", "\n".join(_env_source(item) for item in row.get("envFrom") or ()))
    _environment(sheet, row.get("env") or [])
    sheet.field("Mounts", "\n".join(_mount(item) for item in row.get("volumeMounts") or ()) or "<none>")


def _state(sheet: Sheet, label: str, state: Obj) -> None:
    if "running" in state:
        with sheet.section(label, "Running"):
            sheet.field("Started", moment((state["running"] or {}).get("startedAt")))
    elif state.get("terminated"):
        ended = state["terminated"]
        with sheet.section(label, "Terminated"):
            sheet.optional("Reason", ended.get("reason"))
            sheet.optional("Message", ended.get("message"))
            sheet.field("Exit Code", ended.get("exitCode", 0))
            sheet.optional("Signal", ended.get("signal"))
            sheet.field("Started", moment(ended.get("startedAt")))
            sheet.field("Finished", moment(ended.get("finishedAt")))
    else:
        waiting = state.get("waiting") or {}
        with sheet.section(label, "Waiting"):
            sheet.optional("Reason", waiting.get("reason"))
            sheet.optional("Message", waiting.get("message"))


def _probe(row: Obj) -> str:
    if http := row.get("httpGet"):
        scheme = http.get("scheme", "HTTP").lower()
        text = f"http-get {scheme}://{http.get('host', '')}:{http.get('port')}{http.get('path', '/')}"
    elif row.get("exec"):
        text = f"exec {row['exec'].get('command')}"
    elif row.get("grpc"):
        text = f"grpc :{row['grpc'].get('port')}"
    else:
        tcp: Obj = row.get("tcpSocket") or {}
        text = f"tcp-socket {tcp.get('host', '')}:{tcp.get('port')}"
    return (
        f"{text} delay={row.get('initialDelaySeconds', 0)}s timeout={row.get('timeoutSeconds', 1)}s "
        f"period={row.get('periodSeconds', 10)}s #success={row.get('successThreshold', 1)} "
        f"#failure={row.get('failureThreshold', 3)}"
    )


def _env_source(item: Obj) -> str:
    for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        if row := item.get(key):
            return f"{row['name']}  {kind}" + ("  Optional" if row.get("optional") else "")
    return ""


def _environment(sheet: Sheet, rows: list[Obj]) -> None:
    if not rows:
        sheet.field("Environment", "<none>")
        return
    with sheet.section("Environment"):
        for row in rows:
            sheet.field(row["name"], _env_value(row))


def _env_value(row: Obj) -> str:
    source = row.get("valueFrom")
    if not source:
        return str(row.get("value", ""))
    if ref := source.get("fieldRef"):
        return f"({ref.get('apiVersion', 'v1')}:{ref.get('fieldPath')})"
    if ref := source.get("resourceFieldRef"):
        return f"({ref.get('resource')})"
    for key, kind in (("configMapKeyRef", "config map"), ("secretKeyRef", "secret")):
        if ref := source.get(key):
            return f"<set to the key '{ref.get('key')}' of {kind} '{ref.get('name')}'>"
    return ""


def _mount(row: Obj) -> str:
    flags = ["ro" if row.get("readOnly") else "rw"]
    if row.get("subPath"):
        flags.append(f'path="{row["subPath"]}"')
    return f"{row['mountPath']} from {row['name']} ({','.join(flags)})"


def volumes(sheet: Sheet, spec: Obj) -> None:
    rows = spec.get("volumes")
    if not rows:
        return
    with sheet.section("Volumes"):
        for row in rows:
            kind = next((key for key in row if key != "name"), "emptyDir")
            with sheet.section(row["name"]):
                sheet.field("Type", kind[:1].upper() + kind[1:])
                for key, value in sorted((row.get(kind) or {}).items()):
                    sheet.field(key[:1].upper() + key[1:], _brief(value))


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_brief(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_brief(item)}" for key, item in value.items())
    return str(value)


def _toleration(row: Obj) -> str:
    text = str(row.get("key", ""))
    if row.get("value"):
        text += f"={row['value']}"
    if row.get("effect"):
        text += f":{row['effect']}"
    if row.get("operator") == "Exists":
        text += " op=Exists"
    if row.get("tolerationSeconds") is not None:
        text += f" for {row['tolerationSeconds']}s"
    return text.strip()
