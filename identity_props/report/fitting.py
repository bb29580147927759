"""Tables that lose whole columns where the terminal is narrow, rather than the ends of their figures."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDE = 1000  # columns that hold any table


@dataclass(frozen=True)
class Fitted:
    """A table without as many of the headings in ``drop``, from the first, as it takes to show the others whole."""

    grid: Table
    drop: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for dropped in range(len(self.drop) + 1):
            fitted = _without(self.grid, self.drop[:dropped])
            needed = Measurement.get(console, options.update(max_width=WIDE), fitted).minimum
            if needed <= options.max_width:
                break
        yield fitted


def _without(grid: Table, headings: Sequence[str]) -> Table:
    """The table without some columns, which its caption names."""
    left = copy(grid)
    kept = [column for column in grid.columns if str(column.header) not in headings]
    left.columns = [replace(column, _index=k) for k, column in enumerate(kept)]  # the last has no padding
    named = ", ".join(filter(None, headings))
    if named:
        left.caption = Text(f"{grid.caption or ''}\nMore columns in a wider terminal: {named}.".strip())
    return left
