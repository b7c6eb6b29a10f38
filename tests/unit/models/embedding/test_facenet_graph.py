"""The graph of FaceNet is facenet-pytorch's network, layer by layer."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.statedicts import saved

from vultus.errors import WeightsError
from vultus.models.embedding.facenet_graph import SIDE, build_facenet
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NARROWER = 8
"""The weights under test have an eighth of the published widths: a 64th of the arithmetic, the same connections."""

EXPECTED = [
    [-2.0339, -7.4590, 0.7529, -8.7096, 0.8080, 6.8439, 20.0216, 6.0806],
    [-2.8774, -2.4121, 0.0402, -3.1640, 0.6826, 2.1396, 8.6818, 2.9141],
]
"""Every eighth number that facenet-pytorch 2.6.0 gives with these weights for these crops, before its last step.

Its layers were made with an eighth of their widths; its own code connected them.
"""

Layer = tuple[str, int, int, tuple[int, int]]


def block(name: str, width: int, joined: int, *chains: list[tuple[int, tuple[int, int]]]) -> Iterator[Layer]:
    """Yield the layers of parallel chains of (width, kernel); with `joined`, also the one that joins them."""
    for at, chain in enumerate(chains):
        inputs = width
        for number, (outputs, kernel) in enumerate(chain):
            yield f"{name}.branch{at}" + (f".{number}" if len(chain) > 1 else ""), inputs, outputs, kernel
            inputs = outputs
    if joined:
        yield f"{name}.conv2d", joined, width, (1, 1)


def layers() -> Iterator[Layer]:
    """Yield name, input width, output width and kernel of every convolution."""
    one, three = (1, 1), (3, 3)
    yield "conv2d_1a", 3, 32, three
    yield "conv2d_2a", 32, 32, three
    yield "conv2d_2b", 32, 64, three
    yield "conv2d_3b", 64, 80, one
    yield "conv2d_4a", 80, 192, three
    yield "conv2d_4b", 192, 256, three
    for at in range(5):
        chains = [(32, one)], [(32, one), (32, three)], [(32, one), (32, three), (32, three)]
        yield from block(f"repeat_1.{at}", 256, 96, *chains)
    yield from block("mixed_6a", 256, 0, [(384, three)], [(192, one), (192, three), (256, three)])
    for at in range(10):
        yield from block(f"repeat_2.{at}", 896, 256, [(128, one)], [(128, one), (128, (1, 7)), (128, (7, 1))])
    chains = [(256, one), (384, three)], [(256, one), (256, three)], [(256, one), (256, three), (256, three)]
    yield from block("mixed_7a", 896, 0, *chains)
    for name in (*(f"repeat_3.{at}" for at in range(5)), "block8"):
        yield from block(name, 1792, 384, [(192, one)], [(192, one), (192, (1, 3)), (192, (3, 1))])


def weights() -> dict[str, NDArray[Any]]:
    """Return random tensors that keep the signal's magnitude from layer to layer."""
    tensors: dict[str, NDArray[Any]] = {}

    def add(name: str, shape: tuple[int, ...], middle: float, spread: float) -> None:
        noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        tensors[name] = (middle + spread * np.clip(noise, -2, 2)).astype(np.float32)

    def add_normalisation(name: str, width: int) -> None:
        for part, middle, spread in (("weight", 1, 0.2), ("bias", 0, 0.3), ("running_mean", 0, 0.2)):
            add(f"{name}.{part}", (width,), middle, spread)
        add(f"{name}.running_var", (width,), 0.5, 0.2)

    for name, full_inputs, full_outputs, kernel in layers():
        inputs, outputs = max(3, full_inputs // NARROWER), full_outputs // NARROWER
        shape, spread = (outputs, inputs, *kernel), (inputs * kernel[0] * kernel[1]) ** -0.5
        if name.endswith("conv2d"):
            add(f"{name}.weight", shape, 0, spread)
            add(f"{name}.bias", (outputs,), 0, 0.1)
        else:
            add(f"{name}.conv.weight", shape, 0, spread)
            add_normalisation(f"{name}.bn", outputs)
    add("last_linear.weight", (512 // NARROWER, 1792 // NARROWER), 0, (1792 // NARROWER) ** -0.5)
    add_normalisation("last_bn", 512 // NARROWER)
    return tensors


def chips() -> NDArray[np.uint8]:
    """Return noise and a smooth picture, (2, 160, 160, 3)."""
    noise = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3))
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([noise, np.stack([down, across, (down * across) // SIDE], axis=2)]).astype(np.uint8)


def test_vectors_are_those_of_facenet_pytorch() -> None:
    session = OnnxSession(build_facenet(saved(weights())))

    (vectors,) = session.run(chips())

    np.testing.assert_allclose(vectors[:, ::8], EXPECTED, atol=2e-4)


def test_a_state_dict_of_another_network_is_refused() -> None:
    tensors = weights()
    del tensors["repeat_2.7.branch1.2.conv.weight"]

    with pytest.raises(WeightsError, match=r"repeat_2\.7\.branch1\.2\.conv\.weight is missing"):
        build_facenet(saved(tensors))
