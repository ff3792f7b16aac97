"""What the tests of the consensus core share."""

from __future__ import annotations

import pytest
from tests.cluster.raft.group import Group


@pytest.fixture
def group() -> type[Group]:
    return Group
