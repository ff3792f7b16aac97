"""The admission plugins as data: in Kubernetes' order, which of them are on by themselves, and what each looks at.

Each is named as `--enable-admission-plugins` and `--disable-admission-plugins` name it. Webhooks, policies and quotas
have a row here so that they can be switched off; what they do is elsewhere (`chain`, `quota`).

Source: pkg/kubeapiserver/options/plugins.go; kubeadm, which switches NodeRestriction on
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from steersman.cluster.api.admission import (
    admin_access,
    certificates,
    event_rates,
    limits,
    namespaces,
    node_selectors,
    noderestriction,
    nodes,
    optional,
    podsecurity,
    priority,
    runtime_classes,
    service_accounts,
    storage,
    toleration_lists,
    tolerations,
)
from steersman.cluster.api.admission.attempt import CONNECT, CREATE, DELETE, UPDATE, Attempt
from steersman.cluster.api.context import ApiSettings, WriteContext
from steersman.cluster.meta.objects import Obj

#: changes an attempt's object in place, or raises an API error to refuse it
Step = Callable[[Attempt, WriteContext], None]

_EVERY, _WRITES = (CREATE, UPDATE, DELETE, CONNECT), (CREATE, UPDATE)
_PODS, _NODES, _CLAIMS = ("", "pods"), ("", "nodes"), ("", "persistentvolumeclaims")
_VOLUMES, _ATTRIBUTES = ("", "persistentvolumes"), ("storage.k8s.io", "volumeattributesclasses")
_CLASSES, _REQUESTS = ("scheduling.k8s.io", "priorityclasses"), ("certificates.k8s.io", "certificatesigningrequests")
_DEVICES, _TEMPLATES = ("resource.k8s.io", "resourceclaims"), ("resource.k8s.io", "resourceclaimtemplates")


@dataclass(frozen=True, slots=True)
class Part:
    """A step and the attempts that it is for. Args: resource, subresource: None for every one."""

    step: Step
    operations: tuple[str, ...] = _WRITES
    resource: tuple[str, str] | None = None
    subresource: str | None = ""

    def concerns(self, operation: str, resource: tuple[str, str], subresource: str) -> bool:
        return (
            operation in self.operations
            and self.resource in (None, resource)
            and self.subresource in (None, subresource)
        )


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin.

    Args:
        default: it is on unless it is switched off.
        changes: what it does to objects; checks: what only looks, when the object is complete.
    """

    name: str
    default: bool
    changes: tuple[Part, ...] = ()
    checks: tuple[Part, ...] = ()


def _new(change: Callable[[Obj, WriteContext], None], resource: tuple[str, str]) -> Part:
    """What changes new objects of a resource."""

    def step(attempt: Attempt, ctx: WriteContext) -> None:
        assert attempt.obj is not None
        change(attempt.obj, ctx)

    return Part(step, (CREATE,), resource)


def _anew(change: Callable[[Obj, Obj, WriteContext], None], resource: tuple[str, str]) -> Part:
    """What changes objects of a resource that are written anew."""

    def step(attempt: Attempt, ctx: WriteContext) -> None:
        assert attempt.obj is not None and attempt.old is not None
        change(attempt.obj, attempt.old, ctx)

    return Part(step, (UPDATE,), resource)


PLUGINS: tuple[Plugin, ...] = (
    Plugin("NamespaceLifecycle", True, (Part(namespaces.admit_create, (CREATE,), subresource=None),)),
    Plugin("NamespaceExists", False, (),
           (Part(namespaces.validate_exists, (CREATE, UPDATE, DELETE), subresource=None),)),
    Plugin("LimitPodHardAntiAffinityTopology", False, (), (Part(optional.validate_affinity, _WRITES, _PODS),)),
    Plugin("LimitRanger", True,
           (_new(limits.admit_pod, _PODS),),
           (Part(limits.validate_pod, (CREATE,), _PODS), Part(limits.validate_pod, (UPDATE,), _PODS, "resize"),
            Part(limits.validate_claim, _WRITES, _CLAIMS))),
    Plugin("ServiceAccount", True,
           (_new(service_accounts.admit_pod, _PODS),),
           (Part(service_accounts.validate_pod, (CREATE,), _PODS),
            Part(service_accounts.validate_pod, (UPDATE,), _PODS, "ephemeralcontainers"))),
    Plugin("NodeRestriction", True, (Part(noderestriction.admit, _EVERY, subresource=None),)),
    Plugin("TaintNodesByCondition", True, (_new(tolerations.admit_node, _NODES),)),
    Plugin("AlwaysPullImages", False,
           (Part(optional.pull_images, _WRITES, _PODS),
            Part(optional.pull_images, _WRITES, _PODS, "ephemeralcontainers")),
           (Part(optional.validate_pulls, _WRITES, _PODS),
            Part(optional.validate_pulls, _WRITES, _PODS, "ephemeralcontainers"))),
    Plugin("PodSecurity", True, (), (Part(podsecurity.validate, _WRITES, subresource=None),)),
    Plugin("PodNodeSelector", False,
           (Part(node_selectors.admit_pod, (CREATE,), _PODS),), (Part(node_selectors.validate_pod, (CREATE,), _PODS),)),
    Plugin("Priority", True,
           (_new(priority.admit_pod, _PODS), _anew(priority.admit_pod_update, _PODS),
            _new(priority.admit_class, _CLASSES), _anew(priority.admit_class_update, _CLASSES))),
    Plugin("DefaultTolerationSeconds", True,
           (_new(tolerations.admit_pod, _PODS), _anew(tolerations.admit_pod_update, _PODS))),
    Plugin("PodTolerationRestriction", False,
           (Part(toleration_lists.admit_pod, _WRITES, _PODS),), (Part(toleration_lists.validate_pod, _WRITES, _PODS),)),
    Plugin("EventRateLimit", False, (), (Part(event_rates.validate, _WRITES, ("", "events"), None),)),
    Plugin("ExtendedResourceToleration", False, (Part(optional.tolerate_devices, _WRITES, _PODS),)),
    Plugin("DefaultStorageClass", True, (_new(storage.admit_claim, _CLAIMS),)),
    Plugin("StorageObjectInUseProtection", True,
           (_new(storage.protect_claim, _CLAIMS), _new(storage.protect_volume, _VOLUMES),
            _new(storage.protect_attributes, _ATTRIBUTES))),
    Plugin("OwnerReferencesPermissionEnforcement", False, (),
           (Part(optional.validate_owners, _WRITES, subresource=None),)),
    Plugin("PersistentVolumeClaimResize", True, (), (Part(storage.validate_resize, (UPDATE,), _CLAIMS),)),
    Plugin("RuntimeClass", True,
           (_new(runtime_classes.admit_pod, _PODS),), (Part(runtime_classes.validate_pod, (CREATE,), _PODS),)),
    Plugin("CertificateApproval", True, (), (Part(certificates.validate_approval, (UPDATE,), _REQUESTS, "approval"),)),
    Plugin("CertificateSigning", True, (), (Part(certificates.validate_signing, (UPDATE,), _REQUESTS, "status"),)),
    Plugin("CertificateSubjectRestriction", True, (), (Part(certificates.validate_subject, (CREATE,), _REQUESTS),)),
    Plugin("DefaultIngressClass", True, (_new(storage.admit_ingress, ("networking.k8s.io", "ingresses")),)),
    Plugin("DenyServiceExternalIPs", False, (), (Part(optional.validate_addresses, _WRITES, ("", "services")),)),
    Plugin("PodTopologyLabels", True, (Part(nodes.admit_binding, (CREATE,), _PODS, "binding"),)),
    Plugin("MutatingAdmissionPolicy", True),
    Plugin("MutatingAdmissionWebhook", True),
    Plugin("ValidatingAdmissionPolicy", True),
    Plugin("ValidatingAdmissionWebhook", True),
    Plugin("ResourceQuota", True),
)  # fmt: skip
_USUAL = frozenset(plugin.name for plugin in PLUGINS if plugin.default)

#: what is no plugin, because nothing switches it off
_ALWAYS = (
    Part(admin_access.validate_claim, (CREATE,), _DEVICES),
    Part(admin_access.validate_status, (UPDATE,), _DEVICES, "status"),
    Part(admin_access.validate_template, (CREATE,), _TEMPLATES),
)


def is_on(name: str, settings: ApiSettings) -> bool:
    """Whether a plugin is at work: it is on by itself or switched on, and not switched off."""
    return name not in settings.plugins_off and (name in settings.plugins or name in _USUAL)


#: sorts of attempts whose steps are remembered: a cluster with hundreds of custom kinds has fewer
_SORTS_MAX = 4096


@lru_cache(maxsize=_SORTS_MAX)
def changes_of(settings: ApiSettings, operation: str, resource: tuple[str, str], subresource: str) -> tuple[Step, ...]:
    """What changes the objects of such attempts, in order."""
    parts = [part for plugin in PLUGINS if is_on(plugin.name, settings) for part in plugin.changes]
    return tuple(part.step for part in parts if part.concerns(operation, resource, subresource))


@lru_cache(maxsize=_SORTS_MAX)
def checks_of(settings: ApiSettings, operation: str, resource: tuple[str, str], subresource: str) -> tuple[Step, ...]:
    """What looks at the objects of such attempts when they are complete, in order."""
    parts = [part for plugin in PLUGINS if is_on(plugin.name, settings) for part in plugin.checks]
    return tuple(part.step for part in (*_ALWAYS, *parts) if part.concerns(operation, resource, subresource))
