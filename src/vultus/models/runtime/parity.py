"""Does another way to run a network give the same answers? Asked at every start, on inputs that are always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime.session import GraphSession

    Answers = list[tuple[NDArray[np.float32], ...]]

LEAST_COSINE = 0.9999
"""Of a vector to the one in fp32. Between vectors this close, similarities to any third one differ by 0.014 at most."""

MOST_DEVIATION = 1e-3
"""Of a detector's, liveness or quality network's answers, as a share of the largest one, or of 1 if that is less.

They are probabilities, and offsets as shares of cells, anchors or boxes: the landmarks of a face 100 pixels wide move
by about a tenth of a pixel at most. Another library in fp32 stays below 1e-5; rounding to bf16 does not pass.
"""

SIDE = 160
"""Of the images for networks that take any size, pixels; all of them take multiples of 32."""


def fixed_inputs(shape: tuple[int | None, ...], *, pixels: bool) -> list[NDArray[Any]]:
    """Return the batches of images a network is tried on: a slope, rings, blotches and noise.

    Args:
        shape: Of its input, NCHW or NHWC; None where any number goes.
        pixels: Whether it takes uint8. Others expect 0..255 or −1..1; it is not written in the graph, so they are
            tried on both.
    """
    planes_first = shape[1] == 3
    height, width = (side or SIDE for side in (shape[2:] if planes_first else shape[1:3]))
    images = _images(height, width)
    if planes_first:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if pixels:
        return [images.astype(np.uint8)]
    return [images.astype(np.float32), (images / 127.5 - 1).astype(np.float32)]


def _images(height: int, width: int) -> NDArray[np.float64]:
    """Return (4, height, width, 3) whole numbers, 0..255."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width, y / height
    slope = np.stack([across, down, 1 - across], axis=-1)
    distance = np.hypot(across - 0.5, down - 0.4)[..., None]
    rings = 0.5 + 0.5 * np.cos(distance * [30, 24, 18])
    blotches = random.random((8, 8, 3))[y * 8 // height, x * 8 // width]
    noise = random.random((height, width, 3))
    return np.floor(np.stack([slope, rings, blotches, noise]) * 255.999)


def answers(session: GraphSession, inputs: list[NDArray[Any]]) -> Answers:
    """Return what a network answers to the images, one by one where its graph takes one."""
    one_by_one = session.shape[0] == 1
    return [
        session.run(images) for batch in inputs for images in (np.split(batch, len(batch)) if one_by_one else [batch])
    ]


def least_cosine(found: Answers, reference: Answers) -> float:
    """Return the cosine of the vectors that differ most; not a number where one of them is not.

    Vectors are a network's first output.
    """
    ours, theirs = (np.concatenate([outputs[0] for outputs in each]) for each in (found, reference))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.min(np.sum(ours * theirs, axis=1) / lengths))


def most_deviation(found: Answers, reference: Answers) -> float:
    """Return the largest difference of two answers, as a share of the largest one in its output, or of 1."""
    shares = [
        np.max(np.abs(one - other)) / max(1.0, float(np.max(np.abs(other))))
        for ours, theirs in zip(found, reference, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return float(np.max(shares))
