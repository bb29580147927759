"""Mini-batch gradient descent in float64: what is exactly known of a training, batch by batch.

A training is a table [K, n] of the weight of each example at each step, in units of 1 / b, b the examples that a
step is meant to hold; 1 throughout is gradient descent on batches of b. The loss at step k is the sum over
examples of weight / b times the mean over features of the squared error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Layers = list[Tensor]  # [out, in] each, the one next to the input first


@dataclass(frozen=True, eq=False)
class Recursion:
    """Descent of linear layers without bias to the identity: examples [n, d], ``held`` examples a step, rates.

    ``momentum`` is torch's, v = m v + g, w = w - rate v, or with ``rate_inside`` Keras', v = m v - rate g,
    w = w + v, which differ where the rate changes. ``decay`` adds decay w to the gradient, or with ``decoupled``
    takes rate decay w from the weights. ``nesterov`` looks ahead: w = w - rate (g + m v). ``clip`` is the largest norm of the gradient of all layers that train.
    """

    x: Tensor
    held: int
    rates: Sequence[float]
    momentum: float = 0.0
    decay: float = 0.0
    clip: float | None = None
    frozen: Sequence[int] = ()
    rate_inside: bool = False
    nesterov: bool = False
    decoupled: bool = False
    start: Layers = field(default_factory=list)

    def states(self, weights: Tensor) -> Iterator[Layers]:
        """Layers before each step of a table [K, n], and at the end."""
        layers = [layer.double() for layer in self.start]
        velocities = [torch.zeros_like(layer) for layer in layers]
        yield layers
        for rate, row in zip(self.rates, weights.double(), strict=True):
            gradients = self._clipped(self.gradients(layers, row))
            layers, velocities = self._stepped(layers, velocities, gradients, rate)
            yield layers

    def end(self, weights: Tensor) -> Layers:
        """Layers after all steps."""
        *_, last = self.states(weights)
        return last

    def gradients(self, layers: Layers, row: Tensor) -> Layers:
        """Of the loss of one step, for each layer; row [n] holds the examples' weights."""
        inputs = [self.x.double()]
        for layer in layers:
            inputs.append(inputs[-1] @ layer.mT)
        back = 2 / self.x.shape[1] * row[:, None] / self.held * (inputs[-1] - inputs[0])
        found = []
        for layer, before in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
            found.append(back.mT @ before)
            back = back @ layer
        return [torch.zeros_like(g) if place in self.frozen else g for place, g in enumerate(reversed(found))]

    def _clipped(self, gradients: Layers) -> Layers:
        if self.clip is None:
            return gradients
        norm = float(torch.stack([g.norm() for g in gradients]).norm())
        return gradients if norm <= self.clip else [g * (self.clip / norm) for g in gradients]

    def _stepped(
        self, layers: Layers, velocities: Layers, gradients: Layers, rate: float
    ) -> tuple[Layers, Layers]:
        moved, going = [], []
        for place, (w, v, g) in enumerate(zip(layers, velocities, gradients, strict=True)):
            decay = 0.0 if place in self.frozen else self.decay
            g = g + (0.0 if self.decoupled else decay) * w
            push = rate * g if self.rate_inside else g
            v = self.momentum * v + push
            ahead = push + self.momentum * v if self.nesterov else v
            w = w * (1 - rate * decay) if self.decoupled else w
            moved.append(w - (ahead if self.rate_inside else rate * ahead))
            going.append(v)
        return moved, going

    def losses(self, layers: Layers) -> Tensor:
        """Mean squared error over features of each example [n]."""
        x = out = self.x.double()
        for layer in layers:
            out = out @ layer.double().mT
        return (out - x).square().mean(1)


def linear_rates(lr: float, steps: int) -> list[float]:
    """Rates lr (1 - k / steps) of steps counted from 0."""
    return [lr * (1 - k / steps) for k in range(steps)]


def token_steps(gains: Sequence[float], vocabulary: int) -> float:
    """Logit of a token's label above all others, from 0, after steps of gain lr weight / N each.

    Its row of the table follows the gradient of cross-entropy, which is (1 - p) (onehot - 1/V) V / (V - 1) with
    p = 1 / (1 + (V - 1) exp(-a)), so that a grows by gain (1 - p) V / (V - 1) a step; from 0 by gain itself.
    """
    a = torch.zeros((), dtype=torch.float64)
    for gain in gains:
        p = 1 / (1 + (vocabulary - 1) * torch.exp(-a))
        a = a + gain * (1 - p) * vocabulary / (vocabulary - 1)
    return float(a)
