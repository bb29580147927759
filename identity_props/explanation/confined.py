"""A bottleneck that no module shows, as of tied weights: outputs that lie in an affine space of few dimensions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from identity_props.explanation.readout import Regression, apply
from identity_props.explanation.views import View
from identity_props.task.metrics import NEAR_IDENTITY

NOTHING = 1e-12  # of the largest variance: rounding of float32 leaves 1e-14


def dimensions(y: Tensor) -> int:
    """Of the affine space that y [n, d] lies in."""
    variances = torch.linalg.eigvalsh(torch.cov(y.T, correction=0).reshape(y.shape[1], -1))
    return int((variances > NOTHING * variances[-1].clamp_min(1e-300)).sum())


def confined(seen: View, ranks: Tensor) -> View:
    """The view with that space as its hidden layer, where it has none, and where no map of so few dimensions will do.

    ``ranks`` [d + 1] is as ``by_rank`` gives them. As it is where its output has an end, which a dead unit is at.
    """
    if seen.hidden or seen.reach is None or any(torch.isfinite(end).any() for end in seen.reach):
        return seen
    y, x = seen.train.y, seen.train.x
    width = dimensions(y)
    if width >= min(dimensions(x), int((y != y[0]).any(0).sum())) or ranks[width] <= NEAR_IDENTITY:
        return seen
    readout = Regression(y)
    best = readout.to(seen.train.goal)
    train, test = (
        replace(half, reading=cache(partial(apply, best, half.y))) for half in (seen.train, seen.test)
    )

    def refit(wanted: Tensor) -> Tensor:
        return apply(readout.to(wanted), test.y)

    return replace(seen, train=train, test=test, refit=refit, hidden=1, narrowest=width, widths=(width,))
