"""Vectors are kept under a name that changes with whatever changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vultus.evaluation.datasets import DataSet
from vultus.evaluation.runner import PhotoVectors
from vultus.evaluation.vector_cache import compute_cache_key, get_or_embed

VECTORS = PhotoVectors(np.array([[1, 0], [0, 0]], np.float32), np.array([True, False]))


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    for name in ("ada/1.jpg", "bob/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    return DataSet(tmp_path, ("ada", "bob"), ("ada/1.jpg", "bob/1.jpg"), np.array([0, 1]))


def test_the_second_run_embeds_nothing(tmp_path: Path) -> None:
    def fail() -> PhotoVectors:
        raise AssertionError("embedded again")

    get_or_embed(tmp_path / "cache", "key", lambda: VECTORS)
    again = get_or_embed(tmp_path / "cache", "key", fail)

    np.testing.assert_array_equal(again.vectors, VECTORS.vectors)
    np.testing.assert_array_equal(again.has_vector, VECTORS.has_vector)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.npz"]


def test_nothing_is_stored_without_a_folder(tmp_path: Path) -> None:
    assert get_or_embed(None, "", lambda: VECTORS).has_vector.tolist() == [True, False]
    assert list(tmp_path.iterdir()) == []


def test_the_key_follows_space_settings_and_photos(data: DataSet) -> None:
    key = compute_cache_key("a-1", "{}", data)

    assert key.startswith("a-1-")
    assert compute_cache_key("a-1", "{}", data) == key
    assert compute_cache_key("a-2", "{}", data) != key
    assert compute_cache_key("a-1", "{min}", data) != key
    (data.root / "bob/1.jpg").write_text("another photo")
    assert compute_cache_key("a-1", "{}", data) != key
