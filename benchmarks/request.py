"""Where does the time of one photo go, and how far is it from what the machine can do?

One photo after the other on one core, every call of a network timed apart. A network's speed is twice the
multiply-adds of its convolutions and dense layers by the time its calls take; the machine's is that of a float32
matrix product of 1,024 × 1,024 on the same core, in the same run.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import simplejpeg

from benchmarks import photos
from benchmarks.record import Line, milliseconds, table
from vultus.models.pipeline import FacePipeline
from vultus.models.runtime.session import GraphSession
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SECONDS = 12.0
"""A photo, warm-up not counted."""

STAGES = ("decode", "detect", "align", "embed")
MATRIX = 1024
NETWORKS = {12: "P-Net", 24: "R-Net", 48: "O-Net", 150: "dlib's ResNet"}


def measure(seconds: float = SECONDS) -> list[Line]:
    """Return a line a stage and a line a network for every photo, each with what it takes of a photo's time."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache_dir:
        pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path(cache_dir)))
        lines = []
        for sample in (photos.portrait(), photos.megapixel()):
            print(f"request: {sample.name}", flush=True)
            lines += _of_photo(pipeline, sample, seconds)
    return [line | {"seconds": seconds} for line in lines]


def _of_photo(pipeline: FacePipeline, sample: photos.Sample, seconds: float) -> list[Line]:
    for _ in range(5):
        pipeline.describe(sample.content)
    peak = _peak_gflops()
    stages: dict[str, list[float]] = defaultdict(list)
    whole = []
    with _watched() as calls:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            analysis = pipeline.describe(sample.content)
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
        about | {"part": stage, "ms": round(float(np.mean(taken)), 3), "floor_ms": _floor(stage, sample)}
        for stage, taken in stages.items()
    ]
    for name in sorted({name for name, *_ in calls}):
        mine = [call for call in calls if call[0] == name]
        ms, work = sum(call[2] for call in mine) / len(whole), sum(call[1] for call in mine) / len(whole)
        lines.append(
            about
            | {
                "part": name,
                "ms": round(ms, 3),
                "calls": round(len(mine) / len(whole), 2),
                "gflops": round(2 * work / ms / 1e6, 1),
            }
        )
    return lines


@contextmanager
def _watched() -> Iterator[list[tuple[str, int, float]]]:
    """Have the calls of networks listed: name, multiply-adds, milliseconds."""
    calls: list[tuple[str, int, float]] = []
    run = GraphSession.run

    def timed(self: GraphSession, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        started = time.perf_counter()
        outputs = run(self, values)
        ms = (time.perf_counter() - started) * 1e3
        side = self.shape[1] if isinstance(self.shape[1], int) else 12
        calls.append((NETWORKS.get(side, f"{side} px"), multiply_adds(self._graph, values.shape), ms))
        return outputs

    GraphSession.run = timed  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        GraphSession.run = run  # type: ignore[method-assign]


@cache
def multiply_adds(graph: bytes, shape: tuple[int, ...]) -> int:
    """Return the multiplications of an ONNX graph's convolutions and dense layers for an input of a shape."""
    model = onnx.load_model_from_string(graph)
    for size, dimension in zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    known = {value.name: _shape(value) for value in (*model.graph.value_info, *model.graph.output)}
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += prod(known[node.output[0]]) * prod(weights[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += prod(weights[node.input[1]]) * known[node.output[0]][0]
    return total


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _peak_gflops() -> float:
    """Return the speed of this core, multiplications and additions counted apart."""
    one = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32)
    best = min(_ms(lambda: one @ one) for _ in range(20))
    return round(2 * MATRIX**3 / best / 1e6, 1)


def _floor(stage: str, sample: photos.Sample) -> float | None:
    """Return the least a stage can take with the libraries it stands on; None where that is not known."""
    if stage != "decode":
        return None
    return round(min(_ms(lambda: simplejpeg.decode_jpeg(sample.content, "RGB")) for _ in range(20)), 3)


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def render(lines: list[Line]) -> str:
    """Return a table a photo."""
    return "\n\n".join(
        _render([line for line in lines if line["photo"] == name])
        for name in dict.fromkeys(one["photo"] for one in lines)
    )


def _render(lines: list[Line]) -> str:
    first = lines[0]
    whole, peak = first["whole_ms"], first["peak_gflops"]
    stages = {line["part"]: line for line in lines if line["part"] in STAGES}
    networks = [line for line in lines if line["part"] not in STAGES]
    rows = [[name, milliseconds(line["ms"]), f"{line['ms'] / whole:.0%}", "", "", ""] for name, line in stages.items()]
    rows.append(["besides", milliseconds(whole - sum(line["ms"] for line in stages.values())), "", "", "", ""])
    for line in networks:
        speed = f"{line['gflops']:.0f}"
        share = f"{line['gflops'] / peak:.0%}"
        rows.append(
            [line["part"], milliseconds(line["ms"]), f"{line['ms'] / whole:.0%}", f"{line['calls']:g}", speed, share]
        )
    inside = sum(line["ms"] for line in networks)
    limit = sum(line["ms"] * line["gflops"] / peak for line in networks) + (stages["decode"]["floor_ms"] or 0)
    return (
        f"**{first['photo']}**: {milliseconds(whole)} ms a photo on one core, of which {inside / whole:.0%} inside "
        f"the networks. If they ran at the speed of a matrix product ({peak:.0f} GFLOP/s) and nothing but they and "
        f"decoding took time, it would be {milliseconds(limit)} ms.\n\n"
        + table(("stage, then network", "ms", "of the whole", "calls", "GFLOP/s", "of the core's"), rows)
    )
