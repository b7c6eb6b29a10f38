"""How long does a photo take from bytes to embedding, and how do the same bytes fare in the peers?

One thread, as in one worker of the server. All take turns, A B C A B C, so that all run under the same conditions.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import cv2
import numpy as np

from benchmarks import photos
from benchmarks.peer import DeepfacePeer, DlibPeer
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.models.catalog.measured import DLIB_CHIPS, get_min_face_px
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection.mtcnn import CELL_PX, ImagePyramid
from vultus.models.embedding import dlib_resnet_graph
from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import NetworkEmbedder
from vultus.models.imaging.alignment import align_face
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.models.pipeline import FacePipeline
from vultus.models.runtime import OnnxSession
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

Result = TypeVar("Result")
Described = tuple[int, dict[str, float]]

SECONDS = 8.0
"""Per photo, all sides together, without warm-up."""

TURN_S = 0.3
TURNS = 3
"""Minimum number of counted turns; calls of several seconds get no more."""

REAL_PHOTOS = 200
WARM_UP_PHOTOS = 3
STAGES = ("decode", "detect", "align", "embed")
VULTUS, FACE_RECOGNITION, DEEPFACE = "vultus", "face_recognition", "DeepFace"
PREPARED, FLOOR = "vultus, until the network", "decoder alone, 1/8"
MIRRORED, PLAIN, BATCHED = "vultus, with mirror image", "vultus, without", "vultus, without, 8 together"

WHOLE_BARS = {FACE_RECOGNITION: 8.0, DEEPFACE: 5.0}
REAL_BAR, EMBEDDING_BAR, RESOLUTION_BAR_MS, PREPARATION_BAR_MS = 5.0, 10.0, 150.0, 35.0
BATCH = 8


@dataclass(frozen=True, slots=True)
class TimedCall(Generic[Result]):
    """One call: wall-clock and processor milliseconds, and its result."""

    ms: float
    cpu_ms: float
    result: Result

    @classmethod
    def from_call(cls, call: Callable[[], Result]) -> TimedCall[Result]:
        """Run a call and time it."""
        started, busy = time.perf_counter(), time.process_time()
        result = call()
        return cls((time.perf_counter() - started) * 1e3, (time.process_time() - busy) * 1e3, result)


def run_interleaved(
    calls: Mapping[str, Callable[[], TimedCall[Result]]], seconds: float
) -> dict[str, list[TimedCall[Result]]]:
    """Give every call its turn of `TURN_S` until `seconds` are over; the first turn is warm-up and not returned."""
    made_calls: dict[str, list[TimedCall[Result]]] = {name: [] for name in calls}
    turn, until = 0, 0.0
    while turn <= TURNS or time.perf_counter() < until:
        for name, call in calls.items():
            over = time.perf_counter() + TURN_S
            made = [call()]
            while time.perf_counter() < over:
                made.append(call())
            if turn:
                made_calls[name] += made
        until = until or time.perf_counter() + seconds
        turn += 1
    return made_calls


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return lines for every photo and side, for the embedding alone, and for the cost of 12 megapixels."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache, ExitStack() as stack:
        pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore())
        peer, deepface = DlibPeer(), DeepfacePeer.from_environment(Path(cache) / "deepface")
        if deepface:
            stack.enter_context(deepface)
        lines = []
        samples = photos.build_samples()
        for sample in samples:
            print(f"photo: {sample.name}", flush=True)
            lines += _measure_photo(sample, pipeline, peer, deepface, seconds)
        lines += _measure_real_photos(pipeline, peer, seconds)
        print("photo: embedding alone", flush=True)
        lines += _measure_embedding(pipeline, peer, seconds)
        print("photo: 12 MP beyond 1 MP", flush=True)
        lines += _measure_resolution([one for one in samples if "MP" in one.name], pipeline, seconds)
        print("photo: preparing 12 MP", flush=True)
        large = [one for one in samples if "12 MP" in one.name]
        lines += _measure_preparation([photos.build_half_grain_sample(), *large], seconds)
    return [line | {"seconds": seconds} for line in lines]


def _describe_with_deepface(peer: DeepfacePeer, photo: bytes) -> TimedCall[Described]:
    described = peer.describe(photo)
    return TimedCall(described.ms, described.cpu_ms, (described.faces, {"embed": described.embed_ms}))


def _describe_photo(pipeline: FacePipeline, photo: bytes) -> Described:
    analysis = pipeline.analyze_photo(photo)
    return len(analysis.faces), analysis.timings_ms


def _summarize_calls(calls: list[TimedCall[Result]]) -> Measurement:
    return {
        **compute_percentiles([call.ms for call in calls]),
        "mean_ms": round(float(np.mean([call.ms for call in calls])), 3),
        "mean_cpu_ms": round(float(np.mean([call.cpu_ms for call in calls])), 3),
    }


def _summarize_descriptions(calls: list[TimedCall[Described]]) -> Measurement:
    stages = {stage: round(float(np.median([call.result[1].get(stage, 0.0) for call in calls])), 3) for stage in STAGES}
    return {**_summarize_calls(calls), "stages_p50_ms": stages}


def _measure_photo(
    sample: photos.Sample, pipeline: FacePipeline, peer: DlibPeer, deepface: DeepfacePeer | None, seconds: float
) -> list[Measurement]:
    calls: dict[str, Callable[[], TimedCall[Described]]] = {
        VULTUS: lambda: TimedCall.from_call(partial(_describe_photo, pipeline, sample.content)),
        FACE_RECOGNITION: lambda: TimedCall.from_call(partial(peer.describe, sample.content)),
    }
    if deepface:
        calls[DEEPFACE] = partial(_describe_with_deepface, deepface, sample.content)
    calls_by_side = run_interleaved(calls, seconds)
    about = {
        "measure": "photo",
        "photo": sample.name,
        "width": sample.width,
        "height": sample.height,
        "bytes": len(sample.content),
    }
    return [
        about | {"side": side, "faces": calls[0].result[0], **_summarize_descriptions(calls)}
        for side, calls in calls_by_side.items()
    ]


def _measure_real_photos(pipeline: FacePipeline, peer: DlibPeer, seconds: float) -> list[Measurement]:
    """Return lines for the photos in the user's folder, one call per photo and side; none without a folder."""
    max_photos = REAL_PHOTOS if seconds >= SECONDS else 20
    folder, paths = photos.find_real_photos(max_photos)
    if not paths:
        return []
    print(f"photo: {len(paths)} of {folder}", flush=True)
    calls_by_side: dict[str, list[TimedCall[Described]]] = {VULTUS: [], FACE_RECOGNITION: []}
    for at, path in enumerate(paths[:WARM_UP_PHOTOS] + paths):
        content = path.read_bytes()
        pair = (
            TimedCall.from_call(partial(_describe_photo, pipeline, content)),
            TimedCall.from_call(partial(peer.describe, content)),
        )
        if at >= WARM_UP_PHOTOS:
            for calls, call in zip(calls_by_side.values(), pair, strict=True):
                calls.append(call)
    about = {"measure": "real photos", "photo": folder, "bytes": int(np.mean([path.stat().st_size for path in paths]))}
    return [
        about
        | {
            "side": side,
            "photos_with_face": sum(call.result[0] > 0 for call in calls),
            **_summarize_descriptions(calls),
        }
        for side, calls in calls_by_side.items()
    ]


def _measure_embedding(pipeline: FacePipeline, peer: DlibPeer, seconds: float) -> list[Measurement]:
    """Return the time of each network for one aligned crop, and the cosine of their vectors."""
    graph = WeightsStore().build_graph(BUILTIN.embedder.files["weights"], dlib_resnet_graph.build_resnet)
    session = OnnxSession(graph)
    network = NetworkEmbedder(session, DLIB)
    photo = photos.build_portrait_sample().content
    (face,) = pipeline.analyze_photo(photo).faces
    pixels = EncodedPhoto.open(photo, PhotoSettings()).decode(10**6).pixels
    chip = align_face(pixels, face.face.landmarks, DLIB_CHIPS["mtcnn"])
    chips = chip[None]
    views = np.stack([chip, chip[:, ::-1]])[None]
    calls: dict[str, Callable[[], TimedCall[NDArray[np.floating]]]] = {
        MIRRORED: lambda: TimedCall.from_call(lambda: network.embed(views)[0]),
        PLAIN: lambda: TimedCall.from_call(lambda: session.run(chips)[0][0]),
        BATCHED: lambda: TimedCall.from_call(lambda: session.run(np.repeat(chips, BATCH, axis=0))[0][0]),
        FACE_RECOGNITION: lambda: TimedCall.from_call(lambda: peer.embed(chip)),
    }
    lines = []
    for name, seen in run_interleaved(calls, seconds).items():
        each = BATCH if name == BATCHED else 1
        per_crop = [TimedCall(call.ms / each, call.cpu_ms / each, call.result) for call in seen]
        cosine = _compute_cosine(seen[0].result, peer.embed(chip))
        lines.append({"measure": "embedding", "side": name, "cosine": round(cosine, 6), **_summarize_calls(per_crop)})
    return lines


def _measure_resolution(samples: list[photos.Sample], pipeline: FacePipeline, seconds: float) -> list[Measurement]:
    """Return Vultus's times for the scene at one and at 12 megapixels, interleaved."""
    calls = {one.name: partial(TimedCall.from_call, partial(_describe_photo, pipeline, one.content)) for one in samples}
    return [
        {"measure": "resolution", "photo": name, **_summarize_calls(seen)}
        for name, seen in run_interleaved(calls, seconds).items()
    ]


def _measure_preparation(samples: list[photos.Sample], seconds: float) -> list[Measurement]:
    """Return the time before the first network runs, and the minimum that libjpeg requires to read the file."""
    limits, inference = PhotoSettings(), InferenceSettings()

    def prepare(photo: bytes) -> None:
        pixels = EncodedPhoto.open(photo, limits).decode(inference.max_side_px).pixels
        scale = CELL_PX * inference.max_side_px / (get_min_face_px("mtcnn") * max(pixels.shape))
        level, _ = ImagePyramid(pixels).find_level(scale)
        cv2.resize(level, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def read(photo: bytes, longer_side: int) -> None:
        EncodedPhoto.open(photo, limits).decode(longer_side)

    lines = []
    for one in samples:
        calls: dict[str, Callable[[], TimedCall[None]]] = {
            PREPARED: partial(TimedCall.from_call, partial(prepare, one.content)),
            FLOOR: partial(TimedCall.from_call, partial(read, one.content, max(one.width, one.height) // 8)),
        }
        about = {"measure": "preparation", "photo": one.name, "bytes": len(one.content)}
        lines += [
            about | {"side": side, **_summarize_calls(seen)}
            for side, seen in run_interleaved(calls, seconds / 4).items()
        ]
    return lines


def _compute_cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def render(lines: list[Measurement]) -> str:
    """Return the tables."""
    parts = [_render_photos([line for line in lines if line["measure"] == "photo"])]
    if real := [line for line in lines if line["measure"] == "real photos"]:
        parts.append(_render_real(real))
    parts.append(_render_embedding([line for line in lines if line["measure"] == "embedding"]))
    parts.append(_render_resolution([line for line in lines if line["measure"] == "resolution"]))
    if preparation := [line for line in lines if line["measure"] == "preparation"]:
        parts.append(_render_preparation(preparation))
    return "\n\n".join(parts)


def _format_stages(line: Measurement) -> list[str]:
    """Return the stages; those that a peer does not report are empty."""
    return [format_milliseconds(ms) if ms else "" for ms in (line["stages_p50_ms"][stage] for stage in STAGES)]


def _format_spread(line: Measurement) -> list[object]:
    return [*(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")), line["n"]]


def _render_photos(lines: list[Measurement]) -> str:
    rows: list[list[object]] = []
    min_ratios: dict[str, float] = {}
    for _, group in groupby(lines, key=lambda line: line["photo"]):
        vultus_line, *peers = group
        size = f"{vultus_line['width']}×{vultus_line['height']}, {vultus_line['bytes'] / 1e3:,.0f} kB"
        name = f"{vultus_line['photo']}, {size}"
        times = [*_format_stages(vultus_line), *_format_spread(vultus_line)]
        rows.append([name, VULTUS, vultus_line["faces"], *times, "", ""])
        for peer_line in peers:
            ratio = peer_line["p50_ms"] / vultus_line["p50_ms"]
            same = _without_false_faces(vultus_line, peer_line) / vultus_line["p50_ms"]
            found = peer_line["faces"] or "none found"
            faster = [f"{ratio:.1f}×", f"{same:.1f}×"]
            rows.append(["", peer_line["side"], found, *_format_stages(peer_line), *_format_spread(peer_line), *faster])
            if "MP" in vultus_line["photo"]:
                min_ratios[peer_line["side"]] = min(same, min_ratios.get(peer_line["side"], same))
    columns = ("photo", "by", "faces", *STAGES, "p50", "p95", "p99", "calls", "vultus is faster", "for the same faces")
    bars = "; ".join(
        f"at least {WHOLE_BARS[side]:g}× as fast as {side}: "
        f"{_format_verdict(ratio >= WHOLE_BARS[side])}, least {ratio:.1f}×"
        for side, ratio in min_ratios.items()
    )
    return (
        "**Bytes to embeddings**, milliseconds; stages are medians. Where a peer also embeds what is no face, the "
        "last column forgives it that embedding.\n\n"
        f"{render_table(columns, rows)}\n\n"
        f"Bars at 1 and 12 MP, for the same faces: {bars}."
    )


def _without_false_faces(vultus_line: Measurement, peer_line: Measurement) -> float:
    """Return the peer's median if it embedded only as many faces as Vultus: its detector has false positives."""
    share = min(1.0, vultus_line["faces"] / peer_line["faces"]) if peer_line["faces"] else 1.0
    return float(peer_line["p50_ms"] - (1 - share) * peer_line["stages_p50_ms"]["embed"])


def _render_real(lines: list[Measurement]) -> str:
    vultus_line, peer_line = lines
    rows = [
        [
            line["side"],
            line["photos_with_face"],
            format_milliseconds(line["mean_ms"]),
            *_format_stages(line),
            *_format_spread(line),
        ]
        for line in lines
    ]
    columns = ("by", "photos with a face", "mean", *STAGES, "p50", "p95", "p99", "photos")
    ratio = peer_line["mean_ms"] / vultus_line["mean_ms"]
    return (
        f"**Real photos**: {vultus_line['n']} of the folder `{vultus_line['photo']}`, "
        f"{vultus_line['bytes'] / 1e3:,.0f} kB on average; milliseconds.\n\n{render_table(columns, rows)}\n\n"
        f"Bar: at least {REAL_BAR:g}× faster on average. {_format_verdict(ratio >= REAL_BAR)}, {ratio:.1f}×."
    )


def _render_embedding(lines: list[Measurement]) -> str:
    peer_ms = next(line["p50_ms"] for line in lines if line["side"] == FACE_RECOGNITION)
    ratios = {line["side"]: peer_ms / line["p50_ms"] for line in lines}
    rows = [
        [line["side"], *_format_spread(line), f"{ratios[line['side']]:.1f}×", f"{line['cosine']:.6f}"] for line in lines
    ]
    columns = ("by", "p50", "p95", "p99", "calls", "faster", "cosine to dlib's")
    return (
        "**Embedding alone**: one aligned crop of 150×150 pixels, one thread, milliseconds a crop. The service adds "
        f"the vector of the mirror image, so it runs the network twice.\n\n{render_table(columns, rows)}\n\n"
        f"Bar: at least {EMBEDDING_BAR:g}× faster. Same network, without the mirror image: "
        f"{_format_verdict(ratios[PLAIN] >= EMBEDDING_BAR)}, {ratios[PLAIN]:.1f}×; "
        "as the service runs it, with the mirror image: "
        f"{_format_verdict(ratios[MIRRORED] >= EMBEDDING_BAR)}, {ratios[MIRRORED]:.1f}×."
    )


def _render_resolution(lines: list[Measurement]) -> str:
    base = lines[0]["p50_ms"]
    rows = [[line["photo"], *_format_spread(line), format_milliseconds(line["p50_ms"] - base)] for line in lines]
    *same, far = (line["p50_ms"] - base for line in lines)
    return (
        "**What 12 megapixels cost beyond one**, milliseconds, Vultus only, in turns with each other.\n\n"
        f"{render_table(('photo', 'p50', 'p95', 'p99', 'calls', 'p50 beyond 1 MP'), rows)}\n\n"
        f"Bar: less than {RESOLUTION_BAR_MS:g} ms. {_format_verdict(max(same) < RESOLUTION_BAR_MS)} "
        f"for the same scene, most {max(same):.0f} ms; "
        f"with a face so far away that the photo is decoded twice, {far:.0f} ms."
    )


def _render_preparation(lines: list[Measurement]) -> str:
    rows = [[f"{line['photo']}, {line['bytes'] / 1e3:,.0f} kB", line["side"], *_format_spread(line)] for line in lines]
    reached = [line["photo"] for line in lines if line["side"] == PREPARED and line["p50_ms"] <= PREPARATION_BAR_MS]
    photos_of = list(dict.fromkeys(line["photo"] for line in lines))
    return (
        "**What is done to 12 megapixels before a network sees them**: header, decoding, halving, shrinking; "
        "milliseconds. The least libjpeg does, decoding to an eighth, is reading the file's Huffman codes.\n\n"
        f"{render_table(('photo', 'what', 'p50', 'p95', 'p99', 'calls'), rows)}\n\n"
        f"Bar: at most {PREPARATION_BAR_MS:g} ms. {_format_verdict(len(reached) == len(photos_of))}"
        f"{' but for ' + ', '.join(reached) if 0 < len(reached) < len(photos_of) else ''}."
    )


def _format_verdict(reached: bool) -> str:
    return "Reached" if reached else "Not reached"
