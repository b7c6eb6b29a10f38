"""Parity of runtimes: at every start, a network's outputs for fixed inputs are compared with the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime.session import GraphSession

    BatchOutputs = list[tuple[NDArray[np.float32], ...]]

MIN_COSINE = 0.9999
"""Of a vector to the one in fp32. For vectors this close, similarities to any third one differ by 0.014 at most."""

MAX_DEVIATION = 1e-3
"""Of the outputs of detectors, liveness and quality networks, as a share of the largest output, or of 1 if greater.

Outputs are probabilities, and offsets as shares of cells, anchors or boxes: the landmarks of a face 100 pixels wide
move by about a tenth of a pixel at most. Another library in fp32 stays below 1e-5; bf16 exceeds the limit.
"""

DEFAULT_SIDE_PX = 160
"""Of the images for networks that take any size, pixels; all such networks take multiples of 32."""


def build_fixed_inputs(shape: tuple[int | None, ...], *, as_uint8: bool) -> list[NDArray[Any]]:
    """Return the batches of test images for a network: a gradient, rings, blotches and noise.

    Args:
        shape: Of its input, NCHW or NHWC; None for a dynamic dimension.
        as_uint8: Whether it takes uint8. Others expect 0..255 or −1..1; the graph does not state which, so they are
            tested with both.
    """
    planes_first = shape[1] == 3
    height, width = (side or DEFAULT_SIDE_PX for side in (shape[2:] if planes_first else shape[1:3]))
    images = _build_images(height, width)
    if planes_first:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if as_uint8:
        return [images.astype(np.uint8)]
    return [images.astype(np.float32), (images / 127.5 - 1).astype(np.float32)]


def _build_images(height: int, width: int) -> NDArray[np.float64]:
    """Return (4, height, width, 3) integers as float64, 0..255."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width, y / height
    slope = np.stack([across, down, 1 - across], axis=-1)
    distance = np.hypot(across - 0.5, down - 0.4)[..., None]
    rings = 0.5 + 0.5 * np.cos(distance * [30, 24, 18])
    blotches = random.random((8, 8, 3))[y * 8 // height, x * 8 // width]
    noise = random.random((height, width, 3))
    return np.floor(np.stack([slope, rings, blotches, noise]) * 255.999)


def compute_outputs(session: GraphSession, inputs: list[NDArray[Any]]) -> BatchOutputs:
    """Return a network's outputs for the batches, image by image if its graph has a batch size of one."""
    one_by_one = session.input_shape[0] == 1
    return [
        session.run(images) for batch in inputs for images in (np.split(batch, len(batch)) if one_by_one else [batch])
    ]


def compute_min_cosine(tested: BatchOutputs, reference: BatchOutputs) -> float:
    """Return the smallest cosine between corresponding vectors; NaN if any number is NaN.

    The vectors are a network's first output.
    """
    tested_vectors, reference_vectors = (
        np.concatenate([outputs[0] for outputs in each]) for each in (tested, reference)
    )
    lengths = np.linalg.norm(tested_vectors, axis=1) * np.linalg.norm(reference_vectors, axis=1)
    return float(np.min(np.sum(tested_vectors * reference_vectors, axis=1) / lengths))


def compute_max_deviation(tested: BatchOutputs, reference: BatchOutputs) -> float:
    """Return the largest difference of corresponding outputs, as a share of the reference's largest, or of 1."""
    shares = [
        np.max(np.abs(one - other)) / max(1.0, float(np.max(np.abs(other))))
        for tested_outputs, reference_outputs in zip(tested, reference, strict=True)
        for one, other in zip(tested_outputs, reference_outputs, strict=True)
    ]
    return float(np.max(shares))
