"""How parts are tried: steps of an optimizer on gradients that are given, and what counts as the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from identity_props.stack.guard import RAISED
from identity_props.stack.stack import ready

# lookahead and its kin do something else at every fifth or tenth step: what holds at first alone is no trait
LR, STEPS, SHAPE = 1 / 128, 32, (5, 7)
LARGE = (67, 71)  # more entries than 4096, from which on 8 bit optimizers quantise
PARTS = ((3, 4), (1, 7), (4, 4))  # the same entries, as several parameters
CLOSE = 1e-9  # of the largest change; rounding leaves 1e-13, a wrong coefficient 1e-3 or more


@dataclass(frozen=True)
class Walk:
    """Changes [STEPS, ...] of parameters that ``start`` at one number, on gradients [STEPS, ...], one after the other."""

    optimizer: Callable[..., torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    start: float = 1.0

    def __call__(self, gradients: Tensor, **arguments: Any) -> Tensor:
        """Of one parameter."""
        (changes,) = self._walked([gradients], arguments)
        return changes

    def parts(self, gradients: Tensor, **arguments: Any) -> Tensor:
        """The same of its entries as several parameters, of the shapes in PARTS."""
        sizes = [math.prod(shape) for shape in PARTS]
        cut = zip(gradients.flatten(1).split(sizes, 1), PARTS, strict=True)
        changes = self._walked([part.unflatten(1, shape) for part, shape in cut], arguments)
        return torch.cat([change.flatten(1) for change in changes], 1).reshape(gradients.shape)

    def _walked(self, gradients: Sequence[Tensor], arguments: Mapping[str, Any]) -> list[Tensor]:
        parameters = [torch.nn.Parameter(torch.full_like(g[0], self.start)) for g in gradients]
        optimizer = ready(self.optimizer(parameters, lr=LR, **{**self.arguments, **arguments}))
        changes: list[list[Tensor]] = [[] for _ in parameters]
        for step in range(len(gradients[0])):
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g[step].clone()
            optimizer.step()
            for p, walked in zip(parameters, changes, strict=True):
                walked.append(p.detach() - self.start)
        return [torch.stack(walked) for walked in changes]


def steps_alone(walk: Walk) -> bool:
    """Whether it takes two steps without a closure, wherever they lead."""
    return tried(lambda: walk(torch.ones(2, *SHAPE, dtype=torch.float64)) is not None)


def draws_steps(walk: Walk, gradients: Tensor, dtype: torch.dtype) -> bool:
    """Whether steps in a dtype, if it takes that, move torch's global generator."""
    before = torch.get_rng_state()
    try:
        walk(gradients[:4].to(dtype))
    except RAISED:  # it does not take the dtype
        return False
    return not torch.equal(before, torch.get_rng_state())


def same(a: Tensor, b: Tensor) -> bool:
    """Whether a is b up to rounding of their dtype; NaN is not."""
    close = CLOSE if b.dtype == torch.float64 else 16 * torch.finfo(b.dtype).eps
    return bool((a - b).abs().max() <= close * b.abs().max())


def tried(fits: Callable[..., bool], *arguments: Any) -> bool:
    """Whether it fits; what raises does not."""
    try:
        return fits(*arguments)
    except RAISED:  # an argument that it does not take, a closure or another shape that it wants
        return False
