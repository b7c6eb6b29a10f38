"""ONNX Runtime behind a Protocol: the only file that imports it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime as ort

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SEVERITY_ERROR = 3
"""ONNX Runtime's severity below which it stays silent: its warnings are about graphs, not about photos."""


_alone: ContextVar[Callable[[], bool] | None] = ContextVar("alone", default=None)


@contextmanager
def all_cores(alone: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Let networks that this thread runs inside the block use every core.

    Args:
        alone: Asked before every network call: whether nobody else wants the cores now.
    """
    token = _alone.set(alone)
    try:
        yield
    finally:
        _alone.reset(token)


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
        self._graph = graph
        self._session = _load(graph, 1)
        self._wide: ort.InferenceSession | None = None
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
            return tuple(self._fitting().run(self._outputs, {self._input: values}))
        starts = range(0, len(values), self._batch)
        parts = [self._run_filled(values[start : start + self._batch], self._batch) for start in starts]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _fitting(self) -> ort.InferenceSession:
        """Return the session for one core, or inside `all_cores` the one for all, made when first wanted."""
        alone, cores = _alone.get(), os.cpu_count() or 1
        if alone is None or cores == 1 or not alone():
            return self._session
        if self._wide is None:
            self._wide = _load(self._graph, cores)
        return self._wide

    def _run_filled(self, values: NDArray[Any], batch: int) -> list[NDArray[np.float32]]:
        """Run at most `batch` images in a graph that takes exactly as many."""
        filled = np.concatenate([values, values[:1].repeat(batch - len(values), axis=0)])
        return [output[: len(values)] for output in self.run(filled)]


def _load(graph: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = SEVERITY_ERROR
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WeightsError(f"ONNX Runtime cannot load a network: {error}") from error
