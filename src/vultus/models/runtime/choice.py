"""Which library runs a network, in which precision: as the settings say, and only after it gave the same answers."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from vultus.errors import SetupError
from vultus.models.runtime import onnx_session, openvino_session
from vultus.models.runtime.onnx_session import DeviceSession, OnnxSession, provider_of
from vultus.models.runtime.openvino_session import OpenVinoSession
from vultus.models.runtime.parity import (
    LEAST_COSINE,
    MOST_DEVIATION,
    answers,
    fixed_inputs,
    least_cosine,
    most_deviation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.runtime.parity import Answers
    from vultus.models.runtime.session import GraphSession
    from vultus.settings import Device, InferenceSettings

    Way = Callable[[bytes], GraphSession]

log = logging.getLogger(__name__)

NOT_INSTALLED = "OpenVINO is not installed: pip install 'vultus[openvino]'"
MEND = "Unset VULTUS_INFERENCE__RUNTIME, VULTUS_INFERENCE__PRECISION and VULTUS_INFERENCE__DEVICE."


class Runtime:
    """Opens networks as the settings say.

    Embedding networks run in bf16 where OpenVINO and the processor have it: there it takes about half the time. In
    fp32 OpenVINO gains nothing over ONNX Runtime (docs/performance.md), so `auto` takes it for nothing else. Networks
    whose answers are places and probabilities always run in fp32: rounded to bf16 landmarks would move, and vectors
    with them.

    Args:
        settings: What is wanted.

    Attributes:
        detectors: What runs networks that answer places or probabilities, in words.
        words: What was chosen and why.

    Raises:
        SetupError: It was asked for by name and this machine cannot do it; the detail says what is missing.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._fp32, self.detectors = _fp32(settings)
        self.words = self.detectors
        self._ways = [self._fp32]
        if settings.device != "cpu" or settings.precision == "fp32" or settings.runtime == "onnxruntime":
            return
        if missing := _missing_for_bf16():
            if settings.precision == "bf16":
                raise SetupError(f"inference.precision is bf16, but {missing}.")
            self.words += f"; no bf16, for {missing}"
            return
        bf16 = partial(OpenVinoSession, precision="bf16")
        self._ways = [bf16] if settings.precision == "bf16" else [bf16, self._fp32]
        self.words += f"; embedding networks in bf16 with OpenVINO {openvino_session.version()}"

    def open_detector(self, graph: bytes) -> GraphSession:
        """Load a network that answers places or probabilities: a detector, a judge of liveness or of quality.

        Raises:
            SetupError: It does not answer as in ONNX Runtime on the CPU.
            WeightsError: The graph cannot be loaded.
        """
        session = self._fp32(graph)
        if not isinstance(session, OnnxSession):
            deviation = most_deviation(*_both(session, graph))
            if not deviation <= MOST_DEVIATION:
                raise SetupError(
                    f"A network's answers in {session.words} differ by {deviation:.2g} from those in fp32 on the CPU, "
                    f"more than {MOST_DEVIATION:g}. {MEND}"
                )
            log.info("network verified in %s: answers differ by %.2g at most", session.words, deviation)
        return session

    def open_embedder(self, graph: bytes) -> GraphSession:
        """Load a network that answers vectors, in the first of the possible ways that gives the same ones.

        Raises:
            SetupError: None does.
            WeightsError: The graph cannot be loaded.
        """
        for way in self._ways[:-1]:
            try:
                return _same_vectors(way(graph), graph)
            except SetupError as error:
                log.warning("fp32 is used instead: %s", error.detail)
        return _same_vectors(self._ways[-1](graph), graph)


def survives_fork(settings: InferenceSettings) -> bool:
    """Say whether networks opened on the CPU as the settings say still run in a forked process.

    ONNX Runtime's sessions of one thread do. OpenVINO's threads stay behind in the parent.
    """
    if settings.runtime == "openvino" or settings.precision == "bf16":
        return False
    # Asking OpenVINO what the processor can do starts its threads: where it is installed, it is not asked.
    return settings.runtime == "onnxruntime" or settings.precision == "fp32" or openvino_session.version() is None


def _fp32(settings: InferenceSettings) -> tuple[Way, str]:
    """Return how networks run in fp32, and that in words."""
    if settings.device != "cpu":
        provider_of(settings.device)
        words = f"ONNX Runtime {onnx_session.version()}, {settings.device}; networks for images of any size on the CPU"
        return partial(_on_device, device=settings.device), words
    if settings.runtime == "openvino":
        if openvino_session.version() is None:
            raise SetupError(f"inference.runtime is openvino, but {NOT_INSTALLED}.")
        return partial(OpenVinoSession, precision="fp32"), f"OpenVINO {openvino_session.version()}, fp32"
    return OnnxSession, f"ONNX Runtime {onnx_session.version()}, fp32"


def _on_device(graph: bytes, device: Device) -> GraphSession:
    """Load a network on a device, or on the CPU where images of all sizes would be slower there (`DeviceSession`)."""
    session = OnnxSession(graph)
    return DeviceSession(graph, device) if session.one_size else session


def _missing_for_bf16() -> str | None:
    if openvino_session.version() is None:
        return NOT_INSTALLED
    return None if openvino_session.has_bf16() else "this processor does not compute in it"


def _same_vectors(session: GraphSession, graph: bytes) -> GraphSession:
    """Return a session whose vectors were compared with those of ONNX Runtime in fp32 on the CPU."""
    if isinstance(session, OnnxSession):
        return session
    cosine = least_cosine(*_both(session, graph))
    if not cosine >= LEAST_COSINE:
        raise SetupError(
            f"A network's vectors in {session.words} have cosine {cosine:.6f} to those in fp32 on the CPU, less than "
            f"{LEAST_COSINE:g}. {MEND}"
        )
    session.words += f", cosine {cosine:.6f} to fp32"
    log.info("network verified: %s", session.words)
    return session


def _both(session: GraphSession, graph: bytes) -> tuple[Answers, Answers]:
    """Return the answers of a session and of ONNX Runtime in fp32 on the CPU to the same inputs."""
    reference = OnnxSession(graph)
    inputs = fixed_inputs(reference.shape, pixels=reference.pixels)
    return answers(session, inputs), answers(reference, inputs)
