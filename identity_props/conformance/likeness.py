"""Likeness: a part that is meant to be another, step by step and gradient by gradient, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from identity_props.laws import Discrepancy
from identity_props.stack.stack import ready, seeded

STEPS = 24
SHAPES = ((5, 7), (7, 5), (3, 3), (7,))  # contiguous, not contiguous, without gradient, a vector
SWITCHES: tuple[dict[str, float], ...] = (
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.1},
)
EPS = torch.finfo(torch.float64).eps

Factory = Callable[..., torch.optim.Optimizer]
Layer = Callable[..., nn.Module]


def same_steps(
    optimizer: Factory, reference: Factory, seed: int = 0, shapes: Sequence[tuple[int, ...]] = SHAPES
) -> Discrepancy:
    """Largest relative distance from the reference's parameters over 24 steps on given gradients.

    Two parameter groups at two rates, with a parameter that is not contiguous and one that is 0 and
    stays without gradient; with decay and momentum, alone and together, where the reference takes
    them; saved and loaded half-way. Rounding: a dozen operations a step, 16 eps for each step.
    """
    worst = 0.0
    for switches in SWITCHES:
        try:
            expected = _walked(partial(reference, **switches), seed, shapes)
        except TypeError:
            continue  # the reference has no such switch
        measured = _walked(partial(optimizer, **switches), seed, shapes)
        worst = max(worst, _farthest(measured, expected))
    return Discrepancy(worst, 16 * STEPS * EPS, "|p - p of the reference| / |p|")


def _farthest(measured: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative distance, infinite for NaN."""
    pairs = zip(measured, expected, strict=True)
    apart = [(a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny) for a, b in pairs]
    return float(torch.stack(apart).nan_to_num(math.inf).max())


def _walked(make: Factory, seed: int, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """All parameters, flattened, after each step."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = [draw(shape) for shape in shapes]
    values[1] = values[1].mT.contiguous().mT
    values[2].zero_()
    parameters = [nn.Parameter(value) for value in values]

    def fresh() -> torch.optim.Optimizer:
        return ready(make([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 1 / 32}], lr=1 / 128))

    optimizer, walked = fresh(), []
    for step in range(STEPS):
        if step == STEPS // 2:
            saved = optimizer.state_dict()
            optimizer = fresh()
            optimizer.load_state_dict(saved)
        for p in parameters:
            p.grad = draw(p.shape)
        parameters[2].grad = torch.zeros_like(parameters[2])
        optimizer.step()
        walked.append(torch.cat([p.detach().flatten() for p in parameters]))
    return walked


def same_layer(linear: Layer, reference: Layer, seed: int = 0) -> Discrepancy:
    """Largest relative distance of outputs and gradients from those of the reference layer.

    Same parameters, 5 to 7 features, with and without bias. Rounding of sums over 7 terms at most.
    """
    worst = 0.0
    for bias in (True, False):
        with seeded(seed):
            theirs, ours = reference(5, 7, bias=bias).double(), linear(5, 7, bias=bias).double()
        ours.load_state_dict(theirs.state_dict())
        worst = max(worst, _farthest(_passed(ours, seed), _passed(theirs, seed)))
    return Discrepancy(worst, 64 * EPS, "|output or gradient - the reference's| / its size")


def _passed(layer: nn.Module, seed: int) -> list[Tensor]:
    """Output, and gradients of the input and of each parameter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    out = layer(x)
    (out * torch.arange(7)).square().sum().backward()
    gradients = [p.grad for p in (x, *layer.parameters())]
    return [out.detach(), *(g if g is not None else torch.full((1,), torch.nan) for g in gradients)]
