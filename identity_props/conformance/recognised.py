"""Recognised: what an optimizer is found to be, and how that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from identity_props.conformance.alongside import CIRCUMSTANCES, SAME
from identity_props.conformance.candidates import Candidate, shows
from identity_props.conformance.observed import Seen
from identity_props.task.algorithms import Algorithm, Arguments
from identity_props.task.algorithms.base import Step

IS, WRONG, DEPARTS, NONE = "is", "gone wrong", "departs", "none known"


@dataclass(frozen=True, eq=False)
class Recognised:
    """What an optimizer is found to be: an algorithm of the zoo, one gone wrong, or none that is known."""

    verdict: str
    algorithm: Algorithm | None = None
    note: str = ""
    distance: float | None = None
    near: float = SAME
    step: Step | None = None  # of what it is, as it is taken
    arguments: Arguments | None = None  # with which it is that, without decay

    @property
    def accused(self) -> bool:
        """Whether it is plainly meant to be an algorithm that it is not."""
        return self.verdict in (WRONG, DEPARTS)


def those_that_fit(candidates: Iterable[Candidate], seen: Seen) -> list[Candidate]:
    """Those that are what was seen, throughout."""
    return [one for one in candidates if one.fits(seen)]


def first_that_fits(slips: Iterable[Candidate], seen: Seen, when: str = "") -> Recognised | None:
    """The first, of algorithms that are told from others to the same precision."""
    if seen.near > SAME:
        return None
    fitting = (slip for slip in slips if (slip.exactly or slip.near(seen) == SAME) and slip.fits(seen))
    return next((told_wrong(slip, seen, when) for slip in fitting), None)


def told_right(one: Candidate, seen: Seen, note: str) -> Recognised:
    """What it is, and how near."""
    apart, (arguments, *_) = one.departure(seen).apart, one.arguments(seen)
    return Recognised(IS, one.algorithm, note, apart, one.near(seen), one.step, arguments)


def told_wrong(slip: Candidate, seen: Seen, when: str = "") -> Recognised:
    """Which algorithm it is nearest to, until when, and how it went wrong."""
    proper = replace(slip, step=slip.algorithm.step).departure(seen)
    note = f"nearest is {slip.algorithm}{when}: {proper}, as if {slip.way}"
    return Recognised(WRONG, slip.algorithm, note, proper.apart)


def circumstance(matches: list[Candidate], seen: Seen, when: str = "") -> Recognised | None:
    """By which rates it goes, or what it lost."""
    for one in matches:
        for way, under in CIRCUMSTANCES.items():
            if one.fits(seen, under):
                return told_wrong(replace(one, way=way), seen, when)
    return None


def arguments_shown(one: Candidate, seen: Seen) -> str:
    """Its arguments that the part shows, but for rate and decay."""
    (arguments,) = one.arguments(seen)
    own = {name: value for name, value in arguments.items() if name not in ("lr", "weight_decay")}
    return "".join(f", {name}={value}" for name, value in own.items() if shows(seen.groups[0], name))
