"""Training an ensemble: one variant, one recipe, one budget, one seed per replica, one Run.

Replicas are stacked along a first axis and trained as one through ``torch.func``, with the stack's
own layers, autograd and optimizer; nothing that is under test is rewritten here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR

from identity_props.data import Pixels
from identity_props.errors import InputError
from identity_props.metrics import NEAR_IDENTITY, pixel_variance, squared_error
from identity_props.models import LinearFactory, Variant
from identity_props.stack import Stack, resolve

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
    ``state`` holds the final parameters, each [K, ...].
    """

    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    fvu: Tensor
    fvu_pixels: Tensor
    state: dict[str, Tensor]
    seconds: float

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
    """Train one replica a seed, all in one pass, for exactly ``trial.steps`` optimizer steps.

    ``pixels`` are unscaled; the variant's scaling is applied here. Replica k depends on seeds[k]
    alone: its initial weights and batch order come from that seed, its loss from its own outputs.
    A replica that diverges keeps its NaN to itself. ``on_step`` hears each step and may raise to
    stop. Raises InputError without seeds.
    """
    stack, started = stack or Stack(), time.perf_counter()
    scaled = pixels.scaled(trial.variant.scaling)
    data = scaled.train.to(stack.device, stack.dtype)  # [n, d]
    test = scaled.test.to(stack.device, stack.dtype)  # [m, d]
    ensemble = Ensemble(trial.variant, pixels.d, seeds, stack, trial.recipe.init)
    optimizer, scheduler = _optimizer(trial, list(ensemble.state.values()), stack)
    batches = _batches(data, trial.recipe.batch_size, ensemble.generators)
    steps, curve, variance = measured_steps(trial.steps), [], pixel_variance(test)
    for step in range(trial.steps + 1):
        if step in steps:
            curve.append(ensemble.squared_error(test) / variance)
        if step == trial.steps:
            break
        optimizer.zero_grad()
        ensemble.loss(next(batches)).backward()
        optimizer.step()
        scheduler.step()
        if on_step is not None:
            on_step(step)
    return Run(
        seeds=tuple(seeds),
        steps=steps,
        fvu=torch.stack(curve, 1).cpu(),
        fvu_pixels=_fvu_pixels(ensemble, scaled, test, curve[-1]).cpu(),
        state={name: p.detach().cpu() for name, p in ensemble.state.items()},
        seconds=time.perf_counter() - started,
    )


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count denormals as 0 in this thread: up to 40% faster, and not one bit of difference was measured.

    The running squares of a dead unit decay into them under RMSprop, far below eps.
    """
    already = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


class Ensemble:
    """K replicas of one network as stacked parameters [K, ...] and one vectorised forward pass.

    Replica k is drawn from seeds[k]; ``state`` holds the parameters, leaves that an optimizer can
    take, and ``generators`` go on where the initial draws stopped. Raises InputError without seeds.
    """

    def __init__(
        self,
        variant: Variant,
        d: int,
        seeds: Sequence[int],
        stack: Stack | None = None,
        init: str = "glorot",
    ) -> None:
        if not seeds:
            raise InputError("replicas: expected at least 1, got 0")
        stack = stack or Stack()
        models, self.generators = [], []
        for seed in seeds:
            model, generator = _seeded(variant, d, seed, stack.linear, init)
            models.append(model.to(stack.device, stack.dtype))
            self.generators.append(generator)
        self.model = models[0]
        self.state, self.buffers = stack_module_state(models)

    def predict(self, x: Tensor) -> Tensor:
        """[n, d] shared by all replicas, or [K, n, d] one batch each, to [K, n, d]."""

        def call(state: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = functional_call(self.model, (state, buffers), (x,))
            return out

        out: Tensor = vmap(call, in_dims=(0, 0, _replica_axis(x)))(self.state, self.buffers, x)
        return out

    def loss(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Sum of the replicas' losses: the gradient of each is that of its own mean squared error.

        x and target, which is x itself unless given, [n, d] shared or [K, n, d] one batch each.
        """
        target = x if target is None else target
        losses: Tensor = vmap(mse_loss, in_dims=(0, _replica_axis(target)))(self.predict(x), target)
        return losses.sum()

    @torch.no_grad()
    def squared_error(self, x: Tensor, back: Tensor | None = None) -> Tensor:
        """Mean squared error [K] on x [m, d], see metrics."""
        return squared_error(self.predict, x, back)


def _replica_axis(x: Tensor) -> int | None:
    return None if x.ndim == 2 else 0


def _seeded(
    variant: Variant, d: int, seed: int, linear: LinearFactory, init: str
) -> tuple[nn.Module, torch.Generator]:
    """A network drawn from ``seed``, and a generator for its batches that goes on where init stopped."""
    generator = torch.Generator()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = variant.build(d, linear, init)
        generator.set_state(torch.get_rng_state())
    return model, generator


def _optimizer(
    trial: Trial, parameters: list[Tensor], stack: Stack
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    recipe = trial.recipe
    if stack.optimizer is None:
        factory, arguments = resolve(recipe.optimizer), dict(recipe.arguments)
    else:
        factory, arguments = stack.optimizer, dict(stack.arguments)
    optimizer = factory(parameters, lr=recipe.lr, **arguments)
    factor = SCHEDULES[recipe.schedule]
    return optimizer, LambdaLR(optimizer, lambda step: factor(step, trial.steps))


def _batches(data: Tensor, size: int | None, generators: list[torch.Generator]) -> Iterator[Tensor]:
    """Batches without end: all of data [n, d] if size is None, else [K, size, d], reshuffled each epoch.

    An epoch's last batch holds what is left, as in Keras.
    """
    while size is None:
        yield data
    while True:
        order = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
        for index in order.to(data.device).split(size, dim=1):
            yield data[index]


def _fvu_pixels(ensemble: Ensemble, scaled: Pixels, test: Tensor, fvu: Tensor) -> Tensor:
    """FVU [K] after carrying the errors back through the scaling; a common factor leaves it as it is."""
    if scaled.scaling is None or scaled.scaling.name == "unit":
        return fvu
    back = scaled.scaling.inverse.to(test)
    return ensemble.squared_error(test, back) / pixel_variance(scaled.scaling.backward(scaled.test))
