"""Likeness: an optimizer or a layer that is meant to be another, step by step and gradient by gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from identity_props.conformance.walks import (
    BEFELL,
    EVERY,
    FEW,
    LARGE,
    LONG,
    PLAIN,
    SHAPES,
    SHORT,
    SWITCHES,
    Course,
    Factory,
    Switch,
    Walked,
    WalkError,
    course,
    shows,
    walked,
)
from identity_props.laws import Discrepancy, worst_of
from identity_props.stack.seeding import seeded

EPS, LEAST = torch.finfo(torch.float64).eps, torch.finfo(torch.float64).tiny
OFF = "|p - p of the reference| / |p|"
FASTER = 32.0  # rates in a coarse dtype, so that steps are longer than what rounding takes of them
COARSE = SWITCHES[:3]  # the last that both take is tried in a coarse dtype
COARSELY = 8  # times the reference's own rounding

Layer = Callable[..., nn.Module]


def same_steps(
    optimizer: Factory,
    reference: Factory,
    seed: int = 0,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 0.0,
    told: bool = False,
) -> Discrepancy:
    """Largest relative distance from the reference's parameters on the same gradients, the first that is too large.

    100 steps as the two come, a few with a large parameter, 16 with each of SWITCHES that both take, then
    16 in ``dtype``. One that is ``told`` a loss wants a closure. What only the reference takes is not offered, which is no failure.
    """
    pair = Pair(optimizer, reference, seed, tuple(shapes), tolerance, told)
    found = []
    for one in pair.compared(dtype):
        found.append(one)
        if not one.holds:
            return one
    worst = worst_of(found)
    missing = ", ".join(dict.fromkeys(pair.not_offered()))
    return replace(worst, what=f"{worst.what}; not offered: {missing}" if missing else worst.what)


@dataclass(frozen=True, eq=False)
class Pair:
    """An optimizer and the one that it is meant to be."""

    optimizer: Factory
    reference: Factory
    seed: int
    shapes: tuple[tuple[int, ...], ...]
    tolerance: float
    told: bool

    def compared(self, dtype: torch.dtype) -> Iterator[Discrepancy]:
        """What each walk finds."""
        for plain in (course(self.seed, self.shapes, LONG), course(self.seed, LARGE, FEW)):
            yield self._beside(plain, walked(self.reference, plain))
        short = course(self.seed, self.shapes, SHORT)
        for switch in self._shared(SWITCHES):
            if (expected := self._expected(short, switch)) is not None:
                yield self._beside(short, expected, switch)
        if dtype is not torch.float64:
            for switch in (PLAIN, *[*self._shared(COARSE)][-1:]):
                yield self._rounded(switch, dtype)

    def not_offered(self) -> list[str]:
        """Names of switches that the reference alone takes."""
        theirs = [switch for switch in SWITCHES if switch.taken_by(self.reference)]
        return [switch.name for switch in theirs if not switch.taken_by(self.optimizer)]

    def _shared(self, switches: Sequence[Switch]) -> Iterator[Switch]:
        """Those that both take, with a value for the second group where both keep one there."""
        both = (self.reference, self.optimizer)
        for switch in switches:
            if all(switch.taken_by(one) for one in both):
                grouped = switch.name == "weight_decay" or all(shows(one, switch) for one in both)
                yield switch if grouped else replace(switch, other=None)

    def _expected(self, course: Course, switch: Switch) -> Walked | None:
        """The reference's walk, None where it refuses the switch as it steps, or comes to no numbers."""
        try:
            expected = walked(self.reference, course, switch)
        except WalkError:
            return None
        return expected if expected.taken.isfinite().all() else None

    def _beside(self, course: Course, expected: Walked, switch: Switch = PLAIN) -> Discrepancy:
        """The optimizer beside what is expected of it on a course, in float64."""
        measured = walked(self.optimizer, course, switch, told=self.told)
        taken = _first(measured.taken, expected.taken, course, self._near, f"{switch}, step")
        if not taken.holds or measured.shown.shape != expected.shown.shape:  # one alone has eval()
            return taken
        when = f"{switch}, eval() after step"
        return worst_of([taken, _first(measured.shown, expected.shown, course, self._near, when, EVERY)])

    def _rounded(self, switch: Switch, dtype: torch.dtype) -> Discrepancy:
        """Both in a coarse dtype, each beside the reference in float64, which rounding hides nothing from.

        What rounding does is measured on the reference: the median entry of the worst parameter at the worst
        step, half an eps at least. Correct codes of one algorithm (foreach and loops of 10 of torch's
        optimizers, 7 pairs written by hand, 5 seeds) were off by 2.3 times that at most, a momentum normalised
        in place by 27 and more; 8 times is allowed. A median, since rounding may turn a sign, which is a
        whole step of one entry.
        """
        coarse = course(self.seed, self.shapes, SHORT, FASTER).through(lambda x: x.to(dtype).double())
        exact = walked(self.reference, coarse, switch).taken
        theirs = walked(self.reference, coarse, switch, dtype).taken
        ours = walked(self.optimizer, coarse, switch, dtype, self.told).taken
        if not theirs.isfinite().all():
            return Discrepancy(0.0, 0.0, f"the reference diverges in {dtype}")
        own, off = (float(_typical(one, exact, coarse.sizes).max()) for one in (theirs, ours))
        near = max(COARSELY * max(own, torch.finfo(dtype).eps / 2), FASTER * self.tolerance)
        of = f"{switch}, in {str(dtype).removeprefix('torch.')}: {OFF} of the median entry"
        return Discrepancy(off, near, f"{of}, the reference's own {own:.2g}")

    @cached_property
    def _near(self) -> float:
        """How far rounding takes two walks apart: a dozen operations a step, 16 eps for each.

        A reference that magnifies rounding is allowed 16 times what an eps on each number does to it.
        """
        noise = torch.Generator().manual_seed(self.seed)
        plain = course(self.seed, self.shapes, SHORT)
        other = plain.through(lambda x: x * (1 + EPS * torch.randn(x.shape, generator=noise, dtype=x.dtype)))
        one, two = (walked(self.reference, of).taken for of in (plain, other))
        magnified = min(float(_apart(two, one, plain.sizes).max()), 1e-8)
        return max(self.tolerance, 16 * LONG * EPS, 16 * LONG / SHORT * magnified)


def _first(
    measured: Tensor, expected: Tensor, course: Course, near: float, when: str, every: int = 1
) -> Discrepancy:
    """The largest distance, and the first step and parameter at which one is too large."""
    apart = _apart(measured, expected, course.sizes)
    if not len(apart):
        return Discrepancy(0.0, near, OFF)
    over = (apart > near).any(1)
    step = int(over.int().argmax())
    place = int(apart[step].argmax())
    named = f"parameter {place} {[*course.starts[place].shape]}{BEFELL.get(place, '')}"
    what = f"{when} {every * (step + 1)}, {named}: {OFF}"
    return Discrepancy(float(apart.max()), near, what if over.any() else OFF)


def _apart(measured: Tensor, expected: Tensor, sizes: Sequence[int]) -> Tensor:
    """Relative distances [steps, parameters], infinite for NaN."""
    pairs = zip(measured.split([*sizes], 1), expected.split([*sizes], 1), strict=True)
    apart = [(a - b).norm(dim=1) / b.norm(dim=1).clamp_min(LEAST) for a, b in pairs]
    return torch.stack(apart, 1).nan_to_num(math.inf)


def _typical(measured: Tensor, expected: Tensor, sizes: Sequence[int]) -> Tensor:
    """Distances [steps, parameters] of the median entry, relative to a parameter's root mean square."""
    pairs = zip(measured.split([*sizes], 1), expected.split([*sizes], 1), strict=True)
    apart = [(a - b).abs().median(1).values / b.square().mean(1).sqrt().clamp_min(LEAST) for a, b in pairs]
    return torch.stack(apart, 1).nan_to_num(math.inf)


def same_layer(
    linear: Layer,
    reference: Layer,
    seed: int = 0,
    tolerance: float = 0.0,
    dtype: torch.dtype = torch.float64,
    sizes: tuple[int, ...] = (5, 7),
) -> Discrepancy:
    """Largest relative distance of outputs and gradients from those of the reference layer.

    Same parameters, 5 to 7 features or other ``sizes``, with and without bias, evaluating, and training where
    the reference does not draw. Rounding of sums over 7 terms, or as many as there are: 64 eps, and more as
    their root.
    """
    near, found = max(tolerance, 64 * math.sqrt(max(1, max(sizes) / 7)) * torch.finfo(dtype).eps), []
    for bias in (True, False):
        with seeded(seed):
            theirs, ours = (one(*sizes, bias=bias).to(dtype=dtype) for one in (reference, linear))
            for p in theirs.parameters():  # those that begin at 0 hide what they are multiplied with
                p.data += torch.randn_like(p) / 8
        ours.load_state_dict(theirs.state_dict())
        for training in (False, True):
            expected = _passed(theirs.train(training), seed, dtype, sizes)
            if training and _differ(expected, _passed(theirs, seed + 1, dtype, sizes)):
                continue
            where = f"{'training' if training else 'evaluating'}, {'with' if bias else 'without'} bias"
            found.append(_passes(_passed(ours.train(training), seed, dtype, sizes), expected, near, where))
    return worst_of(found)


Passed = dict[str, Tensor | None]
OUTPUT = "output"


def _passed(layer: nn.Module, seed: int, dtype: torch.dtype, sizes: tuple[int, ...]) -> Passed:
    """Output, and gradients of the input and of each parameter, by the name of what they are of."""
    x = torch.randn(6, sizes[0], generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()
    layer.zero_grad()
    with seeded(seed):
        out = layer(x)
    (out * torch.arange(1, 1 + sizes[1])).square().sum().backward()
    return {
        OUTPUT: out.detach(),
        "the input": x.grad,
        **{name: p.grad for name, p in layer.named_parameters()},
    }


def _differ(one: Passed, other: Passed) -> bool:
    return any(distance(one[name], other[name]) > 0 for name in one)


def _passes(measured: Passed, expected: Passed, near: float, when: str) -> Discrepancy:
    """The farthest, an output before gradients that follow from it."""
    found = []
    for name, theirs in expected.items():
        ours = measured.get(name)
        of = f"the gradient of {name}"
        if (ours is None) != (theirs is None):
            of = (
                f"no gradient for {name}"
                if ours is None
                else f"a gradient for {name}, where the reference has none"
            )
        what = f"forward, the output, {when}" if name == OUTPUT else f"backward, {of}, {when}"
        one = Discrepancy(distance(ours, theirs), near, f"{what}: |it - the reference's| / its size")
        if name == OUTPUT and not one.holds:
            return one
        found.append(one)
    return worst_of(found)


def distance(measured: Tensor | None, expected: Tensor | None) -> float:
    """Relative to what is expected; infinite for NaN, another shape, and where one alone is missing."""
    if measured is None or expected is None:
        return 0.0 if measured is expected else math.inf
    if measured.shape != expected.shape:
        return math.inf
    apart = (measured.double() - expected.double()).norm() / expected.double().norm().clamp_min(LEAST)
    return float(apart.nan_to_num(math.inf))
