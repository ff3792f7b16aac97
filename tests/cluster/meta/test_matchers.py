"""A selector compiled for many objects selects what its requirements select one by one."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from steersman.cluster.meta.selectors import FieldSelector, LabelSelector, Requirement

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "1", "2", "x"])
REQUIREMENTS = st.one_of(
    st.builds(
        lambda key, operator, values: Requirement(key, operator, tuple(sorted(values))),
        KEYS, st.sampled_from(["In", "NotIn"]), st.sets(VALUES, min_size=1),
    ),
    st.builds(Requirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(lambda key, op, bound: Requirement(key, op, (bound,)), KEYS, st.sampled_from(["Gt", "Lt"]),
              st.sampled_from(["0", "1", "2"])),
)  # fmt: skip


@given(st.lists(REQUIREMENTS, max_size=6), st.dictionaries(KEYS, VALUES))
def test_labels_are_matched_alike(requirements: list[Requirement], labels: dict[str, str]) -> None:
    selector = LabelSelector(tuple(requirements))
    assert selector.matcher()(labels) is selector.matches(labels)


@given(st.lists(st.tuples(KEYS, st.booleans(), VALUES), max_size=6), st.dictionaries(KEYS, VALUES))
def test_fields_are_matched_alike(requirements: list[tuple[str, bool, str]], fields: dict[str, str]) -> None:
    selector = FieldSelector(tuple(requirements))
    assert selector.matcher()(fields) is selector.matches(fields)


def test_an_object_takes_as_long_as_it_has_labels() -> None:
    matches = LabelSelector(tuple(Requirement(f"a{n}", "DoesNotExist") for n in range(100_000))).matcher()
    began = time.process_time()
    assert all(matches({"x": "y", "z": "1"}) for _ in range(1000))
    assert time.process_time() - began < 1.0  # one by one: 20 s
