"""The parts of a test error, by repairing one fault after the other; see ``explain`` for their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from identity_props.explanation.views import View

NEVER, NOT_IN_INPUT = "never seen", "not in the input"
DRAWN, NOISE, SAMPLED = "not trained yet", "noise in training", "noise in evaluation"
DECAYED = "weight decay"
ORDER = (
    SAMPLED,
    DRAWN,
    "shifted statistics",
    "too few steps",
    "step-size floor",
    NOISE,
    DECAYED,
    NEVER,
    NOT_IN_INPUT,
    "too narrow",
    "saturated hidden units",
    "lost in hidden layers",
    "range",
    "dead outputs",
    "stuck at 0",
    "saturated outputs",
    "bias",
    "slow directions",
    "output layer",
    "other",
)
GROUPS = ("dead outputs", "stuck at 0", "saturated outputs", "live")


@dataclass(frozen=True)
class Part:
    """One named share of the test error: ``fvu`` is what it contributes, ``what`` a sentence for people.

    One that is not ``measured`` contributes nothing, and what it would is in the others.
    """

    name: str
    fvu: float
    what: str
    measured: bool = True


@dataclass(frozen=True, eq=False)
class _Repair:
    """The better of output and readout, for each pixel, where the unit is dead, stuck, saturated or live.

    A choice of whole columns and not of entries, which would be choosing by the answer.
    """

    groups: dict[str, Tensor]  # entries [m, d]
    best: Tensor  # [m, d]
    taken: Tensor  # [d] live units whose readout is the better


def _groups(seen: View) -> dict[str, Tensor]:
    """Entries [m, d] by what is wrong with the unit: a ReLU is dead or stuck, what can grow no further saturated."""
    y, goal, none = seen.test.y, seen.test.goal, torch.zeros_like(seen.test.y, dtype=torch.bool)
    dead = none if seen.bounded else seen.dead.expand_as(y)
    stuck = none if seen.bounded else (y == 0) & (goal != 0) & ~dead
    flat = (
        none
        if seen.flat is None or seen.reach is None or seen.unreached  # no unit has a slope of its own
        else seen.flat & ~dead & ~stuck & (seen.bounded | (y != 0))
    )
    return dict(zip(GROUPS, (dead, stuck, flat, ~dead & ~stuck & ~flat), strict=True))


def _repair(seen: View, groups: dict[str, Tensor]) -> _Repair:
    y, goal, read = seen.test.y, seen.test.goal, seen.test.read
    best, taken = y.clone(), seen.dead
    squares = (y - goal).square(), (read - goal).square()
    for group in groups.values():
        own, other = ((square * group).sum(0) for square in squares)
        taken = other < own
        best = torch.where(group & taken, read, best)
    return _Repair(groups, best, taken)


def limits(seen: View, ranks: Tensor, left: float) -> list[Part]:
    """What of ``left`` no network of this width and data could do without; ``ranks`` [d + 1] as ``by_rank`` gives them."""
    goal = seen.test.goal
    unseen = min(left, seen.fvu(seen.test.seen - goal))
    name, what = _never(seen)
    parts = [Part(name, unseen, what)]
    if seen.narrowest is None:
        return [*parts, Part("too narrow", 0.0, "no layer is narrower than the data")]
    best = float(ranks[seen.narrowest])
    told = (
        f"the best affine map through {seen.narrowest} units, the narrowest layer, leaves FVU {best:.2e};"
        f" this network {_beside(left, best)}"
    )
    return [*parts, Part("too narrow", max(0.0, min(left, best) - unseen), told)]


def _beside(left: float, best: float) -> str:
    if left < best:
        return f"leaves {left:.2e} there, which no linear one could"
    return f"leaves {left / best:.2f} times that there" if best > 0 else f"leaves {left:.2e} there"


def _never(seen: View) -> tuple[str, str]:
    if seen.test.goal is seen.test.x:
        return NEVER, "the test images leave the span of the training images, and no training helps"
    return NOT_IN_INPUT, "no affine map of the input recovers it, and this network does not either"


def in_order(found: Sequence[Part]) -> tuple[Part, ...]:
    """All parts of ORDER, those that were not found at 0; of the two of what is not in the data, that which applies."""
    by_name = {part.name: part for part in found}
    absent = NOT_IN_INPUT if NEVER in by_name else NEVER
    return tuple(by_name.get(name) or Part(name, 0.0, "") for name in ORDER if name != absent)


def untrained(seen: View, ranks: Tensor) -> tuple[Part, ...]:
    """The error of a network that is as it was drawn: what limits it, and the rest."""
    goal = seen.test.goal
    whole = seen.fvu(seen.test.y - goal)
    limited = limits(seen, ranks, whole)
    rest = whole - sum(part.fvu for part in limited)
    missed = 0.0 if seen.reach is None else min(rest, seen.fvu(goal - goal.clamp(*seen.reach)))
    told = "its weights are as they were drawn, and it follows its target no better than others drawn anew"
    return (Part(DRAWN, rest - missed, told), *limited, Part("range", missed, _reach_in_words(seen)))


def parts(seen: View, slow: Tensor, ranks: Tensor, calmed: float = 0.0) -> tuple[Part, ...]:
    """The error of a view in parts, ``slow`` [d, s] being the eigenvectors that are slow to learn.

    ``calmed`` is what steps without noise removed before.
    """
    groups = _groups(seen)  # before the outputs are moved, since a zero says that a unit is off
    seen, noise = _without_noise(seen)
    y, goal, repair = seen.test.y, seen.test.goal, _repair(seen, groups)
    left = seen.fvu(repair.best - goal)
    limited = limits(seen, ranks, left)
    lost = left - sum(part.fvu for part in limited)
    flat = min(seen.flattened, max(0.0, lost))
    falls = {
        name: max(0.0, seen.fvu((y - goal)[group]) - seen.fvu((repair.best - goal)[group]))
        for name, group in repair.groups.items()
    }
    beyond = _beyond(seen, repair, falls)
    falls = {name: fall - beyond[name] for name, fall in falls.items()}
    return (
        Part(
            NOISE,
            calmed + noise,
            "steps without it remove it, or the best readout under it is not that without",
        ),
        *limited,
        Part(
            "saturated hidden units",
            flat,
            f"{seen.units} hidden units have a slope below a tenth of their activation's on almost all data",
        ),
        Part(
            "lost in hidden layers",
            max(0.0, lost - flat),
            f"the best linear readout of the last of {seen.hidden} hidden layers does not recover it"
            if seen.hidden
            else "there is no hidden layer",
        ),
        Part("range", sum(beyond.values()), _reach_in_words(seen)),
        *_of_outputs(seen, repair, falls),
        *_of_live(seen, repair, slow, falls["live"]),
    )


def _without_noise(seen: View) -> tuple[View, float]:
    """Outputs less what noise in training makes of the best readout, as far as they have it, and the fall of the error."""
    if seen.shrunk is None:
        return seen, 0.0
    error, change = seen.test.y - seen.test.goal, seen.shrunk[1]
    power = float(change.square().sum())
    share = min(max(float((error * change).sum()) / power, 0.0), 1.0) if power > 0 else 0.0
    fall = seen.fvu(error) - seen.fvu(error - share * change)
    if fall <= 0:
        return seen, 0.0
    train, test = (
        replace(half, y=half.y - share * by)
        for half, by in zip((seen.train, seen.test), seen.shrunk, strict=True)
    )
    return replace(seen, train=train, test=test), fall


def _beyond(seen: View, repair: _Repair, falls: dict[str, float]) -> dict[str, float]:
    """FVU that no output in reach could do without, of each group's fall at most."""
    if seen.unreached or seen.reach is None:
        return dict.fromkeys(falls, 0.0) | {"live": min(falls["live"], seen.unreached)}
    goal = seen.test.goal
    missed = goal - goal.clamp(*seen.reach)
    return {name: min(fall, seen.fvu(missed[repair.groups[name]])) for name, fall in falls.items()}


def _reach_in_words(seen: View) -> str:
    if seen.unreached:
        return "its outputs depend on each other, as after a softmax or a layer norm, and none that it can give is nearer"
    if seen.reach is None:
        return "the output has no range of its own"
    low, high = (float(bound) for bound in (seen.reach[0].min(), seen.reach[1].max()))
    goal = seen.test.goal
    most = f"the output reaches from {low:.4g} to {high:.4g}, its target goes from {float(goal.min()):.4g}"
    return f"{most} to {float(goal.max()):.4g}"


def _of_outputs(seen: View, repair: _Repair, falls: dict[str, float]) -> tuple[Part, ...]:
    goal = seen.test.goal
    units, useless = int(seen.dead.sum()), int((seen.dead & (goal != 0).any(0)).sum())
    stuck_units = int(repair.groups["stuck at 0"].any(0).sum())
    flat = repair.groups["saturated outputs"]
    return (
        Part(
            "dead outputs",
            falls["dead outputs"],
            f"{units} output units are 0 on all data, {useless} of them where pixels are not",
        ),
        Part(
            "stuck at 0",
            falls["stuck at 0"],
            f"{stuck_units} units that are alive are 0 on some images whose pixel is not",
        ),
        Part(
            "saturated outputs",
            falls["saturated outputs"],
            f"{int(flat.any(0).sum())} output units are where their activation is flat, on {float(flat.double().mean()):.0%}"
            " of all",
        ),
    )


def _of_live(seen: View, repair: _Repair, slow: Tensor, live: float) -> tuple[Part, ...]:
    """Falls of the error where units are alive: its constant, its slow linear part, what the last layer could do."""
    train = seen.train
    on = (train.y != 0) | (train.goal == 0)
    entries = repair.groups["live"] & repair.taken
    excess = (train.y - train.read) * (on & repair.taken & ~(seen.dead & ~seen.bounded))
    fit = seen.data.regression.to(excess)
    error = (seen.test.y - seen.test.goal) * entries
    unbiased = error - fit[-1] * entries
    straight = unbiased - (seen.test.x @ (slow @ (slow.T @ fit[:-1]))) * entries
    bias = min(max(seen.fvu(error) - seen.fvu(unbiased), 0.0), live)
    along = min(max(seen.fvu(unbiased) - seen.fvu(straight), 0.0), live - bias)
    refitted = error - seen.refit(excess) * entries
    output = min(max(seen.fvu(error) - seen.fvu(refitted) - bias - along, 0.0), live - bias - along)
    columns, d = slow.shape[1], train.x.shape[1]
    return (
        Part("bias", bias, "a constant that is added to every output"),
        Part("slow directions", along, f"linear in {columns} of {d} eigenvectors, which learn slowest"),
        Part("output layer", output, "the last layer is not the best that could be made of what it is given"),
        Part("other", live - bias - along - output, "what has none of these names"),
    )
