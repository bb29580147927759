"""How laws of the contract of torch.optim walk an optimizer: a few matrices, and gradients that are given."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.laws.base import Case, Discrepancy, law
from identity_props.stack.guard import RAISED, alive
from identity_props.stack.seeding import seed_others
from identity_props.stack.stack import Stack, ready
from identity_props.stack.unchanged import unchanged

RATE = 1 / 128
STEPS, HALF = 6, 3
SHAPES = ((5, 7), (6, 3), (0, 7), (), (1,))
USUAL, EMPTY, SCALAR, SINGLE = (0, 1), 2, 3, 4  # places in SHAPES


SIGNATURE = re.compile(r"\(\) (missing|takes|got an unexpected|got multiple)")  # of a call that is not taken


class NotOfferedError(Exception):
    """A part does not take what a law would try on it, and says so by raising, or has no way to be asked."""


Measure = Callable[[Stack, Case], Discrepancy]


AXES = "sgd adam momentum three-steps"


def contract(
    name: str, statement: str, source: str, axes: str = AXES, needs: str = ""
) -> Callable[[Measure], Measure]:
    """Register a law of the contract, measured eager and with draws of its own; its docstring is the derivation."""
    needs = ", ".join(filter(None, ("stepping on given gradients", "one rank", needs)))

    def register(measure: Measure) -> Measure:
        @wraps(measure)
        def measured(stack: Stack, case: Case) -> Discrepancy:
            eager = replace(stack, mode="eager")
            with unchanged(), offered("steps on matrices as they come"):
                found = measure(eager, case)
                return found if found.holds or repeats(eager, case) else _not_asked()

        return law(name, statement, source, axes, needs, kind="contract")(measured)

    return register


def _not_asked() -> Discrepancy:
    raise NotOfferedError("not offered: the same steps twice, of equal seeds")


@contextmanager
def offered(what: str) -> Iterator[None]:
    """Raises NotOfferedError for what a part raises here: one that refuses is seen at once, and does nothing wrong."""
    try:
        yield
    except NotOfferedError:
        raise
    except RAISED as error:
        if not _refused(error):
            raise
        first, *_ = [*str(error).splitlines(), ""]
        raise NotOfferedError(f"not offered: {what} ({type(error).__name__}: {first[:120]})") from error


def _refused(error: BaseException) -> bool:
    """Whether a part raised, or what it calls, or it cannot be called so: what a law's own line raises is a bug."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    if not _ours(frame.f_globals["__name__"]):
        return True
    if isinstance(error, AttributeError):  # that a part does not have
        return not _ours(type(error.obj).__module__)
    return isinstance(error, TypeError) and bool(SIGNATURE.search(str(error)))


def _ours(module: str) -> bool:
    return module.startswith(__package__)


@dataclass(eq=False)
class Walk:
    """An optimizer over parameters, with the gradients of each step; ``at`` is the step that comes next.

    ``moved`` are the places of those parameters that a step moved: one of equal steps may end where it began.
    """

    parameters: list[nn.Parameter]
    optimizer: Any
    gradients: list[list[Tensor]]
    at: int = 0
    moved: set[int] = field(default_factory=set)

    def on(self, steps: int = STEPS) -> Tensor:
        """Weights [numbers] in float64 after so many more steps."""
        for _ in range(steps):
            self.given()
            before = [p.detach().clone() for p in self.parameters]
            self.optimizer.step()
            pairs = enumerate(zip(self.parameters, before, strict=True))
            self.moved |= {place for place, (p, old) in pairs if not torch.equal(p, old)}
        return self.weights

    def given(self) -> None:
        """Each parameter gets its gradient of the coming step, and draws start from its number."""
        alive()
        seed_all(self.at)
        for p, g in zip(self.parameters, self.gradients[self.at], strict=True):
            p.grad = g.clone()
        self.at += 1

    @property
    def weights(self) -> Tensor:
        return flat(self.parameters)


Settings = list[dict[str, Any]]
CYCLED = ("lr", "momentum", "betas")


def settings(one: Walk) -> Settings:
    """What schedulers write, of each group."""
    return [{name: group[name] for name in CYCLED if name in group} for group in one.optimizer.param_groups]


def seed_all(seed: int) -> None:
    """Draws come from this seed, whichever generator a part asks.

    ``torch.manual_seed`` writes down its stack for each kind of device that has not begun, milliseconds a call.
    """
    (torch.manual_seed if _accelerated() else torch.default_generator.manual_seed)(seed)
    seed_others(seed)


@cache
def _accelerated() -> bool:
    """Whether there are generators of torch's beside that of the CPU."""
    return torch.accelerator.is_available()


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers in one vector, in float64."""
    return torch.cat([t.detach().double().flatten().cpu() for t in tensors])


def made(stack: Stack, parameters: Sequence[Any], **arguments: Any) -> Any:
    """The stack's optimizer, eager, or gradient descent with momentum, which has something to keep."""
    usual = {"lr": RATE, **stack.arguments}
    if stack.optimizer is None:
        return torch.optim.SGD(parameters, **{**usual, "momentum": 0.9, **arguments})
    return ready(stack.optimizer(parameters, **{**usual, **arguments}))


def coarse(*dtypes: torch.dtype) -> float:
    """The eps of the coarsest dtype."""
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def walk(
    stack: Stack, case: Case, places: Sequence[int] = USUAL, factor: float = 1.0, **arguments: Any
) -> Walk:
    """A fresh walk of the parameters at these places, its gradients multiplied by the factor."""
    starts, *gradients = _drawn(stack, case)
    parameters = [nn.Parameter(starts[place].clone()) for place in places]
    given = [[factor * drawn[place] for place in places] for drawn in gradients]
    seed_all(case.seed)
    return Walk(parameters, made(stack, parameters, **arguments), given)


def _drawn(stack: Stack, case: Case) -> list[list[Tensor]]:
    """Numbers of each of SHAPES, for the start and for each step."""
    generator = case.generator()

    def one(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(stack.device, stack.dtype)

    return [[one(shape) for shape in SHAPES] for _ in range(STEPS + 1)]


def repeats(stack: Stack, case: Case) -> bool:
    """Whether two walks are the same bit for bit, NaN in the same places."""
    one, other = (walk(stack, case).on() for _ in range(2))
    return same(one, other)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same bit for bit, NaN in the same places."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def beside(
    stack: Stack, measured: Tensor, expected: Tensor, what: str, eps: float | None = None
) -> Discrepancy:
    """The largest distance of a number; a dozen roundings a step of weights and of steps that long are allowed."""
    size = float(expected.abs().max().nan_to_num(0.0))
    off = float((measured - expected).abs().max())
    return Discrepancy(off, 16 * STEPS * (eps or torch.finfo(stack.dtype).eps) * (1 + size), what)


def differing(a: Tensor, b: Tensor) -> int:
    """Numbers that are not the same bit for bit; NaN is not."""
    return int((~(a == b)).sum())


def finite(count: float, *weights: Tensor) -> float:
    """The count, NaN where a weight is no number."""
    return count if all(bool(w.isfinite().all()) for w in weights) else math.nan
