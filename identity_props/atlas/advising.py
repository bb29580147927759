"""Advice off an atlas: how what is asked ends, and the fewest knobs to turn to cells that learn.

Needs no torch, so that it comes at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from identity_props.atlas.axes import NAMES, Cell
from identity_props.atlas.reading import NEAR, STATES, Seen, opened, shown
from identity_props.errors import InputError, MissingError

AGREES = 1.5  # a factor; rates nearer than this are the same knob
SETTINGS = ("data", "side", "steps")


def of_one(cells: Sequence[Seen], wanted: Mapping[str, Any]) -> list[Seen]:
    """Cells of one data set and budget, those wanted; raises InputError where there are none, or several to choose from."""
    left = [*cells]
    for name in SETTINGS:
        values = sorted({getattr(one, name) for one in left})
        value = wanted.get(name, values[0] if len(values) == 1 else None)
        if value not in values:
            raise InputError(
                f"{name}: expected one of the atlas, {', '.join(map(str, values))}, got {'none' if value is None else value}"
            )
        left = [one for one in left if getattr(one, name) == value]
    return left


@dataclass(frozen=True)
class Way:
    """A cell that learns, the knobs to turn to get there, and those that were not asked for, as they are there."""

    to: Seen
    turned: Mapping[str, Any]
    beside: Mapping[str, Any]

    def __str__(self) -> str:
        return listed(self.turned)


@dataclass(frozen=True)
class Advice:
    """What was asked, the cells that are so, the nearest one, its other knobs, and the ways to cells that learn."""

    asked: Mapping[str, Any]
    agreeing: Sequence[Seen]
    nearest: Seen
    beside: Mapping[str, Any]
    ways: Sequence[Way]

    @property
    def ends(self) -> dict[str, int]:
        """Agreeing cells by how they ended."""
        states = [one.state for one in self.agreeing]
        return {state: states.count(state) for state in STATES}


def advised(cells: Sequence[Seen], asked: Mapping[str, Any], most: int = 6) -> Advice:
    """What cells of one data set and budget say of what is asked; raises InputError for what none of them has."""
    known(cells, asked)
    at = nearest(cells, asked)
    beside = of(at.cell, unasked(cells, asked))
    return Advice(asked, agreeing(cells, asked), at, beside, ways(cells, asked, most))


def listed(knobs: Mapping[str, Any]) -> str:
    """Knobs with their values as text."""
    return ", ".join(f"{axis} {shown(value)}" for axis, value in knobs.items())


def known(cells: Sequence[Seen], asked: Mapping[str, Any]) -> None:
    """Raise InputError for what no cell has, but a depth or a rate, of which there are nearest ones."""
    for axis, value in asked.items():
        values = {getattr(one.cell, axis) for one in cells}
        if axis == "lr" and not 0 < value < math.inf:
            raise InputError(f"lr: expected a finite rate above 0, got {value}")
        if axis not in ("lr", "depth") and value not in values:
            raise InputError(
                f"{axis}: expected one of the atlas, {', '.join(sorted(map(shown, values)))}, got {shown(value)}"
            )


def agreeing(cells: Sequence[Seen], asked: Mapping[str, Any]) -> list[Seen]:
    """Cells that are as asked; of their rates, the nearest."""
    found = [one for one in cells if not _turns_to(one.cell, asked)]
    near = min((_apart(one.cell, asked) for one in found), default=0.0)
    return [one for one in found if _apart(one.cell, asked) <= near + 1e-9]


def nearest(cells: Sequence[Seen], asked: Mapping[str, Any]) -> Seen:
    """The cell that agrees with what is asked on most axes, the nearest depth and rate among those."""
    return min(cells, key=lambda one: (_differing(one.cell, asked), _apart(one.cell, asked)))


def _differing(cell: Cell, asked: Mapping[str, Any]) -> int:
    return sum(getattr(cell, axis) != value for axis, value in asked.items() if axis != "lr")


def _apart(cell: Cell, asked: Mapping[str, Any]) -> float:
    """Distance in depth, then in the logarithm of the rate."""
    depth = 100.0 * abs(cell.depth - asked.get("depth", cell.depth))
    return depth + abs(math.log(cell.lr / asked.get("lr", cell.lr)))


def ways(cells: Sequence[Seen], asked: Mapping[str, Any], most: int = 6) -> list[Way]:
    """Ways to cells that learn: fewest knobs first, then how sure, then the rate that is nearest.

    A way that turns all that an earlier one does, and perhaps more, is left out, unless it is surer.
    """
    free = unasked(cells, asked)
    found = [Way(one, _turns_to(one.cell, asked), of(one.cell, free)) for one in cells if one.state == NEAR]
    found.sort(key=lambda way: (len(way.turned), -way.to.sure, _apart(way.to.cell, asked), way.to.when))
    kept: list[Way] = []
    for way in found:
        if not any(_less(one.turned, way.turned) and one.to.sure >= way.to.sure for one in kept):
            kept.append(way)
    return kept[:most]


def unasked(cells: Sequence[Seen], asked: Mapping[str, Any]) -> list[str]:
    """Knobs of which the cells have several values and nothing was asked."""
    return [
        axis for axis in NAMES if axis not in asked and len({getattr(one.cell, axis) for one in cells}) > 1
    ]


def of(cell: Cell, axes: Iterable[str]) -> dict[str, Any]:
    """Knobs of a cell by name."""
    return {axis: getattr(cell, axis) for axis in axes}


def _less(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one turns no other knobs than the other, and to the same values; any rate is as good as another."""
    return all(axis in other and (axis == "lr" or other[axis] == value) for axis, value in one.items())


def _turns_to(cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
    turned = {
        axis: getattr(cell, axis) for axis in asked if axis != "lr" and getattr(cell, axis) != asked[axis]
    }
    if "lr" in asked and not 1 / AGREES <= cell.lr / asked["lr"] <= AGREES:
        turned["lr"] = cell.lr
    return turned


def hint(asked: Mapping[str, Any]) -> str:
    """The first way off the question's corner in a line; empty where that is not at hand or says nothing."""
    try:
        cells = opened()
        known(cells, asked)
    except (InputError, MissingError):
        return ""
    at, found = nearest(cells, asked), [way for way in ways(cells, asked) if way.turned]
    if at.state == NEAR or not found:
        return ""
    end = found[0].to
    told = f"{end.learned} of {len(end.fvu)} networks of the nearest cell that learns do, which is {found[0]}"
    return f"atlas of {end.steps:,} steps in batches of {end.cell.batch}: {told}"
