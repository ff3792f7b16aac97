"""What the admission plugins of a cluster are told, beside being switched on.

Source: https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-config-k8s-io-v1-AdmissionConfiguration
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from steersman.cluster.api.admission.event_rates import EventLimit
from steersman.cluster.meta.objects import Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSecurity:
    """Standards where a namespace has no labels for them, and whom they do not concern.

    Args:
        defaults: by mode, and by mode and `-version`, as the labels of a namespace would say it.
    """

    defaults: Mapping[str, str] = field(default_factory=dict)
    users: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """What nobody may use without a quota that covers it.

    Args:
        contains: parts of the names of what a quota counts.
        scopes: requirements, as a quota's `scopeSelector` has them.
    """

    group: str
    resource: str
    contains: tuple[str, ...] = ()
    scopes: tuple[Obj, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """By plugin.

    Args:
        limited: of ResourceQuota.
        node_selectors: of PodNodeSelector: labels that a namespace's pods may ask for; of no namespace, what they ask
            for where it says nothing.
        tolerations, tolerable: of PodTolerationRestriction: what pods have where their namespace says nothing, and all
            that they may have there.
        events: of EventRateLimit.
        mutating_kubeconfig, validating_kubeconfig: files of who the server is to webhooks; empty for nobody.
    """

    pod_security: PodSecurity = field(default_factory=PodSecurity)
    limited: tuple[Limited, ...] = ()
    node_selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tolerations: tuple[Obj, ...] = ()
    tolerable: tuple[Obj, ...] = ()
    events: tuple[EventLimit, ...] = ()
    mutating_kubeconfig: str = ""
    validating_kubeconfig: str = ""
