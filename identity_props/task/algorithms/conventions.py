"""What papers leave open, how decay enters and what t counts, and how any algorithm is got wrong there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from identity_props.task.algorithms.base import Arguments, Cell, Step

Way = Callable[[Step], Step]  # a step made into another
Count = Callable[[Sequence[Cell], Cell, int], int]
UNDECAYED = {"weight_decay": 0.0}
LONG_AGO = 10**6  # steps, after which no correction of an average that began at 0 is left


def idle_decay(step: Step) -> Step:
    """Parameters without gradient shrink as well: w (1 - lr wd)."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            if cell.g is None:
                cell.w = cell.w * (1 - arguments["lr"] * arguments["weight_decay"])
        step(cells, arguments)

    return decayed


def given(step: Step, **values: Any) -> Step:
    """The step with these arguments, whatever it is given."""
    return lambda cells, arguments: step(cells, {**arguments, **values})


def active(cells: Sequence[Cell]) -> list[Cell]:
    """Those with a gradient."""
    return [cell for cell in cells if cell.g is not None]


def of_any(step: Step) -> Step:
    """No step where nothing has a gradient, of those that measure all together."""

    def stepped(cells: Sequence[Cell], arguments: Arguments) -> None:
        if active(cells):
            step(cells, arguments)

    return stepped


# Decay --------------------------------------------------------------------------------------------


def coupled(step: Step, sign: float = 1.0) -> Step:
    """The gradient of wd |w|^2 / 2 is added: g + wd w."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            if cell.g is not None and arguments["weight_decay"]:
                cell.g = cell.g + sign * arguments["weight_decay"] * cell.w
        step(cells, {**arguments, **UNDECAYED})

    return decayed


def decoupled(step: Step, sign: float = 1.0) -> Step:
    """Weights shrink beside the step: w (1 - lr wd). Loshchilov, Hutter 2019."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            cell.w = cell.w * (1 - sign * arguments["lr"] * arguments["weight_decay"])
        step(cells, {**arguments, **UNDECAYED})

    return decayed


def constant_decay(step: Step) -> Step:
    """Weights shrink by wd, whatever the rate: w (1 - wd), as Loshchilov's with a schedule multiplier of 1."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            cell.w = cell.w * (1 - arguments["weight_decay"])
        step(cells, {**arguments, **UNDECAYED})

    return decayed


def squared_rate_decay(step: Step) -> Step:
    """Weights shrink by the rate twice: w (1 - lr^2 wd)."""
    return lambda cells, a: decoupled(step)(cells, {**a, "weight_decay": a["lr"] * a["weight_decay"]})


def proximal(step: Step) -> Step:
    """Weights shrink after the step: w / (1 + lr wd)."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        step(cells, {**arguments, **UNDECAYED})
        for cell in active(cells):
            cell.w = cell.w / (1 + arguments["lr"] * arguments["weight_decay"])

    return decayed


def decayed_after(step: Step) -> Step:
    """Weights that the step has moved shrink: (w - lr u) (1 - lr wd), as in the AdamW that transformers had."""

    def decayed(cells: Sequence[Cell], arguments: Arguments) -> None:
        step(cells, {**arguments, **UNDECAYED})
        for cell in active(cells):
            cell.w = cell.w * (1 - arguments["lr"] * arguments["weight_decay"])

    return decayed


# What t counts ------------------------------------------------------------------------------------


def counted(step: Step, count: Count) -> Step:
    """A step in which t is what count(cells, cell, its place among the active) says, before the step adds 1."""

    def recounted(cells: Sequence[Cell], arguments: Arguments) -> None:
        moving = active(cells)
        if not moving:
            return
        for cell, t in zip(
            moving, [count(cells, cell, place) for place, cell in enumerate(moving)], strict=True
        ):
            cell.memory["t"] = t
        step(cells, arguments)
        for cell in cells:
            cell.memory["passed"] = cell.memory.get("passed", 0) + 1
            cell.memory["own"] = _own(cell) + (cell.g is not None)
            cell.memory["led"] = cell.memory.get("led", 0) + (cell is moving[-1])

    return recounted


def _own(cell: Cell) -> int:
    """Updates of the parameter itself."""
    return int(cell.memory.get("own", 0))


def by_group(cells: Sequence[Cell], cell: Cell, place: int) -> int:
    """T counts the steps of the group, as in a paper whose parameter is one vector."""
    return int(cell.memory.get("passed", 0))


def by_parameter(cells: Sequence[Cell], cell: Cell, place: int) -> int:
    """One counter of the group advances at each parameter."""
    return sum(map(_own, cells)) + place


def by_parameter_with_state(cells: Sequence[Cell], cell: Cell, place: int) -> int:
    """The same, but a parameter's first step is its first."""
    return by_parameter(cells, cell, place) if _own(cell) else 0


def by_last(cells: Sequence[Cell], cell: Cell, place: int) -> int:
    """The counter of the last parameter with a gradient serves all that moved before."""
    return int(active(cells)[-1].memory.get("t", 0)) if _own(cell) else 0


def by_leading(cells: Sequence[Cell], cell: Cell, place: int) -> int:
    """It serves the group, and it alone advances."""
    return int(active(cells)[-1].memory.get("led", 0))


def paced(start: int, stride: int) -> Count:
    """T is start, start + stride, start + 2 stride, ..."""
    return lambda cells, cell, place: start - 1 + stride * _own(cell)


# Steps --------------------------------------------------------------------------------------------


def ascending(step: Step) -> Step:
    """The gradient with the other sign."""

    def turned(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            cell.g = -cell.g if cell.g is not None else None
        step(cells, arguments)

    return turned


def twice(step: Step) -> Step:
    """Two updates with each gradient."""

    def doubled(cells: Sequence[Cell], arguments: Arguments) -> None:
        before = [cell.g for cell in cells]
        step(cells, arguments)
        for cell, g in zip(cells, before, strict=True):
            cell.g = g
        step(cells, arguments)

    return doubled


def stale(step: Step) -> Step:
    """Each step takes the gradient of the one before, the first its own."""

    def late(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            cell.g, cell.memory["late"] = cell.memory.get("late", cell.g), cell.g
        step(cells, arguments)

    return late


def never_again(step: Step) -> Step:
    """A parameter once without gradient is left out from then on."""

    def stepped(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            if cell.g is None:
                cell.memory["gone"] = True
            elif cell.memory.get("gone"):
                cell.g = None
        step(cells, arguments)

    return stepped


def first_alone(step: Step) -> Step:
    """Only what had a gradient at the first step moves."""

    def stepped(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            seen = cell.memory.setdefault("seen", cell.g is not None)
            cell.g = cell.g if seen else None
        step(cells, arguments)

    return stepped


def revived(step: Step) -> Step:
    """Where a gradient is 0, 1e-6 is taken."""

    def stepped(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            if cell.g is not None:
                cell.g = torch.where(cell.g == 0, 1e-6, cell.g)
        step(cells, arguments)

    return stepped


def masked(step: Step) -> Step:
    """Entries whose first gradient is 0 are left out from then on."""

    def stepped(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in active(cells):
            if cell.g is not None:
                cell.g = cell.g * cell.memory.setdefault("mask", cell.g != 0)
        step(cells, arguments)

    return stepped


def zeros_for_none(step: Step) -> Step:
    """A missing gradient is one of 0, as where gradients are functions' values."""

    def filled(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            cell.g = cell.w.new_zeros(cell.w.shape) if cell.g is None else cell.g
        step(cells, arguments)

    return filled


DECAYS: Mapping[str, Way] = {
    "coupled decay": coupled,
    "decoupled decay": decoupled,
    "decoupled decay, not times the rate": constant_decay,
    "proximal decay": proximal,
    "decoupled decay, of the weights that the step has moved": decayed_after,
}
COUNTERS: Mapping[str, Way] = {
    "t counts the steps of the group": partial(counted, count=by_group),
    "a missing gradient is 0": zeros_for_none,
}
IGNORED = "decay were ignored"
DECAY_SLIPS: Mapping[str, Way] = {
    "coupled decay had the other sign": partial(coupled, sign=-1.0),
    "decoupled decay had the other sign": partial(decoupled, sign=-1.0),
    "decoupled decay were times the square of the rate": squared_rate_decay,
    IGNORED: partial(given, weight_decay=0.0),
}
COUNTER_SLIPS: Mapping[str, Way] = {
    "one step counter advanced at each parameter": partial(counted, count=by_parameter),
    "one step counter advanced at each parameter, after its first step": partial(
        counted, count=by_parameter_with_state
    ),
    "the counter of the last parameter with a gradient served the group": partial(counted, count=by_last),
    "the counter of the last parameter with a gradient served the group, and it alone advanced": partial(
        counted, count=by_leading
    ),
}
IDLE_SLIPS: Mapping[str, Way] = {
    "a parameter once without gradient never moved again": never_again,
    "only what had a gradient at the first step ever moved": first_alone,
}
STEP_SLIPS: Mapping[str, Way] = {
    "the gradient had the other sign": ascending,
    "1e-6 were taken where a gradient is 0": revived,
    "entries whose first gradient was 0 never moved": masked,
    "each step updated twice": twice,
    "each step took the gradient of the one before": stale,
    "averages were not corrected for their start at 0": partial(counted, count=paced(LONG_AGO, 0)),
    "the correction of averages stayed that of the first step": partial(counted, count=paced(1, 0)),
    "the step counter advanced by two": partial(counted, count=paced(1, 2)),
    "the step counter began at two, by two": partial(counted, count=paced(2, 2)),
    "the step counter was one ahead": partial(counted, count=paced(2, 1)),
}
