"""Where in a picture the error is, and at which spatial frequency."""

from __future__ import annotations

import torch
from torch import Tensor


def by_pixel(error: Tensor) -> Tensor:
    """Mean square [d] of errors [m, d]; its mean is the mean squared error."""
    return error.square().mean(0)


def by_frequency(error: Tensor, goal: Tensor, shape: tuple[int, int]) -> Tensor:
    """Power [r, 2] of errors [m, d], and of what was to be given less its mean, at 0, 1, ... cycles a picture.

    Radial bins of the discrete Fourier transform, by the larger side; by Parseval each column sums to its mean square.
    """
    high, wide = shape
    across = torch.fft.fftfreq(wide, dtype=torch.float64)[None] * max(shape)
    down = torch.fft.fftfreq(high, dtype=torch.float64)[:, None] * max(shape)
    rings = (across.square() + down.square()).sqrt().round().long().flatten()
    power = [_power(z, shape).flatten() for z in (error, goal - goal.mean(0))]
    made = torch.zeros(int(rings.max()) + 1, 2, dtype=torch.float64)
    return made.index_add(0, rings, torch.stack(power, 1)) / error.shape[1]


def _power(z: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mean squared modulus [h, w] of the orthonormal transform, over examples."""
    total = torch.zeros(shape, dtype=torch.float64)
    for chunk in z.split(1024):
        total += torch.fft.fft2(chunk.reshape(-1, *shape), norm="ortho").abs().square().sum(0)
    return total / len(z)
