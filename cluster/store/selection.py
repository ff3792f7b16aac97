"""Which keys of a range are answered and in what order, where a request asks for more than the order of keys.

Source: etcd, server/etcdserver/apply.go (`Range`): filters by revision first, then the order, then the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steersman.cluster.store.values import KeyValue, Selection, SortOrder, SortTarget

_FIELDS: dict[SortTarget, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


def keys_needed(selection: Selection, limit: int) -> int:
    """Returns how many keys of the range must be looked at; 0 for all.

    An order by another field that names no direction sorts only what the limit lets through, and one more, as in etcd.
    """
    filters = (
        selection.min_mod_revision
        or selection.max_mod_revision
        or selection.min_create_revision
        or selection.max_create_revision
    )
    return 0 if filters or selection.order is not SortOrder.NONE or not limit else limit + 1


def select(selection: Selection, found: Sequence[KeyValue], limit: int) -> tuple[list[KeyValue], bool]:
    """Returns the keys to answer, and whether the limit (0 for none) cut any off."""
    kvs = [
        kv
        for kv in found
        if _within(kv.mod_revision, selection.min_mod_revision, selection.max_mod_revision)
        and _within(kv.create_revision, selection.min_create_revision, selection.max_create_revision)
    ]
    if selection.order is not SortOrder.NONE or selection.target is not SortTarget.KEY:
        kvs.sort(key=_FIELDS[selection.target], reverse=selection.order is SortOrder.DESCEND)
    if limit and len(kvs) > limit:
        return kvs[:limit], True
    return kvs, False


def _within(revision: int, lowest: int, highest: int) -> bool:
    return revision >= lowest and (not highest or revision <= highest)
