"""Graphs in OpenVINO, an optional extra imported only when it is needed: bf16 where the processor supports it."""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.errors import SetupError, WeightsError
from vultus.models.runtime.session import CompiledGraph, GraphSession
from vultus.models.runtime.threads import count_usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.settings import Precision

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoSession(GraphSession):
    """A graph on the CPU.

    Args:
        graph: ONNX.
        precision: Of activations; sums are accumulated in fp32.

    Raises:
        SetupError: OpenVINO uses another precision.
        WeightsError: OpenVINO cannot load the graph.
    """

    def __init__(self, graph: bytes, precision: Precision) -> None:
        self.description = f"OpenVINO, {precision}"
        self._precision = precision
        super().__init__(graph)

    def _compile_graph(self, graph: bytes, threads: int) -> CompiledGraph:
        # A stream serves one call at a time: for callers of one core each, as many streams as cores.
        streams = count_usable_cores() if threads == 1 else 1
        requested = PRECISION_HINTS[self._precision]
        settings = {
            "INFERENCE_PRECISION_HINT": requested,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
        }
        try:
            network = _get_core().compile_model(_get_core().read_model(graph), "CPU", settings)
        except Exception as error:
            raise WeightsError(f"OpenVINO cannot load a network: {error}") from error
        # Where the processor lacks a precision, OpenVINO silently uses another one.
        actual = network.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != requested:
            raise SetupError(
                f"OpenVINO runs a network in {actual} though inference.precision is {self._precision}: this processor "
                "cannot compute in it. Set VULTUS_INFERENCE__PRECISION=fp32."
            )
        return _build_compiled_graph(network)


def get_version() -> str | None:
    """Return the version of OpenVINO; None if it is not installed."""
    if find_spec("openvino") is None:
        return None
    import openvino  # noqa: PLC0415 - an optional extra

    return str(openvino.__version__).partition("-")[0]


def has_bf16() -> bool:
    """Return whether OpenVINO supports bf16 on this processor."""
    return "BF16" in _get_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _get_core() -> Any:
    import openvino  # noqa: PLC0415 - an optional extra

    return openvino.Core()


def _build_compiled_graph(network: Any) -> CompiledGraph:
    infer_requests = threading.local()
    (entry,) = network.inputs

    def run_inference(values: NDArray[Any]) -> list[NDArray[np.float32]]:
        request = getattr(infer_requests, "own", None)
        if request is None:
            request = infer_requests.own = network.create_infer_request()
        request.infer([np.ascontiguousarray(values)], share_inputs=True, share_outputs=True)
        return [np.array(request.get_output_tensor(at).data) for at in range(len(network.outputs))]

    shape = tuple(None if size.is_dynamic else size.get_length() for size in entry.get_partial_shape())
    return CompiledGraph(run_inference, shape, has_uint8_input=entry.get_element_type().to_string() == "u8")
