"""ONNX Runtime behind a Protocol: the only file that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import onnxruntime as ort

from vultus.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEVERITY_ERROR = 3
"""ONNX Runtime's severity below which it stays silent: its warnings are about graphs, not about photos."""


class Session(Protocol):
    """A loaded network with one input."""

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return every output for one input; safe to call from several threads at once."""
        ...


class OnnxSession:
    """A graph on the CPU, one thread a call.

    Callers bring the parallelism: with one intra-op thread and as many callers as cores, face networks have the
    highest throughput, and the process never runs more busy threads than it was given.
    """

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = SEVERITY_ERROR
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise WeightsError(f"ONNX Runtime cannot load a network: {error}") from error
        (self._input,) = (entry.name for entry in self._session.get_inputs())
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return the outputs in the graph's order."""
        return tuple(self._session.run(self._outputs, {self._input: values}))
