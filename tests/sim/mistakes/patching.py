"""How a mistake is put into the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Patch = pytest.MonkeyPatch
#: puts one mistake into the code; its name says what the code then does
Mistake = Callable[[Patch], None]


def around(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replaces a function by `change(original, *args)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))
