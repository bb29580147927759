"""Recognition: which published algorithm an optimizer is, found by stepping it beside all of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from identity_props.conformance.candidates import (
    Candidate,
    Seen,
    counted,
    decay_gone_wrong,
    decayed,
    gone_wrong,
    own_slips,
    published,
)
from identity_props.conformance.following import (
    CIRCUMSTANCES,
    EVEN_SHAPES,
    SAME,
    apart,
    even_course,
    followed,
)
from identity_props.conformance.walks import (
    BEFELL,
    EVERY,
    PLAIN,
    SHAPES,
    SWITCHES,
    Course,
    Factory,
    Switch,
    WalkError,
    course,
    walked,
)
from identity_props.stack.guard import RAISED
from identity_props.task.algorithms import ALGORITHMS, Algorithm, Cell
from identity_props.task.algorithms.conventions import COUNTER_SLIPS

EVENLY, SHORTLY = 24, 12  # steps of an even walk, and with a switch
EVENTFULLY = 18  # its half is no multiple of the schedule's four steps
IS, WRONG, DEPARTS, NONE = "is", "gone wrong", "departs", "none known"
UNDECAYED, DECAYED = Switch("weight_decay", 0.0), Switch("weight_decay", 0.1, 0.3)
NEARLY = 1.1  # of the least distance: the first so near is named, as AMSGrad is Adam where squares do not fall
TRIED = (
    "momentum nesterov dampening betas eps amsgrad decoupled_weight_decay alpha centered rho lr_decay momentum_decay"
)
USED = ("momentum", "nesterov", "betas")  # arguments that change every step of what has them
PLACES = {0: "the first parameter", 1: "a parameter that is not contiguous", 5: "the last parameter"}
NOT_DECAYED = "parameters without gradient decayed as well"
FIRST_DECAY = "all groups decayed by the first one's decay"


@dataclass(frozen=True, eq=False)
class Recognised:
    """What an optimizer is found to be: an algorithm of the zoo, one gone wrong, or none that is known."""

    verdict: str
    algorithm: Algorithm | None = None
    note: str = ""
    distance: float | None = None

    @property
    def accused(self) -> bool:
        """Whether it is plainly meant to be an algorithm that it is not."""
        return self.verdict in (WRONG, DEPARTS)


def recognise(make: Factory, seed: int = 0) -> Recognised:
    """The algorithm of the zoo that an optimizer is, by its steps in float64 and by the arguments it shows.

    Equal means that no parameter is ever further from the algorithm's than 1e-6 of the way gone.
    """
    try:
        return _found(Part(make, seed))
    except (WalkError, *RAISED) as error:
        return Recognised(NONE, note=f"not stepping on given gradients: {type(error).__name__}: {error}")


@dataclass(frozen=True, eq=False)
class Part:
    """An optimizer as it is seen on courses and with switches."""

    make: Factory
    seed: int

    @cached_property
    def plain(self) -> Switch:
        """Without decay, if it takes that."""
        return UNDECAYED if UNDECAYED.taken_by(self.make) else PLAIN

    @cached_property
    def matrices(self) -> bool:
        """Whether it takes matrices alone."""
        try:
            walked(self.make, even_course(self.seed, 1))
        except RAISED:
            return True
        return False

    def evenly(self, switch: Switch, steps: int = SHORTLY) -> Seen:
        """One group at one rate, all gradients there."""
        shapes = [shape for shape in EVEN_SHAPES if len(shape) > 1 or not self.matrices]
        return self._seen(even_course(self.seed, steps, shapes), switch)

    def eventfully(self, switch: Switch) -> Seen:
        """Two groups under a schedule, gradients missing, loaded half-way."""
        shapes = SHAPES[:-1] if self.matrices else SHAPES
        return self._seen(course(self.seed, shapes, EVENTFULLY), switch)

    def _seen(self, course: Course, switch: Switch) -> Seen:
        shown = self.make([nn.Parameter(course.starts[0].clone())], lr=1.0, **switch.arguments).param_groups[0]
        groups = [{name: value for name, value in shown.items() if name != "params"}] * len(course.rates(0))
        if switch.other is not None:
            groups[1:] = [{**group, switch.name: switch.other} for group in groups[1:]]
        return Seen(walked(self.make, course, switch), course, groups)


def _found(part: Part) -> Recognised:
    even = part.evenly(part.plain, EVENLY)
    if not even.walked.taken.isfinite().all():
        return Recognised(NONE, note="its weights are not finite")
    matches = _known(even)
    if not matches:
        return _gone_wrong(even) or _but_for_one(even) or _nearest(even)
    eventful = part.eventfully(part.plain)
    fitting = [one for one in (*matches, *counted(matches)) if one.fits(eventful)]
    if not fitting:
        return _departed(matches, eventful)
    return _with_switches(part, fitting, even, eventful)


def _known(seen: Seen) -> list[Candidate]:
    """Those that it is, among all that are published, with each way to decay where it decays."""
    fitting = [one for one in published() if one.fits(seen)]
    if fitting or not any(one.get("weight_decay") for one in seen.groups):
        return fitting
    return [one for one in decayed(published()) if one.fits(seen)]


# What it is not -----------------------------------------------------------------------------------


def _gone_wrong(seen: Seen) -> Recognised | None:
    for one in gone_wrong([*ALGORITHMS.values()]):
        if one.fits(seen):
            return wrong(one, seen)
    return None


def wrong(slip: Candidate, seen: Seen, way: str = "") -> Recognised:
    """Which algorithm it is nearest to, until when, and how it went wrong."""
    proper = Candidate(slip.algorithm, slip.algorithm.step, bare=slip.bare).departure(seen)
    note = f"nearest is {slip.algorithm}: {proper}, as if {way or slip.way}"
    return Recognised(WRONG, slip.algorithm, note, proper.apart)


def _but_for_one(seen: Seen) -> Recognised | None:
    """It moves all parameters but one as an algorithm does, and that one otherwise than others of its shape."""
    for one in published():
        left = one.departure(seen, spare=1)
        if not left.over and (place := PLACES.get(min(left.places))):
            proper = one.departure(seen)
            return Recognised(DEPARTS, one.algorithm, f"nearest is {one}: {proper}, in {place} alone", proper.apart)
    return None


def _nearest(seen: Seen) -> Recognised:
    """None, and the algorithm that is nearest, by the median over parameters of how far apart they end."""
    short = Seen(seen.walked, replace(seen.course, gradients=seen.course.gradients[:SHORTLY]), seen.groups)
    found = [(_end(Candidate(one, one.step), short), one) for one in ALGORITHMS.values()]
    least = min(distance for distance, _ in found)
    distance, nearest = next(pair for pair in found if pair[0] <= NEARLY * least)
    note = f"none known; nearest is {nearest}, apart by {distance:.1e} of the way after {SHORTLY} steps"
    return Recognised(NONE, nearest, note, distance)


def _end(one: Candidate, seen: Seen) -> float:
    *_, cells = followed(one.step, seen.course, one.arguments(seen.groups))
    return statistics.median(apart(seen.walked.taken[seen.course.steps - 1], cells, seen.course))


def _departed(matches: list[Candidate], seen: Seen) -> Recognised:
    """It is what it is while nothing befalls it: what goes wrong, by name where it is known."""
    first = matches[0]
    for one in matches:
        for way, changed in COUNTER_SLIPS.items():
            if (slip := replace(one, step=changed(one.step), way=way)).fits(seen):
                return wrong(slip, seen)
        for way, under in CIRCUMSTANCES.items():
            if one.fits(seen, under):
                return wrong(one, seen, way)
    left = first.departure(seen)
    places = ", ".join(f"{place}{BEFELL.get(place, '')}" for place in sorted(left.places))
    note = f"{first} at one rate with all gradients there; in two groups under a schedule {left}, in parameter {places}"
    return Recognised(DEPARTS, first.algorithm, note, left.apart)


# What it takes ------------------------------------------------------------------------------------


def _with_switches(part: Part, fitting: list[Candidate], even: Seen, eventful: Seen) -> Recognised:
    """What it is with decay, and with each other switch."""
    said: list[str] = []
    if DECAYED.taken_by(part.make):
        found = _decaying(part, fitting)
        if isinstance(found, Recognised):
            return found
        fitting, more = found
        said += more
    for switch in SWITCHES:
        if switch.name in TRIED.split() and switch.taken_by(part.make):
            found = _switched(part, fitting, switch)
            if isinstance(found, Recognised):
                return found
            said += found
    one = fitting[0]
    if (shown := _shown(one, eventful)) is not None:
        return shown
    return Recognised(IS, one.algorithm, "; ".join([f"{one}{_arguments(one, even)}", *said]), one.departure(even).apart)


def _decaying(part: Part, fitting: list[Candidate]) -> Recognised | tuple[list[Candidate], list[str]]:
    """Those that it still is with decay, and what is to be said of that."""
    seen = part.evenly(DECAYED)
    kept = [one for one in fitting if one.fits(seen)]
    if not kept:
        for one in (*own_slips(dict.fromkeys(one.algorithm for one in fitting)),):
            if one.fits(seen):
                return wrong(one, seen)
        kept = [one for one in decayed(fitting) if one.fits(seen)]
    if not kept:
        for one in decay_gone_wrong(fitting):
            if one.fits(seen):
                return wrong(one, seen)
        return fitting, ["none known with decay"]
    return kept, []


def _switched(part: Part, fitting: list[Candidate], switch: Switch) -> Recognised | list[str]:
    """What is to be said of it with a switch."""
    beside = dict(part.plain.arguments) | dict(switch.beside)
    switch = replace(switch, other=None, beside=tuple(beside.items()))
    seen = part.evenly(switch)
    if any(one.fits(seen) for one in fitting):
        return []
    for one in own_slips(dict.fromkeys(one.algorithm for one in fitting)):
        if one.fits(seen):
            return replace(wrong(one, seen), note=f"{wrong(one, seen).note}, {switch}")
    for one in (*published(), *decayed(published())):
        if one.fits(seen):
            return [f"{switch}: {one.algorithm.title}" + (f", {one.way}" if one.way else "")]
    return [f"{switch}: none known"]


def _shown(one: Candidate, seen: Seen) -> Recognised | None:
    """What eval() shows that is not what the paper evaluates."""
    if one.algorithm.shown is None or not len(seen.walked.shown):
        return None
    for k, cells in enumerate(followed(one.step, seen.course, one.arguments(seen.groups)), 1):
        if k == EVERY:
            weights = [Cell(one.algorithm.shown(cell, one.algorithm.defaults)) for cell in cells]
            far = max(apart(seen.walked.shown[0], weights, seen.course))
            if not far <= SAME:
                note = f"nearest is {one}: what eval() shows is apart by {far:.1e} from the average that is evaluated"
                return Recognised(WRONG, one.algorithm, note, far)
    return None


def _arguments(one: Candidate, seen: Seen) -> str:
    (arguments,) = one.arguments(seen.groups)
    own = {name: value for name, value in arguments.items() if name not in ("lr", "weight_decay")}
    return "".join(f", {name}={value}" for name, value in own.items())
