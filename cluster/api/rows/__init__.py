"""The table of built-in kinds, in the order in which discovery lists them."""

from __future__ import annotations

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rows import (
    admission,
    apps,
    core,
    devices,
    extensions,
    network,
    policy,
    reviews,
    server,
    storage,
)

#: every kind that has an address
ROWS: tuple[Kind, ...] = (
    *core.ROWS, *apps.ROWS, *policy.ROWS, *network.ROWS, *storage.ROWS, *devices.ROWS, *extensions.ROWS,
    *admission.ROWS, *server.ROWS, *reviews.ROWS,
)  # fmt: skip
#: kinds that only travel in bodies
BODY_ROWS: tuple[Kind, ...] = reviews.BODY_ROWS
