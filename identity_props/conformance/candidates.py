"""Candidates: the algorithms of the zoo with a part's own arguments, as published, as varied, and gone wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from identity_props.conformance.alongside import (
    AS_IT_IS,
    SAME,
    SINGLE,
    Circumstance,
    Departure,
    Given,
    Way,
    departure,
    given,
    way_of,
)
from identity_props.conformance.observed import Group, Seen
from identity_props.task.algorithms import ALGORITHMS, Algorithm, Arguments
from identity_props.task.algorithms.base import Step
from identity_props.task.algorithms.conventions import (
    COUNTER_SLIPS,
    COUNTERS,
    DECAY_SLIPS,
    DECAYS,
    IDLE_SLIPS,
    STEP_SLIPS,
    ascending,
)
from identity_props.task.algorithms.descent import LOOKS_AHEAD
from identity_props.task.algorithms.moments import SWITCHED

# what packages call the arguments that torch.optim names
ALIASES: Mapping[str, tuple[str, ...]] = {
    "momentum": ("beta", "beta1", "mu", "alpha"),
    "alpha": ("la_alpha", "rho", "decay", "smoothing", "beta2"),
    "rho": ("alpha", "beta2"),
    "eps": ("epsilon",),
    "weight_decay": ("wd", "weight_decay_rate"),
    "beta2_decay": ("decay", "decay_rate"),
    "correct_bias": ("bias_correction", "correct_biases", "debias", "use_bias_correction"),
    "precondition_frequency": ("preconditioning_frequency", "every"),
    "k": ("la_steps", "la_step", "sync_period"),
}
PAIRS = (("beta1", "beta2"), ("b1", "b2"), ("beta_1", "beta_2"))
UNFIT = (ArithmeticError, LookupError, RuntimeError)  # of an algorithm with arguments that it is not made for
# slips that are a way of their own where nothing is called by the algorithm's name: a diagonal natural gradient
NAMED = {
    *("the second moment's root were not taken", "the root of the squares were not taken"),
    *("the root of the sum were not taken", "squares were not summed"),
}
MISSING, UNASKED = "Nesterov's look-ahead were missing", "Nesterov's look-ahead were taken unasked"
# slips about one argument, which is a part's own where it does not show it
ABOUT = {
    **dict.fromkeys(("squares were averaged with 0.95", "squares were averaged with 0.9"), "alpha"),
    **dict.fromkeys(("it were centered unasked", "it were not centered"), "centered"),
    **dict.fromkeys(("eps were 1e-3", "eps were 1e-8"), "eps"),
    **dict.fromkeys((MISSING, UNASKED), "nesterov"),
    "the second beta were 0.99": "betas",
    "squares began at 0.1": "initial_accumulator_value",
}
# slips that are the way of one whose docstring says that its gradients are those of before
LATE = {
    "each step took the gradient of the one before",
    "weights moved by the velocity of the step before",
    "weights moved by the velocity of the step before, at first by none",
}
FRACTIONS = (0.9, 0.95, 0.98)  # of the rate, taken for it; a half or twice may be a way to write it


def arguments_of(algorithm: Algorithm, group: Group) -> Arguments:
    """The algorithm's arguments as a part's group shows them, the paper's where it does not."""
    found = {"weight_decay": 0.0, **algorithm.defaults}
    for name, default in found.items():
        if name == "lr":  # that of the course
            continue
        shown = (group.get(alias) for alias in (name, *ALIASES.get(name, ())))
        own = next((value for value in (_like(value, default) for value in shown) if value is not None), None)
        apart = _betas(group, len(default)) if name == "betas" and own is None else None
        found[name] = own if own is not None else apart or default
    return found


def _like(value: Any, default: Any) -> Any:
    """The value if it is of the default's kind, else None."""
    if isinstance(default, bool) or isinstance(value, bool):
        return value if isinstance(value, bool) and isinstance(default, bool) else None
    if default is None:
        return value if isinstance(value, str) else None
    if isinstance(default, tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(default) and None not in value
        return tuple(value) if fits else None
    return value if isinstance(value, int | float) else None


def shows(group: Group, name: str) -> bool:
    """Whether a part's groups show an argument, under any of its names."""
    return any(alias in group for alias in (name, *ALIASES.get(name, ()))) or (
        name == "betas" and _pair(group) is not None
    )


def _betas(group: Group, many: int) -> tuple[float, ...] | None:
    """Betas that go by names of their own, the third beside two."""
    if many == 2:
        return _pair(group)
    two, third = group.get("betas"), group.get("beta3")
    if many == 3 and isinstance(two, tuple | list) and len(two) == 2 and isinstance(third, float):
        return (*two, third)
    return None


def _pair(group: Group) -> tuple[float, float] | None:
    for first, second in PAIRS:
        if all(isinstance(group.get(name), float) for name in (first, second)):
            return group[first], group[second]
    return None


@dataclass(frozen=True, eq=False)
class Candidate:
    """An algorithm, how it is taken, and whether its arguments are the paper's whatever a part shows."""

    algorithm: Algorithm
    step: Step
    way: str = ""
    bare: bool = False
    together: bool = False  # parameters have to be seen together
    exactly: bool = False  # in float64, whatever the paper's own precision

    def arguments(self, seen: Seen) -> list[Arguments]:
        """For each group; a bare one reads what a switch has set alone."""
        return self._given(seen).arguments

    def _given(self, seen: Seen) -> Given:
        key = self.algorithm.name, self.bare
        if key not in seen.read:
            seen.read[key] = given(self._read(seen))
        return seen.read[key]

    def _read(self, seen: Seen) -> list[Arguments]:
        read = [{n: v for n, v in group.items() if n in seen.set or not self.bare} for group in seen.groups]
        return [arguments_of(self.algorithm, group) for group in read]

    def departure(self, seen: Seen, under: Circumstance = AS_IT_IS, spare: int = 0) -> Departure:
        """Where it leaves what was seen of a part, in more parameters than are spared."""
        way, near = self._way(seen, under), self.near(seen)
        try:
            return departure(seen.walked.taken, way, seen.course, spare, near)
        except UNFIT:
            return Departure(0, math.inf, frozenset(range(len(seen.course.starts))), True)

    def _way(self, seen: Seen, under: Circumstance) -> Way:
        step = _made(ascending, self.step) if seen.groups[0].get("maximize") is True else self.step
        return way_of(step, seen.course, self._given(seen), under)

    def _begins(self, seen: Seen, under: Circumstance) -> bool:
        """Whether its first step may be what was seen."""
        try:
            return not self._way(seen.first, under).begun.far(seen.begun, self.near(seen))
        except UNFIT:
            return False

    def near(self, seen: Seen) -> float:
        """How far is equal: what rounding of numbers in float32 does, or the paper's own lower precision."""
        rounding = self.algorithm.rounding
        return max(seen.near, min(rounding, SINGLE) if self.exactly else rounding)

    def meant(self, seen: Seen) -> tuple[int, int]:
        """Least where a part shows all of its algorithm's arguments, of those where they are the most."""
        names = _own(self.algorithm)
        missing = [name for name in names if not shows(seen.groups[0], name)]
        return len(missing), -len(names)

    def fits(self, seen: Seen, under: Circumstance = AS_IT_IS) -> bool:
        """Whether it is what was seen, throughout."""
        alone = seen.course.even and not (self.together or self.algorithm.whole)
        if alone and (not self._begins(seen, under) or self.departure(seen.first, under).over):
            return False  # most are told by one parameter
        return not self.departure(seen, under).over

    def __str__(self) -> str:
        return f"{self.algorithm.title} ({self.algorithm.paper})" + (f", {self.way}" if self.way else "")


def _taken(algorithm: Algorithm, ways: Mapping[str, Step], seen: Seen) -> Iterator[Candidate]:
    """An algorithm taken in several ways, with what a part shows, then with the paper's where those differ."""
    shown = [Candidate(algorithm, step, way) for way, step in ways.items()]
    yield from shown
    bare = [replace(one, bare=True) for one in shown]
    if bare and bare[0].arguments(seen) != shown[0].arguments(seen):
        yield from bare


def published(seen: Seen) -> Iterator[Candidate]:
    """Each as its paper has it, then as packages do on purpose."""
    known = (one for one in ALGORITHMS.values() if _begun(one, seen))
    exact_first = sorted(known, key=lambda algorithm: algorithm.rounding)
    for algorithm in exact_first:
        yield from _taken(algorithm, {"": algorithm.step}, seen)
    for algorithm in exact_first:
        ways = algorithm.variants.items()
        optional = shows(seen.groups[0], "nesterov")
        taken = {w: s for w, s in ways if not (optional and w.startswith(LOOKS_AHEAD))}
        yield from _taken(algorithm, taken, seen)


def _begun(algorithm: Algorithm, seen: Seen) -> bool:
    """Whether a part that is its warmup alone is it: by its name, or since it shows that it warms up.

    AdaGC is at first Adam of gradients that are clipped by their norm, as many clip them.
    """
    warms = algorithm.defaults.get("warmup_steps", 0) > 0
    return not warms or _called(algorithm, seen) or shows(seen.groups[0], "warmup_steps")


def decayed(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """With decay as some take it where papers do not say."""
    for one in candidates:
        for way, changed in DECAYS.items():
            yield replace(one, step=_made(changed, one.step), way=_and(one.way, way))


def counted(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """With t as some count it."""
    for one in candidates:
        for way, changed in COUNTERS.items():
            yield replace(one, step=_made(changed, one.step), way=_and(one.way, way), together=True)


def promised(algorithm: Algorithm, seen: Seen) -> bool:
    """Whether a part is plainly meant to be it: it shows one of its arguments, or is called by its name."""
    named = _called(algorithm, seen) or any(shows(seen.groups[0], name) for name in _own(algorithm))
    return named and _begun(algorithm, seen)


def _called(algorithm: Algorithm, seen: Seen) -> bool:
    return algorithm.name.removesuffix("w") in seen.name.lower()


def _own(algorithm: Algorithm) -> list[str]:
    """Its arguments but for those that every optimizer has, or that an option switches."""
    return [name for name in algorithm.defaults if name not in ("lr", "weight_decay", *SWITCHED)]


def gone_wrong(seen: Seen) -> Iterator[Candidate]:
    """What a part promises to be, by slips that any can have, by its own, then by steps of another length.

    A heavy ball of 0.9 that shows nothing is RAdam with a correction that stays that of the first step.
    """
    algorithms = [one for one in ALGORITHMS.values() if promised(one, seen)]
    for one in algorithms:
        slips = {way: _made(changed, one.step) for way, changed in STEP_SLIPS.items()}
        yield from _taken(one, {way: step for way, step in slips.items() if _told(one, way, seen)}, seen)
        yield from miscounted([Candidate(one, one.step)])
    yield from own_slips(algorithms, seen)
    for one in algorithms:
        yield from longer_or_shorter(Candidate(one, one.step))


def miscounted(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """With a step counter or a memory of its parameters that others move."""
    for one in candidates:
        for way, changed in {**COUNTER_SLIPS, **IDLE_SLIPS}.items():
            yield replace(one, step=_made(changed, one.step), way=way, together=True)


def longer_or_shorter(one: Candidate) -> Iterator[Candidate]:
    """With steps of another length."""
    for factor in FRACTIONS:
        yield replace(one, step=_at(one.step, factor), way=f"steps were {factor:g} times as long")


def own_slips(algorithms: Iterable[Algorithm], seen: Seen) -> Iterator[Candidate]:
    """By what is known to go wrong in each."""
    for algorithm in algorithms:
        slips = {way: step for way, step in algorithm.slips.items() if _told(algorithm, way, seen)}
        coarse = algorithm.rounding > SAME
        yield from (replace(one, exactly=coarse) for one in _taken(algorithm, slips, seen))


def _told(algorithm: Algorithm, way: str, seen: Seen) -> bool:
    """Whether a slip is one, by what a part shows, is called and says."""
    if way in LATE and seen.delayed:
        return False
    return (way not in NAMED or _called(algorithm, seen)) and (
        way not in ABOUT or shows(seen.groups[0], ABOUT[way])
    )


def decay_gone_wrong(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """With decay taken as none does on purpose."""
    for one in candidates:
        for way, changed in DECAY_SLIPS.items():
            yield replace(one, step=_made(changed, one.step), way=way)


@lru_cache(4096)
def _made(changed: Callable[[Step], Step], step: Step) -> Step:
    """The step made into another, once, so that the ways that it goes are kept."""
    return changed(step)


@lru_cache(4096)
def _at(step: Step, factor: float) -> Step:
    return lambda cells, a: step(cells, {**a, "lr": factor * a["lr"]})


def _and(way: str, other: str) -> str:
    return f"{way}, {other}" if way else other
