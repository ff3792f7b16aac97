"""The shapes of names, where a regular expression is easily read too kindly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steersman.cluster.meta import names


@pytest.mark.parametrize(
    "errors",
    [
        names.label_1123_errors,
        names.label_1035_errors,
        names.subdomain_errors,
        names.qualified_name_errors,
        names.label_value_errors,
    ],
)
def test_a_line_break_at_the_end_is_part_of_the_name(errors: Callable[[str], list[str]]) -> None:
    assert errors("web") == []
    assert errors("web\n")
