"""The best convolution of a last layer of maps that is too wide to be read unit by unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from identity_props.explanation.readout import RIDGE, WIDEST, dtype_of, evaluating
from identity_props.task.data import Pixels

FITTED = 1024  # examples, each of as many equations as it has pixels
CHUNK = 32  # examples whose patches are held at once


@dataclass(frozen=True, eq=False)
class Convolved:
    """The convolution with least squares of what enters a module, weight [1, c, k, k] and bias [1]."""

    model: nn.Module
    module: nn.Module
    weight: Tensor
    bias: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """What it makes [n, d] of examples [n, d]."""
        padding = self.weight.shape[-1] // 2
        made = [
            functional.conv2d(
                _maps(self.model, self.module, chunk).double(), self.weight, self.bias, padding=padding
            )
            for chunk in x.split(8 * CHUNK)
        ]
        return torch.cat(made).flatten(1)


def convolved(model: nn.Module, module: nn.Module | None, pixels: Pixels, goal: Tensor) -> Convolved | None:
    """The best one from what ``module`` is given to a goal [n, d] on train; None unless that is wide maps, picture-sized."""
    first = None if module is None else _maps(model, module, pixels.train[:2])
    if module is None or first is None or first.ndim != 4 or first.shape[2:] != pixels.shape:
        return None
    if first[0].numel() <= WIDEST:
        return None
    size = getattr(module, "kernel_size", (3, 3))
    side = size[0] if isinstance(size, tuple) and size[0] % 2 else 3
    gram, moment = _normal_equations(model, module, pixels.train[:FITTED], goal[:FITTED], side)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solved = torch.cholesky_solve(moment[:, None], torch.linalg.cholesky(gram))[:, 0]
    channels = first.shape[1]
    return Convolved(model, module, solved[:-1].reshape(1, channels, side, side), solved[-1:])


def _normal_equations(
    model: nn.Module, module: nn.Module, x: Tensor, goal: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    gram: Any = 0.0
    moment: Any = 0.0
    for rows, wanted in zip(x.split(CHUNK), goal.split(CHUNK), strict=True):
        patches = functional.unfold(_maps(model, module, rows).double(), side, padding=side // 2)
        flat = patches.transpose(1, 2).flatten(0, 1)  # [k d, c side^2]
        flat = torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)
        gram, moment = gram + flat.T @ flat, moment + flat.T @ wanted.double().flatten()
    return gram, moment


def _maps(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """What enters a module, as it is."""
    seen: list[Tensor] = []

    def record(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[:] = [given[0]]

    hook = module.register_forward_pre_hook(record)
    try:
        with evaluating(model), torch.no_grad():
            model(x.to(dtype_of(model)))
    finally:
        hook.remove()
    return seen[0]
