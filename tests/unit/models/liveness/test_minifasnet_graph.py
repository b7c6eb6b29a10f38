"""The graph computes what the layers of the state dict do, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from tests.statedicts import saved
from tests.weights import real_weights

from vultus.errors import WeightsError
from vultus.models.liveness.minifasnet_graph import build_minifasnet
from vultus.models.runtime import OnnxSession

Array = np.ndarray[Any, Any]
BLOCKS = {"conv_3": 2, "conv_4": 1, "conv_5": 1}
WIDE = {"conv_23": 7, "conv_34": 19, "conv_45": 3}


def made_up(chance: np.random.Generator, *, squeezed: bool) -> dict[str, Array]:
    """Return a narrow network with the names of a wide one."""
    tensors: dict[str, Array] = {}

    def normalised(name: str, channels: int) -> None:
        tensors[f"{name}.weight"] = chance.uniform(0.5, 1.5, channels).astype(np.float32)
        tensors[f"{name}.bias"] = chance.normal(0, 0.3, channels).astype(np.float32)
        tensors[f"{name}.running_mean"] = chance.normal(0, 0.3, channels).astype(np.float32)
        tensors[f"{name}.running_var"] = chance.uniform(0.5, 2, channels).astype(np.float32)

    def layer(name: str, outputs: int, inputs: int, side: int, *, prelu: bool = True) -> None:
        spread = 1 / np.sqrt(inputs * side * side)
        tensors[f"{name}.conv.weight"] = chance.normal(0, spread, (outputs, inputs, side, side)).astype(np.float32)
        normalised(f"{name}.bn", outputs)
        if prelu:
            tensors[f"{name}.prelu.weight"] = chance.uniform(0, 0.5, outputs).astype(np.float32)

    def block(name: str, inputs: int, wide: int, outputs: int) -> None:
        layer(f"{name}.conv", wide, inputs, 1)
        layer(f"{name}.conv_dw", wide, 1, 3)
        layer(f"{name}.project", outputs, wide, 1, prelu=False)

    layer("conv1", 5, 3, 3)
    layer("conv2_dw", 5, 1, 3)
    channels = 5
    for (down, wide), (same, count) in zip(WIDE.items(), BLOCKS.items(), strict=True):
        block(down, channels, wide, 8)
        channels = 8
        for at in range(count):
            block(f"{same}.model.{at}", channels, 4 + at, channels)
        if squeezed:
            for one, two, shape in (("fc1", "bn1", (2, 8)), ("fc2", "bn2", (8, 2))):
                name = f"{same}.model.{count - 1}.se_module"
                tensors[f"{name}.{one}.weight"] = chance.normal(0, 0.5, (*shape, 1, 1)).astype(np.float32)
                normalised(f"{name}.{two}", shape[0])
    layer("conv_6_sep", 6, 8, 1)
    layer("conv_6_dw", 6, 1, 5, prelu=False)
    tensors["linear.weight"] = chance.normal(0, 0.5, (4, 6)).astype(np.float32)
    normalised("bn", 4)
    tensors["prob.weight"] = chance.normal(0, 0.5, (3, 4)).astype(np.float32)
    return tensors


class Plain:
    """The network in NumPy, nothing folded."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors = tensors

    def normalise(self, name: str, values: Array) -> Array:
        gamma, beta, mean, variance = (
            self.tensors[f"{name}.{part}"].reshape(-1, *[1] * (values.ndim - 2))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((values - mean) / np.sqrt(variance + 1e-5) * gamma + beta)

    def convolve(self, name: str, values: Array, stride: int, padding: int) -> Array:
        kernels = self.tensors[f"{name}.weight"]
        values = np.pad(values, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = sliding_window_view(values, kernels.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
        if kernels.shape[1] == 1:
            return np.asarray(np.einsum("nchwij,cij->nchw", windows, kernels[:, 0]))
        return np.asarray(np.einsum("nchwij,ocij->nohw", windows, kernels))

    def layer(self, name: str, values: Array, stride: int = 1, padding: int = 0) -> Array:
        values = self.normalise(f"{name}.bn", self.convolve(f"{name}.conv", values, stride, padding))
        slopes = self.tensors.get(f"{name}.prelu.weight")
        return values if slopes is None else np.where(values > 0, values, values * slopes[:, None, None])

    def block(self, name: str, values: Array, stride: int) -> Array:
        values = self.layer(f"{name}.conv_dw", self.layer(f"{name}.conv", values), stride, 1)
        return self.layer(f"{name}.project", values)

    def squeeze(self, name: str, values: Array) -> Array:
        if f"{name}.fc1.weight" not in self.tensors:
            return values
        means = values.mean(axis=(2, 3), keepdims=True)
        hidden = np.maximum(self.normalise(f"{name}.bn1", self.convolve(f"{name}.fc1", means, 1, 0)), 0)
        return np.asarray(
            values / (1 + np.exp(-self.normalise(f"{name}.bn2", self.convolve(f"{name}.fc2", hidden, 1, 0))))
        )

    def run(self, values: Array) -> Array:
        values = self.layer("conv2_dw", self.layer("conv1", values, 2, 1), 1, 1)
        for down, (same, count) in zip(WIDE, BLOCKS.items(), strict=True):
            values = self.block(down, values, 2)
            for name in (f"{same}.model.{at}" for at in range(count)):
                values = values + self.squeeze(f"{name}.se_module", self.block(name, values, 1))
        values = self.layer("conv_6_dw", self.layer("conv_6_sep", values))[:, :, 0, 0]
        values = self.normalise("bn", values @ self.tensors["linear.weight"].T)
        return np.asarray(values @ self.tensors["prob.weight"].T)


@pytest.mark.parametrize("squeezed", [False, True])
def test_the_graph_does_what_its_layers_do(squeezed: bool) -> None:
    chance = np.random.default_rng(8)
    tensors = made_up(chance, squeezed=squeezed)
    crops = chance.normal(0, 1, (2, 3, 80, 80)).astype(np.float32)

    (logits,) = OnnxSession(build_minifasnet(saved(tensors))).run(crops)

    np.testing.assert_allclose(logits, Plain(tensors).run(crops.astype(np.float64)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("2.7_80x80_MiniFASNetV2.pth", [-3.126394, 4.269691, -1.1460495]),
        ("4_0_0_80x80_MiniFASNetV1SE.pth", [-1.104694, 3.931497, -2.8286376]),
    ],
)
def test_logits_are_those_of_pytorch(name: str, theirs: list[float]) -> None:
    """Computed by PyTorch 2.13 from the same weights, with its own layers."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3)).transpose(2, 0, 1)[None].astype(np.float32)

    (logits,) = OnnxSession(build_minifasnet(real_weights(name))).run(noise)

    np.testing.assert_allclose(logits[0], theirs, atol=1e-4)


def test_another_network_is_refused() -> None:
    tensors = made_up(np.random.default_rng(0), squeezed=False)

    with pytest.raises(WeightsError, match=r"conv1\.bn\.weight is missing"):
        build_minifasnet(saved({"conv1.conv.weight": tensors["conv1.conv.weight"]}))
    with pytest.raises(WeightsError, match="knows 4 classes, not 3"):
        build_minifasnet(saved(tensors | {"prob.weight": np.ones((4, 4), np.float32)}))
