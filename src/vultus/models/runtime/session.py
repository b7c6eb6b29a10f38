"""A loaded network: what callers see of it, and what is the same whatever library runs it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from vultus.models.runtime.threads import may_use_all_cores, usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Session(Protocol):
    """A loaded network with one input."""

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return every output for one input; safe to call from several threads at once."""
        ...


Opener: TypeAlias = Callable[[bytes], Session]
"""Loads an ONNX graph."""


Infer: TypeAlias = "Callable[[NDArray[Any]], list[NDArray[np.float32]]]"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A graph ready to run on a number of threads.

    Attributes:
        infer: Returns the outputs in the graph's order; safe to call from several threads at once.
        shape: Of the input; None where any number goes.
        pixels: Whether the input is uint8, else float32.
    """

    infer: Infer
    shape: tuple[int | None, ...]
    pixels: bool


class GraphSession(ABC):
    """A graph on one thread a call.

    Callers bring the parallelism: with one thread a call and as many callers as cores, face networks have the highest
    throughput, and the process never runs more busy threads than it was given. Inside `all_cores` a call uses every
    core; the graph is compiled a second time when that first happens.

    Args:
        graph: ONNX.

    Raises:
        WeightsError: The library cannot load it.
    """

    words: str
    """Library, device and precision."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._one_core = self._compile(graph, 1)
        self._all_cores: Compiled | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def _compile(self, graph: bytes, threads: int) -> Compiled:
        """Return the graph ready to run on so many threads a call."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the input; None where any number goes."""
        return self._one_core.shape

    @property
    def pixels(self) -> bool:
        """Whether the input is uint8, else float32."""
        return self._one_core.pixels

    @property
    def one_size(self) -> bool:
        """Whether it takes images of one size only."""
        return all(self.shape[1:])

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of images it takes, ascending; empty if any."""
        batch = self.shape[0] if self.shape else None
        return () if batch is None else (batch,)

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return the outputs in the graph's order, for one image at least.

        Where it takes only certain numbers of images it runs as often as needed, the last time with some of them twice.
        """
        if not self.batches or len(values) in self.batches:
            return tuple(self._chosen(len(values)).infer(values))
        most = self.batches[-1]
        parts = [self._run_filled(values[start : start + most]) for start in range(0, len(values), most)]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _run_filled(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Run at most as many images as it takes together."""
        batch = next(batch for batch in self.batches if batch >= len(values))
        filled = np.concatenate([values, values[:1].repeat(batch - len(values), axis=0)])
        return [output[: len(values)] for output in self.run(filled)]

    def _chosen(self, images: int) -> Compiled:
        """Return the graph compiled for as many threads as this call may use, and for so many images."""
        cores = usable_cores() if may_use_all_cores() else 1
        if cores == 1:
            return self._one_core
        with self._lock:
            if self._all_cores is None:
                self._all_cores = self._compile(self._graph, cores)
        return self._all_cores
