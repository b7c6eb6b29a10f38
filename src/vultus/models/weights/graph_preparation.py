"""Prepares published ONNX graphs: they compute the same, faster, and for any number of images at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BATCH = "batch"


def prepare_graph(published: bytes) -> bytes:
    """Return an equivalent of a published graph whose one input is a batch of images.

    - Initializers are no longer listed as inputs, where a caller could replace them: only so are they folded.
    - A batch dimension fixed at one is free.
    - PReLUs are replaced: see `replace_prelus`.

    Raises:
        WeightsError: The bytes are no ONNX graph.
    """
    try:
        model = onnx.load_from_string(published)
    except Exception as error:
        raise WeightsError(f"The file is no ONNX graph: {error}. Download it again.") from error
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    images = [entry for entry in graph.input if entry.name not in constants]
    del graph.input[:], graph.value_info[:]  # the latter are shapes of intermediate tensors for a batch of one
    graph.input.extend(images)
    replace_prelus(graph)
    if len(images) == 1:
        _free_batch(graph)
    model.ir_version = max(model.ir_version, 4)  # before, initializers had to be inputs
    return bytes(model.SerializeToString(deterministic=True))


def replace_prelus(graph: onnx.GraphProto) -> None:
    """Write every PReLU with a slope s per channel as s · x + (1 − s) · max(x, 0).

    The products are depthwise convolutions of one pixel. ONNX Runtime computes convolutions in a blocked layout of
    channels which its PRelu does not know, so that every PRelu between them has the whole tensor reordered twice.
    """
    nodes = [new for node in graph.node for new in _replace_prelu(graph, node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _replace_prelu(graph: onnx.GraphProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that replace a PReLU between convolutions; any other node as it is."""
    slopes = _find_constant(graph, node.input[1]) if node.op_type == "PRelu" else None
    if slopes is None or slopes.ndim < 3 or slopes.size < 2 or slopes.size != slopes.shape[-3]:
        yield node
        return
    tensor, output = node.input[0], node.output[0]
    weighted, positive, linear = (f"{output}/{name}" for name in ("weighted", "positive", "linear"))
    if slopes.max() <= 1:
        # (1 − s) · max(x, 0) = max((1 − s) · x, 0), which ONNX Runtime computes in one step, like the sum below.
        yield _build_scaling(graph, tensor, 1 - slopes, weighted)
        yield helper.make_node("Relu", [weighted], [positive])
    else:
        yield helper.make_node("Relu", [tensor], [weighted])
        yield _build_scaling(graph, weighted, 1 - slopes, positive)
    yield _build_scaling(graph, tensor, slopes, linear)
    yield helper.make_node("Add", [linear, positive], [output])


def _build_scaling(graph: onnx.GraphProto, tensor: str, factors: NDArray[np.float32], output: str) -> onnx.NodeProto:
    """Return a depthwise convolution of one pixel that multiplies every channel by its factor."""
    kernels = factors.astype(np.float32).reshape(-1, 1, 1, 1)
    graph.initializer.append(numpy_helper.from_array(kernels, f"{output}/kernels"))
    return helper.make_node("Conv", [tensor, f"{output}/kernels"], [output], group=len(kernels), kernel_shape=[1, 1])


def _free_batch(graph: onnx.GraphProto) -> None:
    """Make a first dimension of one variable, in the input, the outputs, and what reshapes a tensor to it."""
    batch = graph.input[0].type.tensor_type.shape.dim[:1]
    if not batch or batch[0].dim_value != 1:
        return
    for entry in (*graph.input, *graph.output):
        for dimension in entry.type.tensor_type.shape.dim[:1]:
            dimension.dim_param = BATCH
    for node in graph.node:
        shape = _find_constant(graph, node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape[:1] == [1]:
            name = f"{node.output[0]}/shape"
            free = np.concatenate([[0], shape[1:]]).astype(np.int64)  # 0: as in the tensor reshaped
            graph.initializer.append(numpy_helper.from_array(free, name))
            node.input[1] = name


def _find_constant(graph: onnx.GraphProto, name: str) -> NDArray[np.float32] | None:
    """Return the value of an initializer or of a constant's node; None if the tensor is neither."""
    tensors = [tensor for tensor in graph.initializer if tensor.name == name]
    tensors += [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant" and name in node.output
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return numpy_helper.to_array(tensors[0]) if tensors else None
