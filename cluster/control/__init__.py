"""Controllers: one file each, pure: what is observed of a key and the time go in, a plan comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from steersman.cluster.control.spec import ControllerSpec

#: controller name -> its module here, and what it is called there
_PLACES = {
    "clusterrole-aggregation": ("clusterroles", "CLUSTER_ROLE_AGGREGATION"),
    "cronjob": ("cronjob", "CRON_JOB"),
    "daemonset": ("daemonset", "DAEMON_SET"),
    "deployment": ("deployment", "DEPLOYMENT"),
    "disruption": ("disruption", "DISRUPTION"),
    "endpoints": ("endpoints", "ENDPOINTS_CONTROLLER"),
    "endpointslice": ("endpointslice", "ENDPOINT_SLICE"),
    "endpointslicemirroring": ("endpointmirror", "ENDPOINT_SLICE_MIRRORING"),
    "garbagecollector": ("garbage", "GARBAGE_COLLECTOR"),
    "ipaddress-repair": ("ipaddresses", "IP_ADDRESS_REPAIR"),
    "job": ("job", "JOB"),
    "namespace": ("namespace", "NAMESPACE"),
    "nodeipam": ("nodeipam", "NODE_IPAM"),
    "nodelifecycle": ("nodelifecycle", "NODE_LIFECYCLE"),
    "podgc": ("podgc", "POD_GC"),
    "replicaset": ("replicaset", "REPLICA_SET"),
    "replicationcontroller": ("replicaset", "REPLICATION_CONTROLLER"),
    "resourcequota": ("resourcequota", "RESOURCE_QUOTA"),
    "root-ca": ("serviceaccount", "ROOT_CA_PUBLISHER"),
    "service-cidr": ("servicecidrs", "SERVICE_CIDR"),
    "serviceaccount": ("serviceaccount", "SERVICE_ACCOUNT"),
    "statefulset": ("statefulset", "STATEFUL_SET"),
    "ttl-after-finished": ("ttl", "TTL_AFTER_FINISHED"),
    "volume-protection": ("protection", "VOLUME_PROTECTION"),
}


class _Controllers(Mapping[str, ControllerSpec]):
    """Loads a controller's module when it is asked for: an actor runs only one of them."""

    def __getitem__(self, name: str) -> ControllerSpec:
        module, attribute = _PLACES[name]
        spec: ControllerSpec = getattr(import_module(f"steersman.cluster.control.{module}"), attribute)
        return spec

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


#: every controller by name
CONTROLLERS: Mapping[str, ControllerSpec] = _Controllers()
