"""Claims: which variant learns the identity under which recipe, within which budget.

One registry, CLAIMS, that the suite, the command and the table all read. Each claim carries the
measurements its numbers were chosen from; ``verdict`` judges it over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor

from identity_props.data import Pixels
from identity_props.errors import InputError
from identity_props.metrics import FAILED, NEAR_IDENTITY, pixel_variance
from identity_props.models import Variant
from identity_props.theory import critical_rate, expected_steps, spectrum
from identity_props.training import Recipe, Run, Trial

OFF_THE_ANSWER = 0.1  # FVU(0) of a network that must still learn; a dead optimizer cannot pass


@dataclass(frozen=True)
class Claim:
    """Variant x recipe x budget -> what is expected of at least ``share`` of the seeds.

    ``plan(pixels)`` gives the trials; ``succeeded(runs)`` says for each replica [K] whether it did
    what is claimed, and is false for NaN. ``evidence`` is what was measured when the numbers were
    chosen, ``applies`` whether the claim says anything about these pixels.
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
    slow: bool = False


# Rates and budgets ------------------------------------------------------------------------------


def rate(d: int) -> float:
    """The asker's learning rate 1e-3 at 784 pixels, carried to other widths: 1e-3 (784 / d)^(3/4).

    Measured at 7x7 (rates 1e-3 to 1.6e-2) and 14x14 (2e-3, 4e-3): near the best for four linear
    layers at a fixed budget, on both data sets.
    """
    return 1e-3 * (784 / d) ** 0.75


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


def sooner(runs: Sequence[Run], factor: float) -> Tensor:
    """The first learns, in at most 1 / factor of the steps that the second needs, seed by seed."""
    first, second = runs
    return learns(runs) & (first.steps_to_identity * factor <= second.steps_to_identity)


def same_curve(runs: Sequence[Run], tolerance: float) -> Tensor:
    """The first learns, and log10 FVU of the two differs by at most ``tolerance`` at every step."""
    first, second = runs
    apart = (first.fvu.log10() - second.fvu.log10()).abs().amax(1)
    return learns(runs) & (apart <= tolerance)


def between(runs: Sequence[Run], low: float, high: float) -> Tensor:
    """Test MSE on MNIST in grey levels, FVU x 4383.3, ends in a range, and failed."""
    mse = runs[0].fvu_pixels * MNIST_VARIANCE
    return fails(runs) & (mse >= low) & (mse <= high)


def matching(pattern: str) -> list[Claim]:
    """Claims whose name matches a shell pattern (several: separated by commas); raises InputError."""
    patterns = [part.strip() for part in pattern.split(",")]
    for part in patterns:
        if not any(fnmatchcase(name, part) for name in CLAIMS):
            raise InputError(f"claims: {part!r} matches none of {', '.join(CLAIMS)}")
    return [c for name, c in CLAIMS.items() if any(fnmatchcase(name, part) for part in patterns)]
