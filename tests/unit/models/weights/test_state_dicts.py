"""PyTorch files are read as data: tensors come out, nothing runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.statedicts import saved

from vultus.errors import WeightsError
from vultus.models.weights.state_dicts import Array, read_state_dict

TENSORS: dict[str, Array] = {
    "first.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "transposed": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "half": np.array([0.5, -2], np.float16),
    "tracked": np.array(7, np.int64),
}


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("layout", ["zip", "stream"])
def test_both_layouts_give_every_tensor_as_it_was(layout: str) -> None:
    read = read_state_dict(saved(TENSORS, layout=layout))

    assert read.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)


def test_wrapping_and_the_prefix_of_parallel_training_are_taken_off() -> None:
    read = read_state_dict(saved({"module.bias": np.ones(3, np.float32)}, wrap="state_dict"))

    assert list(read) == ["bias"]


@pytest.mark.parametrize("layout", ["zip", "stream"])
def test_a_file_that_would_execute_code_is_refused_and_nothing_runs(layout: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attack = pickle.dumps(Attack(marker), protocol=2)
    content = attack
    if layout == "zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", attack)
        content = stream.getvalue()

    with pytest.raises(WeightsError, match="mkdir"):
        read_state_dict(content)
    assert not marker.exists()


@pytest.mark.parametrize("layout", ["zip", "stream"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_refused(layout: str, share: float) -> None:
    content = saved(TENSORS, layout=layout)

    with pytest.raises(WeightsError):
        read_state_dict(content[: int(len(content) * share)])


@pytest.mark.parametrize("layout", ["zip", "stream"])
@pytest.mark.parametrize("values", [np.arange(4)[::2], np.arange(8).reshape(2, 4)[:, ::2]], ids=["by one", "by more"])
def test_a_tensor_that_reaches_past_its_storage_is_refused(layout: str, values: Array) -> None:
    """Only as many numbers are stored as the tensor has, but its strides skip some."""
    with pytest.raises(WeightsError, match="past its storage"):
        read_state_dict(saved({"reaching": values}, layout=layout))


def test_a_compressed_archive_is_refused_before_it_is_unpacked() -> None:
    """Two megabytes could unpack to two gigabytes."""
    stream = io.BytesIO()
    plain = io.BytesIO(saved({"a": np.zeros(100_000, np.float32)}))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))

    with pytest.raises(WeightsError, match="compressed"):
        read_state_dict(stream.getvalue())


@pytest.mark.parametrize("layout", ["zip", "stream"])
def test_tensors_that_expand_one_number_are_refused(layout: str) -> None:
    expanded = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 20,), (0,))

    with pytest.raises(WeightsError, match="larger than"):
        read_state_dict(saved({"a": expanded}, layout=layout))
