"""Controllers: one file each, pure: what is observed of a key and the time go in, a plan comes out."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.control.clusterroles import CLUSTER_ROLE_AGGREGATION
from steersman.cluster.control.cronjob import CRON_JOB
from steersman.cluster.control.daemonset import DAEMON_SET
from steersman.cluster.control.deployment import DEPLOYMENT
from steersman.cluster.control.disruption import DISRUPTION
from steersman.cluster.control.endpoints import ENDPOINTS_CONTROLLER
from steersman.cluster.control.endpointslice import ENDPOINT_SLICE
from steersman.cluster.control.garbage import GARBAGE_COLLECTOR
from steersman.cluster.control.job import JOB
from steersman.cluster.control.namespace import NAMESPACE
from steersman.cluster.control.nodeipam import NODE_IPAM
from steersman.cluster.control.nodelifecycle import NODE_LIFECYCLE
from steersman.cluster.control.podgc import POD_GC
from steersman.cluster.control.replicaset import REPLICA_SET
from steersman.cluster.control.serviceaccount import ROOT_CA_PUBLISHER, SERVICE_ACCOUNT
from steersman.cluster.control.spec import ControllerSpec
from steersman.cluster.control.ttl import TTL_AFTER_FINISHED

#: every controller by name
CONTROLLERS: Mapping[str, ControllerSpec] = {
    spec.name: spec
    for spec in (
        DEPLOYMENT,
        REPLICA_SET,
        JOB,
        ENDPOINT_SLICE,
        ENDPOINTS_CONTROLLER,
        NAMESPACE,
        SERVICE_ACCOUNT,
        ROOT_CA_PUBLISHER,
        GARBAGE_COLLECTOR,
        NODE_LIFECYCLE,
        NODE_IPAM,
        POD_GC,
        TTL_AFTER_FINISHED,
        DAEMON_SET,
        CRON_JOB,
        DISRUPTION,
        CLUSTER_ROLE_AGGREGATION,
    )
}
