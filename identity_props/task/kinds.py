"""Layers of other kinds that can be the identity: convolutions, an embedding, a norm, an adapter on a frozen layer.

Each is a variant that takes pixels [n, d] and gives [n, d], so that it trains, and is measured, as the linear ones are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from identity_props.errors import InputError
from identity_props.task.data import Pixels
from identity_props.task.models import INITS, Activation, Init, LinearFactory, Variant
from identity_props.task.theory import low_rank_floor


class Images(nn.Module):
    """Layers on images [n, 1, h, w], between pixels [n, d] and [n, d]; ``activation`` after each of them."""

    def __init__(
        self, shape: tuple[int, int], layers: list[nn.Module], activation: Activation | None
    ) -> None:
        super().__init__()
        self.shape, self.layers, self.activation = shape, nn.ModuleList(layers), activation

    def forward(self, x: Tensor) -> Tensor:
        image = x.reshape(-1, 1, *self.shape)
        for layer in self.layers:
            image = layer(image)  # [n, channels, h, w]
            image = self.activation(image) if self.activation else image
        return image.reshape(x.shape)


class Tokens(nn.Module):
    """An embedding of which pixel is brightest: one-hot rows [n, d] to rows of its table [n, d]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Embedding(d, d)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.argmax(-1))
        return out


class Adapted(nn.Module):
    """A frozen layer W and a low-rank part, W x + B A x: [n, d] to [n, d] (Hu et al. 2021, 2106.09685)."""

    def __init__(self, d: int, rank: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(d, d, bias=False).requires_grad_(False)
        self.down, self.up = nn.Linear(d, rank, bias=False), nn.Linear(rank, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.frozen(x) + self.up(self.down(x))
        return out


def image_shape(d: int) -> tuple[int, int]:
    """Height and width: a square, or one row where d is none."""
    side = math.isqrt(d)
    return (side, side) if side * side == d else (1, d)


def _convolution(d: int, depth: int, width: int) -> nn.Module:
    """Circular convolutions of one channel, with a kernel of ``width`` each way, or as large as the image."""
    h, w = image_shape(d)
    kernel = (min(width, h), min(width, w))
    layers = [
        nn.Conv2d(1, 1, kernel, padding="same", padding_mode="circular", bias=False) for _ in range(depth)
    ]
    return Images((h, w), [*layers], None)


def _rectified(d: int, depth: int, width: int) -> nn.Module:
    """3x3 convolutions with biases over ``width`` channels, a ReLU after each, the last included."""
    channels = [1, *[width] * (depth - 1), 1]
    layers = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(channels)]
    return Images(image_shape(d), [*layers], torch.relu)


def _transposed(d: int, depth: int, width: int) -> nn.Module:
    """A frozen convolution that takes rows of pixels apart, and the transposed one that has to put them together."""
    h, w = image_shape(d)
    apart = nn.Conv2d(1, w, (1, w), stride=(1, w), bias=False).requires_grad_(False)
    nn.init.orthogonal_(apart.weight)
    with torch.no_grad():
        apart.weight.mul_(
            torch.linspace(1, 2, w)[:, None, None, None]
        )  # so that the inverse is not the transpose
    return Images((h, w), [apart, nn.ConvTranspose2d(w, 1, (1, w), stride=(1, w), bias=False)], None)


KINDS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "convolution": _convolution,
    "relu-convolution": _rectified,
    "transposed": _transposed,
    "embedding": lambda d, depth, width: Tokens(d),
    "norm": lambda d, depth, width: nn.BatchNorm1d(d, momentum=0.5),
    "adapter": lambda d, depth, width: Adapted(d, width),
}


@dataclass(frozen=True)
class Kind(Variant):
    """A layer of another kind; ``width`` is its kernel's side, its channels or its rank."""

    width: int | None = 1

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {self.name!r}")

    def build(
        self,
        d: int,
        linear: LinearFactory = nn.Linear,
        init: str | Init = "glorot",
        activation: Activation = torch.relu,
    ) -> nn.Module:
        """A network [n, d] to [n, d]; layers and activation are those of the kind, whatever is given."""
        network = KINDS[self.name](d, self.depth, self.width or d)
        for layer in network.modules():
            trains = any(p.requires_grad for p in layer.parameters(recurse=False))
            if trains:
                (INITS[init] if isinstance(init, str) else init)(layer)
            if trains and init == "glorot" and isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.xavier_uniform_(layer.weight)
            if trains and isinstance(layer, nn.BatchNorm1d):
                nn.init.uniform_(
                    layer.weight, -1, 1
                )  # at 1 it is the identity in eval mode, before it has seen data
        return network

    def widths(self, d: int) -> list[int]:
        """Numbers an example has from the input on, layer by layer, to the output."""
        hidden = d * (self.width or 1) if self.name == "relu-convolution" else d
        return [d, *[hidden] * (self.depth - 1), d]

    def numbers(self, d: int) -> int:
        """Weights and biases, frozen ones included."""
        with torch.device("meta"):
            return sum(p.numel() for p in KINDS[self.name](d, self.depth, self.width or d).parameters())

    def data(self, pixels: Pixels) -> Pixels:
        """Pixels as it is trained on them; an embedding has the brightest pixel of each image as its token."""
        return tokens(pixels) if self.name == "embedding" else super().data(pixels)

    def floor(self, state: Mapping[str, Tensor], data: Pixels) -> Tensor:
        """Least FVU [K]; of an adapter what its rank leaves of the part that the frozen layer lacks."""
        if self.name != "adapter":
            return super().floor(state, data)
        return low_rank_floor(state["frozen.weight"], data.train, data.test, self.width or data.d)


def tokens(pixels: Pixels) -> Pixels:
    """The place of each image's brightest pixel, as one-hot rows: train [n, d] and test [m, d]."""
    train, test = (one_hot(x.argmax(-1), pixels.d).to(x) for x in (pixels.train, pixels.test))
    return replace(pixels, name=f"{pixels.name}, brightest pixels", train=train, test=test)
