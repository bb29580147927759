"""What is trained, and what came of it: a trial of one variant under one recipe, and its run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from identity_props.errors import InputError
from identity_props.stack.stack import check_rate
from identity_props.task.metrics import NEAR_IDENTITY
from identity_props.task.models import Variant

# factor on the learning rate at a step (from 0) of a budget
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, budget: 1.0,
    "linear-decay": lambda step, budget: 1 - step / max(budget, 1),
}


@dataclass(frozen=True)
class Recipe:
    """Optimizer by name, its learning rate and arguments, schedule, batch size (None: all) and init."""

    optimizer: str
    lr: float
    arguments: tuple[tuple[str, float], ...] = ()
    schedule: str = "constant"
    batch_size: int | None = 128
    init: str = "glorot"

    def __post_init__(self) -> None:
        check_rate(self.lr)
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch size: expected at least 1, or None for all, got {self.batch_size}")


@dataclass(frozen=True)
class Trial:
    """What is trained: a variant under a recipe for a budget of optimizer steps (0 trains nothing)."""

    variant: Variant
    recipe: Recipe
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"budget: expected 0 or more steps, got {self.steps}")


@dataclass(frozen=True, eq=False)
class Run:
    """What came of a trial: K replicas, measured at log-spaced steps.

    ``steps`` are the E steps measured, from 0 to the budget; ``fvu`` [K, E] is the test FVU in the
    space trained in; ``fvu_pixels`` [K] that of the last step carried back to grey levels;
    ``state`` holds the final parameters, each [K, ...], and ``passes`` is how many groups of replicas
    trained one after the other. ``floor`` [K] is the least FVU that the variant could come to, 0 where None.
    """

    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    fvu: Tensor
    fvu_pixels: Tensor
    state: dict[str, Tensor]
    seconds: float
    passes: int = 1
    floor: Tensor | None = None

    def of(self, order: Sequence[int]) -> Run:
        """The run of some of its replicas, by their places, without parameters."""
        seeds = tuple(self.seeds[k] for k in order)
        picked = torch.tensor(order)
        floor = None if self.floor is None else self.floor[picked]
        fvu, of_pixels = self.fvu[picked], self.fvu_pixels[picked]
        return replace(self, seeds=seeds, fvu=fvu, fvu_pixels=of_pixels, state={}, floor=floor)

    @property
    def diverged(self) -> Tensor:
        """Replicas [K] whose last FVU is NaN or infinite."""
        return ~torch.isfinite(self.fvu[:, -1])

    @property
    def steps_to_identity(self) -> Tensor:
        """First measured step [K] with FVU <= 1e-3, infinite where there was none."""
        reached = self.fvu <= NEAR_IDENTITY  # NaN compares false
        steps = torch.tensor(self.steps, dtype=torch.float64).expand_as(reached)
        return torch.where(reached, steps, math.inf).amin(1)

    @property
    def crossing(self) -> Tensor:
        """Step [K] at which FVU comes down to 1e-3, between measurements a line in log FVU over log step.

        Where steps_to_identity is coarse, this is not: it moves by 1% where training is slower by 1%.
        """
        log = self.fvu.double().clamp_min(1e-300).log10() - math.log10(NEAR_IDENTITY)  # [K, E]
        at = torch.tensor(self.steps, dtype=torch.float64).clamp_min(0.5).log2()
        first = (self.fvu <= NEAR_IDENTITY).double().argmax(1, keepdim=True)
        last = (first - 1).clamp_min(0)
        above, below = log.gather(1, last), log.gather(1, first)
        share = torch.where(first > 0, above / (above - below), 0.0)  # infinite above: NaN, not finite
        crossed = 2 ** (at[last] + share * (at[first] - at[last]))
        return torch.where(self.steps_to_identity.isfinite(), crossed[:, 0], math.inf)

    def at(self, step: int) -> Tensor:
        """FVU [K] at a measured step; raises InputError for another."""
        if step not in self.steps:
            raise InputError(f"step: expected one of the measured {self.steps}, got {step}")
        return self.fvu[:, self.steps.index(step)]


def measured_steps(budget: int) -> tuple[int, ...]:
    """0 and the budget divided by powers of 2^(1/3): three to an octave, budget / 4 among them."""
    octaves = math.log2(max(budget, 1))
    spaced = {round(budget / 2 ** (i / 3)) for i in range(math.floor(3 * octaves) + 1)}
    return tuple(sorted({0, budget} | spaced))
