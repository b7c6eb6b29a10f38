"""Prepared graphs compute what the published ones compute, for any number of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.weights import real_weights

from vultus.errors import WeightsError
from vultus.models.runtime import OnnxSession
from vultus.models.runtime.parity import build_fixed_inputs, compute_max_deviation, compute_min_cosine, compute_outputs
from vultus.models.weights.graph_preparation import prepare_graph

PUBLISHED = ("face_recognition_sface_2021dec.onnx", "MobileFaceNet.onnx", "facenox_minifasnet_v2se_128.onnx")
LAX_SLOPES = [0.25, -0.5, 1.0]
STEEP_SLOPES = [0.25, -0.5, 1.5]


def build_published_graph(slopes: list[float], *, slope_shape: tuple[int, ...] = (3, 1, 1)) -> bytes:
    """A convolution, a PReLU and a reshape to a batch of one; the constants are inputs, as in older files."""
    random = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "kernels": random.normal(size=(3, 3, 3, 3)).astype(np.float32),
        "slopes": np.array(slopes, np.float32).reshape(slope_shape),
        "shape": np.array([1, -1], np.int64),
    }
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])]
    inputs += [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in constants.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "kernels"], ["features"]),
        helper.make_node("PRelu", ["features", "slopes"], ["active"]),
        helper.make_node("Reshape", ["active", "shape"], ["vectors"]),
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, 108])]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=3)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def run_both(published: bytes) -> tuple[list[Any], list[Any]]:
    prepared, reference = OnnxSession(prepare_graph(published)), OnnxSession(published)
    inputs = build_fixed_inputs(reference.input_shape, as_uint8=False)
    return compute_outputs(prepared, inputs), compute_outputs(reference, inputs)


def list_operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_prepared_network_computes_the_same(name: str) -> None:
    published = real_weights(name)

    prepared, reference = run_both(published)

    joined = [tuple(np.concatenate(parts) for parts in zip(*each, strict=True)) for each in (prepared, reference)]
    assert compute_min_cosine([joined[0]], [joined[1]]) > 0.999999
    assert compute_max_deviation([joined[0]], [joined[1]]) < 1e-5
    assert "PRelu" not in list_operators(prepare_graph(published))


@pytest.mark.parametrize("slopes", [LAX_SLOPES, STEEP_SLOPES], ids=["at most 1", "above 1"])
def test_slopes_of_any_size_are_kept_and_the_batch_becomes_free(slopes: list[float]) -> None:
    published = build_published_graph(slopes)
    images = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)
    prepared, reference = OnnxSession(prepare_graph(published)), OnnxSession(published)

    def run_one_by_one(session: OnnxSession) -> NDArray[np.float32]:
        return np.concatenate([session.run(image[None])[0] for image in images])

    assert (reference.input_shape[0], prepared.input_shape[0]) == (1, None)
    np.testing.assert_allclose(prepared.run(images)[0], run_one_by_one(reference), atol=1e-5)
    np.testing.assert_allclose(run_one_by_one(prepared), run_one_by_one(reference), atol=1e-5)


def test_constants_are_no_inputs_any_more() -> None:
    prepared = onnx.load_from_string(prepare_graph(build_published_graph(LAX_SLOPES)))

    assert [entry.name for entry in prepared.graph.input] == ["images"]


def test_one_slope_for_all_channels_stays_a_prelu() -> None:
    published = build_published_graph([0.25], slope_shape=(1, 1, 1))

    assert "PRelu" in list_operators(prepare_graph(published))


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(WeightsError, match="no ONNX graph"):
        prepare_graph(b"<html>")
