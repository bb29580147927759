"""What a fault is: a deviation planted in one part of a stack, beside the same part written right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from identity_props.stack.stack import Stack
from identity_props.trainers.plain import Plain, trained
from identity_props.trainers.protocol import Fit


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


@dataclass(frozen=True, eq=False)
class TrainerTwin:
    """A clean training loop, written otherwise than Plain: it must raise no alarm.

    ``rules`` are those in use that it follows where they are not the first of their laws, as ``--accept`` names them.
    """

    name: str
    loop: type[Plain]
    rules: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What it does otherwise."""
        return str(self.loop.__doc__)

    @property
    def fit(self) -> Fit:
        """The trainer."""
        return partial(trained, self.loop)


@dataclass(frozen=True, eq=False)
class TrainerFault:
    """A planted deviation of a training loop: Plain, its clean twin, with a method written otherwise.

    ``source`` is where that was seen, as of a Fault, and ``equivalent`` the reason why nothing can see it.
    """

    name: str
    loop: type[Plain]
    source: str
    equivalent: str = ""

    @property
    def what(self) -> str:
        """What it does wrong."""
        return str(self.loop.__doc__)

    @property
    def fit(self) -> Fit:
        """The trainer with the fault in it."""
        return partial(trained, self.loop)


@dataclass(frozen=True, eq=False)
class LayerTwin:
    """A clean layer, whose kernels are written out as those with faults are: it must raise no alarm.

    ``shape`` is that of one example of its input, of ``kind`` float or tokens.
    """

    name: str
    layer: type[nn.Module]
    shape: tuple[int, ...]
    kind: str = "float"

    @property
    def what(self) -> str:
        """What it computes."""
        return str(self.layer.__doc__)


@dataclass(frozen=True, eq=False)
class LayerFault:
    """A planted deviation of a layer: its clean twin with a method written otherwise.

    ``law`` is the law of layers whose statement it breaks, and ``source`` where it was seen, as of a Fault.
    """

    name: str
    twin: LayerTwin
    layer: type[nn.Module]
    law: str
    source: str
    equivalent: str = ""

    @property
    def what(self) -> str:
        """What it does wrong."""
        return str(self.layer.__doc__)


DEEPCRIME = "DeepCrime (Humbatova, Jahangirova, Tonella 2021)"
