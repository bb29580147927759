"""Faults of parts that draw random numbers while they train: dropout, and rounding at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from identity_props.faults.base import Fault, Twin
from identity_props.faults.networks import Affine
from identity_props.stack.stack import Stack


class Dropping(Affine):
    """The clean layer with dropout."""

    in_eval = 1.0

    def forward(self, x: Tensor) -> Tensor:
        kept = (torch.rand_like(x) >= 0.2) / 0.8 if self.training else self.in_eval
        return super().forward(x * kept)


class DroppingScaledTwice(Dropping):
    """Dropout scales in eval mode too."""

    in_eval = 0.8


class RoundingAtRandom(Optimizer):
    """Gradient descent that rounds bfloat16 at random."""

    overwrites = False

    def __init__(self, params: Any, lr: Any) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group["lr"] * p.grad)

    def _move(self, p: Tensor, change: Tensor) -> None:
        exact = p - change if p.dtype != torch.bfloat16 else p.float() - change.float()
        if p.dtype == torch.bfloat16:
            bits = exact.view(torch.int32)
            p.copy_((bits + torch.randint_like(bits, 2**16)).bitwise_and_(-(2**16)).view(torch.float32))
        if p.dtype != torch.bfloat16 or self.overwrites:
            p.copy_(exact)


class RoundingOverwritten(RoundingAtRandom):
    """What was rounded at random is overwritten by what is rounded to nearest."""

    overwrites = True


def _fault(twin: Twin, part: str, value: Any, name: str, source: str) -> Fault:
    return Fault(name, twin, str(value.__doc__), source, {part: value})


DROPPING = Twin("layer-dropping", Stack(linear=Dropping), axis="eval")
ROUNDING = Twin("rounding-at-random", Stack(RoundingAtRandom, dtype=torch.bfloat16), axis="bfloat16")
FAULTS = (
    _fault(DROPPING, "linear", DroppingScaledTwice, "dropout-scaled-twice", "AiDotNet#256"),
    _fault(ROUNDING, "optimizer", RoundingOverwritten, "rounding-overwritten", "OneTrainer#994"),
)
