"""What every cluster holds from its first moment: the objects of `deploy/bootstrap`, and where its API servers are.

Every API server ensures the same, so all of it is idempotent: what exists is left alone, except that default roles and
bindings get what this version adds to them. Each server keeps a leased key with its address; the
endpoints of the `kubernetes` Service are the union of those keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from ipaddress import ip_address, ip_network
from string import Template

import orjson
import yaml

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.entry import encode
from steersman.actors.apiserver.frontproxy import ALLOWED_NAMES
from steersman.actors.apiserver.writes import Operation, Writer
from steersman.actors.ports import Store
from steersman.cluster.api import apiservices
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.auth.bootstraptokens import INFO, INFO_NAMESPACE, cluster_info
from steersman.cluster.auth.defaultroles import is_replaced, marked, of_controllers, reconciled
from steersman.cluster.auth.flowschemas import CATCH_ALL, EXEMPT
from steersman.cluster.auth.requestheader import TRUST, trust
from steersman.cluster.meta.clusterips import DEFAULT_RANGE
from steersman.cluster.meta.errors import AlreadyExists, ApiError, Conflict, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import (
    API_SERVICES,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    FLOW_SCHEMAS,
    SERVICE_CIDRS,
    Resource,
)
from steersman.cluster.store.values import LeaseNotFound, Put, StoreError, Txn

log = logging.getLogger(__name__)

_FILES = (
    "namespaces.yaml",
    "priority-classes.yaml",
    "flow-control.yaml",
    "roles-users.yaml",
    "roles-components.yaml",
    "roles-own.yaml",
    "services.yaml",
)
_ADDRESSES = "/registry/steersman/apiservers/"
_LEASE_S, _RENEW_S = 15, 5.0
_TRIES_MAX = 20
_CONTROLLERS_FILE = "roles-controllers.yaml"
_AUTOUPDATE_SPEC = "apf.kubernetes.io/autoupdate-spec"
_MANAGER = "steersman-apiserver"
_RBAC = "rbac.authorization.k8s.io"
#: the fast one where it was built
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_objects(service_cidr: str, port: int) -> list[Obj]:
    """The objects of `deploy/bootstrap`, complete for this cluster."""
    found: list[Obj] = orjson.loads(_objects(service_cidr, port))
    return found


@lru_cache(maxsize=8)  # clusters of one process are mostly alike; reading YAML takes half of what it takes to start one
def _objects(service_cidr: str, port: int) -> bytes:
    network = ip_network(service_cidr)
    own_port = str(port or 443)
    # without rights nobody can listen on 443 of a loopback address
    service_port = own_port if network.is_loopback else "443"
    values = {
        "api": str(network[1]), "dns": str(network[10]), "range": str(network), "port": own_port,
        "service_port": service_port,
    }  # fmt: skip
    folder = resources.files("steersman.deploy").joinpath("bootstrap")
    found: list[Obj] = []
    for name in _FILES:
        text = Template(folder.joinpath(name).read_text()).safe_substitute(values)
        found += [obj for obj in yaml.load_all(text, Loader=_LOADER) if obj]
    found += of_controllers(yaml.load(folder.joinpath(_CONTROLLERS_FILE).read_text(), Loader=_LOADER))
    return orjson.dumps([marked(obj) if obj["apiVersion"].startswith("rbac.") else obj for obj in found])


class Bootstrap:
    """Ensures the bootstrap objects and announces this server; a Component in three steps."""

    def __init__(
        self, store: Store, cache: WatchCache, registry: Registry, writer: Writer, config: ApiServerConfig
    ) -> None:
        self._store = store
        self._cache = cache
        self._registry = registry
        self._writer = writer
        self._config = config
        self._lease = 0
        self._announcer: asyncio.Task[None] | None = None

    async def ensure(self) -> None:
        """Creates what is missing, all of it in one transaction.

        Raises:
            ApiError, StoreError: it cannot be done.
        """
        wanted = read_objects(self._config.service_cidr, self._config.port or 0)
        served = {(kind.resource.group, kind.resource.version) for kind in self._registry.all() if not kind.is_custom}
        wanted += apiservices.built_in(served)
        names = {obj["metadata"]["name"] for obj in wanted if obj["kind"] == "APIService"}
        for left in reversed(range(_TRIES_MAX)):
            await self._cache.fresh()
            operations = [operation for obj in wanted if (operation := self._operation(obj)) is not None]
            operations += [*self._trusted(), *self._unserved(names)]
            try:
                if not operations:
                    return
                await self._writer.run_all(operations)
            except (AlreadyExists, Conflict):
                # another server was faster
                if not left:
                    raise
                await asyncio.sleep(0.05)

    def _kind(self, resource: Resource) -> Kind:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            raise NotFound(f"this version of Kubernetes has no {resource}")
        return kind

    def _operation(self, obj: Obj) -> Operation | None:
        """The write that brings one object about; None when it is there."""
        kind = self._registry.by_kind(obj["apiVersion"], obj["kind"])
        if kind is None or not self._registry.defines(kind):
            return None
        meta = obj["metadata"]
        context = self._writer.context(SERVER, _MANAGER)
        present = self._writer.lookup(kind.resource, meta.get("namespace", ""), meta["name"])
        if present is None:
            data = orjson.dumps(obj)
            return self._writer.create(kind, meta.get("namespace", ""), lambda: (orjson.loads(data), []), context)
        if kind.resource.group == FLOW_SCHEMAS.group:
            return self._flow_control(kind, obj, present)
        if kind.resource == API_SERVICES:
            if not apiservices.managed_as(present) or apiservices.is_as(present, obj):
                return None
            return self._writer.transform(kind, "", meta["name"], context, lambda old: {**old, "spec": obj["spec"]})
        if kind.resource.group != _RBAC:
            return None
        if is_replaced(present, obj):
            options = {"preconditions": {"uid": present["metadata"]["uid"]}}
            return self._writer.delete(kind, meta.get("namespace", ""), meta["name"], options, context)
        if reconciled(present, obj) is None:
            return None
        return self._writer.transform(
            kind, meta.get("namespace", ""), meta["name"], context, lambda old: reconciled(old, obj) or old
        )

    def _flow_control(self, kind: Kind, obj: Obj, present: Obj) -> Operation | None:
        """Mandatory objects are as they must be; suggested ones too, until somebody says that they are his."""
        name, annotations = obj["metadata"]["name"], present["metadata"].get("annotations") or {}
        ours = name in (EXEMPT, CATCH_ALL) or annotations.get(_AUTOUPDATE_SPEC) == "true"
        if not ours or _contains(present["spec"], obj["spec"]):
            return None
        context = self._writer.context(SERVER, _MANAGER)
        return self._writer.transform(kind, "", name, context, lambda old: {**old, "spec": obj["spec"]})

    def _unserved(self, names: set[str]) -> list[Operation]:
        """The writes that take away the APIServices of what an earlier version served."""
        context = self._writer.context(SERVER, _MANAGER)
        return [
            self._writer.delete(self._kind(API_SERVICES), "", obj["metadata"]["name"], None, context)
            for obj in self._writer.objects(API_SERVICES, None)
            if apiservices.managed_as(obj) == apiservices.ON_START and obj["metadata"]["name"] not in names
        ]

    def _trusted(self) -> list[Operation]:
        """The write that tells extension API servers whom to trust; none when they know."""
        present = self._writer.lookup(CONFIG_MAPS, "kube-system", TRUST)
        config, before = self._config, {} if present is None else present.get("data") or {}
        data = trust(config.client_ca.decode(), config.proxy_ca.decode(), ALLOWED_NAMES, before)
        if data == before:
            return []
        context, kind = self._writer.context(SERVER, _MANAGER), self._kind(CONFIG_MAPS)
        if present is not None:
            return [self._writer.transform(kind, "kube-system", TRUST, context, lambda old: {**old, "data": data})]
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRUST, "namespace": "kube-system"}}
        return [self._writer.create(kind, "kube-system", lambda: ({**obj, "data": dict(data)}, []), context)]

    def _default_range(self) -> list[Operation]:
        """The write that makes the default ServiceCIDR again when somebody has deleted it."""
        if self._writer.lookup(SERVICE_CIDRS, "", DEFAULT_RANGE) is not None:
            return []
        wanted = read_objects(self._config.service_cidr, self._config.port or 0)
        made = (self._operation(obj) for obj in wanted if obj["kind"] == SERVICE_CIDRS.kind)
        return [operation for operation in made if operation is not None]

    # ---- where the API servers are

    async def announce(self, port: int) -> None:
        """Makes this server an endpoint of the `kubernetes` Service, and keeps it one."""
        address = self._config.advertise_address or self._config.host
        try:
            usable = not ip_address(address).is_unspecified
        except ValueError:
            usable = False
        if port and usable:
            await self._publish(address, port)
            with contextlib.suppress(StoreError, ApiError):
                await self._renew(address, port)
            self._announcer = asyncio.create_task(self._keep(address, port))

    async def _publish(self, address: str, port: int) -> None:
        """Tells machines that want to join where the cluster is, unless that has been told already."""
        if not self._config.client_ca or self._writer.lookup(CONFIG_MAPS, INFO_NAMESPACE, INFO) is not None:
            return
        shown = f"[{address}]" if ":" in address else address
        data = orjson.dumps(cluster_info(f"https://{shown}:{port}", self._config.client_ca))
        context = self._writer.context(SERVER, _MANAGER)
        with contextlib.suppress(AlreadyExists, StoreError):
            kind = self._kind(CONFIG_MAPS)
            await self._writer.run(self._writer.create(kind, INFO_NAMESPACE, lambda: (orjson.loads(data), []), context))

    async def stop(self) -> None:
        if self._announcer is not None:
            self._announcer.cancel()
            await asyncio.gather(self._announcer, return_exceptions=True)
        if self._lease:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._store.lease_revoke(self._lease)

    async def _keep(self, address: str, port: int) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await self._renew(address, port)
                if missing := [*self._trusted(), *self._default_range()]:
                    await self._writer.run_all(missing)
            except (StoreError, ApiError) as error:
                log.info("this server's endpoint was not renewed: %s", error)

    async def _renew(self, address: str, port: int) -> None:
        try:
            if self._lease:
                await self._store.lease_keep_alive(self._lease)
        except LeaseNotFound:
            self._lease = 0
        if not self._lease:
            lease = await self._store.lease_grant(_LEASE_S)
            name = f"{address}:{port}"
            key = f"{_ADDRESSES}{name}".encode()
            value = encode({"apiVersion": "steersman/v1", "kind": "Endpoint", "metadata": {"name": name}})
            result = await self._store.txn(Txn(success=(Put(key=key, value=value, lease=lease),)))
            self._lease = lease
            await self._cache.reach(result.revision)
        await self._reconcile()

    async def _reconcile(self) -> None:
        servers: dict[int, list[str]] = {}
        for entry in self._cache.shelf(_ADDRESSES).within():
            address, _, port = entry.key.rpartition(":")
            servers.setdefault(int(port), []).append(address)
        await self._put(ENDPOINTS, _endpoints(servers))
        slices = [_slice(port, addresses, n) for n, (port, addresses) in enumerate(sorted(servers.items()))]
        for row in slices:
            await self._put(ENDPOINT_SLICES, row)
        names = {row["metadata"]["name"] for row in slices}
        for old in list(self._writer.objects(ENDPOINT_SLICES, "default")):
            labels = old["metadata"].get("labels") or {}
            if (
                labels.get("endpointslice.kubernetes.io/managed-by") == _MANAGER
                and old["metadata"]["name"] not in names
            ):
                context = self._writer.context(SERVER, _MANAGER)
                with contextlib.suppress(NotFound):
                    name = old["metadata"]["name"]
                    await self._writer.run(
                        self._writer.delete(self._kind(ENDPOINT_SLICES), "default", name, None, context)
                    )

    async def _put(self, resource: Resource, obj: Obj) -> None:
        """Creates or updates an object of ours where it differs."""
        kind, name = self._kind(resource), obj["metadata"]["name"]
        context = self._writer.context(SERVER, _MANAGER)
        present = self._writer.lookup(resource, "default", name)
        parts = {key: value for key, value in obj.items() if key not in ("metadata", "kind", "apiVersion")}
        if present is None:
            data = orjson.dumps(obj)
            with contextlib.suppress(AlreadyExists):
                await self._writer.run(self._writer.create(kind, "default", lambda: (orjson.loads(data), []), context))
        elif any(present.get(key) != value for key, value in parts.items()):
            await self._writer.run(self._writer.transform(kind, "default", name, context, lambda old: {**old, **parts}))


def _contains(present: object, wanted: object) -> bool:
    """Whether an object is as it should be, apart from what defaults add."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(_contains(present.get(key), row) for key, row in wanted.items())
    return present == wanted


def _endpoints(servers: dict[int, list[str]]) -> Obj:
    subsets = [
        {
            "addresses": [{"ip": address} for address in sorted(addresses)],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        for port, addresses in sorted(servers.items())
    ]
    labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    meta = {"name": "kubernetes", "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets}


def _slice(port: int, addresses: Sequence[str], number: int) -> Obj:
    labels = {"kubernetes.io/service-name": "kubernetes", "endpointslice.kubernetes.io/managed-by": _MANAGER}
    name = "kubernetes" if not number else f"kubernetes-{port}"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in sorted(addresses)],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
