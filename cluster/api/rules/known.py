"""Parts of objects that were found to break no rule, remembered by their bytes: most pods are made of few templates."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import orjson

from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

#: parts up to this size are remembered, and so many
PART_BYTES_MAX, PARTS_MAX = 4096, 1024

#: every broken rule of a part that stands at a path; they depend on nothing but the part
Rules = Callable[[str, Obj], list[Cause]]


@lru_cache(maxsize=PARTS_MAX)
def _is_right(rules: Rules, text: bytes) -> bool:
    return not rules("", orjson.loads(text))


def is_known_right(rules: Rules, part: Obj) -> bool:
    """Whether a part breaks none of the rules; False also where only the rules themselves can tell."""
    text = orjson.dumps(part)
    return len(text) <= PART_BYTES_MAX and _is_right(rules, text)
