"""An atlas, read: how each cell ended, which knob decides, and the nearest cells that learn.

Needs no torch, so that advice comes at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from identity_props.atlas.axes import NAMES, Cell
from identity_props.atlas.store import Atlas, Row
from identity_props.errors import InputError
from identity_props.task.metrics import FAILED as FAILED_FROM
from identity_props.task.metrics import NEAR_IDENTITY

QUESTION = Path(__file__).parent / "question.parquet"  # the question's corner, which comes with the package
NEAR, BETWEEN, FAILED, DIVERGED = "near-identity", "between", "failed", "diverged"
STATES = (NEAR, BETWEEN, FAILED, DIVERGED)
LOST = 100.0  # FVU, ten times the error of predicting the mean: it diverges, whether or not it has overflowed yet


@dataclass(frozen=True)
class Seen:
    """A cell, its budget and data, and how its replicas ended: FVU in grey levels, sorted, what is no number last."""

    cell: Cell
    steps: int
    fvu: tuple[float, ...]
    reached: tuple[int, ...]
    data: str = "digits"
    side: int = 7

    @cached_property
    def median(self) -> float:
        return self.fvu[len(self.fvu) // 2]

    @property
    def state(self) -> str:
        """That of the median replica, so that at least half did no better."""
        if self.median <= NEAR_IDENTITY:
            return NEAR
        if self.median < FAILED_FROM:
            return BETWEEN
        return FAILED if self.median < LOST else DIVERGED

    @property
    def learned(self) -> int:
        """Replicas that ended near-identity."""
        return sum(value <= NEAR_IDENTITY for value in self.fvu)

    @property
    def sure(self) -> float:
        """Share of all seeds that learn, at least, with 95% (Clopper, Pearson 1934)."""
        from scipy.special import betaincinv

        n, k = len(self.fvu), self.learned
        return float(betaincinv(k, n - k + 1, 0.05)) if k else 0.0

    @property
    def when(self) -> float:
        """Step at which the median replica was first seen near-identity, infinite where it never was."""
        ordered = sorted(step if step >= 0 else math.inf for step in self.reached)
        return ordered[len(ordered) // 2]


def seen(rows: Iterable[Row]) -> Iterator[Seen]:
    """Rows of an atlas, of one data set and budget or of several."""
    for row in rows:
        fvu = sorted(math.inf if math.isnan(value) else value for value in row["fvu"])
        cell, ends = Cell(*(row[name] for name in NAMES)), (tuple(fvu), tuple(row["reached"]))
        yield Seen(cell, row["steps"], *ends, row["data"], row["side"])


def opened(path: Path | None = None) -> list[Seen]:
    """Cells of an atlas, that of the question's corner by default; raises InputError where there are none."""
    found = [*seen(Atlas(path or QUESTION).unique())]
    if not found:
        raise InputError(f"{path}: expected an atlas that has cells, got none")
    return found


# What decides ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """One knob turned to one value, and nothing else: what becomes of the cells that have such a neighbour.

    ``moved`` of ``failed`` cells, diverged ones among them, become near-identity; ``broken`` of the ``learned``
    become failed.
    """

    axis: str
    value: Any
    moved: int
    failed: int
    broken: int
    learned: int

    def __str__(self) -> str:
        return f"{self.axis} {shown(self.value)}"


def shown(value: Any) -> str:
    """A value of an axis as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def turns(cells: Sequence[Seen]) -> list[Turn]:
    """Every value of every axis that has two or more, what moves most first."""
    at: dict[tuple[int, Cell], Seen] = {(one.steps, one.cell): one for one in cells}
    found: list[Turn] = []
    for axis in NAMES:
        values = sorted({getattr(one.cell, axis) for one in cells})
        found += [_turned(axis, value, cells, at) for value in values if len(values) > 1]
    return sorted(found, key=lambda turn: (-turn.moved, turn.failed))


def _turned(axis: str, value: Any, cells: Sequence[Seen], at: Mapping[tuple[int, Cell], Seen]) -> Turn:
    pairs = [
        (one.state, at[there].state)
        for one in cells
        if getattr(one.cell, axis) != value
        and (there := (one.steps, replace(one.cell, **{axis: value}))) in at
    ]
    bad = (FAILED, DIVERGED)
    ends = (
        [after for before, after in pairs if before in bad],
        [after for before, after in pairs if before == NEAR],
    )
    return Turn(
        axis, value, ends[0].count(NEAR), len(ends[0]), sum(after in bad for after in ends[1]), len(ends[1])
    )


def free(cells: Sequence[Seen]) -> dict[str, tuple[int, int]]:
    """By axis: failed cells that some other value of it alone makes near-identity, and failed cells in all."""
    near = {(one.steps, one.cell) for one in cells if one.state == NEAR}
    bad = [(one.steps, one.cell) for one in cells if one.state in (FAILED, DIVERGED)]
    found = {}
    for axis in NAMES:
        values = {getattr(one.cell, axis) for one in cells}
        if len(values) > 1:
            found[axis] = (
                sum(any((steps, replace(cell, **{axis: v})) in near for v in values) for steps, cell in bad),
                len(bad),
            )
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def decides(cells: Sequence[Seen]) -> str:
    """A paragraph of counts: how the cells ended, and which knob moves most of those that failed."""
    ends = [one.state for one in cells]
    counted = ", ".join(f"{ends.count(state):,} {state}" for state in STATES)
    told = f"Of {len(cells):,} cells, by their median network, end: {counted}."
    best, by_axis = turns(cells), free(cells)
    if not best or not best[0].moved:
        return f"{told} No knob that is turned alone makes a failed cell near-identity."
    first, second = best[0], next((turn for turn in best if turn.axis != best[0].axis and turn.moved), None)
    told += (
        f" The single turn that moves most of the failed to near-identity is {first}: {first.moved:,} of the"
        f" {first.failed:,} failed cells that have such a neighbour, while it breaks {first.broken:,} of {first.learned:,}"
        " that learn."
    )
    if second is not None:
        told += f" Next of the other knobs is {second}: {second.moved:,} of {second.failed:,}, and {second.broken:,} of {second.learned:,} broken."
    freely = ", ".join(f"{axis} {moved:,}" for axis, (moved, _) in by_axis.items())
    return f"{told} Turned to whatever value is best, one knob alone moves of {next(iter(by_axis.values()))[1]:,} failed cells: {freely}."
