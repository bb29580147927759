"""Cells trained, a group at a time, and kept as they are finished."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from identity_props.atlas.axes import MATRICES_ALONE, NAMES, Cell, Grid, optimizer_of
from identity_props.atlas.store import VERSIONS, Atlas, Row, Settings, key, row
from identity_props.engine.together import most_together, train_together
from identity_props.engine.training import flushed_denormals
from identity_props.engine.trial import Recipe, Run, Trial
from identity_props.errors import InputError, MissingError
from identity_props.stack.alone import versions
from identity_props.stack.building import build_once
from identity_props.stack.crews import Crew, each
from identity_props.stack.guard import RAISED
from identity_props.stack.stack import Stack, resolve
from identity_props.task.data import Pixels
from identity_props.task.models import INITS, Variant

# processor seconds a weight, replica and step, measured at 49 pixels: the optimizer's, and a batch's for each example
OPTIMIZER, EXAMPLE, MATRICES = 8e-9, 1e-10, 8  # the last a factor of those that turn matrices


def trial_of(cell: Cell, settings: Settings) -> Trial:
    """What a cell trains; raises InputError for a value that is none."""
    optimizer, arguments = optimizer_of(cell.optimizer)
    width = None if cell.width == settings.side**2 else cell.width
    bias = optimizer not in MATRICES_ALONE
    variant = Variant(cell.variant, cell.depth, cell.scaling, width, bias)
    recipe = Recipe(optimizer, cell.lr, arguments, cell.schedule, cell.batch or None, cell.init)
    return Trial(variant, recipe, settings.steps)


@dataclass(frozen=True)
class Plan:
    """Grids of cells, and what they have in common."""

    grids: Sequence[Grid]
    settings: Settings

    @property
    def d(self) -> int:
        return self.settings.side**2

    def count(self) -> int:
        """Cells, those of two grids twice."""
        return sum(grid.count(self.d) for grid in self.grids)

    def check(self) -> None:
        """Raise InputError for a value that is none, or where no cell is a network."""
        for grid in self.grids:
            for optimizer in grid.values["optimizer"]:
                _buildable(optimizer)
            for name, values in grid.values.items():
                for value in values if name != "lr" else {min(values), max(values)}:
                    self._check(name, value)
        if not self.count():
            raise InputError(
                "axes: expected cells that are networks, got none: residual ones have --width at the pixels"
            )

    def _check(self, name: str, value: Any) -> None:
        if name in ("width", "batch") and value < (name == "width"):
            raise InputError(f"{name}: expected a count, got {value}")
        if name == "init" and value not in INITS:
            raise InputError(f"init: expected one of {', '.join(INITS)}, got {value!r}")
        usual = Cell("linear", 1, self.d, "standardise", "SGD", 1, "glorot", "constant", 1.0)
        trial_of(replace(usual, **{name: value}), self.settings)

    def seconds(self, examples: int) -> float:
        """Processor seconds that it takes, within a factor of three."""
        return sum(_seconds(grid, self.settings, examples) for grid in self.grids)

    def groups(self, done: NDArray[np.uint64]) -> Iterator[list[Cell]]:
        """Cells that are left, those together that train together; none of them is held."""
        for at, grid in enumerate(self.grids):
            for line in grid.lines(self.d):
                left = [cell for cell in line if self._is_left(cell, self.grids[:at], done)]
                if left:
                    size = most_together(trial_of(left[0], self.settings), self.d, self.settings.replicas)
                    yield from (left[k : k + size] for k in range(0, len(left), size))

    def _is_left(self, cell: Cell, before: Sequence[Grid], done: NDArray[np.uint64]) -> bool:
        if any(all(getattr(cell, name) in grid.values[name] for name in NAMES) for grid in before):
            return False
        found = np.uint64(key(cell, self.settings))
        at = int(np.searchsorted(done, found))
        return at == len(done) or done[at] != found


def _buildable(text: str) -> None:
    """Raise InputError where there is no such optimizer, or none with such arguments."""
    name, arguments = optimizer_of(text)
    try:
        build_once(Stack(optimizer=resolve(name), arguments=dict(arguments), lr=1.0))
    except MissingError as error:
        raise InputError(str(error)) from error


def _seconds(grid: Grid, settings: Settings, examples: int) -> float:
    values, d = grid.values, settings.side**2
    one_each = {name: values[name][:1] for name in ("optimizer", "batch", "init")}
    shapes = Grid({**values, **one_each}).shapes(d)
    weights = sum(Variant("linear", shape[1], "none", shape[2]).numbers(d) for shape in shapes)
    dear = [MATRICES if optimizer_of(one)[0] in MATRICES_ALONE else 1 for one in values["optimizer"]]
    steps = sum(OPTIMIZER + EXAMPLE * (batch or examples) for batch in values["batch"])
    inner = math.prod(len(values[name]) for name in ("schedule", "lr", "init"))
    return inner * weights * sum(dear) * steps * settings.steps * settings.replicas


# Exploring ------------------------------------------------------------------------------------------


def explore(plan: Plan, atlas: Atlas, crew: Crew, done: NDArray[np.uint64]) -> Iterator[int]:
    """Train what is left and keep it; how many cells were finished, as they come.

    None of what was finished is remembered, so memory does not grow with cells.
    """
    groups = ((group, plan.settings) for group in plan.groups(done))
    for _, rows in each(crew, explored, groups):
        atlas.add(rows)
        yield len(rows)


@flushed_denormals(helpers=True)
def explored(pixels: Pixels, cells: Sequence[Cell], settings: Settings) -> list[Row]:
    """Rows of cells that differ in rate and schedule alone, trained here."""
    trials = [trial_of(cell, settings) for cell in cells]
    seeds = range(settings.seed, settings.seed + settings.replicas)
    try:
        runs = train_together(trials, pixels, seeds)
    except RAISED as error:
        raise InputError(f"{cells[0]}: training raised {type(error).__name__}: {error}") from error
    made = {**{name: versions()[name] for name in VERSIONS}, "threads": torch.get_num_threads()}
    return [row(cell, settings, _found(run), made) for cell, run in zip(cells, runs, strict=True)]


def _found(run: Run) -> dict[str, Any]:
    reached = run.steps_to_identity
    medians = run.fvu.nan_to_num(torch.inf, torch.inf).sort(0).values[len(run.seeds) // 2]
    return {
        "fvu": run.fvu_pixels.tolist(),
        "reached": torch.where(reached.isfinite(), reached, -1).int().tolist(),
        "measured": [*run.steps],
        "curve": medians.tolist(),
        "seconds": run.seconds,
    }
