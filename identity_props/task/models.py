"""The networks that are asked to learn the identity: plain ReLU, linear, and residual stacks.

The plain stack is the one the question was asked about; the residual block is that of He et al.
2015 (1512.03385) with one layer a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from identity_props.errors import InputError
from identity_props.task.data import SCALINGS, Pixels

DEPTHS = range(1, 9)
LinearFactory = Callable[..., nn.Module]
Activation = Callable[[Tensor], Tensor]
Init = Callable[[nn.Module], None]


class PlainReLU(nn.Module):
    """relu(W x + b), ``len(layers)`` times, the last layer included: [n, d] to [n, d], never negative."""

    def __init__(self, layers: list[nn.Module], activation: Activation = torch.relu) -> None:
        super().__init__()
        self.layers, self.activation = nn.ModuleList(layers), activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))  # [n, width], then [n, d]
        return x


class LinearOutput(PlainReLU):
    """``PlainReLU`` whose last layer is W x + b alone: [n, d] to [n, d]."""

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))  # [n, width]
        return last(x)


class Linear(nn.Module):
    """W x + b, ``len(layers)`` times with nothing between: [n, d] to [n, d], an affine map."""

    def __init__(self, layers: list[nn.Module], activation: Activation | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # an activation is not used

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)  # [n, width], then [n, d]
        return x


class Residual(nn.Module):
    """x + relu(W x + b), ``len(layers)`` times: [n, d] to [n, d], the identity where W = 0 and b = 0."""

    def __init__(self, layers: list[nn.Module], activation: Activation = torch.relu) -> None:
        super().__init__()
        self.layers, self.activation = nn.ModuleList(layers), activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + self.activation(layer(x))  # [n, d]
        return x


def glorot(layer: nn.Module) -> None:
    """Weights uniform on +-sqrt(6 / (fan in + fan out)), zero bias (Glorot, Bengio 2010; Keras' default).

    A layer that makes its weight of other parameters keeps what its constructor drew.
    """
    parameters = dict(layer.named_parameters())
    if "weight" in parameters and parameters["weight"].ndim == 2:
        nn.init.xavier_uniform_(parameters["weight"])
    if "bias" in parameters:
        nn.init.zeros_(parameters["bias"])


def torch_default(layer: nn.Module) -> None:
    """What the layer's own constructor drew; for ``nn.Linear`` uniform on +-1 / sqrt(fan in)."""


INITS: dict[str, Init] = {"glorot": glorot, "torch": torch_default}


VARIANTS: dict[str, Callable[[list[nn.Module], Activation], nn.Module]] = {
    "plain-relu": PlainReLU,
    "linear-output": LinearOutput,
    "linear": Linear,
    "residual": Residual,
    "scaled-input": Linear,
}


@dataclass(frozen=True)
class Variant:
    """An architecture at a depth, and the scaling of its input and target.

    ``name`` is one of VARIANTS, ``depth`` 1 to 8 layers, ``scaling`` one of ``data.SCALINGS``
    (scaled-input is a linear stack on standardised or whitened pixels). ``width`` is that of the
    hidden layers, None for the data's own d, which residual blocks need since they add their input.
    Raises InputError for anything else.
    """

    name: str
    depth: int = 1
    scaling: str = "unit"
    width: int | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        if self.name not in VARIANTS:
            raise InputError(f"variant: expected one of {', '.join(VARIANTS)}, got {self.name!r}")
        if self.depth not in DEPTHS:
            raise InputError(f"depth: expected 1 to 8 layers, got {self.depth}")
        if self.scaling not in SCALINGS:
            raise InputError(f"scaling: expected one of {', '.join(SCALINGS)}, got {self.scaling!r}")
        if self.name == "scaled-input" and self.scaling not in ("standardise", "whiten"):
            raise InputError(f"scaled-input: expected standardise or whiten, got {self.scaling!r}")
        if self.width is not None and (self.width < 1 or self.name == "residual"):
            raise InputError(f"width: expected at least 1, and None for residual, got {self.width}")

    def build(
        self,
        d: int,
        linear: LinearFactory = nn.Linear,
        init: str | Init = "glorot",
        activation: Activation = torch.relu,
    ) -> nn.Module:
        """A network [n, d] to [n, d] of layers ``linear(fan in, fan out, bias=...)``, drawn from torch's RNG.

        ``init`` is one of INITS or a function that draws a layer's parameters in place.
        """
        if isinstance(init, str) and init not in INITS:
            raise InputError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
        layers = [linear(i, o, bias=self.bias) for i, o in pairwise(self.widths(d))]
        _draw(layers, init)
        return VARIANTS[self.name](layers, activation)

    def widths(self, d: int) -> list[int]:
        """Units from the input [d] on, layer by layer, to the output [d]."""
        hidden = d if self.width is None else self.width
        return [d, *[hidden] * (self.depth - 1), d]

    def numbers(self, d: int) -> int:
        """Weights and biases of a network of linear layers on d pixels."""
        return sum(o * (i + self.bias) for i, o in pairwise(self.widths(d)))

    def data(self, pixels: Pixels) -> Pixels:
        """The pixels as the variant is trained on them and measured."""
        return pixels.scaled(self.scaling)

    def floor(self, state: Mapping[str, Tensor], data: Pixels) -> Tensor:
        """Least FVU [K] that parameters [K, ...] could come to: 0, as each of them can be the identity."""
        return torch.zeros(len(next(iter(state.values()))), dtype=torch.float64)

    def redraw(self, network: nn.Module, init: str | Init = "glorot") -> None:
        """Draw a network of ``nn.Linear`` layers anew in place, with the numbers that ``build`` would draw."""
        layers = [
            layer for layer in network.get_submodule("layers").children() if isinstance(layer, nn.Linear)
        ]
        for layer in layers:
            layer.reset_parameters()
        _draw(layers, init)


def _draw(layers: Sequence[nn.Module], init: str | Init) -> None:
    for layer in layers:
        (INITS[init] if isinstance(init, str) else init)(layer)
