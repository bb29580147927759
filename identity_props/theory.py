"""Closed forms for one linear layer under full-batch gradient descent, in float64.

With x in R^d and S = E[x x^T] over the training data, ``nn.MSELoss`` (a mean over examples and
pixels) gives W_k - I = (W_0 - I)(I - eta S)^k with eta = 2 lr / d: each eigenmode shrinks by
|1 - eta lambda_i| a step. A bias changes nothing where the data's mean is 0.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from identity_props.errors import InputError
from identity_props.metrics import NEAR_IDENTITY

Array = NDArray[np.float64]


def modes(train: Tensor, test: Tensor | None = None) -> tuple[Array, Array]:
    """Eigenvalues [d] of E[x x^T] over train [n, d], largest first, and the power [d] of test on each.

    S = sum_i lambda_i v_i v_i^T, not centred; power_i = E[(v_i^T x)^2] over test [m, d], which is
    lambda_i where test is None.
    """
    train = train.double()
    eigenvalues, v = torch.linalg.eigh(train.T @ train / len(train))
    power = eigenvalues if test is None else (test.double() @ v).square().mean(0)
    return eigenvalues.flip(0).clamp_min(0).numpy(), power.flip(0).clamp_min(0).numpy()


def critical_rate(eigenvalues: ArrayLike) -> float:
    """Learning rate d / lambda_1 from which gradient descent on the mean squared error diverges.

    From |1 - 2 lr lambda_1 / d| < 1. Eigenvalues [d], any order.
    """
    values = np.asarray(eigenvalues, np.float64)
    return float(len(values) / values.max())


def expected_fvu(
    eigenvalues: ArrayLike, power: ArrayLike, variance: float, lr: float, steps: ArrayLike
) -> Array:
    """FVU expected after k steps from a Glorot-uniform start, over seeds: [len(steps)].

    FVU(k) = sum_i power_i e_i (1 - eta lambda_i)^(2k) / (d variance), where
    e_i = E|(W_0 - I) v_i|^2 = 2: 1 from I, and d Var(W_0) = 1 since Glorot draws with variance 1/d.
    ``variance`` is the mean variance of a pixel, eigenvalues and power [d] are those of ``modes``.
    """
    values = np.asarray(eigenvalues, np.float64)  # [d]
    k = np.atleast_1d(np.asarray(steps, np.float64))[:, None]  # [len(steps), 1]
    shrink = (1 - 2 * lr / len(values) * values) ** 2  # [d]
    fvu: Array = (2 * np.asarray(power) * shrink**k).sum(1) / (len(values) * variance)
    return fvu


def expected_steps(
    eigenvalues: ArrayLike, power: ArrayLike, variance: float, lr: float, most: int = 10**7
) -> int:
    """Fewest steps after which the expected FVU is at most 1e-3.

    Raises InputError at or above the critical rate, and where ``most`` steps do not suffice.
    """
    if not 0 < lr < critical_rate(eigenvalues):
        raise InputError(f"lr: expected above 0 and below {critical_rate(eigenvalues):.3g}, got {lr}")

    def near(steps: int) -> bool:
        return bool(expected_fvu(eigenvalues, power, variance, lr, steps)[0] <= NEAR_IDENTITY)

    low, high = 0, most
    if not near(high):
        raise InputError(f"spectrum: expected FVU 1e-3 within {most} steps, got a slower one at lr {lr}")
    while low < high:  # below the critical rate FVU falls with every step
        middle = (low + high) // 2
        low, high = (low, middle) if near(middle) else (middle + 1, high)
    return low
