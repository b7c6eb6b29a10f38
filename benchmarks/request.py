"""Where does the time of one photo go, and how far is it from what the machine can do?

One photo after the other on one core, every call of a network timed separately. A network's speed is twice the
multiply-adds of its convolutions and dense layers divided by the time of its calls; the machine's is that of a float32
matrix product of 1,024 × 1,024 on the same core, in the same run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import simplejpeg

from benchmarks import photos
from benchmarks.record import Measurement, format_milliseconds, render_table
from vultus.models.pipeline import FacePipeline
from vultus.models.runtime.session import GraphSession
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SECONDS = 12.0
"""Per photo, without warm-up."""

STAGES = ("decode", "detect", "align", "embed")
MATRIX = 1024
NETWORKS = {12: "P-Net", 24: "R-Net", 48: "O-Net", 150: "dlib's ResNet"}


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per photo and stage and one per photo and network, each with its share of the time."""
    pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore())
    lines = []
    for sample in (photos.build_portrait_sample(), photos.build_megapixel_sample()):
        print(f"request: {sample.name}", flush=True)
        lines += _measure_photo(pipeline, sample, seconds)
    return [line | {"seconds": seconds} for line in lines]


def _measure_photo(pipeline: FacePipeline, sample: photos.Sample, seconds: float) -> list[Measurement]:
    for _ in range(5):
        pipeline.analyze_photo(sample.content)
    peak = _measure_peak_gflops()
    stages: dict[str, list[float]] = defaultdict(list)
    whole = []
    with _record_network_calls() as calls:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            analysis = pipeline.analyze_photo(sample.content)
            whole.append((time.perf_counter() - started) * 1e3)
            for stage in STAGES:
                stages[stage].append(analysis.timings_ms.get(stage, 0.0))
    about = {
        "photo": sample.name,
        "whole_ms": round(float(np.mean(whole)), 3),
        "photos": len(whole),
        "peak_gflops": peak,
    }
    lines = [
        about | {"part": stage, "ms": round(float(np.mean(taken)), 3), "floor_ms": _measure_floor_ms(stage, sample)}
        for stage, taken in stages.items()
    ]
    for name in sorted({name for name, *_ in calls}):
        network_calls = [call for call in calls if call[0] == name]
        ms = sum(call[2] for call in network_calls) / len(whole)
        work = sum(call[1] for call in network_calls) / len(whole)
        lines.append(
            about
            | {
                "part": name,
                "ms": round(ms, 3),
                "calls": round(len(network_calls) / len(whole), 2),
                "gflops": round(2 * work / ms / 1e6, 1),
            }
        )
    return lines


@contextmanager
def _record_network_calls() -> Iterator[list[tuple[str, int, float]]]:
    """Record the calls of networks: name, multiply-adds, milliseconds."""
    calls: list[tuple[str, int, float]] = []
    run = GraphSession.run

    def run_timed(self: GraphSession, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        started = time.perf_counter()
        outputs = run(self, values)
        ms = (time.perf_counter() - started) * 1e3
        side = self.input_shape[1] if isinstance(self.input_shape[1], int) else 12
        calls.append((NETWORKS.get(side, f"{side} px"), count_multiply_adds(self._graph, values.shape), ms))
        return outputs

    GraphSession.run = run_timed  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        GraphSession.run = run  # type: ignore[method-assign]


@cache
def count_multiply_adds(graph: bytes, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of an ONNX graph's convolutions and dense layers for an input shape."""
    model = onnx.load_model_from_string(graph)
    for size, dimension in zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    known = {value.name: _get_shape(value) for value in (*model.graph.value_info, *model.graph.output)}
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += prod(known[node.output[0]]) * prod(weights[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += prod(weights[node.input[1]]) * known[node.output[0]][0]
    return total


def _get_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _measure_peak_gflops() -> float:
    """Return the speed of this core; multiplications and additions are counted separately."""
    one = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32)
    best = min(_time_call_ms(lambda: one @ one) for _ in range(20))
    return round(2 * MATRIX**3 / best / 1e6, 1)


def _measure_floor_ms(stage: str, sample: photos.Sample) -> float | None:
    """Return the minimum time of a stage with the libraries it uses; None where that is unknown."""
    if stage != "decode":
        return None
    return round(min(_time_call_ms(lambda: simplejpeg.decode_jpeg(sample.content, "RGB")) for _ in range(20)), 3)


def _time_call_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def render(lines: list[Measurement]) -> str:
    """Return one table per photo."""
    return "\n\n".join(
        _render_photo([line for line in lines if line["photo"] == name])
        for name in dict.fromkeys(one["photo"] for one in lines)
    )


def _render_photo(lines: list[Measurement]) -> str:
    first = lines[0]
    whole, peak = first["whole_ms"], first["peak_gflops"]
    stages = {line["part"]: line for line in lines if line["part"] in STAGES}
    networks = [line for line in lines if line["part"] not in STAGES]
    rows = [
        [name, format_milliseconds(line["ms"]), f"{line['ms'] / whole:.0%}", "", "", ""]
        for name, line in stages.items()
    ]
    rows.append(["besides", format_milliseconds(whole - sum(line["ms"] for line in stages.values())), "", "", "", ""])
    for line in networks:
        speed = f"{line['gflops']:.0f}"
        share = f"{line['gflops'] / peak:.0%}"
        rows.append(
            [
                line["part"],
                format_milliseconds(line["ms"]),
                f"{line['ms'] / whole:.0%}",
                f"{line['calls']:g}",
                speed,
                share,
            ]
        )
    inside = sum(line["ms"] for line in networks)
    limit = sum(line["ms"] * line["gflops"] / peak for line in networks) + (stages["decode"]["floor_ms"] or 0)
    return (
        f"**{first['photo']}**: {format_milliseconds(whole)} ms a photo on one core, "
        f"of which {inside / whole:.0%} inside the networks. "
        f"If they ran at the speed of a matrix product ({peak:.0f} GFLOP/s) and nothing but they and "
        f"decoding took time, it would be {format_milliseconds(limit)} ms.\n\n"
        + render_table(("stage, then network", "ms", "of the whole", "calls", "GFLOP/s", "of the core's"), rows)
    )
