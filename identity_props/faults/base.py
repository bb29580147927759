"""What a fault is: a deviation planted in one part of a stack, beside the same part written right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from identity_props.stack.stack import Stack


@dataclass(frozen=True, eq=False)
class Twin:
    """A clean part, written as the faulty ones are: it must raise no alarm.

    ``optimizer`` is the one of torch that its optimizer is to equal, as in a recipe; None for a part
    of another kind. ``axis``, one of laws.AXES, limits it to the laws of where it runs.
    """

    name: str
    stack: Stack
    optimizer: str | None = None
    axis: str | None = None


@dataclass(frozen=True, eq=False)
class Fault:
    """A planted deviation: the twin's stack with the parts in ``parts`` put in its place.

    ``what`` is what it does wrong and ``source`` where that was seen: a public report, repository#number,
    or the paper that lists it as a mutation. ``equivalent`` is the reason why nothing can see it.
    """

    name: str
    twin: Twin
    what: str
    source: str
    parts: Mapping[str, Any] = field(repr=False)
    equivalent: str = ""

    @property
    def stack(self) -> Stack:
        """The stack with the fault in it."""
        return replace(self.twin.stack, **self.parts)


DEEPCRIME = "DeepCrime (Humbatova, Jahangirova, Tonella 2021)"
