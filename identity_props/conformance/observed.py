"""Observed: an optimizer as it is seen on courses, with its arguments as its groups show them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.conformance.alongside import COLUMN, SAME, SINGLE, SMALL, Begun, Given, begun, even_course
from identity_props.conformance.walks import (
    FEW,
    FIRST_GROUP,
    LARGE,
    PLAIN,
    RATES,
    SHAPES,
    Course,
    Factory,
    Switch,
    Walked,
    WalkError,
    course,
    walked,
)
from identity_props.stack.guard import RAISED
from identity_props.stack.stack import names, takes

Group = Mapping[str, Any]
EVENLY, SHORTLY = 24, 12  # steps of an even walk, and of one with a switch
LENGTHILY = 60
NORM = 64.0
EVENTFULLY = 18  # its half is no multiple of the schedule's four steps
UNCORRECTED = re.compile(
    r"\b(no|not|without|omit\w*|skip\w*|never|lacks?)\W+(\w+\W+){0,4}(bias|correct|debias)", re.I
)
DELAYED = re.compile(
    r"\b(asynchron|delay|stale)\w*|\bgradients?\W+(of|from)\W+the\W+"
    r"((call|step|iteration)\W+before|(last|previous)\W+(call|step|iteration))",
    re.I,
)
UNDECAYED = Switch("weight_decay", 0.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """A part's walk, its course, what its groups showed before it, and the names that a switch has set.

    ``where`` says what befell it, and ``plainly`` that nothing of that is read in several ways. ``name`` is its class's,
    and it is ``delayed`` where that says that gradients are those of before.
    """

    walked: Walked
    course: Course
    groups: list[Group]
    set: frozenset[str]
    where: str = ""
    plainly: bool = True
    name: str = ""
    delayed: bool = False

    @cached_property
    def near(self) -> float:
        """How far is equal, by what the part keeps its weights in."""
        moved = self.walked.taken[self.moved]
        return SINGLE if torch.equal(moved, moved.float().double()) else SAME

    @cached_property
    def moved(self) -> Tensor:
        """Which numbers are elsewhere than at their start, at each step."""
        return self.walked.taken != torch.cat([start.reshape(-1) for start in self.course.starts])

    @cached_property
    def first(self) -> Seen:
        """The first parameter alone."""
        size = self.course.starts[0].numel()
        walked = Walked(self.walked.taken[:, :size], self.walked.shown[:, :size])
        first = replace(self, walked=walked, course=_of(self.course, (0,)))
        vars(first)["read"] = self.read  # their groups are the same
        return first

    @cached_property
    def begun(self) -> Begun:
        """How the first parameter begins."""
        return begun(self.first.course, self.first.walked.taken[0])

    @cached_property
    def read(self) -> dict[tuple[str, bool], Given]:
        """Arguments that algorithms were found to have here, by name and whether a switch's alone are read."""
        return {}

    @property
    def plain(self) -> frozenset[int]:
        """Places of parameters that always have a gradient, or never."""
        rows = self.course.gradients
        there = {place: sum(row[place] is not None for row in rows) for place in range(len(rows[0]))}
        return frozenset(place for place, steps in there.items() if steps in (0, len(rows)))


@dataclass(frozen=True, eq=False)
class Part:
    """An optimizer under test."""

    make: Factory
    seed: int
    small: bool = True  # whether small gradients and zeros are among those of even walks, which show eps

    @cached_property
    def plain(self) -> Switch:
        """Without decay, if it takes that."""
        return UNDECAYED if self.takes(UNDECAYED) else PLAIN

    @cached_property
    def _signed(self) -> dict[str, Any]:
        """The arguments that its signature has, with their defaults, and what its docstring says of corrections."""
        said: dict[str, Any] = {"correct_bias": False} if self._uncorrected else {}
        try:
            of = inspect.signature(self.make).parameters
        except (TypeError, ValueError):
            return said
        return said | {name: one.default for name, one in of.items() if one.default is not one.empty}

    @property
    def _uncorrected(self) -> bool:
        """Whether its own docstring says that moments are not corrected, as those of BERT's Adam are not."""
        return bool(UNCORRECTED.search(self._class.__doc__ or ""))

    @property
    def _delayed(self) -> bool:
        """Whether its own docstring says that it steps on gradients of before, as asynchronous workers do."""
        return bool(DELAYED.search(self._class.__doc__ or ""))

    @property
    def _class(self) -> Factory:
        return self.make.func if isinstance(self.make, partial) else self.make

    @property
    def name(self) -> str:
        """Of its class or function, which promises what an algorithm's name says."""
        return str(getattr(self._class, "__name__", ""))

    def takes(self, switch: Switch) -> bool:
        """Whether it takes all of a switch's arguments, together, and not only since it takes any."""
        if self.swallows and not all(names(self.make, name) for name in switch.arguments):
            return False
        try:
            return switch.taken_by(self.make)
        except RAISED:  # it raises as it is tried
            return False

    @cached_property
    def swallows(self) -> bool:
        """Whether it takes and shows whatever it is given."""
        return takes(self.make, "no_such_argument")

    @cached_property
    def layout(self) -> tuple[bool, bool]:
        """Whether it takes parameters that are not contiguous, and vectors; raises what it raises without."""
        for layout in ((True, True), (False, True), (True, False)):
            with suppress(*RAISED):
                walked(self.make, _laid(even_course(self.seed, 1), *layout))
                return layout
        return False, False

    def evenly(self, switch: Switch, steps: int = SHORTLY) -> Seen:
        """One group at one rate, all gradients there."""
        even = even_course(self.seed, steps)
        even = even if self.small else _without_small(even)
        return self._seen(_laid(even, *self.layout), switch)

    def drifting(self, switch: Switch) -> Seen:
        """The same at a rate of 1, with gradients that point the same way."""
        even = _without_small(even_course(self.seed, EVENLY, 1 / RATES[1], drift=2.0))
        return self._seen(_laid(even, *self.layout), switch)

    def lacking(self, switch: Switch) -> Seen:
        """One group at one rate, gradients missing."""
        lacking = _eventful(self.seed, *self.layout, even=True)
        return self._seen(lacking, switch, "where some are missing")

    def steadily(self, switch: Switch) -> Seen:
        """Two groups with rates of their own, gradients missing, saved and loaded half-way."""
        steady = _eventful(self.seed, *self.layout, steady=True)
        return self._seen(steady, switch, "in two groups, saved and loaded")

    def largely(self, switch: Switch) -> Seen:
        """A parameter of more than 2^16 entries, and a small one."""
        large = course(self.seed, LARGE, FEW).through(lambda x: x / NORM)  # norms as in other walks
        large = replace(large, steady=True)
        return self._seen(large, switch, "with a large parameter")

    def lengthily(self, switch: Switch) -> Seen:
        """More steps, of which a period may be part."""
        return replace(self.evenly(switch, LENGTHILY), where="in a longer walk", plainly=False)

    def eventfully(self, switch: Switch) -> Seen:
        """Two groups under a schedule, gradients missing, saved and loaded half-way."""
        eventful = _eventful(self.seed, *self.layout)
        return replace(self._seen(eventful, switch, "under a schedule"), plainly=False)

    def hears_losses(self) -> bool:
        """Whether its steps depend on the loss that a closure gives."""
        even = self.evenly(self.plain)
        with suppress(*RAISED):
            told = walked(self.make, even.course, self.plain, told=True)
            return not torch.equal(told.taken, even.walked.taken)
        return False

    def _seen(self, course: Course, switch: Switch, where: str = "") -> Seen:
        """What is seen; raises WalkError whatever the part raises."""
        try:
            return self._walked(course, switch, where)
        except RAISED as error:
            raise WalkError(f"{type(error).__name__}: {error}") from error

    def _walked(self, course: Course, switch: Switch, where: str) -> Seen:
        start = nn.Parameter(course.starts[0].clone())
        shown = self.make([start], lr=1.0, **switch.arguments).param_groups[0]
        own = {name: value for name, value in shown.items() if name != "params"}
        if "lr" not in own:  # none that a schedule or a group of its own sets
            course = replace(course, even=True)
        group = {**self._signed, **switch.arguments, **own}
        groups: list[Group] = [group for _ in course.rates(0)]
        if switch.other is not None:
            groups[1:] = [{**group, switch.name: switch.other} for _ in groups[1:]]
        found = walked(self.make, course, switch)
        return Seen(found, course, groups, frozenset(switch.arguments), where, True, self.name, self._delayed)


# Courses, each made once -------------------------------------------------------------------------------


@lru_cache(32)
def _eventful(seed: int, strided: bool, vectors: bool, even: bool = False, steady: bool = False) -> Course:
    """Also the last parameter of each group is now and then without gradient."""
    eventful = _laid(course(seed, SHAPES, EVENTFULLY), strided, vectors)
    for k, row in enumerate(eventful.gradients):
        for place, at in ((FIRST_GROUP - 1, 3), (-1, 2)):
            row[place] = None if k % 5 == at else row[place]
    return replace(eventful, even=even, steady=steady)


@lru_cache(32)
def _laid(course: Course, strided: bool, vectors: bool) -> Course:
    """The course with such parameters alone."""
    laid = _of(course, tuple(k for k, start in enumerate(course.starts) if vectors or start.ndim > 1))
    return laid if strided else laid.through(Tensor.contiguous)


@lru_cache(32)
def _without_small(course: Course) -> Course:
    """Of parameters whose gradients are neither small nor 0."""
    return _of(course, tuple(place for place in range(len(course.starts)) if place not in (COLUMN, SMALL)))


@lru_cache(64)
def _of(course: Course, places: tuple[int, ...]) -> Course:
    """Of some of its parameters."""
    starts = [course.starts[place] for place in places]
    return replace(
        course, starts=starts, gradients=[[row[place] for place in places] for row in course.gradients]
    )
