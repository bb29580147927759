"""What a law reads off a training: how far it is from the nearest of its rules, and from the right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from identity_props.laws import Discrepancy


@dataclass(frozen=True)
class Reading:
    """How far a trainer is from the nearest rule of a law, which rule that is, and what its ledger says.

    ``rule`` is empty where none is near; ``off`` is how far it is from the right one, where that is another.
    """

    found: Discrepancy
    rule: str = ""
    words: str = ""
    off: float | None = None


def read(offs: Mapping[str, float], near: float, what: str, words: str = "") -> Reading:
    """Of distances from rules, the first being right: the first that is near, else the right one."""
    right, *_ = offs.values()
    for rule, off in offs.items():
        if off <= near:
            return Reading(Discrepancy(off, near, what), rule, words, right)
    return Reading(Discrepancy(right, near, what), words=words)


def first_wrong(found: Iterable[Reading], rules: Sequence[str] = ("",)) -> Reading:
    """The first that follows none of the rules in use, else the first that follows not the right one, else the last."""
    *_, last = readings = [*found]
    faults = [one for one in readings if not one.found.holds or one.rule not in rules]
    others = [one for one in readings if one.rule != rules[0]]
    return [*faults, *others, last][0]
