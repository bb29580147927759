"""The best convolution of a last layer that is one: what it could make of its maps, where a dense readout could make more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from identity_props.explanation.readout import RIDGE, dtype_of, evaluating
from identity_props.task.data import Pixels

FITTED = 1024  # examples, each of as many equations as it has pixels
CHUNK = 32  # examples whose patches are held at once


@dataclass(frozen=True, eq=False)
class Convolved:
    """The convolution with least squares of what enters a module, weight [1, c, k, l] and bias [1]."""

    model: nn.Module
    module: nn.Module
    weight: Tensor
    bias: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """What it makes [n, d] of examples [n, d]."""
        made = [
            functional.conv2d(_maps(self.model, self.module, chunk).double(), self.weight, self.bias)
            for chunk in x.split(8 * CHUNK)
        ]
        return torch.cat(made).flatten(1)


def convolved(model: nn.Module, module: nn.Module | None, pixels: Pixels, goal: Tensor) -> Convolved | None:
    """The best one from what ``module`` is given to a goal [n, d] on train; None unless that makes one map, picture-sized."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or pixels.shape is None or not _plain(module):
        return None
    first = _maps(model, module, pixels.train[:2])
    high, wide = module.kernel_size
    if tuple(first.shape[2:]) != (pixels.shape[0] + high - 1, pixels.shape[1] + wide - 1):
        return None
    gram, moment = _normal_equations(model, module, pixels.train[:FITTED], goal[:FITTED])
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solved = torch.cholesky_solve(moment[:, None], torch.linalg.cholesky(gram))[:, 0]
    return Convolved(model, module, solved[:-1].reshape(1, -1, high, wide), solved[-1:])


def _plain(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    strided = isinstance(module, nn.Conv2d) and module.stride != (1, 1)
    return not (strided or (module.padding == "same" and not all(k % 2 for k in module.kernel_size))) and (
        (module.out_channels, module.groups, module.dilation, module.padding_mode) == (1, 1, (1, 1), "zeros")
    )


def _normal_equations(
    model: nn.Module, module: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, goal: Tensor
) -> tuple[Tensor, Tensor]:
    gram: Any = 0.0
    moment: Any = 0.0
    for rows, wanted in zip(x.split(CHUNK), goal.split(CHUNK), strict=True):
        patches = functional.unfold(_maps(model, module, rows).double(), module.kernel_size)
        flat = patches.transpose(1, 2).flatten(0, 1)  # [k d, c k l]
        flat = torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)
        gram, moment = gram + flat.T @ flat, moment + flat.T @ wanted.double().flatten()
    return gram, moment


def _maps(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """What enters a module, padded so that a convolution without padding gives what the module gives."""
    seen: list[Tensor] = []

    def record(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[:] = [given[0]]

    hook = module.register_forward_pre_hook(record)
    try:
        with evaluating(model), torch.no_grad():
            model(x.to(dtype_of(model)))
    finally:
        hook.remove()
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    maps, sides = seen[0], {"valid": (0, 0), "same": tuple(k // 2 for k in module.kernel_size)}
    top, left = (
        sides[module.padding] if isinstance(module.padding, str) else (int(by) for by in module.padding)
    )
    if isinstance(module, nn.Conv2d):
        return functional.pad(maps, (left, left, top, top))
    # a transposed convolution convolves its maps spread out by its stride, with the kernel turned round
    n, c, high, wide = maps.shape
    down, across = module.stride
    spread = maps.new_zeros(n, c, (high - 1) * down + 1, (wide - 1) * across + 1)
    spread[..., ::down, ::across] = maps
    (k, m), (below, right) = module.kernel_size, module.output_padding
    top, left = k - 1 - top, m - 1 - left
    return functional.pad(spread, (left, left + int(right), top, top + int(below)))
