"""Training an ensemble: one variant, one recipe, one budget, one seed per replica, one Run.

Replicas are trained as one, see ensemble, with the stack's own layers, autograd and optimizer, or
one by one where that would not be the same training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR

from identity_props.data import Pixels
from identity_props.ensemble import Ensemble, Single
from identity_props.errors import InputError
from identity_props.loop import take_step
from identity_props.memory import bytes_each, cached, free_bytes, passes
from identity_props.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.models import Variant
from identity_props.ranks import inside, on_ranks
from identity_props.recorded import RecordedRows, RecordedSingle, recordable
from identity_props.stack import Stack, at_home, rate_of, ready, resolve

# factor on the learning rate at a step (from 0) of a budget
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, budget: 1.0,
    "linear-decay": lambda step, budget: 1 - step / max(budget, 1),
}
RECORDED_FROM = 300  # steps; recording takes as long as some 100 of them
ROWS_TO = 2**22  # weights and biases; an optimizer's passes over more in one tensor leave the cache


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
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr: expected a finite rate above 0, got {self.lr}")
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
    trained one after the other.
    """

    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    fvu: Tensor
    fvu_pixels: Tensor
    state: dict[str, Tensor]
    seconds: float
    passes: int = 1

    def of(self, order: Sequence[int]) -> Run:
        """The run of some of its replicas, by their places, without parameters."""
        seeds = tuple(self.seeds[k] for k in order)
        picked = torch.tensor(order)
        return replace(self, seeds=seeds, fvu=self.fvu[picked], fvu_pixels=self.fvu_pixels[picked], state={})

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


def train(
    trial: Trial,
    pixels: Pixels,
    seeds: Sequence[int],
    stack: Stack | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Run:
    """Train one replica a seed for exactly ``trial.steps`` optimizer steps each.

    All train in one pass, or in as many as memory and cache ask for, where ``reason_to_train_alone``
    finds nothing against it, else one by one.
    ``pixels`` are unscaled; the variant's scaling is applied here. Replica k depends on seeds[k]
    alone: its initial weights and batch order come from that seed, its loss from its own outputs.
    A replica that diverges keeps its NaN to itself. ``on_step`` hears each step, of all replicas,
    and may raise to stop; of ranks it hears nothing. Raises InputError without seeds, RanksDifferError
    where ranks end with different parameters.
    """
    if not seeds:
        raise InputError("replicas: expected at least 1, got 0")
    stack, on_step = stack or Stack(), on_step or (lambda step: None)
    if stack.ranks > 1 and not inside():
        return _agreed(on_ranks(stack.ranks, train, trial, pixels, seeds, stack))
    alone = reason_to_train_alone(stack, trial) is not None
    groups = [[seed] for seed in seeds] if alone else _passes(trial, pixels, seeds, stack)
    runs = []
    for k, group in enumerate(groups):
        heard = _every(len(groups), k * trial.steps, on_step)
        networks = ensemble_for(trial, pixels.d, stack, group, alone)
        runs.append(_train(trial, pixels, networks, stack, heard))
    return _joined(runs) if len(runs) > 1 else runs[0]


def _passes(trial: Trial, pixels: Pixels, seeds: Sequence[int], stack: Stack) -> list[Sequence[int]]:
    each = bytes_each(trial, pixels.d, len(pixels.train), stack.dtype)
    return passes(seeds, each, free_bytes(stack.device), cached(trial, pixels.d, stack.device))


class RanksDifferError(Exception):
    """Data-parallel ranks ended with parameters that are not the same bit for bit."""


def _agreed(runs: Sequence[Run]) -> Run:
    first, *others = runs
    for rank, run in enumerate(others, 1):
        for name, p in run.state.items():
            if not torch.equal(p.nan_to_num(), first.state[name].nan_to_num()):
                raise RanksDifferError(f"rank {rank} ended with other {name} than rank 0")
    return first


def _every(replicas: int, before: int, on_step: Callable[[int], None]) -> Callable[[int], None]:
    """One step of all replicas for as many steps of single ones, counted on from ``before``."""

    def heard(step: int) -> None:
        if (before + step) % replicas == 0:
            on_step((before + step) // replicas)

    return heard


def _train(
    trial: Trial, pixels: Pixels, networks: Ensemble, stack: Stack, on_step: Callable[[int], None]
) -> Run:
    started, scaled = time.perf_counter(), pixels.scaled(trial.variant.scaling)
    data = scaled.train.to(stack.device, stack.dtype)  # [n, d]
    test = scaled.test.to(stack.device, stack.dtype)  # [m, d]
    optimizer, scheduler = _optimizer(trial, networks.parameters, stack)
    batches = stack.batches(data, trial.recipe.batch_size, networks.generators)
    steps, curve, variance = measured_steps(trial.steps), [], pixel_variance(test)
    for step in range(trial.steps + 1):
        if step in steps:
            with _evaluating(optimizer):
                curve.append(networks.squared_error(test) / variance)
        if step == trial.steps:
            break
        networks.step(optimizer, next(batches))
        scheduler.step()
        on_step(step)
    with _evaluating(optimizer):
        return Run(
            seeds=networks.seeds,
            steps=steps,
            fvu=torch.stack(curve, 1).cpu(),
            fvu_pixels=_fvu_pixels(networks, scaled, test, curve[-1]).cpu(),
            state={name: p.detach().cpu().clone() for name, p in networks.state.items()},
            seconds=time.perf_counter() - started,
        )


@contextmanager
def _evaluating(optimizer: Any) -> Iterator[None]:
    """Schedule-free optimizers keep other weights to train on than to evaluate, and switch between them."""
    switch = hasattr(optimizer, "eval") and hasattr(optimizer, "train")
    if switch:
        optimizer.eval()
    try:
        yield
    finally:
        if switch:
            optimizer.train()


def _joined(runs: Sequence[Run]) -> Run:
    return Run(
        seeds=tuple(seed for run in runs for seed in run.seeds),
        steps=runs[0].steps,
        fvu=torch.cat([run.fvu for run in runs]),
        fvu_pixels=torch.cat([run.fvu_pixels for run in runs]),
        state={name: torch.cat([run.state[name] for run in runs]) for name in runs[0].state},
        seconds=sum(run.seconds for run in runs),
        passes=len(runs),
    )


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count denormals as 0 in this thread: up to 40% faster, and not one bit of difference was measured.

    The running squares of a dead unit decay into them under RMSprop, far below eps. Threads that help
    this one inherit it if they start in the block: put it around the first work on large tensors.
    """
    already = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def ensemble_for(trial: Trial, d: int, stack: Stack, seeds: Sequence[int], alone: bool = False) -> Ensemble:
    """A trial's networks on d pixels, in the form that trains them fastest and changes nothing."""
    recorded = trial.steps >= RECORDED_FROM and _usual(stack, trial) and recordable(stack)
    in_cache = len(seeds) * trial.variant.numbers(d) <= ROWS_TO
    kind: type[Ensemble]
    if alone or len(seeds) == 1:  # spared the batched products, a third of the time of a large network
        kind = RecordedSingle if recorded else Single
    else:
        kind = RecordedRows if recorded and in_cache else Ensemble
    return kind(trial.variant, d, seeds, stack, trial.recipe.init)


PROBE, PATIENCE = (5, 8), (3, 16)  # pixels and examples; steps, and more of them if nothing moved


@lru_cache(maxsize=64)
def reason_to_train_alone(stack: Stack, trial: Trial) -> str | None:
    """Why replicas have to train one by one, or None where stacking them changes nothing.

    Two replicas train for 3 steps on random data, stacked and alone, or for 16 if the first 3 move
    nothing: an optimizer that mixes replicas or wants matrices, and a layer that ``torch.func.vmap``
    refuses, show at once. torch's own layer under SGD, RMSprop or Adam is not asked, unless loss or step
    are others. What refuses to be asked trains alone.
    """
    if _usual(stack, trial):
        return None
    d, n = PROBE
    stack = at_home(stack, stack.device, torch.float64)  # where rounding hides nothing
    x = torch.rand(n, d, generator=torch.Generator().manual_seed(0)).to(stack.device, stack.dtype)
    short = replace(trial, variant=replace(trial.variant, depth=min(trial.variant.depth, 2)))
    try:
        alone, together = _compared(short, stack, x)
    except Exception as error:  # whatever a user's part raises, on stacked parameters or at all
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    near = 1e-6 * float(alone.nan_to_num(0, 0, 0).abs().max())
    same = torch.allclose(together, alone, rtol=1e-6, atol=near, equal_nan=True)
    return None if same else "two replicas train differently together than alone"


def _compared(trial: Trial, stack: Stack, x: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of the outputs of two replicas [2, n, d] that train alone, and of the same together."""
    for steps in PATIENCE:
        short = replace(trial, steps=steps)
        alone = torch.cat([_probed(short, stack, [seed], x, True) for seed in (0, 1)])
        together = _probed(short, stack, [0, 1], x, False)
        if alone.any() or together.any():
            break
    return alone, together


ELEMENTWISE = (torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adam)


def _usual(stack: Stack, trial: Trial) -> bool:
    own = stack.linear is nn.Linear and stack.loss is mse_loss and stack.step is take_step
    return own and (stack.optimizer or resolve(trial.recipe.optimizer)) in ELEMENTWISE


def _probed(trial: Trial, stack: Stack, seeds: list[int], x: Tensor, alone: bool) -> Tensor:
    """Changes of the outputs [K, n, d] in a few steps."""
    networks = ensemble_for(trial, x.shape[1], stack, seeds, alone)
    before = networks.predict(x).detach().clone()
    optimizer, _ = _optimizer(trial, networks.parameters, stack)
    for _ in range(trial.steps):
        networks.step(optimizer, x)
    return networks.predict(x).detach() - before


def _optimizer(
    trial: Trial, parameters: list[Tensor], stack: Stack
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    recipe = trial.recipe
    if stack.optimizer is None:
        factory, arguments = resolve(recipe.optimizer), dict(recipe.arguments)
    else:
        factory, arguments = stack.optimizer, dict(stack.arguments)
    rate = rate_of(stack, stack.lr or recipe.lr)
    optimizer = ready(factory(parameters, lr=rate, **arguments), stack.mode)
    factor = SCHEDULES[recipe.schedule]
    return optimizer, LambdaLR(optimizer, lambda step: factor(step, trial.steps))


def _fvu_pixels(ensemble: Ensemble, scaled: Pixels, test: Tensor, fvu: Tensor) -> Tensor:
    """FVU [K] after carrying the errors back through the scaling; a common factor leaves it as it is."""
    if scaled.scaling is None or scaled.scaling.name == "unit":
        return fvu
    back = scaled.scaling.inverse.to(test)
    return ensemble.squared_error(test, back) / pixel_variance(scaled.scaling.backward(scaled.test))
