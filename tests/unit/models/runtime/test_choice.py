"""Another runtime is used only where its outputs are equal; otherwise the start logs the one used instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from pydantic import ValidationError
from tests.weights import real_weights

from vultus.errors import SetupError
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection import mtcnn_graph
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.detection.retinaface_graph import build_retinaface
from vultus.models.embedding import dlib_resnet_graph
from vultus.models.liveness.minifasnet_graph import build_minifasnet
from vultus.models.runtime import OnnxSession, choice, openvino_session
from vultus.models.runtime.choice import Runtime
from vultus.models.runtime.onnx_session import CPU_PROVIDER
from vultus.models.runtime.openvino_session import OpenVinoSession
from vultus.models.runtime.parity import build_fixed_inputs
from vultus.models.runtime.session import CompiledGraph
from vultus.models.weights.graph_builder import GraphBuilder
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings

OPENVINO = InferenceSettings(runtime="openvino", precision="fp32")
SIDE = 16

needs_openvino = pytest.mark.skipif(openvino_session.get_version() is None, reason="needs OpenVINO, an optional extra")


def embedding() -> bytes:
    """Return a small graph that outputs vectors."""
    graph = GraphBuilder()
    weights = np.random.default_rng(1).normal(size=(3 * SIDE * SIDE, 24)).astype(np.float32)
    found = graph.add_node("MatMul", graph.add_node("Flatten", "crops"), graph.add_constant(weights))
    return graph.build_graph(
        "embedding", {"crops": (TensorProto.FLOAT, ("n", 3, SIDE, SIDE))}, {"v": (found, ("n", 24))}
    )


class Turned(OpenVinoSession):
    """OpenVINO with an error: its vectors in bf16 are rotated by an angle."""

    tangent = 0.02

    def __init__(self, graph: bytes, precision: Any) -> None:
        super().__init__(graph, "fp32")
        self.description = f"OpenVINO, {precision}"
        self.precision = precision

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        (vectors, *rest) = super().run(values)
        if self.precision == "fp32":
            return (vectors, *rest)
        aside = np.roll(vectors, 1, axis=1)
        aside -= vectors * np.sum(aside * vectors, axis=1, keepdims=True) / np.sum(vectors**2, axis=1, keepdims=True)
        aside *= np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(aside, axis=1, keepdims=True)
        return (vectors + self.tangent * aside, *rest)


@pytest.fixture
def bf16_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO claim bf16 with an error of 1.1 degrees: cosine 0.9998."""
    monkeypatch.setattr(choice, "OpenVinoSession", Turned)
    monkeypatch.setattr(openvino_session, "has_bf16", lambda: True)


@pytest.fixture
def bf16_is_right(bf16_is_wrong: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO claim bf16 with an error of 0.6 degrees: cosine 0.99995."""
    monkeypatch.setattr(Turned, "tangent", 0.01)


BUILT_IN = {"pnet": mtcnn_graph.build_pnet, "rnet": mtcnn_graph.build_rnet, "onet": mtcnn_graph.build_onet}


@needs_openvino
@pytest.mark.parametrize("role", BUILT_IN)
def test_the_built_in_detector_gives_equal_outputs_in_openvino(role: str) -> None:
    file = BUILTIN.detector.files[role]
    graph = WeightsStore().build_graph(file, BUILT_IN[role])

    assert Runtime(OPENVINO).open_detector(graph).description == "OpenVINO, fp32"


@needs_openvino
def test_the_built_in_embedder_makes_the_same_vectors_in_openvino() -> None:
    file = BUILTIN.embedder.files["weights"]
    build = dlib_resnet_graph.build_resnet
    graph = WeightsStore().build_graph(file, build)

    assert Runtime(OPENVINO).open_embedder(graph).description == "OpenVINO, fp32, cosine 1.000000 to fp32"


REAL: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "yunet": ("yunet_n_dynamic.onnx", lambda weights: convert_to_pixel_input(weights, bgr=True)),
    "retinaface": ("retinaface_mobilenet0.25_Final.pth", build_retinaface),
    "minifasnet": ("2.7_80x80_MiniFASNetV2.pth", build_minifasnet),
}


@needs_openvino
@pytest.mark.parametrize("name", REAL)
def test_downloaded_networks_give_equal_outputs_in_openvino(name: str) -> None:
    file, build = REAL[name]

    Runtime(OPENVINO).open_detector(build(real_weights(file)))


@needs_openvino
def test_a_downloaded_embedder_makes_the_same_vectors_in_openvino() -> None:
    assert "cosine 1.000000" in Runtime(OPENVINO).open_embedder(real_weights("MobileFaceNet.onnx")).description


def test_the_default_is_onnx_runtime_and_the_reason_against_bf16_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "get_version", lambda: None)
    runtime = Runtime(InferenceSettings())

    assert isinstance(runtime.open_embedder(embedding()), OnnxSession)
    assert isinstance(runtime.open_detector(embedding()), OnnxSession)
    assert runtime.description.endswith("; no bf16, for OpenVINO is not installed: pip install 'vultus[openvino]'")


@needs_openvino
@pytest.mark.usefixtures("bf16_is_right")
def test_embedders_but_not_detectors_run_in_bf16_where_available() -> None:
    runtime = Runtime(InferenceSettings())

    assert runtime.open_embedder(embedding()).description == "OpenVINO, bf16, cosine 0.999950 to fp32"
    assert isinstance(runtime.open_detector(embedding()), OnnxSession)
    assert "bf16 with OpenVINO" in runtime.description


@needs_openvino
@pytest.mark.usefixtures("bf16_is_wrong")
@pytest.mark.parametrize(("setting", "got"), [("auto", "ONNX Runtime, fp32"), ("openvino", "OpenVINO, fp32, cosine")])
def test_a_runtime_whose_vectors_differ_is_skipped_and_logged(
    setting: Any, got: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        session = Runtime(InferenceSettings(runtime=setting)).open_embedder(embedding())

    assert session.description.startswith(got)
    assert "vectors in OpenVINO, bf16 have cosine 0.999800" in caplog.text


@needs_openvino
@pytest.mark.usefixtures("bf16_is_wrong")
def test_vectors_that_differ_are_refused_where_the_runtime_was_requested() -> None:
    runtime = Runtime(InferenceSettings(precision="bf16"))

    with pytest.raises(SetupError, match=r"cosine 0\.999800 to those in fp32 .* less than 0\.9999"):
        runtime.open_embedder(embedding())


@needs_openvino
def test_coordinates_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = OpenVinoSession._compile_graph

    def shifted(self: OpenVinoSession, graph: bytes, threads: int) -> CompiledGraph:
        whole = compile_(self, graph, threads)
        return CompiledGraph(
            lambda values: [1.002 * one for one in whole.infer(values)], whole.input_shape, whole.has_uint8_input
        )

    monkeypatch.setattr(OpenVinoSession, "_compile_graph", shifted)

    with pytest.raises(SetupError, match=r"differ by 0\.002 from those in fp32 on the CPU, more than 0\.001"):
        Runtime(OPENVINO).open_detector(embedding())


@needs_openvino
def test_outputs_that_are_not_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = [(np.full((4, 24), np.nan, np.float32),)]
    monkeypatch.setattr(choice, "_run_with_reference", lambda *_: (nothing, nothing))

    for opened in (Runtime(OPENVINO).open_embedder, Runtime(OPENVINO).open_detector):
        with pytest.raises(SetupError, match="nan"):
            opened(embedding())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"runtime": "openvino"}, "inference.runtime is openvino, but OpenVINO is not installed"),
        ({"precision": "bf16"}, "inference.precision is bf16, but OpenVINO is not installed"),
        ({"device": "cuda"}, "has no CUDAExecutionProvider"),
    ],
)
def test_what_is_not_installed_is_refused_by_name(
    settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "get_version", lambda: None)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU_PROVIDER])

    with pytest.raises(SetupError, match=words):
        Runtime(InferenceSettings(**settings))


@needs_openvino
def test_bf16_is_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "has_bf16", lambda: False)

    with pytest.raises(SetupError, match="bf16, but this processor does not compute in it"):
        Runtime(InferenceSettings(precision="bf16"))


class OnDevice(OnnxSession):
    """Another device, by name only."""

    def __init__(self, graph: bytes, device: str) -> None:
        super().__init__(graph)
        self.description = device


def test_networks_for_images_of_any_size_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "get_provider", lambda _: CPU_PROVIDER)
    monkeypatch.setattr(choice, "DeviceSession", OnDevice)
    graph = GraphBuilder()
    shape = ("n", 3, "height", "width")
    any_size = graph.build_graph("any", {"x": (TensorProto.FLOAT, shape)}, {"y": (graph.add_node("Neg", "x"), shape)})
    runtime = Runtime(InferenceSettings(device="cuda"))

    assert [runtime.open_detector(one).description for one in (embedding(), any_size)] == [
        "cuda",
        OnnxSession.description,
    ]
    assert runtime.description.endswith("cuda; networks for images of any size on the CPU")


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime": "onnxruntime", "precision": "bf16"},
        {"device": "cuda", "runtime": "openvino"},
        {"device": "coreml", "precision": "bf16"},
    ],
)
def test_impossible_combinations_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"inference\.precision"):
        InferenceSettings(**settings)


@pytest.mark.parametrize("shape", [(None, 3, 112, 112), (1, None, None, 3), (None, 24, 24, 3)])
def test_networks_are_always_compared_on_the_same_four_images(shape: tuple[int | None, ...]) -> None:
    (pixels,) = build_fixed_inputs(shape, as_uint8=True)
    raw, centred = build_fixed_inputs(shape, as_uint8=False)

    assert pixels.dtype == np.uint8
    assert (len(pixels), pixels.min(), pixels.max()) == (4, 0, 255)
    np.testing.assert_array_equal(pixels, build_fixed_inputs(shape, as_uint8=True)[0])
    np.testing.assert_array_equal(raw, pixels)
    np.testing.assert_allclose(centred, pixels / 127.5 - 1, atol=1e-6)
    assert all(size in (wanted, 4, 160) for size, wanted in zip(pixels.shape, shape, strict=True))
