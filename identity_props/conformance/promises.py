"""Promises: what the other parts of a stack are declared to do, its loss, its step and its batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import unwrap
from itertools import islice, zip_longest
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.conformance.likeness import EPS, distance
from identity_props.laws import Discrepancy, worst_of
from identity_props.stack.loop import take_step
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import ready

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[torch.optim.Optimizer, Callable[[], Tensor]], None]
Batches = Callable[[Tensor, int | None, list[torch.Generator]], Iterator[Tensor]]
Factory = Callable[..., torch.optim.Optimizer]

PREDICTIONS = ((6, 5), (6, 1), (1, 5), (1, 1))  # [n, d]; one pixel is where a shape can broadcast
SCALES = (1.0, 2.0**-10, 2.0**10)


def same_loss(
    loss: Loss,
    reference: Loss,
    seed: int = 0,
    tolerance: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Discrepancy:
    """Largest relative distance of a loss and its gradient from the reference's, for one pixel and example too.

    Rounding of sums over 30 terms, 16 eps for each.
    """
    draw, found = torch.Generator().manual_seed(seed), []
    near = max(tolerance, 16 * 30 * torch.finfo(dtype).eps)
    for shape in PREDICTIONS:
        drawn = torch.randn(2, *shape, generator=draw, dtype=dtype)
        for scale in SCALES:
            (ours, our_slope), (theirs, slope) = (
                _evaluated(one, *(scale * drawn)) for one in (loss, reference)
            )
            where = f"[n, d] = {[*shape]}, errors of {scale:g}"
            for of, a, b in (("loss", ours, theirs), ("gradient of the prediction", our_slope, slope)):
                what = f"{of}, {where}: |it - the reference's| / its size"
                found.append(Discrepancy(distance(a, b), near, what))
    return worst_of(found)


def _evaluated(loss: Loss, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
    prediction = prediction.clone().requires_grad_()
    value = loss(prediction, target)
    value.sum().backward()
    return value.detach(), prediction.grad


# Steps ----------------------------------------------------------------------------------------------

STEPS = 12
LOUD = (1.0, 2.0**-10, 2.0**10, 1.0)  # sizes of the gradient, step by step


@dataclass(eq=False)
class Problem:
    """Parameters in two groups, one frozen and one that the loss is blind to, and a loss of known gradient.

    The gradient is ``loud`` times a drawn one of norm 1 over all parameters, and ``curved`` times the parameters.
    """

    seed: int
    loud: float = 1.0
    curved: float = 0.0

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        shapes = ((3, 4), (5, 2), (2, 2))  # matrices, which all optimizers take
        slopes = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        size = torch.stack([slope.norm() for slope in slopes]).norm()
        self.slopes = [slope / size for slope in slopes]
        self.trained = [nn.Parameter(torch.zeros_like(slope)) for slope in slopes]
        self.others = [nn.Parameter(torch.ones(3, 3).double(), trains) for trains in (False, True)]

    def optimizer(self, make: Factory, lr: float) -> torch.optim.Optimizer:
        first, second = self.trained[:2], [*self.trained[2:], *self.others]
        return ready(make([{"params": first}, {"params": second}], lr=lr))

    def loss(self) -> Tensor:
        pairs = zip(self.trained, self.slopes, strict=True)
        return sum(
            (self.loud * (p * slope).sum() + self.curved / 2 * p.square().sum() for p, slope in pairs),
            start=torch.zeros((), dtype=torch.float64),
        )

    def parameters(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in (*self.trained, *self.others)])


def same_updates(
    step: Step, reference: Step, make: Factory = torch.optim.SGD, seed: int = 0, tolerance: float = 0.0
) -> Discrepancy:
    """Largest relative distance from the parameters that the reference step leaves with the same optimizer.

    12 steps on gradients from 2^-10 to 2^10. A dozen operations a step, 16 eps for each.
    """
    near, found = max(tolerance, 16 * STEPS * EPS), []
    pairs = zip(_left(step, make, seed), _left(reference, make, seed), strict=True)
    for k, (ours, theirs) in enumerate(pairs, 1):
        what = f"step {k}, a gradient of {LOUD[(k - 1) % len(LOUD)]:g}: |p - p of the reference| / |p|"
        one = Discrepancy(distance(ours, theirs), near, what)
        if not one.holds:
            return one
        found.append(one)
    return worst_of(found)


def _left(step: Step, make: Factory, seed: int) -> list[Tensor]:
    """Parameters after each step."""
    problem, left = Problem(seed, curved=1.0), []
    optimizer = problem.optimizer(make, lr=1 / 128)
    with seeded(seed):
        for k in range(STEPS):
            problem.loud = LOUD[k % len(LOUD)]
            step(optimizer, problem.loss)
            left.append(problem.parameters())
    return left


SHARES = (0.0, 2.0**-10, 0.5, 0.99, 2.0, 2.0**10)  # gradient norms as a share of the one that is clipped at


def same_clipping(step: Step, clip: float, reference: Step = take_step, seed: int = 0) -> Discrepancy:
    """Clipping at C: the update is the reference step's on gradients times min(1, C / norm), of all parameters at once.

    Under gradient descent, far below C and far above. Allowed are 16 eps of float32, in which a norm may be
    kept, and 1e-6 / norm where it clips, as torch adds 1e-6 to the norm.
    """
    found = []
    for share in SHARES:
        norm = share * clip
        ours = _update(step, seed, norm)
        theirs = _update(reference, seed, min(norm, clip))
        near = 16 * torch.finfo(torch.float32).eps + (1e-6 / norm if norm + 1e-6 > clip else 0.0)
        what = f"gradients of norm {norm:.3g}, clipped at {clip:g}: |update - predicted| / |predicted|"
        found.append(Discrepancy(distance(ours, theirs), near, what))
    return worst_of(found)


def _update(step: Step, seed: int, norm: float) -> Tensor:
    """The change of all parameters in two steps of gradient descent on gradients of that norm."""
    problem = Problem(seed, loud=norm)
    optimizer, before = problem.optimizer(torch.optim.SGD, lr=1.0), problem.parameters()
    for _ in range(2):
        step(optimizer, problem.loss)
    return problem.parameters() - before


def clipping_seen(step: Step, seed: int = 0) -> list[tuple[float, float]]:
    """What torch's ``clip_grad_norm_`` is called with in two steps on gradients of norm 1: where it clips, and the norm
    that it sees.

    By whatever name it was imported: a profile of calls knows its code.
    """
    code, seen = unwrap(nn.utils.clip_grad_norm_).__code__, list[tuple[float, float]]()

    def returned(frame: FrameType, event: str, norm: Any) -> None:
        if event == "return" and frame.f_code is code and norm is not None:
            seen.append((float(frame.f_locals["max_norm"]), float(norm)))

    before = sys.getprofile()
    sys.setprofile(returned)
    try:
        _update(step, seed, 1.0)
    finally:
        sys.setprofile(before)
    return seen


HUGE = 2.0**40  # a norm that whatever clips at all clips


def clips_at(step: Step) -> float | None:
    """The norm at which a step is found to clip the whole gradient, as ``same_clipping`` has it; None of others."""
    clip = float(_update(step, 0, HUGE).norm()) / 2
    return clip if 0 < clip < HUGE / 4 and same_clipping(step, clip).holds else None


def plain_below(step: Step) -> float | None:
    """The norm below which a step is plain, of one whose updates are bounded; None of others.

    Whatever it clips, values or each parameter: an eighth of the largest power of 2 up to which its updates of
    `Problem` are plain, as an entry has a fifth of that norm at least.
    """
    if distance(_update(step, 0, 2 * HUGE), _update(step, 0, HUGE)) > 16 * EPS:
        return None
    plain = 0.0
    for norm in (2.0**power for power in range(-20, 21)):
        if distance(_update(step, 0, norm), _update(take_step, 0, norm)) > 16 * EPS:
            break
        plain = norm / 8
    return plain or None


class ClipsError(Exception):
    """A step's gradient is so large that the step clips it, as it promises."""


@dataclass(frozen=True)
class Below:
    """The step where it clips nothing; raises ClipsError where a gradient's norm reaches ``clip``."""

    step: Step
    clip: float

    def __call__(self, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if norm + 1e-6 >= self.clip:
            judges = "which --clip judges, or --like-step"
            raise ClipsError(f"clips at {self.clip:g}, {judges}: a gradient of norm {norm:.3g}")
        optimizer.zero_grad()
        self.step(optimizer, loss)


# Batches --------------------------------------------------------------------------------------------

EXAMPLES, SIZES, BATCHES = 11, (None, 4, 16), 9  # sizes that leave a rest, and that one epoch does not fill


def same_batches(batches: Batches, reference: Batches, seed: int = 0) -> Discrepancy:
    """Batches that differ from those of the reference, drawn from generators of equal seeds. None may."""
    data, differ, first = torch.arange(float(EXAMPLES))[:, None].expand(-1, 3).contiguous(), 0, ""
    for size in SIZES:
        ours, theirs = (
            [*islice(one(data, size, _generators(seed)), BATCHES)] for one in (batches, reference)
        )
        for k, (a, b) in enumerate(zip_longest(ours, theirs), 1):
            if a is None or b is None or not torch.equal(a, b):
                differ += 1
                first = first or f", the first of them batch {k} of size {size}"
    return Discrepancy(differ, 0, f"batches that differ{first}")


def _generators(seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + k) for k in range(2)]
