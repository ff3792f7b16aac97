"""The columns that kubectl prints for each built-in kind, one module a kind group.

Source: k8s.io/kubernetes/pkg/printers/internalversion (column names and order), the kubectl reference
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.cluster.api.columns import (
    access,
    admission,
    batch,
    core,
    csi,
    devices,
    extensions,
    network,
    nodes,
    pods,
    server,
    storage,
    workloads,
)
from steersman.cluster.api.columns.column import Age, Columns, Name, age, name

#: (group, kind) to its columns
COLUMNS: Mapping[tuple[str, str], Columns] = {
    **access.COLUMNS,
    **admission.COLUMNS,
    **batch.COLUMNS,
    **core.COLUMNS,
    **csi.COLUMNS,
    **devices.COLUMNS,
    **extensions.COLUMNS,
    **network.COLUMNS,
    **nodes.COLUMNS,
    **pods.COLUMNS,
    **server.COLUMNS,
    **storage.COLUMNS,
    **workloads.COLUMNS,
}

#: of kinds that have no columns of their own
DEFAULT = Columns((Name, Age), lambda obj, now: [name(obj), age(obj, now)])
