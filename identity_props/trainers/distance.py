"""How far weights are from those expected, and how far rounding may take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from identity_props.laws.base import rounding
from identity_props.task.minibatch import Layers

OFF = "distance of the weights, relative to the way they had to go"


def tolerance(dtype: torch.dtype, steps: int) -> float:
    """How far rounding may take a training: see laws.base.rounding, sums of 64 terms for batch and features."""
    return rounding(dtype, steps, 64, 64)


def apart(measured: Sequence[Tensor], expected: Layers, start: Sequence[Tensor]) -> float:
    """Largest distance of a layer from what is expected, relative to the way that all layers went."""
    way = torch.stack([(b.double() - c.double()).norm() for b, c in zip(expected, start, strict=True)]).norm()
    pairs = zip(measured, expected, strict=True)
    distances = torch.stack([(a.double() - b.double()).norm() for a, b in pairs])
    return float(distances.norm() / way.clamp_min(torch.finfo(torch.float64).tiny))
