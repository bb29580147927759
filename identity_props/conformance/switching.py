"""Switching: what an optimizer is with decay, momentum and what else it takes, and in what eval() shows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch

from identity_props.conformance.alongside import SAME, flat, followed, scale_of
from identity_props.conformance.candidates import (
    Candidate,
    decay_gone_wrong,
    decayed,
    own_slips,
    published,
)
from identity_props.conformance.observed import Part, Seen
from identity_props.conformance.recognised import (
    DEPARTS,
    WRONG,
    Recognised,
    arguments_shown,
    circumstance,
    first_that_fits,
    those_that_fit,
    told_right,
    told_wrong,
)
from identity_props.conformance.walks import EVERY, SWITCHES, Switch, WalkError
from identity_props.stack.stack import names
from identity_props.task.algorithms import Cell
from identity_props.task.algorithms.conventions import IGNORED, idle_decay

DECAYED, MOVING = Switch("weight_decay", 0.1, 0.3), Switch("momentum", 0.9)
DECOUPLED = re.compile(r"(Adam|SGD)W(?![a-z]|D\b)")  # AdamW and its kin, not AdamWrapper
COUPLED = ("adam", "amsgrad", "nadam", "radam", "sgd")  # decay as their papers have it
USED = ("momentum", "nesterov", "dampening", "betas", "amsgrad", "centered")  # none is without effect
OFF = (Switch("amsgrad", False), Switch("centered", False))  # where they are on by default
CODES = ("foreach", "fused")  # switches of the code, not of the algorithm
TRIED = {
    *("momentum", "nesterov", "dampening", "betas", "eps", "amsgrad", "decoupled_weight_decay", "alpha"),
    *("centered", "rho", "lr_decay", "momentum_decay", *CODES),
}


def decaying(part: Part, fitting: list[Candidate], even: Seen) -> Recognised:
    """With decay, on those that it still is, or on none if it decays in its own way."""
    if not part.takes(DECAYED):
        return _switching(part, fitting, even, [])
    seen = part.evenly(DECAYED)
    own = own_slips(dict.fromkeys(one.algorithm for one in fitting), seen)
    kept, said = those_that_fit(fitting, seen), []
    wrong = None if kept else first_that_fits(own, seen, f" {DECAYED}")
    if not kept and wrong is None:
        kept = those_that_fit(decayed(fitting), seen)
        named = names(part.make, "weight_decay")  # one that swallows any argument does not promise to decay
        slips = (one for one in decay_gone_wrong(fitting) if named or one.way != IGNORED)
        wrong = None if kept else first_that_fits(slips, seen, f" {DECAYED}")
        said = [] if kept else ["none known with weight_decay"]
    if wrong or (kept and (wrong := _decays_of_groups(part, kept) or _named_otherwise(part, kept, seen))):
        return wrong
    return _switching(part, kept or fitting, even, said)


def _decays_of_groups(part: Part, kept: list[Candidate]) -> Recognised | None:
    """Each group by its own, and parameters with a gradient alone."""
    seen = part.eventfully(DECAYED)
    if any(one.fits(seen) for one in kept):
        return None
    firsts = replace(seen, groups=[seen.groups[0] for _ in seen.groups])
    if any(one.fits(firsts) for one in kept):
        return told_wrong(replace(kept[0], way="all groups decayed by the first one's decay"), seen)
    way = "parameters without gradient decayed as well"
    return first_that_fits((replace(one, step=idle_decay(one.step), way=way) for one in kept), seen)


def _named_otherwise(part: Part, kept: list[Candidate], seen: Seen) -> Recognised | None:
    """Coupled decay of one that is called AdamW, or the like, and has no switch for it."""
    switched = any("coupl" in name for name in seen.groups[0])
    if switched or not (DECOUPLED.search(part.name) and _coupled(kept[0])):
        return None
    if any(one.fits(seen) for one in decayed(kept) if one.way.endswith("decoupled decay")):
        return None  # without momentum they are the same
    note = f"nearest is {kept[0]}: its decay is coupled, where {part.name} is decoupled by its name"
    return Recognised(WRONG, kept[0].algorithm, note)


def _coupled(one: Candidate) -> bool:
    """Whether its decay is that of a gradient, by its way or its paper."""
    return f", {one.way}".endswith(", coupled decay") or (
        "decay" not in one.way and one.algorithm.name in COUPLED
    )


def _switching(part: Part, fitting: list[Candidate], even: Seen, said: list[str]) -> Recognised:
    """With each other switch that it takes."""
    for switch in (*SWITCHES, *OFF):
        if switch.name in TRIED and part.takes(switch):
            try:
                found = _switched(part, fitting, switch)
            except WalkError:  # a value of another kind than the part's
                continue
            if isinstance(found, Recognised):
                return found
            said += found
    one = fitting[0]
    if (wrong := _moving(part, fitting) or _shown(one, even)) is not None:
        return wrong
    note = "; ".join([f"{one}{arguments_shown(one, even)}", *dict.fromkeys(said)])
    return told_right(one, even, note)


def _switched(part: Part, fitting: list[Candidate], switch: Switch) -> Recognised | list[str]:
    """What is to be said of it with a switch."""
    beside = tuple({**part.plain.arguments, **dict(switch.beside)}.items())
    seen = part.evenly(replace(switch, other=None, beside=beside))
    if switch.name in USED and _ignored(part, switch, seen, beside):
        note = (
            f"nearest is {fitting[0]}: its steps are the same with {switch.name}={switch.value} and without"
        )
        return Recognised(WRONG, fitting[0].algorithm, note)
    if any(one.fits(seen) for one in fitting):
        return []
    when = f" with {switch.name}={switch.value}"
    if switch.name in CODES and fitting[0].near(seen) == SAME:
        one, left = fitting[0], fitting[0].departure(seen)
        return Recognised(
            DEPARTS, one.algorithm, f"nearest is {one}, which it is without;{when} {left}", left.apart
        )
    slips = own_slips(dict.fromkeys(one.algorithm for one in fitting), seen)
    if (wrong := first_that_fits(slips, seen, when)) is not None:
        return wrong
    for one in (*published(seen), *decayed(published(seen))):
        if one.fits(seen):
            return [
                f"{switch.name}={switch.value}: {one.algorithm.title}" + (f", {one.way}" if one.way else "")
            ]
    return [f"none known with {switch.name}"]


def _ignored(part: Part, switch: Switch, seen: Seen, beside: tuple[tuple[str, Any], ...]) -> bool:
    """Whether it names the switch's argument and steps bit for bit as with the value that it has without."""
    name, value = beside[-1] if beside else ("", None)
    without = part.evenly(Switch(name, value, beside=beside[:-1]))
    same = torch.equal(without.walked.taken, seen.walked.taken)
    return same and names(part.make, switch.name) and without.groups[0].get(switch.name) != switch.value


def _moving(part: Part, fitting: list[Candidate]) -> Recognised | None:
    """What goes wrong with momentum where something befalls it, by name."""
    beside = tuple(part.plain.arguments.items())
    moving = replace(MOVING, beside=beside)
    if not part.takes(moving):
        return None
    seen = part.eventfully(moving)
    if any(one.fits(seen) for one in fitting):
        return None
    return circumstance(fitting, seen, " with momentum")


def _shown(one: Candidate, seen: Seen) -> Recognised | None:
    """What eval() shows that is not what the paper evaluates."""
    show = one.algorithm.shown
    if show is None or not len(seen.walked.shown):
        return None
    for k, cells in enumerate(followed(one.step, seen.course, one.arguments(seen)), 1):
        if k == EVERY:
            (arguments,) = one.arguments(seen)
            weights = [Cell(show(cell, arguments)) for cell in cells]
            far = max(scale_of(seen.course).apart(seen.walked.shown[0], flat(weights)))
            if not far <= SAME:
                note = (
                    f"nearest is {one}: what eval() shows is apart by {far:.1e} from what the paper evaluates"
                )
                return Recognised(WRONG, one.algorithm, note, far)
    return None
