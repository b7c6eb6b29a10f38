"""Graphs in ONNX Runtime: on the CPU, or on the device of another of its execution providers."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

import vultus
from vultus.errors import SetupError, WeightsError
from vultus.models.runtime.session import Compiled, GraphSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.settings import Device

SEVERITY_ERROR = 3
"""ONNX Runtime's severity below which it stays silent: its warnings are about graphs, not about photos."""

CPU = "CPUExecutionProvider"

BATCHES = (1, 2, 4, 8, 16)
"""Numbers of images a device is prepared for."""


class OnnxSession(GraphSession):
    """A graph on the CPU, in fp32: what every other way to run it is compared with."""

    words = "ONNX Runtime, fp32"

    def _compile(self, graph: bytes, threads: int) -> Compiled:
        options = _options(threads)
        # Threads that spin while they wait would take the cores from those who work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _compiled(_load(graph, options, [CPU]))


class DeviceSession(GraphSession):
    """A graph on a GPU or another accelerator; refused where it would run on the CPU instead.

    A device plans every layer anew when the shape of its input changes, which takes it longer than computing. So a
    graph that takes any number of images is loaded once for each of `BATCHES`, and used before anybody waits for it.

    Args:
        graph: ONNX, for images of one size.
        device: Not `cpu`.

    Raises:
        SetupError: ONNX Runtime took the CPU instead.
        WeightsError: It cannot load the graph.
    """

    def __init__(self, graph: bytes, device: Device) -> None:
        self.words = f"ONNX Runtime on {device}"
        self._device = device
        super().__init__(graph)
        first, *others = self.batches
        self._planned = {first: self._one_core} | {batch: self._compile(graph, 1) for batch in others}
        image = [size or 1 for size in self.shape[1:]]
        for batch in self.batches:
            self.run(np.zeros([batch, *image], np.uint8 if self.pixels else np.float32))

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of images it takes, ascending."""
        return super().batches or BATCHES

    def _chosen(self, images: int) -> Compiled:
        return self._planned[images]

    def _compile(self, graph: bytes, threads: int) -> Compiled:
        provider = provider_of(self._device)
        cuda = self._device == "cuda"
        # The halved precision of TF32 would otherwise be taken for fp32; trying every way to compute a layer takes up
        # to seven seconds a network and finds none that is faster (docs/performance.md).
        settings = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"} if cuda else {}
        missing = _load_cuda() if cuda else ""
        # A provider may leave single layers to the CPU, so it is named too; a session without the provider is refused.
        session = _load(graph, _options(threads), [(provider, settings), CPU])
        session.disable_fallback()
        if provider not in session.get_providers():
            raise SetupError(
                f"ONNX Runtime loaded a network on the CPU though inference.device is {self._device}: the device or "
                f"its driver cannot be used. Mend that, or set VULTUS_INFERENCE__DEVICE=cpu.{missing}"
            )
        return _compiled(session)


def provider_of(device: Device) -> str:
    """Return the execution provider of a device.

    Raises:
        SetupError: The installed ONNX Runtime has none for it.
    """
    provider, mend = {
        "cuda": ("CUDAExecutionProvider", "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        "coreml": ("CoreMLExecutionProvider", "on a Mac, pip install onnxruntime; elsewhere there is no Core ML"),
    }[device]
    if provider not in ort.get_available_providers():
        raise SetupError(
            f"inference.device is {device}, but the installed ONNX Runtime {ort.__version__} has no {provider}: {mend}."
            " Or set VULTUS_INFERENCE__DEVICE=cpu."
        )
    return provider


@cache
def _load_cuda() -> str:
    """Load CUDA's libraries from the packages that `onnxruntime-gpu[cuda,cudnn]` brings: nobody else looks there.

    Returns:
        What ONNX Runtime says of the first it did not find, after a space; nothing if it has them all.
    """
    said = io.StringIO()
    with redirect_stdout(said):  # it prints
        ort.preload_dlls()
    return "".join(f" {line}." for line in said.getvalue().splitlines()[:1])


def version() -> str:
    """Return the version of ONNX Runtime."""
    return str(ort.__version__)


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = SEVERITY_ERROR
    return options


def _load(graph: bytes, options: Any, providers: list[Any]) -> Any:
    """Return a session of ONNX Runtime; the only place that makes one.

    Raises:
        SetupError: ONNX Runtime may report to its maker.
        WeightsError: It cannot load the graph.
    """
    if not vultus.IS_TELEMETRY_OFF:
        raise SetupError(
            "ONNX Runtime was imported before Vultus and may report to its maker what this process does. Import vultus "
            f"first, or start the process with {vultus.TELEMETRY_SWITCH}=1."
        )
    try:
        return ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:
        raise WeightsError(f"ONNX Runtime cannot load a network: {error}") from error


def _compiled(session: Any) -> Compiled:
    (entry,) = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]

    def infer(values: NDArray[Any]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = session.run(outputs, {entry.name: values})
        return found

    # Exporters often fix the number of images; where they did not, ONNX Runtime answers with a word or None.
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape or ())
    return Compiled(infer, shape, pixels=entry.type == "tensor(uint8)")
