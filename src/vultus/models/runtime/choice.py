"""Choice of library and precision for a network: by the settings, and only if its outputs equal the reference."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from vultus.errors import SetupError
from vultus.models.runtime import onnx_session, openvino_session
from vultus.models.runtime.onnx_session import DeviceSession, OnnxSession, get_provider
from vultus.models.runtime.openvino_session import OpenVinoSession
from vultus.models.runtime.parity import (
    MAX_DEVIATION,
    MIN_COSINE,
    build_fixed_inputs,
    compute_max_deviation,
    compute_min_cosine,
    compute_outputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.runtime.parity import BatchOutputs
    from vultus.models.runtime.session import GraphSession
    from vultus.settings import Device, InferenceSettings

    GraphSessionOpener = Callable[[bytes], GraphSession]

log = logging.getLogger(__name__)

OPENVINO_NOT_INSTALLED = "OpenVINO is not installed: pip install 'vultus[openvino]'"
REMEDY = "Unset VULTUS_INFERENCE__RUNTIME, VULTUS_INFERENCE__PRECISION and VULTUS_INFERENCE__DEVICE."


class Runtime:
    """Opens networks as configured.

    Embedding networks run in bf16 where OpenVINO and the processor support it, which takes about half the time. In
    fp32 OpenVINO gains nothing over ONNX Runtime (docs/performance.md), so `auto` uses it for nothing else. Networks
    that output coordinates or probabilities always run in fp32: rounding to bf16 would move landmarks, and so change
    vectors.

    Args:
        settings: Runtime, precision and device.

    Attributes:
        detector_description: Description of the runtime of networks that output coordinates or probabilities.
        description: The choice and its reason.

    Raises:
        SetupError: The requested runtime, precision or device is not available; the detail says what is missing.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._open_fp32, self.detector_description = _build_fp32_opener(settings)
        self.description = self.detector_description
        self._embedder_openers = [self._open_fp32]
        if settings.device != "cpu" or settings.precision == "fp32" or settings.runtime == "onnxruntime":
            return
        if missing := _find_bf16_obstacle():
            if settings.precision == "bf16":
                raise SetupError(f"inference.precision is bf16, but {missing}.")
            self.description += f"; no bf16, for {missing}"
            return
        bf16 = partial(OpenVinoSession, precision="bf16")
        self._embedder_openers = [bf16] if settings.precision == "bf16" else [bf16, self._open_fp32]
        self.description += f"; embedding networks in bf16 with OpenVINO {openvino_session.get_version()}"

    def open_detector(self, graph: bytes) -> GraphSession:
        """Load a network that outputs coordinates or probabilities: a detector, a liveness or quality network.

        Raises:
            SetupError: Its outputs differ from those of ONNX Runtime on the CPU.
            WeightsError: The graph cannot be loaded.
        """
        session = self._open_fp32(graph)
        if not isinstance(session, OnnxSession):
            deviation = compute_max_deviation(*_run_with_reference(session, graph))
            if not deviation <= MAX_DEVIATION:
                raise SetupError(
                    f"A network's answers in {session.description} differ by {deviation:.2g} from those in fp32 on "
                    f"the CPU, more than {MAX_DEVIATION:g}. {REMEDY}"
                )
            log.info("network verified in %s: outputs differ by %.2g at most", session.description, deviation)
        return session

    def open_embedder(self, graph: bytes) -> GraphSession:
        """Load an embedding network with the first runtime whose vectors equal the reference.

        Raises:
            SetupError: No runtime's vectors do.
            WeightsError: The graph cannot be loaded.
        """
        for open_session in self._embedder_openers[:-1]:
            try:
                return _verify_vectors(open_session(graph), graph)
            except SetupError as error:
                log.warning("fp32 is used instead: %s", error.detail)
        return _verify_vectors(self._embedder_openers[-1](graph), graph)


def is_fork_safe(settings: InferenceSettings) -> bool:
    """Return whether networks opened on the CPU with these settings still run in a forked process.

    ONNX Runtime's sessions of one thread do. OpenVINO's threads do not exist in the child.
    """
    if settings.runtime == "openvino" or settings.precision == "bf16":
        return False
    # Querying OpenVINO for bf16 support would start its threads: where it is installed, assume that it is used.
    return settings.runtime == "onnxruntime" or settings.precision == "fp32" or openvino_session.get_version() is None


def _build_fp32_opener(settings: InferenceSettings) -> tuple[GraphSessionOpener, str]:
    """Return the function that opens networks in fp32, and its description."""
    if settings.device != "cpu":
        get_provider(settings.device)
        description = (
            f"ONNX Runtime {onnx_session.get_version()}, {settings.device}; networks for images of any size on the CPU"
        )
        return partial(_open_on_device, device=settings.device), description
    if settings.runtime == "openvino":
        if openvino_session.get_version() is None:
            raise SetupError(f"inference.runtime is openvino, but {OPENVINO_NOT_INSTALLED}.")
        return partial(OpenVinoSession, precision="fp32"), f"OpenVINO {openvino_session.get_version()}, fp32"
    return OnnxSession, f"ONNX Runtime {onnx_session.get_version()}, fp32"


def _open_on_device(graph: bytes, device: Device) -> GraphSession:
    """Load a network on a device, or on the CPU if it takes images of any size (see `DeviceSession`)."""
    session = OnnxSession(graph)
    return DeviceSession(graph, device) if session.has_fixed_size else session


def _find_bf16_obstacle() -> str | None:
    if openvino_session.get_version() is None:
        return OPENVINO_NOT_INSTALLED
    return None if openvino_session.has_bf16() else "this processor does not compute in it"


def _verify_vectors(session: GraphSession, graph: bytes) -> GraphSession:
    """Return the session; raise `SetupError` unless its vectors equal those of ONNX Runtime in fp32 on the CPU."""
    if isinstance(session, OnnxSession):
        return session
    cosine = compute_min_cosine(*_run_with_reference(session, graph))
    if not cosine >= MIN_COSINE:
        raise SetupError(
            f"A network's vectors in {session.description} have cosine {cosine:.6f} to those in fp32 on the CPU, "
            f"less than {MIN_COSINE:g}. {REMEDY}"
        )
    session.description += f", cosine {cosine:.6f} to fp32"
    log.info("network verified: %s", session.description)
    return session


def _run_with_reference(session: GraphSession, graph: bytes) -> tuple[BatchOutputs, BatchOutputs]:
    """Return the outputs of a session and of ONNX Runtime in fp32 on the CPU for the same inputs."""
    reference = OnnxSession(graph)
    inputs = build_fixed_inputs(reference.input_shape, as_uint8=reference.has_uint8_input)
    return compute_outputs(session, inputs), compute_outputs(reference, inputs)
