"""Walks: an optimizer on given gradients, with what befalls parameters, rates and switches on the way as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from identity_props.stack.guard import alive
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import ready, takes

T = TypeVar("T")
Factory = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Switch:
    """An argument, its value, that of the second group where groups show it, and what it goes with."""

    name: str = ""
    value: Any = None
    other: Any = None
    beside: tuple[tuple[str, Any], ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        return {**dict(self.beside), **({self.name: self.value} if self.name else {})}

    def taken_by(self, make: Factory) -> bool:
        """Whether an optimizer takes all of its arguments, together."""
        return all(takes(make, name, value, **self.arguments) for name, value in self.arguments.items())

    def __str__(self) -> str:
        return (
            "with " + ", ".join(f"{k}={v}" for k, v in self.arguments.items()) if self.name else "as it comes"
        )


PLAIN = Switch()
MOMENTUM, DECAY = ("momentum", 0.9), ("weight_decay", 0.1)
# of torch.optim and its kin: a pair is tried where both the part and the reference take it
SWITCHES = (
    Switch("weight_decay", 0.1, 0.3),
    Switch("momentum", 0.9, 0.5),
    Switch("weight_decay", 0.1, 0.3, (MOMENTUM,)),
    Switch("nesterov", True, beside=(MOMENTUM, DECAY)),
    Switch("nesterov", False, beside=(MOMENTUM,)),
    Switch("dampening", 0.5, 0.25, (MOMENTUM,)),
    Switch("betas", (0.7, 0.9), (0.8, 0.95)),
    Switch("beta", 0.7, 0.8),
    Switch("eps", 1e-2, 1e-1),
    Switch("amsgrad", True, beside=(DECAY,)),
    Switch("maximize", True, beside=(DECAY,)),
    Switch("maximize", True),
    Switch("decoupled_weight_decay", True, beside=(DECAY,)),
    Switch("alpha", 0.7, 0.8),
    Switch("centered", True, beside=(MOMENTUM,)),
    Switch("centered", True),
    Switch("rho", 0.7, 0.8),
    Switch("lr_decay", 0.1, 0.2),
    Switch("initial_accumulator_value", 0.5),
    Switch("momentum_decay", 0.05, 0.1),
    Switch("etas", (0.4, 1.3)),
    Switch("step_sizes", (1e-3, 0.1)),
    Switch("lambd", 1e-2, 1e-1),
    Switch("t0", 3.0),
    Switch("beta2_decay", -0.5, -0.6),
    Switch("d", 0.5, 0.25),
    Switch("ns_steps", 3),
    Switch("foreach", True),
    Switch("fused", True),
)

# The course ------------------------------------------------------------------------------------------

ROWS, DEAD, COLUMN, LATE, FROZEN, NEVER = 1, 2, 4, 6, 7, 8  # places in SHAPES of those that something befalls
SKIPS = {3: 3, 10: 4}  # a gradient missing every third step, or fourth
# nearly square: of eigenvectors of g g^T, as SOAP takes them, those that g g^T has none of are any, by rounding
SHAPES = ((5, 6), (7, 6), (3, 3), (4, 5), (3, 4), (6, 5), (4, 3), (3, 6), (2, 9), (4, 4), (5, 4), (17,))
LARGE = ((257, 256), (3, 4))  # more than 2^16 entries
FIRST_GROUP = 6
BEFELL = {DEAD: " of zeros", LATE: " late", FROZEN: " frozen", NEVER: " never with a gradient"}
RATES, FACTORS = (1 / 512, 1 / 128), (1.0, 0.5, 2.0, 0.25)  # a schedule moves both groups' rates at each step
LOUD = (1.0, 1 / 4, 1 / 16)  # thirds of a walk: second moments fall again, which amsgrad is about
LONG, SHORT, FEW = 100, 16, 3  # steps


@dataclass(frozen=True, eq=False)
class Course:
    """Start and gradients of each parameter, in float64; None where there is no gradient at a step.

    An even one is a single group at a single rate, and is not loaded; a steady one keeps its groups' rates.
    """

    starts: list[Tensor]
    gradients: list[list[Tensor | None]]
    faster: float = 1.0
    even: bool = False
    steady: bool = False

    @property
    def steps(self) -> int:
        return len(self.gradients)

    @property
    def sizes(self) -> list[int]:
        return [start.numel() for start in self.starts]

    @property
    def half(self) -> int:
        """The step before which it is saved and loaded, from 0."""
        return self.steps if self.even else self.steps // 2

    def groups(self, of: Sequence[T]) -> list[Sequence[T]]:
        """What belongs to its parameters, by group."""
        if self.even:
            return [of]
        cut = min(FIRST_GROUP, len(of) - 1)
        return [of[:cut], of[cut:]]

    def rates(self, step: int) -> list[float]:
        """Of each group, at a step from 0, as a schedule moves them."""
        if self.even:
            return [RATES[1] * self.faster]
        factor = 1.0 if self.steady else FACTORS[step % len(FACTORS)]
        return [rate * self.faster * factor for rate in RATES]

    def through(self, change: Callable[[Tensor], Tensor]) -> Course:
        """The same with each number changed, such as rounded."""
        gradients = [[None if g is None else change(g) for g in row] for row in self.gradients]
        return replace(self, starts=[change(start) for start in self.starts], gradients=gradients)


def course(seed: int, shapes: Sequence[tuple[int, ...]], steps: int, faster: float = 1.0) -> Course:
    """Drawn from the seed: parameters that come late, skip steps, stay without gradient or have one of 0."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = [draw(shape) for shape in shapes]
    drawn = [[draw(shape) * LOUD[3 * step // steps] for shape in shapes] for step in range(steps)]
    if len(shapes) <= len(LARGE):
        return Course(starts, [[*row] for row in drawn], faster)
    starts[ROWS] = starts[ROWS].mT.contiguous().mT
    starts[DEAD].zero_()
    return Course(starts, [_befallen(row, step, steps) for step, row in enumerate(drawn)], faster)


def _befallen(drawn: list[Tensor], step: int, steps: int) -> list[Tensor | None]:
    """The gradients of a step, without those that are missing in it."""
    drawn[DEAD].zero_()
    drawn[COLUMN][:, 0] = 0  # a pixel that is always 0
    late = [LATE] * (step <= steps // 2)  # its state begins after the load
    missing = {FROZEN, NEVER, *late, *(place for place, every in SKIPS.items() if step % every == 1)}
    return [None if place in missing else gradient for place, gradient in enumerate(drawn)]


class WalkError(Exception):
    """An optimizer raised: with which switch, at which step, and what."""


@dataclass(frozen=True, eq=False)
class Walked:
    """Parameters [steps, numbers] after each step, and what ``eval()`` shows of them [evaluations, numbers]."""

    taken: Tensor
    shown: Tensor


EVERY = 10  # steps from one evaluation to the next


def walked(
    make: Factory,
    course: Course,
    switch: Switch = PLAIN,
    dtype: torch.dtype = torch.float64,
    told: bool = False,
) -> Walked:
    """Walk it in two groups whose rates a schedule moves, saved and loaded half-way, evaluated now and then.

    One that is told hears a loss at each step, from a closure.
    """
    parameters = [nn.Parameter(start.to(dtype, copy=True)) for start in course.starts]
    if len(parameters) > FROZEN and not course.even:
        parameters[FROZEN].requires_grad_(False)
    with seeded(0):
        taken, shown = _steps(
            partial(_made, make, parameters, course, switch), parameters, course, switch, told
        )
    return Walked(torch.stack(taken), torch.stack([*taken[:1], *shown])[1:])


def _steps(
    fresh: Callable[[], Any], parameters: list[nn.Parameter], course: Course, switch: Switch, told: bool
) -> tuple[list[Tensor], list[Tensor]]:
    optimizer, taken, shown = fresh(), [], []
    for step, gradients in enumerate(course.gradients):
        alive()
        if step == course.half:
            saved, optimizer = optimizer.state_dict(), fresh()
            optimizer.load_state_dict(saved)
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = None if gradient is None else torch.empty_like(p.detach()).copy_(gradient)  # p's layout
        try:
            optimizer.step(*[partial(_loss, step)] * told)
        except Exception as error:
            raise WalkError(f"{switch}, step {step + 1}: {type(error).__name__}: {error}") from error
        taken.append(_flat(parameters))
        for group, rate in zip(optimizer.param_groups, course.rates(step + 1), strict=True):
            if "lr" in group:
                group["lr"] = rate  # as a scheduler does
        if step % EVERY == EVERY - 1 and hasattr(optimizer, "eval"):
            optimizer.eval()
            shown.append(_flat(parameters))
            ready(optimizer)
    return taken, shown


def _loss(step: int) -> Tensor:
    """It falls, and rises now and then."""
    return torch.tensor(4.0 / (1 + step % 7) + 1.0 / (1 + step))


def _made(make: Factory, parameters: list[nn.Parameter], course: Course, switch: Switch) -> Any:
    """The optimizer over the groups of a course, the second with settings of its own."""
    first, *others = course.rates(0)
    groups = [{"params": [*members]} for members in course.groups(parameters)]
    slower = [{**group, "lr": lr} for group, lr in zip(groups[1:], others, strict=True)]
    optimizer = ready(make([groups[0], *slower], lr=first, **switch.arguments))
    if switch.other is not None and others:
        optimizer.param_groups[1][switch.name] = switch.other
    return optimizer


def _flat(parameters: Iterable[Tensor]) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in parameters])


def shows(make: Factory, switch: Switch) -> bool:
    """Whether an optimizer keeps a switch in its groups, where each group can have its own."""
    return switch.name in make([nn.Parameter(torch.ones(2, 3))], lr=1.0, **switch.arguments).param_groups[0]
