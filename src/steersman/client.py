"""The public client: `async with Client.from_kubeconfig() as client`, or over any handler in this process."""

from steersman.actors.client import Client, Discovered, ObjList, read_body
from steersman.actors.kubeconfig import KubeconfigError
from steersman.actors.ports import ExecRequest, Frame, LogRequest, User
from steersman.cluster.meta.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)

__all__ = [
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "JOBS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICES",
    "Client",
    "Discovered",
    "ExecRequest",
    "Frame",
    "KubeconfigError",
    "LogRequest",
    "ObjList",
    "Resource",
    "User",
    "read_body",
]
