"""What a published algorithm is: a recurrence in float64 over the parameters of a group, from its paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from identity_props.errors import InputError

Arguments = Mapping[str, Any]


@dataclass(eq=False)
class Cell:
    """A parameter [...] in float64, its gradient at this step, None where it has none, and its memory."""

    w: Tensor
    g: Tensor | None = None
    memory: dict[str, Any] = field(default_factory=dict)


Step = Callable[[Sequence[Cell], Arguments], None]  # moves each cell's w, in place or anew
Memory = dict[str, Any]
Update = Callable[[Tensor, Tensor, Memory, Arguments], Tensor]


@dataclass(frozen=True, eq=False)
class Algorithm:
    """A published optimizer: its paper, equation, arguments with defaults, and one step on a group's cells.

    Arguments are called as torch.optim calls them: lr, betas, eps, weight_decay, momentum. ``shown`` gives the
    weights that the paper evaluates where they are not those that it trains, as an average. ``variants`` are what
    well-known packages make of it on purpose, by name, and ``slips`` known deviations, each a step of its own.
    ``rounding`` is the relative distance of a step that the paper's own lower precision may make, and ``whole``
    says that a step measures the parameters of all groups at once.
    """

    name: str
    title: str
    paper: str
    equation: str
    defaults: Arguments
    step: Step = field(repr=False)
    shown: Callable[[Cell, Arguments], Tensor] | None = field(default=None, repr=False)
    slips: Mapping[str, Step] = field(default_factory=dict, repr=False)
    variants: Mapping[str, Step] = field(default_factory=dict, repr=False)
    rounding: float = 0.0
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.title} ({self.paper})"


def each(update: Update) -> Step:
    """A step that treats each parameter by itself: update(w, g, memory, arguments) gives the new w.

    memory["t"] counts the parameter's own updates from 1; one without gradient stays as it is.
    """

    def step(cells: Sequence[Cell], arguments: Arguments) -> None:
        for cell in cells:
            if cell.g is not None:
                cell.memory["t"] = cell.memory.get("t", 0) + 1
                cell.w = update(cell.w, cell.g, cell.memory, arguments)

    return step


def running(memory: Memory, name: str, value: Tensor, beta: float) -> Tensor:
    """The running mean beta m + (1 - beta) value under that name, from 0 on."""
    memory[name] = beta * memory.get(name, 0.0) + (1 - beta) * value
    found: Tensor = memory[name]
    return found


def down(w: Tensor, step: Tensor) -> Tensor:
    """The weight after a step that its rate is in, w - step."""
    return w - step


def moved(w: Tensor, update: Tensor, a: Arguments) -> Tensor:
    """The weight after a step against the update, w - lr update."""
    return w - update * float(a["lr"])


def registry(*rooms: Sequence[Algorithm]) -> dict[str, Algorithm]:
    """Algorithms by name; raises InputError for a name that is there twice."""
    found: dict[str, Algorithm] = {}
    for one in (one for room in rooms for one in room):
        if one.name in found:
            raise InputError(f"algorithm {one.name}: expected a new name")
        found[one.name] = one
    return found
