"""Controllers: one file each, pure: what is observed of a key and the time go in, a plan comes out."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.control.deployment import DEPLOYMENT
from steersman.cluster.control.replicaset import REPLICA_SET
from steersman.cluster.control.spec import ControllerSpec

#: every controller by name
CONTROLLERS: Mapping[str, ControllerSpec] = {spec.name: spec for spec in (DEPLOYMENT, REPLICA_SET)}
