"""Closed forms for one linear layer under full-batch gradient descent, in float64.

With x in R^d and S = E[x x^T] over the training data, ``nn.MSELoss`` (a mean over examples and
pixels) gives W_k - I = (W_0 - I)(I - eta S)^k with eta = 2 lr / d: each eigenmode shrinks by
|1 - eta lambda_i| a step.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from identity_props.errors import InputError
from identity_props.metrics import NEAR_IDENTITY


def spectrum(x: Tensor) -> NDArray[np.float64]:
    """Eigenvalues [d] of E[x x^T], not centred, largest first, of data x [n, d]."""
    x = x.double()
    eigenvalues: NDArray[np.float64] = torch.linalg.eigvalsh(x.T @ x / len(x)).numpy()
    return eigenvalues[::-1].clip(0)


def critical_rate(eigenvalues: ArrayLike) -> float:
    """Learning rate d / lambda_1 from which gradient descent on the mean squared error diverges.

    From |1 - 2 lr lambda_1 / d| < 1. Eigenvalues [d], any order.
    """
    values = np.asarray(eigenvalues, np.float64)
    return float(len(values) / values.max())


def expected_fvu(
    eigenvalues: ArrayLike, lr: float, steps: ArrayLike, variance: float
) -> NDArray[np.float64]:
    """FVU expected after k steps from a Glorot-uniform start, over seeds: [len(steps)].

    FVU(k) = sum_i lambda_i e_i (1 - eta lambda_i)^(2k) / (d variance), where
    e_i = E|(W_0 - I) v_i|^2 = 2: 1 from I, and d Var(W_0) = 1 since Glorot draws with variance 1/d.
    ``variance`` is the mean variance of a pixel.
    """
    values = np.asarray(eigenvalues, np.float64)  # [d]
    k = np.atleast_1d(np.asarray(steps, np.float64))[:, None]  # [len(steps), 1]
    shrink = (1 - 2 * lr / len(values) * values) ** 2  # [d]
    fvu: NDArray[np.float64] = (2 * values * shrink**k).sum(1) / (len(values) * variance)
    return fvu


def expected_steps(eigenvalues: ArrayLike, lr: float, variance: float, most: int = 10**7) -> int:
    """Fewest steps after which the expected FVU is at most 1e-3.

    Raises InputError at or above the critical rate, and where ``most`` steps do not suffice.
    """
    if not 0 < lr < critical_rate(eigenvalues):
        raise InputError(f"lr: expected above 0 and below {critical_rate(eigenvalues):.3g}, got {lr}")
    low, high = 0, most
    if expected_fvu(eigenvalues, lr, high, variance)[0] > NEAR_IDENTITY:
        raise InputError(f"spectrum: expected FVU 1e-3 within {most} steps, got a slower one at lr {lr}")
    while low < high:  # below the critical rate FVU falls with every step
        middle = (low + high) // 2
        if expected_fvu(eigenvalues, lr, middle, variance)[0] <= NEAR_IDENTITY:
            high = middle
        else:
            low = middle + 1
    return low
