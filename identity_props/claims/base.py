"""What a claim is, the recipes and budgets that claims share, and what can be expected of their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from identity_props.engine.trial import Recipe, Run, Trial
from identity_props.task.data import Pixels
from identity_props.task.metrics import FAILED, NEAR_IDENTITY

OFF_THE_ANSWER = 0.5  # FVU(0) at least: predicting the mean gives 1, so a dead optimizer cannot pass
SOONER = 4  # "much sooner"; 10 to 40 were measured
SAME_CURVE = 0.01  # decades of FVU; rounding left 1e-4, Keras' eps of 1e-7 up to 0.5
PREDICTED = 1.3  # margin on predicted steps: seeds differ by 5%, grey levels lag scaled ones by 12%
MNIST_VARIANCE = 4383.2364  # mean variance of a test pixel, grey levels squared


@dataclass(frozen=True)
class Claim:
    """Variant x recipe x budget -> what is expected of at least ``share`` of the seeds.

    ``plan(pixels)`` gives the trials; ``succeeded(runs)`` says for each replica [K] whether it did
    what is claimed, and is false for NaN. ``evidence`` is what was measured when the numbers were
    chosen, ``applies`` whether the claim says anything about these pixels, and ``dtypes`` of which
    dtypes of training it speaks. ``lr`` is a rate that was found for the stack at hand, see gate.own.
    """

    name: str
    expects: str
    statement: str
    source: str
    evidence: str
    share: float
    plan: Callable[[Pixels], tuple[Trial, ...]]
    succeeded: Callable[[Sequence[Run]], Tensor]
    applies: Callable[[Pixels], bool] = lambda pixels: True
    dtypes: frozenset[torch.dtype] = frozenset({torch.float64, torch.float32, torch.bfloat16})
    slow: bool = False
    lr: float | None = None


# Rates and budgets ------------------------------------------------------------------------------


def rate(d: int) -> float:
    """The asker's learning rate 1e-3 at 784 pixels, carried to other widths: 1e-3 (784 / d)^(3/4).

    Measured at 7x7 (rates 1e-3 to 1.6e-2) and 14x14 (2e-3, 4e-3): near the best for four linear
    layers at a fixed budget, on both data sets.
    """
    return float(1e-3 * (784 / d) ** 0.75)


def budget(d: int) -> int:
    """Optimizer steps 10 / rate: 1,250 at 7x7, 3,536 at 14x14, 10,000 at 28x28 (21 epochs of MNIST).

    RMSprop moves a weight by about its rate a step, and a weight must move by about 1; a decayed
    rate halves that. Half this budget left four linear layers above 1e-3.
    """
    return round(10 / rate(d))


def rmsprop(d: int, schedule: str = "linear-decay", eps: float = 1e-7) -> Recipe:
    """The asker's optimizer, with Keras' rho 0.9 and eps 1e-7."""
    return Recipe("torch.optim:RMSprop", rate(d), (("alpha", 0.9), ("eps", eps)), schedule)


def adam(d: int, eps: float = 1e-8) -> Recipe:
    """Adam at the same rates, with a linear decay."""
    return Recipe("torch.optim:Adam", rate(d), (("eps", eps),), "linear-decay")


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "seed": partial(rmsprop, schedule="constant"),
    "rmsprop-decay": rmsprop,
    "adam-decay": adam,
}


# Expectations: runs -> [K], false for NaN ---------------------------------------------------------


def learns(runs: Sequence[Run]) -> Tensor:
    """Starts off the answer and ends near-identity, in the space trained in and in pixels."""
    run = runs[0]
    near = (run.fvu[:, -1] <= NEAR_IDENTITY) & (run.fvu_pixels <= NEAR_IDENTITY)
    return (run.fvu[:, 0] >= OFF_THE_ANSWER) & near


def _failed(fvu: Tensor) -> Tensor:
    """Trained, that is better than predicting the mean (FVU 1), and yet not below 1e-2."""
    return (fvu >= FAILED) & (fvu < 1)


def fails(runs: Sequence[Run]) -> Tensor:
    """Every run, whatever its budget, ends trained and failed."""
    return torch.stack([_failed(run.fvu[:, -1]) for run in runs]).all(0)


def fails_throughout(runs: Sequence[Run]) -> Tensor:
    """Failed at a quarter of the run and at its end: at a constant rate, two budgets in one run."""
    (run,) = runs
    return _failed(run.at(run.steps[-1] // 4)) & _failed(run.fvu[:, -1])


def diverges(runs: Sequence[Run]) -> Tensor:
    """Starts finite and ends in NaN or infinity."""
    return torch.isfinite(runs[0].fvu[:, 0]) & runs[0].diverged


def sooner(runs: Sequence[Run]) -> Tensor:
    """The first learns, in at most a quarter of the steps that the second needs, seed by seed."""
    first, second = runs
    return learns(runs) & (SOONER * first.steps_to_identity <= second.steps_to_identity)


def same_curve(runs: Sequence[Run]) -> Tensor:
    """Both fall to a tenth or less, and log10 FVU differs by at most 0.01 at every measured step."""
    first, second = runs
    fell = first.fvu[:, -1] <= 0.1 * first.fvu[:, 0]
    return fell & ((first.fvu.log10() - second.fvu.log10()).abs().amax(1) <= SAME_CURVE)


def ends_between(runs: Sequence[Run], low: float, high: float) -> Tensor:
    """Failed, and test MSE on MNIST in grey levels, FVU x 4383.2, ends in a range."""
    mse = runs[0].fvu_pixels * MNIST_VARIANCE
    return fails(runs) & (mse >= low) & (mse <= high)
