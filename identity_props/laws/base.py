"""What a law is, what it is measured on, and the one way in which laws train."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from identity_props.engine.ensemble import Ensemble, Single
from identity_props.errors import InputError
from identity_props.stack.ranks import inside, on_ranks
from identity_props.stack.stack import Stack, ready, resolve
from identity_props.task.models import Variant
from identity_props.task.theory import second_moment

SGD, RMSPROP, ADAM = "torch.optim:SGD", "torch.optim:RMSprop", "torch.optim:Adam"
LAYER = Variant("linear", 1, "none", bias=False)
WEIGHT = "layers.0.weight"

# what every run of all the laws has to exercise; faults hide where one of these is never tried
AXES = (
    "sgd",
    "rmsprop",
    "adam",
    "decay",
    "momentum",
    "non-contiguous",
    "micro-batches",
    "freeze",
    "eval",
    "resume",
    "three-steps",
    "odd-width",
    "float64",
    "float32",
    "bfloat16",
    "compiled",
    "two-ranks",
)

State = dict[str, Tensor]  # parameters [K, ...] by name, in float64


@dataclass(frozen=True)
class Discrepancy:
    """How far a stack is from a law, and how far rounding may take it; ``what`` says of what."""

    measured: float
    tolerance: float
    what: str

    @property
    def holds(self) -> bool:
        """False for NaN."""
        return self.measured <= self.tolerance

    def __str__(self) -> str:
        return f"{self.what}: measured {self.measured:.3g}, allowed {self.tolerance:.3g}"


@dataclass(frozen=True, eq=False)
class Case:
    """K data sets [K, n, d], learned side by side by one network each, seeds seed, seed + 1, ...

    Their largest eigenvalues are equal, so that one learning rate, ``factor`` times the critical
    one, is the same for all. ``steps`` are optimizer steps. Raises InputError where they differ.
    """

    x: Tensor
    factor: float = 0.5
    steps: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.x.ndim != 3 or self.x.dtype != torch.float64 or not torch.isfinite(self.x).all():
            raise InputError(
                f"case: expected finite float64 [K, n, d], got {self.x.dtype} {list(self.x.shape)}"
            )
        if not (self._largest.min() > 0 and self._largest.max() <= 1.001 * self._largest.min()):
            raise InputError("case: expected data sets of one largest eigenvalue above 0, see scaled_alike")

    @property
    def replicas(self) -> int:
        return self.x.shape[0]

    @property
    def d(self) -> int:
        return self.x.shape[2]

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.replicas)

    @cached_property
    def _largest(self) -> Tensor:
        return torch.linalg.eigvalsh(second_moment(self.x))[:, -1]  # [K]

    @cached_property
    def critical_rate(self) -> float:
        """Rate d / lambda_1 of the data set whose lambda_1 is largest."""
        return self.d / float(self._largest.max())

    @property
    def lr(self) -> float:
        return self.factor * self.critical_rate

    def generator(self) -> torch.Generator:
        """A fresh stream of the case's own, for whatever else a law draws."""
        return torch.Generator().manual_seed(self.seed)


def scaled_alike(x: Tensor, scale: float = 1.0) -> Tensor:
    """Data sets [K, n, d], each multiplied so that its largest eigenvalue is scale^2."""
    largest = torch.linalg.eigvalsh(second_moment(x))[:, -1]
    return x.double() * (scale / largest.sqrt())[:, None, None]


def isotropic(case: Case) -> Tensor:
    """Orthogonal examples [K, d, d], as large as the case's: all eigenvalues are the same."""
    drawn = torch.randn(case.replicas, case.d, case.d, generator=case.generator(), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q * (case.d * case.d / case.critical_rate) ** 0.5


@dataclass(frozen=True)
class Law:
    """An exact statement about a stack: ``measure`` says how far the stack is from it on a case.

    ``derivation`` says where the tolerance comes from; ``axes`` what of AXES it exercises; ``needs``
    what the optimizer has to be for the law to speak of it, words of traits.TRAITS; ``kind`` how a
    stack that breaks it is wrong.
    """

    name: str
    statement: str
    source: str
    axes: frozenset[str]
    needs: frozenset[str]
    kind: str
    derivation: str
    measure: Callable[[Stack, Case], Discrepancy] = field(repr=False)


LAWS: dict[str, Law] = {}


def law(
    name: str, statement: str, source: str, axes: str, needs: str = "", kind: str = "wrong step"
) -> Callable[[Callable[[Stack, Case], Discrepancy]], Callable[[Stack, Case], Discrepancy]]:
    """Register a measurement as a law; its docstring is the derivation, axes and needs are words."""

    def register(measure: Callable[[Stack, Case], Discrepancy]) -> Callable[[Stack, Case], Discrepancy]:
        words = frozenset(axes.split())
        if name in LAWS or not words <= set(AXES) or not measure.__doc__:
            raise InputError(f"law {name}: expected a new name, axes of {', '.join(AXES)} and a docstring")
        LAWS[name] = Law(
            name,
            statement,
            source,
            words,
            frozenset(filter(None, needs.split(", "))),
            kind,
            measure.__doc__,
            partial(_everywhere, measure),
        )
        return measure

    return register


def _everywhere(measure: Callable[[Stack, Case], Discrepancy], stack: Stack, case: Case) -> Discrepancy:
    """Measured on each of the stack's ranks; the worst of what they find."""
    if stack.ranks == 1 or inside():
        return measure(stack, case)
    return worst_of(on_ranks(stack.ranks, measure, stack, case))


def rounding(dtype: torch.dtype, steps: int, *terms: int) -> float:
    """Relative distance that rounding may take weights from theory: 8 (steps + 1) sum sqrt(n) eps.

    A sum of n terms in floating point is off by at most 8 sqrt(n) eps with probability 1 - 3e-14
    (Higham, Mary 2019, eq. 3.4 with lambda = 8, rounding errors taken as independent). Each step adds
    one such error for each of its sums, and none of them grows below the critical rate.
    """
    return 8 * (steps + 1) * sum(math.sqrt(n) for n in terms) * torch.finfo(dtype).eps


def step_eps(stack: Stack) -> float:
    """Rounding of an optimizer's step: compiled and capturable code keeps counts and powers of beta in float32."""
    tensors = stack.mode == "compiled" or torch.device(stack.device).type == "cuda"
    return max(torch.finfo(dtype).eps for dtype in (stack.dtype, *[torch.float32] * tensors))


def worst_of(found: Iterable[Discrepancy]) -> Discrepancy:
    """One that does not hold before all that do, then the largest."""
    return max(found, key=lambda one: (not one.holds, one.measured))


def worst(values: Iterable[float]) -> float:
    """The largest value, NaN if one is NaN: Python's ``max`` may pass over it."""
    return float(torch.tensor([*values], dtype=torch.float64).max())


def relative(measured: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative distance |a - b| / |b| over steps and replicas, tensors [K, ...]; NaN stays.

    Where b is 0 nothing but 0 is near it.
    """
    least = torch.finfo(torch.float64).tiny
    apart = [
        ((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1).clamp_min(least)).max()
        for a, b in zip(measured, expected, strict=True)
    ]
    return float(torch.stack(apart).max())


def changed(a: State, b: State) -> int:
    """Number of entries that are not the same bit for bit; NaN counts as changed."""
    return int(sum((~(a[name] == b[name])).sum() for name in a))


@dataclass(frozen=True, eq=False)
class Descent:
    """Parameters before each step and at the end, and the data as the stack saw it, in float64."""

    x: Tensor
    lr: float
    states: list[State]

    @cached_property
    def moment(self) -> Tensor:
        return second_moment(self.x)

    def weights(self, name: str = WEIGHT) -> list[Tensor]:
        """One parameter [K, ...] at each step."""
        return [state[name] for state in self.states]


def ensemble_of(
    stack: Stack, case: Case, variant: Variant, start: Mapping[str, Tensor] | None = None
) -> Ensemble:
    """The case's networks, drawn from its seeds, with the parameters in ``start`` put in their place.

    A case of one data set trains one network by itself, for stacks that cannot train more at once.
    """
    ensemble = (
        Single(variant, case.d, case.seeds, stack)
        if case.replicas == 1
        else Ensemble(variant, case.d, case.seeds, stack)
    )
    for name, value in (start or {}).items():
        ensemble.state[name].data.copy_(value)
    return ensemble


def networks_of(stack: Stack, case: Case, variant: Variant, seeds: Sequence[int]) -> list[Ensemble]:
    """Networks of these seeds: one ensemble, or each by itself where the case is for such stacks."""
    if case.replicas > 1:
        return [Ensemble(variant, case.d, seeds, stack)]
    return [Single(variant, case.d, [seed], stack) for seed in seeds]


def optimizer_of(
    stack: Stack,
    name: str,
    parameters: Iterable[Tensor],
    lr: float | Tensor,
    arguments: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """The stack's own optimizer, or the one that the law names, with the law's arguments."""
    factory = stack.optimizer or resolve(name)
    optimizer = factory(list(parameters), lr=lr, **{**stack.arguments, **(arguments or {})})
    return ready(optimizer, stack.mode)


def gentle(stack: Stack, case: Case, optimizer: str = SGD) -> float:
    """A rate for two layers, whose curvature is twice that of one or more.

    The stack's own, else a tenth of the case's for gradient descent, else 1/128.
    """
    if stack.lr is not None:
        return stack.lr
    return case.lr / 10 if optimizer == SGD else 1 / 128


def snapshot(ensemble: Ensemble) -> State:
    """A copy of the parameters, in float64."""
    return {name: p.detach().double().cpu().clone() for name, p in ensemble.state.items()}


def descend(
    stack: Stack,
    case: Case,
    variant: Variant = LAYER,
    optimizer: str = SGD,
    lr: float | None = None,
    x: Tensor | None = None,
    batches: Callable[[Tensor], Iterable[Tensor]] | None = None,
    target: Tensor | None = None,
    start: Mapping[str, Tensor] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Descent:
    """Train on x (the case's unless given), full batch for case.steps unless ``batches`` says otherwise."""
    lr = case.lr if lr is None else lr
    seen = (case.x if x is None else x).to(stack.device, stack.dtype)
    aim = None if target is None else target.to(seen)
    ensemble = ensemble_of(stack, case, variant, start)
    stepper = optimizer_of(stack, optimizer, ensemble.parameters, lr, arguments)
    states = [snapshot(ensemble)]
    full = islice(stack.batches(seen, None, ensemble.generators), case.steps)
    for batch in batches(seen) if batches else full:
        ensemble.step(stepper, batch, aim)
        states.append(snapshot(ensemble))
    return Descent(seen.double().cpu(), lr, states)
