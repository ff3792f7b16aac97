"""Rows of workloads: apps, batch and autoscaling."""

from __future__ import annotations

from steersman.cluster.api.row import Kind, ScalePaths
from steersman.cluster.api.rows.core import SCALE, status
from steersman.cluster.api.rules import autoscaling, batch, job_status, scaling, stateful_sets, workloads
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.resources import Resource

_ALL = ("all",)

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=Resource("apps", "v1", "controllerrevisions", "ControllerRevision"), singular="controllerrevision",
        validate=workloads.validate_revision, validate_create=workloads.validate_new_revision,
        validate_update=workloads.validate_revision_update,
    ),
    Kind(
        resource=Resource("apps", "v1", "daemonsets", "DaemonSet"), singular="daemonset", short_names=("ds",),
        categories=_ALL, subresources=status("DaemonSet", "apps"), has_generation=True,
        defaults=workloads.default_daemon_set, validate=workloads.validate_daemon_set,
        prepare_create=workloads.prepare_daemon_set, prepare_update=workloads.prepare_daemon_set_update,
        validate_status=workloads.validate_daemon_status, validate_update=workloads.validate_selector_update,
        new_status={
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        },
    ),
    Kind(
        resource=known.DEPLOYMENTS, singular="deployment", short_names=("deploy",), categories=_ALL,
        subresources={**status("Deployment", "apps"), "scale": SCALE}, scale=ScalePaths(), has_generation=True,
        counted=("annotations",), defaults=workloads.default_deployment, validate=workloads.validate_deployment,
        kept={"status": ("labels",)},
        validate_update=workloads.validate_selector_update, validate_status=workloads.validate_deployment_status,
        new_status={},
    ),
    Kind(
        resource=known.REPLICA_SETS, singular="replicaset", short_names=("rs",), categories=_ALL,
        subresources={**status("ReplicaSet", "apps"), "scale": SCALE}, scale=ScalePaths(), has_generation=True,
        defaults=workloads.default_replica_set, validate=workloads.validate_replica_set,
        validate_update=workloads.validate_selector_update, validate_status=workloads.validate_replica_status,
        new_status={"replicas": 0},
        selectable_fields=workloads.replica_fields,
    ),
    Kind(
        resource=Resource("apps", "v1", "statefulsets", "StatefulSet"), singular="statefulset", short_names=("sts",),
        categories=_ALL, subresources={**status("StatefulSet", "apps"), "scale": SCALE}, scale=ScalePaths(),
        validate_status=stateful_sets.validate_status, has_generation=True,
        name_errors=label_1123_errors, validate_create=stateful_sets.validate_new_stateful_set,
        defaults=stateful_sets.default_stateful_set, validate=stateful_sets.validate_stateful_set,
        validate_update=stateful_sets.validate_stateful_set_update, new_status={"replicas": 0, "availableReplicas": 0},
    ),
    Kind(
        resource=Resource("batch", "v1", "cronjobs", "CronJob"), singular="cronjob", short_names=("cj",),
        categories=_ALL, subresources=status("CronJob", "batch"), has_generation=True,
        defaults=batch.default_cron_job, validate=batch.validate_cron_job, new_status={},
        validate_create=batch.validate_new_cron_job, validate_update=batch.validate_cron_job_update,
    ),
    Kind(
        resource=known.JOBS, singular="job", categories=_ALL, subresources=status("Job", "batch"), has_generation=True,
        defaults=batch.default_job, validate=batch.validate_job, validate_update=batch.validate_job_update,
        validate_create=batch.validate_new_job, validate_status=job_status.validate_status,
        new_status={}, prepare_create=batch.prepare_job, selectable_fields=batch.job_fields,
        default_propagation="Orphan",
    ),
    Kind(
        resource=Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        singular="horizontalpodautoscaler", short_names=("hpa",), categories=_ALL,
        subresources=status("HorizontalPodAutoscaler", "autoscaling", "v2"), defaults=autoscaling.default_v2,
        validate=scaling.validate, validate_status=scaling.validate_status,
        new_status={"currentMetrics": None, "desiredReplicas": 0},
    ),
    Kind(
        resource=Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        singular="horizontalpodautoscaler", short_names=("hpa",), categories=_ALL,
        subresources=status("HorizontalPodAutoscaler", "autoscaling", "v1"), defaults=autoscaling.default_v1,
        validate=scaling.validate, validate_status=scaling.validate_status,
        new_status={"currentReplicas": 0, "desiredReplicas": 0},
        stored=autoscaling.to_v2, served=autoscaling.from_v2,
    ),
)  # fmt: skip
