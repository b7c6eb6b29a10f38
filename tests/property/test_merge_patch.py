"""JSON merge patch: the examples of RFC 7396, appendix A, and what holds for any document and patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vultus.utils.merge_patch import merge_patch

APPENDIX_A: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

names = st.sampled_from(["a", "b", "c", "d"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=4)


@pytest.mark.parametrize(("document", "patch", "merged"), APPENDIX_A)
def test_the_examples_of_the_standard(document: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(document, patch) == merged


@given(values, values)
def test_merging_twice_is_merging_once(document: Any, patch: Any) -> None:
    once = merge_patch(document, patch)

    assert merge_patch(once, patch) == once


@given(objects, objects)
def test_absent_members_stay_null_removes_and_arrays_are_replaced(
    document: dict[str, Any], patch: dict[str, Any]
) -> None:
    merged = merge_patch(document, patch)

    assert {name: merged[name] for name in document.keys() - patch.keys()} == {
        name: document[name] for name in document.keys() - patch.keys()
    }
    assert merged.keys() == (document.keys() | patch.keys()) - {name for name in patch if patch[name] is None}
    assert all(merged[name] == value for name, value in patch.items() if isinstance(value, list | str | int))


@given(values, values)
def test_neither_document_nor_patch_is_changed(document: Any, patch: Any) -> None:
    before = copy.deepcopy((document, patch))

    merge_patch(document, patch)

    assert (document, patch) == before


@given(objects, objects)
def test_the_patch_from_one_document_to_another_leads_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A document without null members can always be reached: remove what is gone, replace the rest."""
    target = merge_patch({}, after)
    removals = dict.fromkeys(before)

    assert merge_patch(merge_patch(before, removals), target) == target
