"""Rows of the core group, of events and of leases."""

from __future__ import annotations

from steersman.cluster.api.row import ALL_VERBS, OBJECT_META, STATUS_VERBS, Kind, ScalePaths, Subresource
from steersman.cluster.api.rules import (
    cluster,
    config,
    defaults,
    endpoints,
    events,
    limits,
    pod_status,
    pods,
    pods_resize,
    pods_update,
    services,
    volume_claims,
    volumes,
    workloads,
)
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.resources import Resource


def status(kind: str, group: str = "", version: str = "v1") -> dict[str, Subresource]:
    """The subresources of a kind that has only a status."""
    return {"status": Subresource("status", STATUS_VERBS, kind, group, version)}


_STREAMS = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")
_POD_SUBRESOURCES = {
    **status("Pod"),
    "attach": Subresource("attach", _STREAMS, "PodAttachOptions"),
    "binding": Subresource("binding", ("create",), "Binding"),
    "ephemeralcontainers": Subresource("ephemeralcontainers", STATUS_VERBS, "Pod"),
    "eviction": Subresource("eviction", ("create",), "Eviction", "policy"),
    "exec": Subresource("exec", _STREAMS, "PodExecOptions"),
    "log": Subresource("log", ("get",), "Pod"),
    "portforward": Subresource("portforward", _STREAMS, "PodPortForwardOptions"),
    "proxy": Subresource("proxy", _PROXY, "PodProxyOptions"),
    "resize": Subresource("resize", STATUS_VERBS, "Pod"),
}
SCALE = Subresource("scale", STATUS_VERBS, "Scale", "autoscaling")

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=Resource("", "v1", "bindings", "Binding"), singular="binding", verbs=("create",), virtual=True,
    ),
    Kind(
        resource=Resource("", "v1", "componentstatuses", "ComponentStatus", namespaced=False),
        singular="componentstatus", short_names=("cs",), verbs=("get", "list"), virtual=True,
        deprecation="v1 ComponentStatus is deprecated in v1.19+",
    ),
    Kind(
        resource=known.CONFIG_MAPS, singular="configmap", short_names=("cm",),
        validate=config.validate_config_map, validate_change=config.validate_config_map_change,
    ),
    Kind(
        resource=known.ENDPOINTS, singular="endpoints", create_on_update=True, short_names=("ep",),
        defaults=endpoints.default_endpoints,
        validate=endpoints.validate_endpoints, validate_change=endpoints.validate_endpoints_change,
        deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    Kind(
        resource=known.EVENTS, singular="event", create_on_update=True, short_names=("ev",),
        selectable_fields=events.core_fields,
        validate=events.validate_core, defaults=events.default_core,
    ),
    Kind(
        resource=Resource("", "v1", "limitranges", "LimitRange"), singular="limitrange", create_on_update=True,
        short_names=("limits",),
        defaults=limits.default_limit_range, validate=limits.validate_limit_range,
    ),
    Kind(
        resource=known.NAMESPACES, singular="namespace", short_names=("ns",),
        subresources={
            **status("Namespace"),
            "finalize": Subresource("finalize", ("update",), "Namespace"),
        },
        verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"), new_status={"phase": "Active"},
        prepare_create=cluster.prepare_namespace, parts={"finalize": cluster.finalized},
        prepare_update=cluster.prepare_namespace_update, validate_create=cluster.validate_namespace,
        validate_status=cluster.validate_namespace_status, validate_parts={"finalize": cluster.validate_finalize},
        selectable_fields=cluster.namespace_fields, name_errors=label_1123_errors,
        defaults=cluster.default_namespace,
    ),
    Kind(
        resource=known.NODES, singular="node", short_names=("no",),
        subresources={**status("Node"), "proxy": Subresource("proxy", _PROXY, "NodeProxyOptions")},
        defaults=cluster.default_node, validate=cluster.validate_node, validate_update=cluster.validate_node_update,
        validate_status=cluster.validate_node_status,
        selectable_fields=cluster.node_fields,
    ),
    Kind(
        resource=known.PERSISTENT_VOLUME_CLAIMS, singular="persistentvolumeclaim", short_names=("pvc",),
        subresources=status("PersistentVolumeClaim"), defaults=volume_claims.default_claim,
        validate=volume_claims.validate_claim,
        validate_update=volume_claims.validate_claim_update, new_status={"phase": "Pending"},
        prepare_create=volume_claims.prepare_create, prepare_update=volume_claims.prepare_update,
        validate_status=volume_claims.validate_claim_status,
    ),
    Kind(
        resource=known.PERSISTENT_VOLUMES, singular="persistentvolume", short_names=("pv",),
        subresources=status("PersistentVolume"), defaults=volumes.default_volume, validate=volumes.validate_volume,
        validate_update=volumes.validate_volume_update, new_status={"phase": "Pending"},
    ),
    Kind(
        resource=known.PODS, singular="pod", short_names=("po",), categories=("all",),
        subresources=_POD_SUBRESOURCES, defaults=defaults.pod, validate=pods.validate,
        validate_update=pods_update.validate_update, validate_status=pod_status.validate_status,
        validate_create=pods.validate_create,
        parts={"ephemeralcontainers": pods_update.with_ephemeral, "resize": pods_resize.resized},
        owned={
            "ephemeralcontainers": (("f:spec", "f:ephemeralContainers"),),
            "resize": tuple(
                ("f:spec", f"f:{many}", "*", f"f:{key}")
                for many in ("containers", "initContainers")
                for key in ("resources", "resizePolicy")
            ),
        },
        # old kubelets spoilt the owners
        kept={"status": ("ownerReferences",), "ephemeralcontainers": OBJECT_META, "resize": OBJECT_META},
        validate_parts={
            "ephemeralcontainers": pods_update.validate_ephemeral, "resize": pods_resize.validate_resize,
        },
        prepare_create=pods.prepare_create, prepare_part=pod_status.prepare_part, selectable_fields=pods.fields,
        has_generation=True,
    ),
    Kind(
        resource=Resource("", "v1", "podtemplates", "PodTemplate"), singular="podtemplate", has_generation=True,
        defaults=defaults.template, validate=workloads.validate_pod_template,
    ),
    Kind(
        resource=Resource("", "v1", "replicationcontrollers", "ReplicationController"),
        singular="replicationcontroller", short_names=("rc",), categories=("all",), has_generation=True,
        subresources={**status("ReplicationController"), "scale": SCALE}, scale=ScalePaths(),
        new_status={"replicas": 0}, validate=workloads.validate_replication_controller,
        validate_status=workloads.validate_replica_status,
        defaults=workloads.default_replication_controller, default_propagation="Orphan",
        selectable_fields=workloads.replica_fields,
    ),
    Kind(
        resource=Resource("", "v1", "resourcequotas", "ResourceQuota"), singular="resourcequota",
        short_names=("quota",), subresources=status("ResourceQuota"), new_status={}, validate=limits.validate_quota,
        validate_update=limits.validate_quota_update, validate_status=limits.validate_quota_status,
    ),
    Kind(
        resource=known.SECRETS, singular="secret", defaults=config.default_secret, validate=config.validate_secret,
        validate_change=config.validate_secret_change, selectable_fields=config.secret_fields,
    ),
    Kind(
        resource=known.SERVICE_ACCOUNTS, singular="serviceaccount", short_names=("sa",),
        subresources={"token": Subresource("token", ("create",), "TokenRequest", "authentication.k8s.io")},
        prepare_create=config.prepare_account, prepare_update=config.prepare_account_update,
    ),
    Kind(
        resource=known.SERVICES, singular="service", create_on_update=True, short_names=("svc",), categories=("all",),
        subresources={**status("Service"), "proxy": Subresource("proxy", _PROXY, "ServiceProxyOptions")},
        defaults=services.default_service, validate=services.validate_service,
        validate_status=services.validate_status,
        validate_change=services.validate_service_change, prepare_create=services.prepare_create,
        new_status={"loadBalancer": {}}, prepare_update=services.prepare_update, selectable_fields=services.fields,
        name_errors=label_1123_errors,
    ),
    Kind(
        resource=Resource("events.k8s.io", "v1", "events", "Event"), singular="event", create_on_update=True,
        short_names=("ev",),
        selectable_fields=events.new_fields, validate=events.validate_new, validate_create=events.validate_create_new,
        validate_update=events.validate_update_new, storage_group="core",
        stored=events.to_core, served=events.from_core,
    ),
    Kind(
        resource=known.LEASES, singular="lease", allows_unconditional_update=False, validate=cluster.validate_lease,
        create_on_update=True,
    ),
    Kind(
        resource=known.ENDPOINT_SLICES, singular="endpointslice", has_generation=True, counted=("labels",),
        prepare_create=endpoints.prepare_slice, prepare_update=endpoints.prepare_slice_update,
        defaults=endpoints.default_endpoint_slice, validate=endpoints.validate_endpoint_slice,
        validate_change=endpoints.validate_endpoint_slice_change,
    ),
)  # fmt: skip
