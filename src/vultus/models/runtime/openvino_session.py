"""Graphs in OpenVINO, an optional extra that is imported only when it is asked for: bf16 where the processor has it."""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.errors import SetupError, WeightsError
from vultus.models.runtime.session import Compiled, GraphSession
from vultus.models.runtime.threads import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.settings import Precision

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoSession(GraphSession):
    """A graph on the CPU.

    Args:
        graph: ONNX.
        precision: Of the numbers between layers; sums are kept in fp32.

    Raises:
        SetupError: OpenVINO takes another precision.
        WeightsError: It cannot load the graph.
    """

    def __init__(self, graph: bytes, precision: Precision) -> None:
        self.words = f"OpenVINO, {precision}"
        self._precision = precision
        super().__init__(graph)

    def _compile(self, graph: bytes, threads: int) -> Compiled:
        # A stream serves one call at a time: callers with a core each need as many as there are cores.
        streams = usable_cores() if threads == 1 else 1
        wanted = HINTS[self._precision]
        settings = {
            "INFERENCE_PRECISION_HINT": wanted,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
        }
        try:
            network = _core().compile_model(_core().read_model(graph), "CPU", settings)
        except Exception as error:
            raise WeightsError(f"OpenVINO cannot load a network: {error}") from error
        # Where the processor lacks a precision OpenVINO takes another one and says nothing.
        taken = network.get_property("INFERENCE_PRECISION_HINT").to_string()
        if taken != wanted:
            raise SetupError(
                f"OpenVINO runs a network in {taken} though inference.precision is {self._precision}: this processor "
                "cannot compute in it. Set VULTUS_INFERENCE__PRECISION=fp32."
            )
        return _compiled(network)


def version() -> str | None:
    """Return the version of OpenVINO; None where it is not installed."""
    if find_spec("openvino") is None:
        return None
    import openvino  # noqa: PLC0415 - an optional extra

    return str(openvino.__version__).partition("-")[0]


def has_bf16() -> bool:
    """Say whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    import openvino  # noqa: PLC0415 - an optional extra

    return openvino.Core()


def _compiled(network: Any) -> Compiled:
    requests = threading.local()
    (entry,) = network.inputs

    def infer(values: NDArray[Any]) -> list[NDArray[np.float32]]:
        request = getattr(requests, "own", None)
        if request is None:
            request = requests.own = network.create_infer_request()
        request.infer([np.ascontiguousarray(values)], share_inputs=True, share_outputs=True)
        return [np.array(request.get_output_tensor(at).data) for at in range(len(network.outputs))]

    shape = tuple(None if size.is_dynamic else size.get_length() for size in entry.get_partial_shape())
    return Compiled(infer, shape, pixels=entry.get_element_type().to_string() == "u8")
