"""Which old value belongs to a new one, and whether it is the same: what an update may leave broken.

Items belong together in lists with keys only, by the first old item of the same keys; fields in every object, also in
one that is replaced as a whole. A list with keys may be in another order; what no schema tells of is never the same.

Source: k8s.io/apiserver/pkg/cel/common/{equality,maplist}.go
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.cluster.api.cel.values import equal, mark

#: there is no old value that could be compared
MISSING: Any = object()


def list_keys(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a list's items; none of a list whose items do not belong to old ones."""
    if schema.get("x-kubernetes-list-type") != "map":
        return ()
    return tuple(schema.get("x-kubernetes-list-map-keys") or ())


class OldItems:
    """The old items of a list with keys.

    Args:
        keys: of the list; without any nothing belongs together.
        old: the list before, or anything else where there was none.
    """

    def __init__(self, keys: tuple[str, ...], old: Any) -> None:
        self._keys = keys
        self._by_key: dict[Any, Any] = {}
        for item in old if keys and isinstance(old, list) else ():
            if (key := self._key(item)) is not None:
                self._by_key.setdefault(key, item)

    def of(self, item: Any) -> Any:
        """The old item that belongs to one of the new list; MISSING when there is none."""
        return self._by_key.get(self._key(item), MISSING) if self._by_key else MISSING

    def _key(self, item: Any) -> Any:
        if not isinstance(item, dict):
            return None
        found = [item.get(key) for key in self._keys]
        if any(not isinstance(value, (str, int, float)) for value in found):
            return None
        return tuple(map(mark, found))


def schema_below(schema: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """The schema of a field or of a map's value; None when there is none."""
    found = (schema.get("properties") or {}).get(key)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else None


def unchanged(schema: Mapping[str, Any], new: Any, old: Any) -> bool:
    """Whether a value is what it was, as far as its schema tells."""
    if isinstance(new, dict) and isinstance(old, dict):
        return len(new) == len(old) and all(
            key in old and (below := schema_below(schema, key)) is not None and unchanged(below, value, old[key])
            for key, value in new.items()
        )
    keys = list_keys(schema)
    if not (keys and isinstance(new, list) and isinstance(old, list)):
        return equal(new, old)
    if len(new) != len(old):
        return False
    before = OldItems(keys, old)
    pairs = [(item, before.of(item)) for item in new]
    return all(known is not MISSING and unchanged(schema["items"], item, known) for item, known in pairs)
