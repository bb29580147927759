"""Recognition: which published algorithm an optimizer is, found by stepping it beside all of them.

An optimizer walks 24 steps in float64, one group at one rate, on six parameters whose gradients are of sizes
from 1e-9 to 10. It *is* an algorithm if no parameter is ever further from the algorithm's than 1e-6 of the way
gone. Torch's own come to 4e-8, as some numbers are kept in float32; on that walk members of the zoo are as far
apart as 3e-4 (Adam and AMSGrad), their variants as 5e-6 (where an eps of 1e-15 is placed), or they are equal
there and told apart by the walks that follow: gradients are missing, groups have rates of their own, it is
saved and loaded, rates move, and decay, momentum and what else it takes are switched on.

It is *accused* only where it is plainly meant to be what it is not: where it equals a known slip of an algorithm
throughout; or an algorithm throughout the even walk, and at constant rates not in parameters that always have a
gradient, by 1e-4 of the way or more. What packages do on purpose (eps, decay, counters) is a variant of its own.
One whose steps depend on the loss that a closure gives is none of the zoo.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from identity_props.conformance.alongside import SAME, flat, followed, scale_of
from identity_props.conformance.candidates import (
    UNFIT,
    Candidate,
    counted,
    decayed,
    gone_wrong,
    miscounted,
    own_slips,
    published,
)
from identity_props.conformance.observed import EVENLY, SHORTLY, Part, Seen
from identity_props.conformance.recognised import (
    DEPARTS,
    NONE,
    Recognised,
    arguments_shown,
    circumstance,
    first_that_fits,
    those_that_fit,
    told_right,
)
from identity_props.conformance.switching import decaying
from identity_props.conformance.walks import BEFELL, ROWS, Factory, WalkError

FAR = 1e-4  # of the way gone: more than rounding to float32 does, less than papers differ
NEARLY = 1.1  # of the least distance: the first that is so near is named


def recognise(make: Factory, seed: int = 0) -> Recognised:
    """The algorithm of the zoo that an optimizer is, by its steps in float64 and by the arguments it shows."""
    part = Part(make, seed)
    try:
        found = _found(part)
    except WalkError as error:
        return Recognised(NONE, note=f"it raises on given gradients: {error}")
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
        loose = [one.algorithm for one in matches if one.near(even) > even.near]
        return first_that_fits(own_slips(loose, even), even) or _befallen(part, matches, even)
    if found := first_that_fits(gone_wrong(even), even) or _but_for_few(even):
        return found
    coarse = replace(part, small=False)
    if matches := _known(even := coarse.evenly(part.plain, EVENLY)):
        found = _befallen(coarse, matches, even)
        verdict = NONE if found.verdict == DEPARTS else found.verdict  # sizes may tell, as bounds on a step
        note = f"{found.note}; but not where gradients are small or 0, as with an eps of its own"
        return replace(found, verdict=verdict, note=note)
    return _nearest(even)


def _befallen(part: Part, matches: list[Candidate], even: Seen) -> Recognised:
    """Where gradients are missing, in groups, saved and loaded, then under a schedule."""
    if matches[0].algorithm.whole:
        return _rate_free(part, matches)
    large = [part.largely] if part.small else []  # of many entries, some gradients are small
    for look in (part.lacking, part.steadily, *large, part.eventfully, part.lengthily):
        seen = look(part.plain)
        fitting = those_that_fit(matches, seen) or those_that_fit(counted(matches), seen)
        if not fitting:
            return _departed(matches, seen)
        matches = fitting
    return decaying(part, matches, even)


def _rate_free(part: Part, matches: list[Candidate]) -> Recognised:
    """Those that find their rate, at 1: at the small ones of other walks they have not begun to."""
    seen = part.drifting(part.plain)
    fitting = those_that_fit(matches, seen)
    if fitting:
        one = fitting[0]
        return told_right(one, seen, f"{one}{arguments_shown(one, seen)}")
    return Recognised(NONE, matches[0].algorithm, f"nearest is {matches[0]}, at a small rate alone")


def _known(seen: Seen) -> list[Candidate]:
    """Those that it is, among all that are published, with each way to decay where it decays.

    Of several that are the same there, as Adam, AdaBound and QHAdam, first those whose arguments it has.
    """
    fitting = those_that_fit(published(seen), seen)
    if not fitting and any(group.get("weight_decay") for group in seen.groups):
        fitting = those_that_fit(decayed(published(seen)), seen)
    return sorted(fitting, key=lambda one: one.meant(seen))


# What it is not -----------------------------------------------------------------------------------


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
    """None, and the algorithm that it equals for most steps; for none, the one it ends nearest to.

    By the median over parameters; where some are about as near, by the first.
    """
    short = replace(seen, course=replace(seen.course, gradients=seen.course.gradients[:SHORTLY]))
    near = [one for one in published(short) if not one.way and not one.bare]
    equal = {one: one.departure(short).equal for one in near}
    longest = max(equal.values())
    near = [one for one in near if equal[one] == longest] if longest > 1 else near
    ends = {one: _end(one, short) for one in near}
    nearest = next(one for one in near if ends[one] <= NEARLY * min(ends.values()))
    steps = f"equal for {longest} steps, " if longest > 1 else ""
    note = f"nearest is {nearest}, {steps}apart by {ends[nearest]:.1e} of the way after {SHORTLY} steps"
    return Recognised(NONE, nearest.algorithm, note, ends[nearest])


def _end(one: Candidate, seen: Seen) -> float:
    try:
        *_, cells = followed(one.step, seen.course, one.arguments(seen))
    except UNFIT:
        return math.inf
    return statistics.median(
        scale_of(seen.course).apart(seen.walked.taken[seen.course.steps - 1], flat(cells))
    )


def _departed(matches: list[Candidate], seen: Seen) -> Recognised:
    """It is what it is while nothing befalls it: what goes wrong, by name where it is known.

    Without a name it is accused where rates are constant and parameters depart that always have a gradient, or
    never: what t counts, and what a rate multiplies, is told apart by the others and by schedules.
    """
    slips = [*miscounted(matches), *own_slips(dict.fromkeys(one.algorithm for one in matches), seen)]
    if (found := first_that_fits(slips, seen) or circumstance(matches, seen)) is not None:
        return found
    one, left = matches[0], matches[0].departure(seen)
    places = one.departure(seen, spare=len(seen.course.starts)).places
    far = FAR <= left.apart < math.inf  # where the paper itself is not defined nothing departs from it
    plainly = seen.plainly and far and one.near(seen) == SAME and places & seen.plain
    told = ", ".join(f"{place}{BEFELL.get(place, '')}" for place in sorted(places))
    note = f"nearest is {one}, which it is where all gradients are there; {seen.where} {left}, in parameter {told}"
    return Recognised(DEPARTS if plainly else NONE, one.algorithm, note, left.apart)
