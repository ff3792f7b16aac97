"""Rows of networking: ingresses, network policies, and the addresses of Services."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows.core import status
from steersman.cluster.api.rules import addresses, ingresses, network
from steersman.cluster.meta import resources as known
from steersman.cluster.meta.resources import Resource

_GROUP = "networking.k8s.io"

ROWS: tuple[Kind, ...] = (
    Kind(
        resource=Resource(_GROUP, "v1", "ingressclasses", "IngressClass", namespaced=False), singular="ingressclass",
        has_generation=True, validate=ingresses.validate_class, defaults=ingresses.default_class,
        validate_change=ingresses.validate_class_change,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "ingresses", "Ingress"), singular="ingress", short_names=("ing",),
        subresources=status("Ingress", _GROUP), has_generation=True, new_status={"loadBalancer": {}},
        validate=ingresses.validate_ingress, validate_status=ingresses.balancer,
        validate_create=ingresses.validate_new_ingress, validate_change=ingresses.validate_ingress_change,
    ),
    Kind(
        resource=known.IP_ADDRESSES, singular="ipaddress",
        short_names=("ip",), name_errors=addresses.ip_name_errors, validate=addresses.validate_address,
        validate_update=addresses.validate_address_update, selectable_fields=addresses.address_fields,
    ),
    Kind(
        resource=Resource(_GROUP, "v1", "networkpolicies", "NetworkPolicy"), singular="networkpolicy",
        short_names=("netpol",), has_generation=True, defaults=network.default_network_policy,
        validate=network.validate_network_policy, validate_change=network.validate_network_policy_change,
    ),
    Kind(
        resource=known.SERVICE_CIDRS, singular="servicecidr",
        subresources=status("ServiceCIDR", _GROUP), new_status={}, validate_create=addresses.validate_range,
        validate_update=addresses.validate_range_update,
    ),
)  # fmt: skip
