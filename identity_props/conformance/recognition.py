"""Recognition: which published algorithm an optimizer is, found by stepping it beside all of them.

An optimizer walks 24 steps in float64, one group at one rate, on six parameters whose gradients are of sizes
from 1e-9 to 10. It *is* an algorithm if no parameter is ever further from the algorithm's than 1e-6 of the way
gone: numbers that torch keeps in float32 come to 4e-8. Then gradients are missing, groups have rates of their
own under a schedule, it is saved and loaded, and decay, momentum and what else it takes are switched on.

It is *accused* only where it is plainly meant to be what it is not: where it equals a known slip of an
algorithm throughout, or an algorithm throughout the even walk but not where something befalls it. What
packages do on purpose (eps, decay, counters) is a variant of its own. Whoever hears the loss is no such one.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from identity_props.conformance.candidates import (
    Candidate,
    counted,
    decay_gone_wrong,
    decayed,
    gone_wrong,
    miscounted,
    own_slips,
    published,
)
from identity_props.conformance.following import CIRCUMSTANCES, SAME, followed, scale_of
from identity_props.conformance.observed import EVENLY, SHORTLY, Part, Seen
from identity_props.conformance.walks import BEFELL, EVERY, ROWS, SWITCHES, Factory, Switch, WalkError
from identity_props.stack.guard import RAISED
from identity_props.task.algorithms import ALGORITHMS, Algorithm, Cell
from identity_props.task.algorithms.conventions import idle_decay

IS, WRONG, DEPARTS, NONE = "is", "gone wrong", "departs", "none known"
DECAYED, MOVING = Switch("weight_decay", 0.1, 0.3), Switch("momentum", 0.9)
CODES = ("foreach", "fused")  # switches of the code, not of the algorithm
TRIED = {
    *("momentum", "nesterov", "dampening", "betas", "eps", "amsgrad", "decoupled_weight_decay", "alpha"),
    *("centered", "rho", "lr_decay", "momentum_decay", *CODES),
}
FAR = 1e-4  # of the way gone: more than rounding to float32 does, less than algorithms differ
NEARLY = (
    1.1  # of the least distance: the first so near is named, as AMSGrad is Adam where squares do not fall
)


@dataclass(frozen=True, eq=False)
class Recognised:
    """What an optimizer is found to be: an algorithm of the zoo, one gone wrong, or none that is known."""

    verdict: str
    algorithm: Algorithm | None = None
    note: str = ""
    distance: float | None = None
    near: float = SAME

    @property
    def accused(self) -> bool:
        """Whether it is plainly meant to be an algorithm that it is not."""
        return self.verdict in (WRONG, DEPARTS)


def recognise(make: Factory, seed: int = 0) -> Recognised:
    """The algorithm of the zoo that an optimizer is, by its steps in float64 and by the arguments it shows."""
    part = Part(make, seed)
    try:
        found = _found(part)
    except (WalkError, *RAISED) as error:
        return Recognised(NONE, note=f"it raises on given gradients: {type(error).__name__}: {error}")
    if found.verdict != NONE and part.hears_losses():
        return replace(found, verdict=NONE, note=f"its steps depend on the loss; without one: {found.note}")
    return found


def _found(part: Part) -> Recognised:
    even = part.evenly(part.plain, EVENLY)
    if not even.walked.taken.isfinite().all():
        return Recognised(NONE, note="its weights are not finite")
    if not even.moved.any():
        return Recognised(NONE, note="it moves nothing")
    if matches := _known(even):
        return _befallen(part, matches, even)
    if found := _first_that_fits(gone_wrong([*ALGORITHMS.values()], even), even) or _but_for_few(even):
        return found
    coarse = replace(part, small=False)
    if matches := _known(even := coarse.evenly(part.plain, EVENLY)):
        found = _befallen(coarse, matches, even)
        return replace(
            found, note=f"{found.note}; but not where gradients are small or 0, as with an eps of its own"
        )
    return _nearest(even)


def _befallen(part: Part, matches: list[Candidate], even: Seen) -> Recognised:
    """Where gradients are missing, in groups, saved and loaded, then under a schedule."""
    if matches[0].algorithm.whole:
        return _rate_free(part, matches)
    for look in (part.lacking, part.steadily, part.eventfully):
        seen = look(part.plain)
        fitting = _fitting(matches, seen) or _fitting(counted(matches), seen)
        if not fitting:
            return _departed(matches, seen)
        matches = fitting
    return _decaying(part, matches, even)


def _rate_free(part: Part, matches: list[Candidate]) -> Recognised:
    """Those that find their rate, at 1: at the small ones of other walks they have not begun to."""
    seen = part.drifting(part.plain)
    fitting = _fitting(matches, seen)
    if fitting:
        one = fitting[0]
        return Recognised(
            IS, one.algorithm, f"{one}{_arguments(one, seen)}", one.departure(seen).apart, one.near(seen)
        )
    return Recognised(NONE, matches[0].algorithm, f"nearest is {matches[0]}, at a small rate alone")


def _fitting(candidates: Iterable[Candidate], seen: Seen) -> list[Candidate]:
    return [one for one in candidates if one.fits(seen)]


def _known(seen: Seen) -> list[Candidate]:
    """Those that it is, among all that are published, with each way to decay where it decays."""
    fitting = _fitting(published(seen), seen)
    if fitting or not any(group.get("weight_decay") for group in seen.groups):
        return fitting
    return _fitting(decayed(published(seen)), seen)


# What it is not -----------------------------------------------------------------------------------


def _first_that_fits(slips: Iterable[Candidate], seen: Seen, when: str = "") -> Recognised | None:
    """The first, of algorithms that are told from others to the same precision."""
    return next(
        (_wrong(slip, seen, when) for slip in slips if slip.near(seen) == SAME and slip.fits(seen)), None
    )


def _wrong(slip: Candidate, seen: Seen, when: str = "") -> Recognised:
    """Which algorithm it is nearest to, until when, and how it went wrong."""
    proper = replace(slip, step=slip.algorithm.step).departure(seen)
    note = f"nearest is {slip.algorithm}{when}: {proper}, as if {slip.way}"
    return Recognised(WRONG, slip.algorithm, note, proper.apart)


def _but_for_few(seen: Seen) -> Recognised | None:
    """From the first step on it moves one or two parameters otherwise than others of their shape and size."""
    for one in published(seen):
        left = one.departure(seen, spare=2)
        if not left.over and (where := _few(left.places, len(seen.course.starts))):
            proper = one.departure(seen)
            if proper.places == left.places:
                note = f"nearest is {one}: {proper}, in {where} alone"
                return Recognised(DEPARTS, one.algorithm, note, proper.apart)
    return None


def _few(places: frozenset[int], parameters: int) -> str:
    """Those that differ from others in their place alone, or in their layout."""
    known = {
        frozenset({0}): "the first parameter",
        frozenset({ROWS}): "a parameter that is not contiguous",
        frozenset({parameters - 1}): "the last parameter",
        frozenset({parameters - 2, parameters - 1}): "the last two parameters",
    }
    return known.get(places, "")


def _nearest(seen: Seen) -> Recognised:
    """None, and the algorithm that is nearest, by the median over parameters of how far apart they end."""
    short = replace(seen, course=replace(seen.course, gradients=seen.course.gradients[:SHORTLY]))
    found = [(_end(Candidate(one, one.step), short), one) for one in ALGORITHMS.values()]
    least = min(distance for distance, _ in found)
    distance, nearest = next(pair for pair in found if pair[0] <= NEARLY * least)
    note = f"nearest is {nearest}, apart by {distance:.1e} of the way after {SHORTLY} steps"
    return Recognised(NONE, nearest, note, distance)


def _end(one: Candidate, seen: Seen) -> float:
    *_, cells = followed(one.step, seen.course, one.arguments(seen))
    return statistics.median(scale_of(seen.course).apart(seen.walked.taken[seen.course.steps - 1], cells))


def _departed(matches: list[Candidate], seen: Seen) -> Recognised:
    """It is what it is while nothing befalls it: what goes wrong, by name where it is known.

    Without a name it is accused where rates are constant and parameters depart that always have a gradient, or
    never: what t counts, and what a rate multiplies, is told apart by the others and by schedules.
    """
    slips = [*miscounted(matches), *own_slips(dict.fromkeys(one.algorithm for one in matches), seen)]
    if (found := _first_that_fits(slips, seen) or _circumstance(matches, seen)) is not None:
        return found
    one, left = matches[0], matches[0].departure(seen)
    places = one.departure(seen, spare=len(seen.course.starts)).places
    plainly = (
        left.apart >= FAR
        and one.near(seen) == SAME
        and (seen.course.even or seen.course.steady)
        and places & seen.plain
    )
    told = ", ".join(f"{place}{BEFELL.get(place, '')}" for place in sorted(places))
    note = f"nearest is {one}, which it is where all gradients are there; {_where(seen)} {left}, in parameter {told}"
    return Recognised(DEPARTS if plainly else NONE, one.algorithm, note, left.apart)


def _where(seen: Seen) -> str:
    if seen.course.even:
        return "where some are missing"
    return "in two groups, saved and loaded" if seen.course.steady else "under a schedule"


def _circumstance(matches: list[Candidate], seen: Seen, when: str = "") -> Recognised | None:
    """By which rates it goes, or what it lost."""
    for one in matches:
        for way, under in CIRCUMSTANCES.items():
            if one.fits(seen, under):
                return _wrong(replace(one, way=way), seen, when)
    return None


# What it takes ------------------------------------------------------------------------------------


def _decaying(part: Part, fitting: list[Candidate], even: Seen) -> Recognised:
    """With decay, on those that it still is, or on none if it decays in its own way."""
    if not DECAYED.taken_by(part.make):
        return _switching(part, fitting, even, [])
    seen = part.evenly(DECAYED)
    own = own_slips(dict.fromkeys(one.algorithm for one in fitting), seen)
    kept, said = _fitting(fitting, seen), []
    wrong = None if kept else _first_that_fits(own, seen, f" {DECAYED}")
    if not kept and wrong is None:
        kept = _fitting(decayed(fitting), seen)
        wrong = None if kept else _first_that_fits(decay_gone_wrong(fitting), seen, f" {DECAYED}")
        said = [] if kept else ["none known with weight_decay"]
    if wrong or (kept and (wrong := _decays_of_groups(part, kept))):
        return wrong
    return _switching(part, kept or fitting, even, said)


def _decays_of_groups(part: Part, kept: list[Candidate]) -> Recognised | None:
    """Each group by its own, and parameters with a gradient alone."""
    seen = part.eventfully(DECAYED)
    if any(one.fits(seen) for one in kept):
        return None
    firsts = replace(seen, groups=[seen.groups[0] for _ in seen.groups])
    if any(one.fits(firsts) for one in kept):
        return _wrong(replace(kept[0], way="all groups decayed by the first one's decay"), seen)
    way = "parameters without gradient decayed as well"
    return _first_that_fits((replace(one, step=idle_decay(one.step), way=way) for one in kept), seen)


def _switching(part: Part, fitting: list[Candidate], even: Seen, said: list[str]) -> Recognised:
    """With each other switch that it takes."""
    for switch in SWITCHES:
        if switch.name in TRIED and switch.taken_by(part.make):
            try:
                found = _switched(part, fitting, switch)
            except (WalkError, *RAISED):  # a value of another kind than the part's
                continue
            if isinstance(found, Recognised):
                return found
            said += found
    one = fitting[0]
    if (wrong := _moving(part, fitting) or _shown(one, even)) is not None:
        return wrong
    note = "; ".join([f"{one}{_arguments(one, even)}", *dict.fromkeys(said)])
    return Recognised(IS, one.algorithm, note, one.departure(even).apart, one.near(even))


def _switched(part: Part, fitting: list[Candidate], switch: Switch) -> Recognised | list[str]:
    """What is to be said of it with a switch."""
    beside = tuple({**part.plain.arguments, **dict(switch.beside)}.items())
    seen = part.evenly(replace(switch, other=None, beside=beside))
    if any(one.fits(seen) for one in fitting):
        return []
    when = f" with {switch.name}={switch.value}"
    if switch.name in CODES and fitting[0].near(seen) == SAME:
        one, left = fitting[0], fitting[0].departure(seen)
        return Recognised(
            DEPARTS, one.algorithm, f"nearest is {one}, which it is without;{when} {left}", left.apart
        )
    slips = own_slips(dict.fromkeys(one.algorithm for one in fitting), seen)
    if (wrong := _first_that_fits(slips, seen, when)) is not None:
        return wrong
    for one in (*published(seen), *decayed(published(seen))):
        if one.fits(seen):
            return [
                f"{switch.name}={switch.value}: {one.algorithm.title}" + (f", {one.way}" if one.way else "")
            ]
    return [f"none known with {switch.name}"]


def _moving(part: Part, fitting: list[Candidate]) -> Recognised | None:
    """What goes wrong with momentum where something befalls it, by name."""
    beside = tuple(part.plain.arguments.items())
    moving = replace(MOVING, beside=beside)
    if not moving.taken_by(part.make):
        return None
    seen = part.eventfully(moving)
    if any(one.fits(seen) for one in fitting):
        return None
    return _circumstance(fitting, seen, " with momentum")


def _shown(one: Candidate, seen: Seen) -> Recognised | None:
    """What eval() shows that is not what the paper evaluates."""
    show = one.algorithm.shown
    if show is None or not len(seen.walked.shown):
        return None
    for k, cells in enumerate(followed(one.step, seen.course, one.arguments(seen)), 1):
        if k == EVERY:
            (arguments,) = one.arguments(seen)
            weights = [Cell(show(cell, arguments)) for cell in cells]
            far = max(scale_of(seen.course).apart(seen.walked.shown[0], weights))
            if not far <= SAME:
                note = (
                    f"nearest is {one}: what eval() shows is apart by {far:.1e} from what the paper evaluates"
                )
                return Recognised(WRONG, one.algorithm, note, far)
    return None


def _arguments(one: Candidate, seen: Seen) -> str:
    (arguments,) = one.arguments(seen)
    own = {name: value for name, value in arguments.items() if name not in ("lr", "weight_decay")}
    return "".join(f", {name}={value}" for name, value in own.items())
