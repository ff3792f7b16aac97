"""The pytest fixture `cluster`: a fresh cluster of one simulated node; nothing is imported until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from steersman.testing import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster in real time with one simulated node, as `steersman.testing.cluster()` makes it."""
    from steersman import testing

    with testing.cluster() as running:
        yield running
