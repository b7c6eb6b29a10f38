"""How long does a photo take from bytes to embedding, and how do the same bytes fare in the peers?

One thread, as one worker of the server has. All take turns, A B C A B C, so that all see the same machine.
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
from benchmarks.peer import DeepfacePeer, Peer
from benchmarks.record import Line, milliseconds, percentiles, table
from vultus.models.catalog.measured import DLIB_CHIPS
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection.mtcnn import CELL, Halvings
from vultus.models.embedding import dlib_resnet_graph
from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import NetworkEmbedder
from vultus.models.imaging.alignment import align
from vultus.models.imaging.decoding import Photo
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
"""A photo, both sides together, warm-up not counted."""

TURN_S = 0.3
TURNS = 3
"""Least number of turns that count; calls of several seconds get no more."""

REAL_PHOTOS = 200
WARM_UP_PHOTOS = 3
STAGES = ("decode", "detect", "align", "embed")
OURS, THEIRS, DEEPFACE = "vultus", "face_recognition", "DeepFace"
PREPARED, FLOOR = "vultus, until the network", "decoder alone, 1/8"
MIRRORED, PLAIN, BATCHED = "vultus, with mirror image", "vultus, without", "vultus, without, 8 together"

WHOLE_BARS = {THEIRS: 8.0, DEEPFACE: 5.0}
REAL_BAR, EMBEDDING_BAR, RESOLUTION_BAR_MS, PREPARATION_BAR_MS = 5.0, 10.0, 150.0, 35.0
BATCH = 8


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One call: milliseconds by the clock and on the processor, and what came of it."""

    ms: float
    cpu_ms: float
    result: Result

    @classmethod
    def of(cls, call: Callable[[], Result]) -> Call[Result]:
        """Make the call."""
        started, busy = time.perf_counter(), time.process_time()
        result = call()
        return cls((time.perf_counter() - started) * 1e3, (time.process_time() - busy) * 1e3, result)


def interleave(calls: Mapping[str, Callable[[], Call[Result]]], seconds: float) -> dict[str, list[Call[Result]]]:
    """Give every call its turn of `TURN_S` until `seconds` are over; the first turn is warm-up and not returned."""
    seen: dict[str, list[Call[Result]]] = {name: [] for name in calls}
    turn, until = 0, 0.0
    while turn <= TURNS or time.perf_counter() < until:
        for name, call in calls.items():
            over = time.perf_counter() + TURN_S
            made = [call()]
            while time.perf_counter() < over:
                made.append(call())
            if turn:
                seen[name] += made
        until = until or time.perf_counter() + seconds
        turn += 1
    return seen


def measure(seconds: float = SECONDS) -> list[Line]:
    """Return lines of every photo and side, of the embedding alone, and of what 12 megapixels cost."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache, ExitStack() as stack:
        pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path(cache)))
        peer, deepface = Peer(), DeepfacePeer.from_environment(Path(cache) / "deepface")
        if deepface:
            stack.enter_context(deepface)
        lines = []
        samples = photos.samples()
        for sample in samples:
            print(f"photo: {sample.name}", flush=True)
            lines += _of_photo(sample, pipeline, peer, deepface, seconds)
        lines += _of_real_photos(pipeline, peer, seconds)
        print("photo: embedding alone", flush=True)
        lines += _of_embedding(pipeline, peer, Path(cache), seconds)
        print("photo: 12 MP beyond 1 MP", flush=True)
        lines += _of_resolution([one for one in samples if "MP" in one.name], pipeline, seconds)
        print("photo: preparing 12 MP", flush=True)
        large = [one for one in samples if "12 MP" in one.name]
        lines += _of_preparation([photos.half_as_grainy(), *large], seconds)
    return [line | {"seconds": seconds} for line in lines]


def _by_deepface(peer: DeepfacePeer, photo: bytes) -> Call[Described]:
    seen = peer.describe(photo)
    return Call(seen.ms, seen.cpu_ms, (seen.faces, {"embed": seen.embed_ms}))


def _describe(pipeline: FacePipeline, photo: bytes) -> Described:
    analysis = pipeline.describe(photo)
    return len(analysis.faces), analysis.timings_ms


def _line(calls: list[Call[Result]]) -> Line:
    return {
        **percentiles([call.ms for call in calls]),
        "mean_ms": round(float(np.mean([call.ms for call in calls])), 3),
        "mean_cpu_ms": round(float(np.mean([call.cpu_ms for call in calls])), 3),
    }


def _described(calls: list[Call[Described]]) -> Line:
    stages = {stage: round(float(np.median([call.result[1].get(stage, 0.0) for call in calls])), 3) for stage in STAGES}
    return {**_line(calls), "stages_p50_ms": stages}


def _of_photo(
    sample: photos.Sample, pipeline: FacePipeline, peer: Peer, deepface: DeepfacePeer | None, seconds: float
) -> list[Line]:
    calls: dict[str, Callable[[], Call[Described]]] = {
        OURS: lambda: Call.of(partial(_describe, pipeline, sample.content)),
        THEIRS: lambda: Call.of(partial(peer.describe, sample.content)),
    }
    if deepface:
        calls[DEEPFACE] = partial(_by_deepface, deepface, sample.content)
    seen = interleave(calls, seconds)
    about = {
        "measure": "photo",
        "photo": sample.name,
        "width": sample.width,
        "height": sample.height,
        "bytes": len(sample.content),
    }
    return [about | {"side": side, "faces": calls[0].result[0], **_described(calls)} for side, calls in seen.items()]


def _of_real_photos(pipeline: FacePipeline, peer: Peer, seconds: float) -> list[Line]:
    """Return lines of the photos in a folder of the user's, one call a photo and side; none without a folder."""
    most = REAL_PHOTOS if seconds >= SECONDS else 20
    folder, paths = photos.real_photos(most)
    if not paths:
        return []
    print(f"photo: {len(paths)} of {folder}", flush=True)
    seen: dict[str, list[Call[Described]]] = {OURS: [], THEIRS: []}
    for at, path in enumerate(paths[:WARM_UP_PHOTOS] + paths):
        content = path.read_bytes()
        pair = (Call.of(partial(_describe, pipeline, content)), Call.of(partial(peer.describe, content)))
        if at >= WARM_UP_PHOTOS:
            for calls, call in zip(seen.values(), pair, strict=True):
                calls.append(call)
    about = {"measure": "real photos", "photo": folder, "bytes": int(np.mean([path.stat().st_size for path in paths]))}
    return [
        about | {"side": side, "photos_with_face": sum(call.result[0] > 0 for call in calls), **_described(calls)}
        for side, calls in seen.items()
    ]


def _of_embedding(pipeline: FacePipeline, peer: Peer, cache: Path, seconds: float) -> list[Line]:
    """Return what one aligned crop costs each network, and that both give the same vector."""
    graph = WeightsStore(cache).graph(
        BUILTIN.embedder.files["weights"], dlib_resnet_graph.build_resnet, version=dlib_resnet_graph.BUILDER_VERSION
    )
    session = OnnxSession(graph)
    network = NetworkEmbedder(session, DLIB)
    photo = photos.portrait().content
    (face,) = pipeline.describe(photo).faces
    pixels = Photo.open(photo, PhotoSettings()).decode(10**6).pixels
    chip = align(pixels, face.face.landmarks, DLIB_CHIPS["mtcnn"])
    chips = chip[None]
    views = np.stack([chip, chip[:, ::-1]])[None]
    calls: dict[str, Callable[[], Call[NDArray[np.floating]]]] = {
        MIRRORED: lambda: Call.of(lambda: network.embed(views)[0]),
        PLAIN: lambda: Call.of(lambda: session.run(chips)[0][0]),
        BATCHED: lambda: Call.of(lambda: session.run(np.repeat(chips, BATCH, axis=0))[0][0]),
        THEIRS: lambda: Call.of(lambda: peer.embed(chip)),
    }
    lines = []
    for name, seen in interleave(calls, seconds).items():
        each = BATCH if name == BATCHED else 1
        per_crop = [Call(call.ms / each, call.cpu_ms / each, call.result) for call in seen]
        cosine = _cosine(seen[0].result, peer.embed(chip))
        lines.append({"measure": "embedding", "side": name, "cosine": round(cosine, 6), **_line(per_crop)})
    return lines


def _of_resolution(samples: list[photos.Sample], pipeline: FacePipeline, seconds: float) -> list[Line]:
    """Return our times of the scene at one and at 12 megapixels, taken in turns with each other."""
    calls = {one.name: partial(Call.of, partial(_describe, pipeline, one.content)) for one in samples}
    return [
        {"measure": "resolution", "photo": name, **_line(seen)} for name, seen in interleave(calls, seconds).items()
    ]


def _of_preparation(samples: list[photos.Sample], seconds: float) -> list[Line]:
    """Return what is done to a photo before a network sees it, and the least libjpeg does to its bytes."""
    limits, inference = PhotoSettings(), InferenceSettings()

    def prepare(photo: bytes) -> None:
        pixels = Photo.open(photo, limits).decode(inference.max_side_px).pixels
        scale = CELL * inference.max_side_px / (inference.min_face_px * max(pixels.shape))
        level, _ = Halvings(pixels).at_least(scale)
        cv2.resize(level, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def read(photo: bytes, longer_side: int) -> None:
        Photo.open(photo, limits).decode(longer_side)

    lines = []
    for one in samples:
        calls: dict[str, Callable[[], Call[None]]] = {
            PREPARED: partial(Call.of, partial(prepare, one.content)),
            FLOOR: partial(Call.of, partial(read, one.content, max(one.width, one.height) // 8)),
        }
        about = {"measure": "preparation", "photo": one.name, "bytes": len(one.content)}
        lines += [about | {"side": side, **_line(seen)} for side, seen in interleave(calls, seconds / 4).items()]
    return lines


def _cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def render(lines: list[Line]) -> str:
    """Return the tables."""
    parts = [_render_photos([line for line in lines if line["measure"] == "photo"])]
    if real := [line for line in lines if line["measure"] == "real photos"]:
        parts.append(_render_real(real))
    parts.append(_render_embedding([line for line in lines if line["measure"] == "embedding"]))
    parts.append(_render_resolution([line for line in lines if line["measure"] == "resolution"]))
    if preparation := [line for line in lines if line["measure"] == "preparation"]:
        parts.append(_render_preparation(preparation))
    return "\n\n".join(parts)


def _stages(line: Line) -> list[str]:
    """Return the stages; one that a peer does not tell is left empty."""
    return [milliseconds(ms) if ms else "" for ms in (line["stages_p50_ms"][stage] for stage in STAGES)]


def _spread(line: Line) -> list[object]:
    return [*(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")), line["n"]]


def _render_photos(lines: list[Line]) -> str:
    rows: list[list[object]] = []
    least: dict[str, float] = {}
    for _, group in groupby(lines, key=lambda line: line["photo"]):
        ours, *peers = group
        name = f"{ours['photo']}, {ours['width']}×{ours['height']}, {ours['bytes'] / 1e3:,.0f} kB"
        rows.append([name, OURS, ours["faces"], *_stages(ours), *_spread(ours), "", ""])
        for theirs in peers:
            ratio, same = theirs["p50_ms"] / ours["p50_ms"], _without_false_faces(ours, theirs) / ours["p50_ms"]
            found = theirs["faces"] or "none found"
            faster = [f"{ratio:.1f}×", f"{same:.1f}×"]
            rows.append(["", theirs["side"], found, *_stages(theirs), *_spread(theirs), *faster])
            if "MP" in ours["photo"]:
                least[theirs["side"]] = min(same, least.get(theirs["side"], same))
    columns = ("photo", "by", "faces", *STAGES, "p50", "p95", "p99", "calls", "vultus is faster", "for the same faces")
    bars = "; ".join(
        f"at least {WHOLE_BARS[side]:g}× as fast as {side}: {_verdict(ratio >= WHOLE_BARS[side])}, least {ratio:.1f}×"
        for side, ratio in least.items()
    )
    return (
        "**Bytes to embeddings**, milliseconds; stages are medians. Where a peer also embeds what is no face, the "
        "last column forgives it that embedding.\n\n"
        f"{table(columns, rows)}\n\n"
        f"Bars at 1 and 12 MP, for the same faces: {bars}."
    )


def _without_false_faces(ours: Line, theirs: Line) -> float:
    """Return the peer's median had it embedded no more faces than we found: its detector sees some that are none."""
    share = min(1.0, ours["faces"] / theirs["faces"]) if theirs["faces"] else 1.0
    return float(theirs["p50_ms"] - (1 - share) * theirs["stages_p50_ms"]["embed"])


def _render_real(lines: list[Line]) -> str:
    ours, theirs = lines
    rows = [
        [line["side"], line["photos_with_face"], milliseconds(line["mean_ms"]), *_stages(line), *_spread(line)]
        for line in lines
    ]
    columns = ("by", "photos with a face", "mean", *STAGES, "p50", "p95", "p99", "photos")
    ratio = theirs["mean_ms"] / ours["mean_ms"]
    return (
        f"**Real photos**: {ours['n']} of the folder `{ours['photo']}`, {ours['bytes'] / 1e3:,.0f} kB on average; "
        f"milliseconds.\n\n{table(columns, rows)}\n\n"
        f"Bar: at least {REAL_BAR:g}× faster on average. {_verdict(ratio >= REAL_BAR)}, {ratio:.1f}×."
    )


def _render_embedding(lines: list[Line]) -> str:
    theirs = next(line["p50_ms"] for line in lines if line["side"] == THEIRS)
    ratios = {line["side"]: theirs / line["p50_ms"] for line in lines}
    rows = [[line["side"], *_spread(line), f"{ratios[line['side']]:.1f}×", f"{line['cosine']:.6f}"] for line in lines]
    columns = ("by", "p50", "p95", "p99", "calls", "faster", "cosine to dlib's")
    return (
        "**Embedding alone**: one aligned crop of 150×150 pixels, one thread, milliseconds a crop. The service adds "
        f"the vector of the mirror image, so it runs the network twice.\n\n{table(columns, rows)}\n\n"
        f"Bar: at least {EMBEDDING_BAR:g}× faster. Same network, without the mirror image: "
        f"{_verdict(ratios[PLAIN] >= EMBEDDING_BAR)}, {ratios[PLAIN]:.1f}×; as the service runs it, with the mirror "
        f"image: {_verdict(ratios[MIRRORED] >= EMBEDDING_BAR)}, {ratios[MIRRORED]:.1f}×."
    )


def _render_resolution(lines: list[Line]) -> str:
    base = lines[0]["p50_ms"]
    rows = [[line["photo"], *_spread(line), milliseconds(line["p50_ms"] - base)] for line in lines]
    *same, far = (line["p50_ms"] - base for line in lines)
    return (
        "**What 12 megapixels cost beyond one**, milliseconds, Vultus only, in turns with each other.\n\n"
        f"{table(('photo', 'p50', 'p95', 'p99', 'calls', 'p50 beyond 1 MP'), rows)}\n\n"
        f"Bar: less than {RESOLUTION_BAR_MS:g} ms. {_verdict(max(same) < RESOLUTION_BAR_MS)} for the same scene, most "
        f"{max(same):.0f} ms; with a face so far away that the photo is decoded twice, {far:.0f} ms."
    )


def _render_preparation(lines: list[Line]) -> str:
    rows = [[f"{line['photo']}, {line['bytes'] / 1e3:,.0f} kB", line["side"], *_spread(line)] for line in lines]
    reached = [line["photo"] for line in lines if line["side"] == PREPARED and line["p50_ms"] <= PREPARATION_BAR_MS]
    photos_of = list(dict.fromkeys(line["photo"] for line in lines))
    return (
        "**What is done to 12 megapixels before a network sees them**: header, decoding, halving, shrinking; "
        "milliseconds. The least libjpeg does, decoding to an eighth, is reading the file's Huffman codes.\n\n"
        f"{table(('photo', 'what', 'p50', 'p95', 'p99', 'calls'), rows)}\n\n"
        f"Bar: at most {PREPARATION_BAR_MS:g} ms. {_verdict(len(reached) == len(photos_of))}"
        f"{' but for ' + ', '.join(reached) if 0 < len(reached) < len(photos_of) else ''}."
    )


def _verdict(reached: bool) -> str:
    return "Reached" if reached else "Not reached"
