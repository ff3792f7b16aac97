"""Remembering what was made of texts that come again and again, when strangers choose the texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

#: longer texts are not remembered: a table of thousands of them would be as large as somebody wants
CHARS_MAX = 1024

T = TypeVar("T")


def remembered(count: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Remembers what a function of a text gives for the last `count` texts, if they are short."""

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        kept = lru_cache(maxsize=count)(function)

        @wraps(function)
        def call(text: str, **options: Any) -> T:
            return kept(text, **options) if len(text) <= CHARS_MAX else function(text, **options)

        return call

    return decorate
