from __future__ import annotations

from typing import Any

import pytest
import yaml

from steersman.cluster.meta import yamlio

SCALARS: list[tuple[str, Any]] = [
    ("1", 1),
    ("-7", -7),
    ("0x1F", 31),
    ("0644", 420),
    ("0o17", 15),
    ("1e3", 1000),
    ("1.50", 1.5),
    ("1.0", 1),
    ("yes", True),
    ("off", False),
    ("~", None),
    ("null", None),
    ("2026-01-02", "2026-01-02"),
    ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
    ("22:22", "22:22"),
    ("80:80", "80:80"),
    ("1Gi", "1Gi"),
    ("100m", "100m"),
    ("1.2.3", "1.2.3"),
    ("y", "y"),
    ("''", ""),
    ('"5"', "5"),
]


@pytest.mark.parametrize("text,expected", SCALARS, ids=[row[0] for row in SCALARS])
def test_scalars_are_read_as_kubernetes_reads_them(text: str, expected: Any) -> None:
    found = yamlio.load(f"a: {text}")["a"]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "1e3",
        "true",
        "yes",
        "y",
        "null",
        "",
        "~",
        "2026-01-02",
        "22:22",
        "0x1",
        "-",
        "a: b",
        "#c",
        " x",
        "é",
        "a\tb",
    ],
)
def test_texts_survive_a_round_trip_whichever_reader_reads_them(value: str) -> None:
    text = yamlio.dump({"a": value})
    assert yamlio.load(text) == {"a": value}
    assert yaml.safe_load(text) == {"a": value}


def test_objects_survive_a_round_trip_with_sorted_keys_and_blocks() -> None:
    obj = {"b": [1, {"c": "line one\nline two\n"}], "a": {"z": None, "y": 1.5, "x": []}, "1": True}
    text = yamlio.dump(obj)
    assert yamlio.load(text) == obj
    assert text.index('"1":') < text.index("a:") < text.index("b:")
    assert "c: |\n" in text


def test_keys_are_always_texts() -> None:
    assert yamlio.load("1: a\ntrue: b\n") == {"1": "a", "true": "b"}


def test_a_key_given_twice_is_refused_with_its_line() -> None:
    with pytest.raises(yaml.MarkedYAMLError, match='"a" is already set') as caught:
        yamlio.load("x: 1\na: 1\na: 2\n")
    assert caught.value.problem_mark is not None and caught.value.problem_mark.line == 2


def test_anchors_and_merge_keys_work() -> None:
    assert yamlio.load("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n")["more"] == {"x": 1, "y": 3}


def test_documents_come_one_by_one_without_empty_ones() -> None:
    assert [value for value, _ in yamlio.documents("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n")] == [
        {"a": 1},
        {"b": 2},
    ]
