"""Conversion of published ONNX graphs to raw pixels of any size.

Publishers export graphs for normalised float images of one size. The layers themselves run at any size; only the shapes
annotated in the graph fix it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

INPUT_NAME = "vultus_pixels"


def convert_to_pixel_input(
    graph: bytes, *, bgr: bool = False, mean: Sequence[float] = (0.0,), divisor: float = 1.0
) -> bytes:
    """Return a graph that takes uint8 (1, height, width, 3), RGB, of any size that its layers can halve.

    Args:
        graph: ONNX with one input, float32 (batch, 3, height, width).
        bgr: Whether it expects blue before green before red.
        mean: Subtracted from every pixel, one number or one per channel in the order the graph expects.
        divisor: Of the difference.

    Raises:
        WeightsError: The bytes are no ONNX graph, or it takes another input.
    """
    try:
        model = onnx.load_from_string(graph)
    except Exception as error:
        raise WeightsError(f"The file is no ONNX graph: {error}. Download it again.") from error
    constants = {constant.name for constant in model.graph.initializer}
    entries = [entry for entry in model.graph.input if entry.name not in constants]
    kinds = [(entry.type.tensor_type.elem_type, len(entry.type.tensor_type.shape.dim)) for entry in entries]
    if kinds != [(TensorProto.FLOAT, 4)]:
        raise WeightsError("The ONNX graph does not take one batch of float images; it is another network.")
    steps: list[tuple[str, str | None, dict[str, Any]]] = [("Transpose", None, {"perm": [0, 3, 1, 2]})]
    if bgr:
        steps.append(("Gather", _add_constant(model, "order", np.array([2, 1, 0])), {"axis": 1}))
    steps.append(("Cast", None, {"to": TensorProto.FLOAT}))
    if any(mean):
        steps.append(("Sub", _add_constant(model, "mean", np.array(mean, np.float32).reshape(1, -1, 1, 1)), {}))
    if divisor != 1:
        steps.append(("Div", _add_constant(model, "divisor", np.float32(divisor)), {}))
    tensors = [INPUT_NAME, *(f"vultus_step_{at}" for at in range(1, len(steps))), entries[0].name]
    nodes = [
        helper.make_node(operator, [tensors[at], *([other] if other else [])], [tensors[at + 1]], **attributes)
        for at, (operator, other, attributes) in enumerate(steps)
    ]
    _replace_inputs(model, nodes)
    return bytes(model.SerializeToString(deterministic=True))


def _add_constant(model: onnx.ModelProto, name: str, value: np.ndarray | np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"vultus_{name}"))
    return f"vultus_{name}"


def _replace_inputs(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Prepend nodes, replace the input and remove the annotated shapes."""
    graph = model.graph
    rest = list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*nodes, *rest])
    # Constants listed as inputs, as in older files, would not be folded into the layers.
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, (1, "height", "width", 3)))
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    model.ir_version = max(model.ir_version, 4)
