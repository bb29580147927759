"""How far a network is from the identity: the fraction of variance unexplained (FVU), 1 - R^2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NEAR_IDENTITY = 1e-3  # FVU at or below: learned
FAILED = 1e-2  # FVU at or above: failed; a factor of ten lies between


def pixel_variance(x: Tensor) -> float:
    """Mean over the pixels of their variance over the examples, x [m, d], in float64."""
    return float(x.double().var(0, correction=0).mean())


def squared_error(predict: Callable[[Tensor], Tensor], x: Tensor, back: Tensor | None = None) -> Tensor:
    """Mean squared error [K] of ``predict`` ([m, d] to [K, m, d]) against its own input x [m, d].

    ``back`` [d, d] takes errors from a scaled input to pixels. Sums run in float64, in chunks of
    examples, so that memory does not grow with m.
    """
    import torch  # here, as advice reads the thresholds without it

    total: Tensor | None = None
    for chunk in x.split(1024):
        error = predict(chunk) - chunk
        error = error if back is None else error @ back
        part = error.square().sum((1, 2), dtype=torch.float64)
        total = part if total is None else total + part
    assert total is not None, "a data set has at least one example"
    return total / x.numel()
