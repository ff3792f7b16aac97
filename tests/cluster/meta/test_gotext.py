"""Values as Go writes them."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.gotext import formatted, quoted


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", '""'), ("plain é", '"plain é"'), ('a "b" \\', '"a \\"b\\" \\\\"'), ("\n\t\x00\x7f", '"\\n\\t\\x00\\x7f"'),
        ("\u200b\U000e0001", '"\\u200b\\U000e0001"'),
    ],
)  # fmt: skip
def test_a_text_is_quoted_as_by_q(text: str, written: str) -> None:
    assert quoted(text) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": [1, "x", None], "a": {"c": True}}, "map[a:map[c:true] b:[1 x <nil>]]"),
        (1.5, "1.5"), (2.0, "2"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (-1.25e-7, "-1.25e-07"),
        (0.0001, "0.0001"), (0.00001, "1e-05"), (0.0, "0"), ([], "[]"), ({}, "map[]"),
    ],
)  # fmt: skip
def test_a_value_is_formatted_as_by_v(value: Any, written: str) -> None:
    assert formatted(value) == written
