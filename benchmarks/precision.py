"""Which runtime and precision is fastest for each network, and does it give the same outputs?

One call at a time, on one core as in a worker of the server, and on all cores as a lone request may. All take
turns in one process.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from tests.weights import FOLDER

from benchmarks.photo import TimedCall, run_interleaved
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection import mtcnn_graph
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.detection.retinaface_graph import build_retinaface
from vultus.models.embedding import dlib_resnet_graph
from vultus.models.liveness.minifasnet_graph import build_minifasnet
from vultus.models.runtime import OnnxSession, count_usable_cores, limit_threads, openvino_session, use_all_cores
from vultus.models.runtime.onnx_session import DeviceSession
from vultus.models.runtime.openvino_session import OpenVinoSession
from vultus.models.runtime.parity import build_fixed_inputs, compute_max_deviation, compute_min_cosine, compute_outputs
from vultus.models.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vultus.models.runtime.session import GraphSession

    Run = Callable[[], TimedCall[object]]

SECONDS = 12.0
"""Per network and number of images, all ways together, without warm-up."""

BASELINE, ALL_CORES_SUFFIX = "ONNX Runtime, fp32", ", all cores"
IMAGES: dict[str, list[tuple[int, ...]]] = {
    "mtcnn, P-Net": [(1, 240, 320, 3)],
    "mtcnn, R-Net": [(1, 24, 24, 3), (16, 24, 24, 3)],
    "mtcnn, O-Net": [(1, 48, 48, 3), (16, 48, 48, 3)],
    "dlib-resnet": [(1, 150, 150, 3), (2, 150, 150, 3), (8, 150, 150, 3)],
    "mobilefacenet": [(1, 3, 112, 112)],
    "yunet-n": [(1, 320, 320, 3)],
    "retinaface-mobilenet": [(1, 320, 320, 3)],
    "minifasnet, V2": [(1, 3, 80, 80)],
}
"""Input shapes of each network: (images, height, width, 3), or channels first."""

EMBEDDERS = ("dlib-resnet", "mobilefacenet")


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per network, number of images and way to run it."""
    limit_threads()
    lines = []
    for name, graph in _load_graphs().items():
        print(f"precision: {name}", flush=True)
        lines += _measure_network(name, graph, seconds)
    about = {"cores_used": count_usable_cores(), "openvino": openvino_session.get_version(), "seconds": seconds}
    return [line | about for line in lines]


def _load_graphs() -> dict[str, bytes]:
    """Return the built-in networks, and those whose weights are in the tests' folder."""
    detector, embedder = BUILTIN.detector.files, BUILTIN.embedder.files["weights"]
    nets = {"pnet": mtcnn_graph.build_pnet, "rnet": mtcnn_graph.build_rnet, "onet": mtcnn_graph.build_onet}
    store = WeightsStore()
    found = {f"mtcnn, {role[0].upper()}-Net": store.build_graph(detector[role], build) for role, build in nets.items()}
    found["dlib-resnet"] = store.build_graph(embedder, dlib_resnet_graph.build_resnet)
    others: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
        "mobilefacenet": ("MobileFaceNet.onnx", bytes),
        "yunet-n": ("yunet_n_dynamic.onnx", partial(convert_to_pixel_input, bgr=True)),
        "retinaface-mobilenet": ("retinaface_mobilenet0.25_Final.pth", build_retinaface),
        "minifasnet, V2": ("2.7_80x80_MiniFASNetV2.pth", build_minifasnet),
    }
    for name, (file, build) in others.items():
        if (FOLDER / file).is_file():
            found[name] = build((FOLDER / file).read_bytes())
    return found


def _measure_network(name: str, graph: bytes, seconds: float) -> list[Measurement]:
    """Return one line per way and number of images of a network."""
    base = OnnxSession(graph)
    sessions: dict[str, GraphSession] = {BASELINE: base}
    if openvino_session.get_version():
        sessions["OpenVINO, fp32"] = OpenVinoSession(graph, "fp32")
        if openvino_session.has_bf16():
            sessions["OpenVINO, bf16"] = OpenVinoSession(graph, "bf16")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and base.has_fixed_size:
        sessions["ONNX Runtime, CUDA"] = DeviceSession(graph, "cuda")
    inputs = build_fixed_inputs(base.input_shape, as_uint8=base.has_uint8_input)
    reference = compute_outputs(base, inputs)
    differ = compute_min_cosine if name in EMBEDDERS else compute_max_deviation
    agreement = {way: differ(compute_outputs(session, inputs), reference) for way, session in sessions.items()}
    chance = np.random.default_rng(0)
    lines = []
    for shape in IMAGES[name]:
        pixels = chance.integers(0, 256, shape)
        values = pixels.astype(np.uint8) if base.has_uint8_input else (pixels / 127.5 - 1).astype(np.float32)
        for way, calls in run_interleaved(_build_calls(sessions, values), seconds).items():
            lines.append(
                {
                    "network": name,
                    "embedder": name in EMBEDDERS,
                    "images": shape[0],
                    "side": f"{max(shape[1:])}×{min(size for size in shape[1:] if size > 3)}",
                    "way": way,
                    "agreement": agreement[way.removesuffix(ALL_CORES_SUFFIX)],
                    **_summarize_calls(calls),
                }
            )
    return lines


def _build_calls(sessions: dict[str, GraphSession], values: NDArray[Any]) -> dict[str, Run]:
    """Return the calls to compare, by way."""

    def run_session(session: GraphSession, wide: bool) -> TimedCall[object]:
        with use_all_cores() if wide else nullcontext():
            return TimedCall.from_call(lambda: session.run(values))

    ways: dict[str, Run] = {way: partial(run_session, session, False) for way, session in sessions.items()}
    wide = {way: session for way, session in sessions.items() if not isinstance(session, DeviceSession)}
    return ways | {way + ALL_CORES_SUFFIX: partial(run_session, session, True) for way, session in wide.items()}


def _summarize_calls(calls: list[TimedCall[object]]) -> Measurement:
    return {
        **compute_percentiles([call.ms for call in calls]),
        "cores_busy": round(sum(call.cpu_ms for call in calls) / sum(call.ms for call in calls), 2),
    }


def render(lines: list[Measurement]) -> str:
    """Return the table: one row per network and number of images, one column per way."""
    ways = list(dict.fromkeys(line["way"] for line in lines))
    rows: list[list[object]] = []
    for network, images in dict.fromkeys((line["network"], line["images"]) for line in lines):
        of = {line["way"]: line for line in lines if (line["network"], line["images"]) == (network, images)}
        (first, *_), base = of.values(), of[BASELINE]["p50_ms"]
        times = [f"{format_milliseconds(of[way]['p50_ms'])} ({base / of[way]['p50_ms']:.2f}×)" for way in ways]
        rows.append([f"{network}, {images} of {first['side']}", *times, *_format_agreements(of)])
    openvino = lines[0]["openvino"]
    others = [way for way in ways if way != BASELINE and not way.endswith(ALL_CORES_SUFFIX)]
    columns = ("network and images", *ways, *(f"{way}: same?" for way in others))
    return (
        f"Medians of a call in milliseconds, and how much faster than {BASELINE} on one core; {lines[0]['cores_used']} "
        f"cores; OpenVINO {openvino or 'is not installed'}. Same?: least cosine of vectors, else the largest "
        f"difference of answers.\n\n{render_table(columns, rows)}"
    )


def _format_agreements(of: dict[str, Measurement]) -> list[str]:
    return [
        f"{line['agreement']:.6f}" if line["embedder"] else f"{line['agreement']:.0e}"
        for way, line in of.items()
        if way != BASELINE and not way.endswith(ALL_CORES_SUFFIX)
    ]
