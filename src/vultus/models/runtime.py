"""ONNX Runtime behind a Protocol: the only file that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime as ort

from vultus.errors import WeightsError

if TYPE_CHECKING:
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
        (entry,) = self._session.get_inputs()
        self._input = entry.name
        # Exporters often fix the number of images; where they did not, ONNX Runtime answers with a word or None.
        self._batch = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return the outputs in the graph's order.

        A graph made for a fixed number of images is run as often as needed.
        """
        if self._batch is None or len(values) == self._batch:
            return tuple(self._session.run(self._outputs, {self._input: values}))
        starts = range(0, len(values), self._batch)
        parts = [self._run_filled(values[start : start + self._batch], self._batch) for start in starts]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _run_filled(self, values: NDArray[Any], batch: int) -> list[NDArray[np.float32]]:
        """Run at most `batch` images in a graph that takes exactly as many."""
        filled = np.concatenate([values, values[:1].repeat(batch - len(values), axis=0)])
        return [output[: len(values)] for output in self.run(filled)]
