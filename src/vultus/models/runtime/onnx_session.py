"""Graphs in ONNX Runtime: on the CPU, or on the device of another execution provider."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

import vultus
from vultus.errors import SetupError, WeightsError
from vultus.models.runtime.session import CompiledGraph, GraphSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.settings import Device

LOG_SEVERITY_ERROR = 3
"""Lowest severity that ONNX Runtime logs: its warnings are about graphs, not about photos."""

CPU_PROVIDER = "CPUExecutionProvider"

BATCH_SIZES = (1, 2, 4, 8, 16)
"""Batch sizes for which a graph is compiled on a device."""


class OnnxSession(GraphSession):
    """A graph on the CPU in fp32: the reference for every other runtime."""

    description = "ONNX Runtime, fp32"

    def _compile_graph(self, graph: bytes, threads: int) -> CompiledGraph:
        options = _build_options(threads)
        # Threads that spin while waiting would take cores from busy ones.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _build_compiled_graph(_load_session(graph, options, [CPU_PROVIDER]))


class DeviceSession(GraphSession):
    """A graph on a GPU or another accelerator; rejected if it would run on the CPU instead.

    A device plans every layer again when the shape of its input changes, which takes longer than inference. So a graph
    with a dynamic batch dimension is loaded once per size of `BATCH_SIZES`, and run before the first request.

    Args:
        graph: ONNX, for images of one size.
        device: Not `cpu`.

    Raises:
        SetupError: ONNX Runtime uses the CPU instead, or has no provider for the device.
        WeightsError: It cannot load the graph.
    """

    def __init__(self, graph: bytes, device: Device) -> None:
        self.description = f"ONNX Runtime on {device}"
        self._device = device
        super().__init__(graph)
        first, *others = self.batch_sizes
        self._graph_by_batch_size = {first: self._single_core_graph} | {
            batch: self._compile_graph(graph, 1) for batch in others
        }
        image = [size or 1 for size in self.input_shape[1:]]
        for batch in self.batch_sizes:
            self.run(np.zeros([batch, *image], np.uint8 if self.has_uint8_input else np.float32))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes it accepts, ascending."""
        return super().batch_sizes or BATCH_SIZES

    def _get_compiled_graph(self, image_count: int) -> CompiledGraph:
        return self._graph_by_batch_size[image_count]

    def _compile_graph(self, graph: bytes, threads: int) -> CompiledGraph:
        provider = get_provider(self._device)
        cuda = self._device == "cuda"
        # By default TF32, of lower precision, replaces fp32. An exhaustive search for convolution algorithms takes up
        # to seven seconds per network and finds none that is faster (docs/performance.md).
        settings = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"} if cuda else {}
        missing = _load_cuda() if cuda else ""
        # A provider may leave single layers to the CPU, so it is listed too; a session without the provider fails.
        session = _load_session(graph, _build_options(threads), [(provider, settings), CPU_PROVIDER])
        session.disable_fallback()
        if provider not in session.get_providers():
            raise SetupError(
                f"ONNX Runtime loaded a network on the CPU though inference.device is {self._device}: the device or "
                f"its driver cannot be used. Fix that, or set VULTUS_INFERENCE__DEVICE=cpu.{missing}"
            )
        return _build_compiled_graph(session)


def get_provider(device: Device) -> str:
    """Return the execution provider of a device.

    Raises:
        SetupError: The installed ONNX Runtime does not have it.
    """
    provider, remedy = {
        "cuda": ("CUDAExecutionProvider", "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        "coreml": ("CoreMLExecutionProvider", "on a Mac, pip install onnxruntime; elsewhere there is no Core ML"),
    }[device]
    if provider not in ort.get_available_providers():
        raise SetupError(
            f"inference.device is {device}, but the installed ONNX Runtime {ort.__version__} has no {provider}: "
            f"{remedy}. Or set VULTUS_INFERENCE__DEVICE=cpu."
        )
    return provider


@cache
def _load_cuda() -> str:
    """Load CUDA's libraries from the packages of `onnxruntime-gpu[cuda,cudnn]`, where the system does not search.

    Returns:
        ONNX Runtime's message about the first missing library, after a space; empty if none is missing.
    """
    printed = io.StringIO()
    with redirect_stdout(printed):  # ONNX Runtime prints its messages
        ort.preload_dlls()
    return "".join(f" {line}." for line in printed.getvalue().splitlines()[:1])


def get_version() -> str:
    """Return the version of ONNX Runtime."""
    return str(ort.__version__)


def _build_options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = LOG_SEVERITY_ERROR
    return options


def _load_session(graph: bytes, options: Any, providers: list[Any]) -> Any:
    """Return a session of ONNX Runtime; no other function creates one.

    Raises:
        SetupError: ONNX Runtime's telemetry may be on.
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


def _build_compiled_graph(session: Any) -> CompiledGraph:
    (entry,) = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]

    def run_inference(values: NDArray[Any]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = session.run(outputs, {entry.name: values})
        return found

    # Exporters often fix the batch size; for a dynamic dimension ONNX Runtime returns a string or None.
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape or ())
    return CompiledGraph(run_inference, shape, has_uint8_input=entry.type == "tensor(uint8)")
