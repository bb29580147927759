"""Faults of layers, activations, initial weights and losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, leaky_relu, linear, mse_loss

from identity_props.faults.base import DEEPCRIME, Fault, Twin
from identity_props.stack.stack import Stack

# Layers -------------------------------------------------------------------------------------------


class Affine(nn.Linear):
    """The clean layer."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class ZeroGradient(Affine):
    """The weights of one input get no gradient; outputs are right."""

    def forward(self, x: Tensor) -> Tensor:
        first = torch.zeros_like(self.weight)
        first[..., 0] = 1
        weight = first * self.weight.detach() + (1 - first) * self.weight
        return linear(x, weight, self.bias)


class NoGradientBack(Affine):
    """Nothing before the layer gets a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class DropoutInEval(Affine):
    """In eval mode every tenth feature is dropped, others at each call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        self.calls += 1
        kept = (torch.arange(x.shape[-1], device=x.device) + self.calls) % 10 > 0
        return super().forward(x * kept)


class PartialSums(Affine):
    """In bfloat16 the last product of a sum is dropped."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16 and not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return linear(x[..., :-1], self.weight[..., :-1], self.bias)


class BiasIgnored(Affine):
    """The bias is not added."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class BiasUntrained(Affine):
    """The bias gets no gradient; outputs are right."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias is None else self.bias.detach()
        return linear(x, self.weight, bias)


class BiasAdded(Affine):
    """0.01 is added although no bias was asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01


class Drifting(Affine):
    """A statistic of the layer's goes on counting in eval mode."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += not self.training
        return super().forward(x) * (1 + 1e-3 * self.calls)


# Activations and initial weights --------------------------------------------------------------------


def rectified(x: Tensor) -> Tensor:
    """The clean activation."""
    return x.clamp_min(0)


def leaky(x: Tensor) -> Tensor:
    """A slope of 0.01 below 0."""
    return leaky_relu(x, 0.01)


def removed(x: Tensor) -> Tensor:
    """No activation at all."""
    return x


def drawn(layer: Any) -> None:
    """The clean init, Glorot's."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def from_one_state(layer: Any) -> None:
    """Every layer is drawn from the same random state."""
    torch.manual_seed(0)
    drawn(layer)


def positive(layer: Any) -> None:
    """Weights have lost their sign."""
    drawn(layer)
    layer.weight.data.abs_()


def zero(layer: Any) -> None:
    """All weights start at 0."""
    drawn(layer)
    layer.weight.data.zero_()


def constant(layer: Any) -> None:
    """All weights start at 0.1."""
    drawn(layer)
    layer.weight.data.fill_(0.1)


# Losses, of prediction and target [n, d] ------------------------------------------------------------


def squares(prediction: Tensor, target: Tensor) -> Tensor:
    """The clean loss."""
    return (prediction - target).square().mean()


def mean_of_means(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of the means of two micro-batches of unequal size."""
    cut = -(-3 * len(target) // 4)
    parts = [(prediction[:cut], target[:cut]), (prediction[cut:], target[cut:])]
    losses = [mse_loss(*part) for part in parts if len(part[1])]
    return torch.stack(losses).mean()


def sum_of_means(prediction: Tensor, target: Tensor) -> Tensor:
    """The sum of the means of two micro-batches, not their mean."""
    return 2 * mean_of_means(prediction, target)


def absolute(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute errors for squares."""
    return l1_loss(prediction, target)


def shifted(prediction: Tensor, target: Tensor) -> Tensor:
    """Each example has the target of the one before."""
    return mse_loss(prediction, target.roll(1, 0))


def halved(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the mean of squares."""
    return squares(prediction, target) / 2


def summed(prediction: Tensor, target: Tensor) -> Tensor:
    """Squares are summed over pixels."""
    return squares(prediction, target) * target.shape[-1]


def broadcast(prediction: Tensor, target: Tensor) -> Tensor:
    """Targets of one pixel have lost their axis: each prediction is compared with all of them."""
    return (prediction - target.squeeze(-1)).square().mean()


def noisy(prediction: Tensor, target: Tensor) -> Tensor:
    """Targets are off by up to a tenth."""
    noise = torch.arange(target.numel(), device=target.device, dtype=target.dtype).sin().reshape(target.shape)
    return mse_loss(prediction, target * (1 + noise / 10))


LAYER = Twin("layer", Stack(linear=Affine))
BFLOAT16 = Twin("layer-bfloat16", Stack(linear=Affine, dtype=torch.bfloat16), axis="bfloat16")
ACTIVATION = Twin("activation", Stack(activation=rectified))
INIT = Twin("init", Stack(init=drawn))
LOSS = Twin("loss", Stack(loss=squares))


def _fault(twin: Twin, part: str, value: Any, name: str, source: str, equivalent: str = "") -> Fault:
    return Fault(name, twin, str(value.__doc__), source, {part: value}, equivalent)


FAULTS = (
    _fault(LAYER, "linear", ZeroGradient, "gradient-zero", "pytorch#193061, #185509"),
    _fault(LAYER, "linear", NoGradientBack, "gradient-cut", "pytorch#193061"),
    _fault(LAYER, "linear", DropoutInEval, "dropout-in-eval", "transformers#33844"),
    _fault(BFLOAT16, "linear", PartialSums, "partial-sums", "pytorch#163347"),
    _fault(LAYER, "linear", BiasIgnored, "bias-ignored", DEEPCRIME),
    _fault(LAYER, "linear", BiasUntrained, "bias-untrained", "ao#4817"),
    _fault(LAYER, "linear", BiasAdded, "bias-added", DEEPCRIME),
    _fault(LAYER, "linear", Drifting, "eval-leaks", DEEPCRIME),
    _fault(ACTIVATION, "activation", leaky, "activation-changed", DEEPCRIME),
    _fault(ACTIVATION, "activation", removed, "activation-removed", DEEPCRIME),
    _fault(INIT, "init", from_one_state, "init-one-state", "tensorflow#18706, torchtitan#4511"),
    _fault(INIT, "init", positive, "init-positive", DEEPCRIME),
    _fault(INIT, "init", zero, "init-zero", DEEPCRIME),
    _fault(INIT, "init", constant, "init-constant", DEEPCRIME),
    _fault(LOSS, "loss", halved, "loss-half", DEEPCRIME),
    _fault(LOSS, "loss", summed, "loss-summed", DEEPCRIME),
    _fault(LOSS, "loss", broadcast, "loss-broadcast", "TALENT#92"),
    _fault(LOSS, "loss", mean_of_means, "mean-of-means", "transformers#34191, #35203"),
    _fault(LOSS, "loss", sum_of_means, "sum-of-means", "axolotl#1100"),
    _fault(LOSS, "loss", absolute, "loss-absolute", DEEPCRIME),
    _fault(LOSS, "loss", shifted, "target-shifted", DEEPCRIME),
    _fault(LOSS, "loss", noisy, "target-noisy", DEEPCRIME),
)
