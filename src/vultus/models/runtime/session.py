"""A loaded network: the protocol that callers use, and the part common to all libraries."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from vultus.models.runtime.threads import count_usable_cores, may_use_all_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NetworkSession(Protocol):
    """A loaded network with one input."""

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return every output for one input; safe for concurrent calls by several threads."""
        ...


SessionOpener: TypeAlias = Callable[[bytes], NetworkSession]
"""Loads an ONNX graph."""


InferFunction: TypeAlias = "Callable[[NDArray[Any]], list[NDArray[np.float32]]]"


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """A graph ready to run on a number of threads.

    Attributes:
        infer: Returns the outputs in the graph's order; safe for concurrent calls by several threads.
        input_shape: None for a dynamic dimension.
        has_uint8_input: Whether the input is uint8, else float32.
    """

    infer: InferFunction
    input_shape: tuple[int | None, ...]
    has_uint8_input: bool


class GraphSession(ABC):
    """A graph that uses one thread per call.

    Callers provide the parallelism: with one thread per call and one caller per core, face networks have the highest
    throughput, and the process never runs more busy threads than it was given. Inside `use_all_cores` a call uses every
    core; the first such call compiles the graph a second time.

    Args:
        graph: ONNX.

    Raises:
        WeightsError: The library cannot load it.
    """

    description: str
    """Library, device and precision."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._single_core_graph = self._compile_graph(graph, 1)
        self._all_cores_graph: CompiledGraph | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def _compile_graph(self, graph: bytes, threads: int) -> CompiledGraph:
        """Return the graph compiled for `threads` threads per call."""

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the input; None for a dynamic dimension."""
        return self._single_core_graph.input_shape

    @property
    def has_uint8_input(self) -> bool:
        """Whether the input is uint8, else float32."""
        return self._single_core_graph.has_uint8_input

    @property
    def has_fixed_size(self) -> bool:
        """Whether the graph takes images of one size only."""
        return all(self.input_shape[1:])

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes the graph accepts, ascending; empty if it accepts any."""
        batch = self.input_shape[0] if self.input_shape else None
        return () if batch is None else (batch,)

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return the outputs in the graph's order, for at least one image.

        A graph with fixed batch sizes runs several times if necessary, the last batch padded by repeating an image.
        """
        if not self.batch_sizes or len(values) in self.batch_sizes:
            return tuple(self._get_compiled_graph(len(values)).infer(values))
        max_batch = self.batch_sizes[-1]
        parts = [self._run_padded(values[start : start + max_batch]) for start in range(0, len(values), max_batch)]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _run_padded(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return the outputs for at most the largest batch size of images, padded to the next batch size."""
        batch = next(batch for batch in self.batch_sizes if batch >= len(values))
        padded = np.concatenate([values, values[:1].repeat(batch - len(values), axis=0)])
        return [output[: len(values)] for output in self.run(padded)]

    def _get_compiled_graph(self, image_count: int) -> CompiledGraph:
        """Return the graph compiled for the threads this call may use, and for a batch of `image_count`."""
        cores = count_usable_cores() if may_use_all_cores() else 1
        if cores == 1:
            return self._single_core_graph
        with self._lock:
            if self._all_cores_graph is None:
                self._all_cores_graph = self._compile_graph(self._graph, cores)
        return self._all_cores_graph
