"""Following: a published algorithm along the walk of an optimizer, and how far apart the two are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from identity_props.conformance.walks import LOUD, ROWS, Course
from identity_props.task.algorithms import Arguments, Cell
from identity_props.task.algorithms.base import Step

SAME = 1e-6  # of the way gone: numbers that torch keeps in float32 come to 4e-8
SINGLE = 1e-4  # where all weights are kept in float32, by rounding
LEAST = torch.finfo(torch.float64).tiny
EVEN_SHAPES = ((5, 4), (5, 4), (4, 6), (5, 4), (7,), (5, 4))
COLUMN, SMALL = 2, 3  # with a column of zeros; with gradients from 1 to 1e-9, which show eps
SIZES = (1.0, 1.0, 10.0, 1.0, 0.1, 1.0)  # of gradients: what has shape and size of another moves as that does

SHORT = 1024  # numbers: a way through no more is kept
PLAIN = (int, float, str, type(None))

Items = tuple[tuple[str, Any], ...]
Rates = Callable[[Course, int], list[float]]


@lru_cache(32)
def even_course(seed: int, steps: int, faster: float = 1.0, drift: float = 0.0) -> Course:
    """One group at one rate, each gradient there: of sizes from 1e-9 to 10, a column of zeros, one not contiguous.

    With a drift they point away from the start, by which those that find their rate find it.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = [draw(shape) for shape in EVEN_SHAPES]
    starts[ROWS] = starts[ROWS].mT.contiguous().mT
    sizes = [torch.full_like(start, size) for start, size in zip(starts, SIZES, strict=True)]
    small = torch.logspace(0, -9, starts[SMALL].numel(), dtype=torch.float64).view(EVEN_SHAPES[SMALL])
    sizes[SMALL], starts[SMALL] = small, 1e-3 * starts[SMALL]
    sizes[COLUMN][:, 0] = 0  # a pixel that is always 0
    late = torch.ones_like(starts[COLUMN])
    late[:, 1] = 0  # a pixel that is 0 at first
    gradients: list[list[Tensor | None]] = [
        [
            size * (draw(size.shape) * LOUD[3 * step // steps] + drift * start.sign())
            for size, start in zip(sizes, starts, strict=True)
        ]
        for step in range(steps)
    ]
    for row in gradients[:3]:
        row[COLUMN] *= late  # type: ignore[operator]
        row[0] = _across(row[0], starts[0])  # as under batch normalisation, which projections are about
    return Course(starts, gradients, faster, even=True)


def _across(g: Tensor | None, w: Tensor) -> Tensor | None:
    """The gradient less its part along each row of the weight."""
    return g if g is None else g - w * ((g * w).sum(1) / w.square().sum(1))[:, None]


# As if ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circumstance:
    """What rates a part goes by, and what a load leaves of its memory."""

    rates: Rates = Course.rates
    loaded: Callable[[dict[str, Any]], None] | None = None


def _uncounted(memory: dict[str, Any]) -> None:
    memory.pop("t", None)


def _at_load(rate: Callable[[Course, float, float], float]) -> Rates:
    """Rates that a load changes, from the one of the step and the one of the start."""

    def rates(course: Course, step: int) -> list[float]:
        now, first = course.rates(step), course.rates(0)
        return [rate(course, *of) for of in zip(now, first, strict=True)] if step == course.half else now

    return rates


AS_IT_IS = Circumstance()
CIRCUMSTANCES: Mapping[str, Circumstance] = {
    "the rate it was built with stayed": Circumstance(lambda course, step: course.rates(0)),
    "a rate took effect one step late": Circumstance(lambda course, step: course.rates(max(step - 1, 0))),
    "all groups moved at the first one's rate": Circumstance(
        lambda course, step: course.rates(step)[:1] * len(course.rates(step))
    ),
    "a load brought back the rate of the start": Circumstance(_at_load(lambda course, now, first: first)),
    "a load left a rate of 0": Circumstance(_at_load(lambda course, now, first: 0.0)),
    "a load lost the state": Circumstance(loaded=dict.clear),
    "a load lost the step counter": Circumstance(loaded=_uncounted),
}


# Beside ---------------------------------------------------------------------------------------------


def followed(
    step: Step, course: Course, arguments: Sequence[Arguments], under: Circumstance = AS_IT_IS
) -> Iterator[list[Cell]]:
    """The cells of a course's parameters after each step, the arguments by group."""
    cells = [Cell(start.clone()) for start in course.starts]
    for k, gradients in enumerate(course.gradients):
        for cell, gradient in zip(cells, gradients, strict=True):
            cell.g = gradient
            if k == course.half and under.loaded:
                under.loaded(cell.memory)
        for members, of, rate in zip(course.groups(cells), arguments, under.rates(course, k), strict=False):
            step(members, {**of, "lr": rate})
        yield cells


class Begun(NamedTuple):
    """The first number after the first step, and how far all have gone."""

    number: float
    gone: float

    def far(self, other: Begun, near: float) -> bool:
        """Whether the first number alone says that two are not equal, as of most that are not; never by rounding."""
        return abs(self.number - other.number) > 2 * near * max(self.gone, other.gone, LEAST)


def begun(course: Course, after: Tensor) -> Begun:
    """After the first step of a course of one parameter."""
    (start,) = course.starts
    least = 1e-8 * start.norm()
    return Begun(float(after[0]), float((after - start.reshape(-1)).norm().maximum(least)))


class Way:
    """Where an algorithm takes the parameters of a course [numbers], walked as far as anyone has asked."""

    def __init__(
        self, step: Step, course: Course, arguments: Sequence[Arguments], under: Circumstance
    ) -> None:
        self._walk = partial(followed, step, course, arguments, under)
        self._walking, self._gone, self._lock = self._walk(), list[Tensor](), Lock()
        self._course = course

    @cached_property
    def begun(self) -> Begun:
        """How it begins."""
        return begun(self._course, self.after(0))

    def after(self, k: int) -> Tensor:
        """After step k, from 0; raises what the algorithm raises."""
        with self._lock:
            try:
                while len(self._gone) <= k:
                    self._gone.append(flat(next(self._walking)))
            except BaseException:  # a walk that was broken off begins anew
                self._walking, self._gone = self._walk(), []
                raise
            return self._gone[k]


class Given(NamedTuple):
    """Arguments by group, and what a way on them is kept by: None for such as a tensor, which may change."""

    arguments: list[Arguments]
    key: tuple[Items, ...] | None


def given(arguments: list[Arguments]) -> Given:
    """With its key."""
    kept = all(_plain(value) for of in arguments for value in of.values())
    return Given(arguments, tuple(tuple(of.items()) for of in arguments) if kept else None)


def _plain(value: Any) -> bool:
    return all(map(_plain, value)) if isinstance(value, tuple) else isinstance(value, PLAIN)


def way_of(step: Step, course: Course, of: Given, under: Circumstance) -> Way:
    """The algorithm's way, the one that was begun before where that is kept."""
    if of.key is None or sum(course.sizes) > SHORT:
        return Way(step, course, of.arguments, under)
    kept = _kept_of_one if len(course.starts) == 1 else _kept_of_all
    return kept(step, course, of.key, under)


def _begin(step: Step, course: Course, key: tuple[Items, ...], under: Circumstance) -> Way:
    return Way(step, course, [dict(items) for items in key], under)


# of one parameter they are small, and most end at its first step; a course is its own key
_kept_of_one, _kept_of_all = lru_cache(16384)(_begin), lru_cache(1024)(_begin)


def flat(cells: Sequence[Cell]) -> Tensor:
    """All weights, one after the other."""
    return torch.cat([cell.w.reshape(-1) for cell in cells])


@dataclass(frozen=True)
class Departure:
    """After how many equal steps an algorithm and a part are apart, by how much of the way gone, and where."""

    equal: int
    apart: float = 0.0
    places: frozenset[int] = frozenset()  # of the parameters that ever departed
    over: bool = False  # it departed

    def __str__(self) -> str:
        return f"equal for {self.equal} step{'s' * (self.equal != 1)}, apart by {self.apart:.1e} from step {self.equal + 1}"


def departure(taken: Tensor, way: Way, course: Course, spare: int = 0, near: float = SAME) -> Departure:
    """Where an algorithm leaves a part's weights [steps, numbers] in more parameters than are spared.

    Distances are relative to the way from the start, for each parameter; NaN is infinitely far.
    """
    worst, places, scale = 0.0, frozenset[int](), scale_of(course)
    for k in range(course.steps):
        distances = scale.apart(taken[k], way.after(k))
        places |= {place for place, far in enumerate(distances) if not far <= near}
        if len(places) > spare:
            return Departure(k, max(distances), places, True)
        worst = max([worst, *(far for place, far in enumerate(distances) if place not in places)])
    return Departure(course.steps, worst, places)


class Scale:
    """Measures distances on a course."""

    def __init__(self, course: Course) -> None:
        sizes = torch.tensor(course.sizes)
        self.parameters = len(sizes)
        self.of = torch.arange(self.parameters).repeat_interleave(sizes)
        self.starts = torch.cat([start.reshape(-1) for start in course.starts])
        (self.least,) = (1e-8 * self._norms(self.starts[None])).clamp_min(LEAST)

    def apart(self, taken: Tensor, ours: Tensor) -> list[float]:
        """Of each parameter: |p - its algorithm's| / the way that it has gone, or the algorithm's."""
        difference, gone, other = self._norms(
            torch.stack([taken - ours, taken - self.starts, ours - self.starts])
        )
        far = difference / torch.maximum(torch.maximum(gone, other), self.least)
        found: list[float] = far.nan_to_num(math.inf).tolist()
        return found

    def _norms(self, x: Tensor) -> Tensor:
        """Of each parameter's part of the rows [n, numbers]."""
        return x.new_zeros(len(x), self.parameters).index_add_(1, self.of, x.square()).sqrt()


scale_of = lru_cache(8)(Scale)  # a course is its own key
