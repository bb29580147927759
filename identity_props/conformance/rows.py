"""What a check says, row by row, and what a part may be declared to be like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.claims.verdict import Curves
from identity_props.errors import InputError
from identity_props.laws import Discrepancy
from identity_props.stack.loop import take_step
from identity_props.stack.stack import Stack, arguments_of, resolve

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"


@dataclass(frozen=True)
class Row:
    """One law, claim or comparison: its verdict, what was measured, what is allowed, and why.

    ``lr``, ``steps`` and ``curves`` are those of learning: the rate, the median first step near-identity, and
    the FVU of every replica on the way.
    """

    name: str
    verdict: str
    measured: float | None = None
    allowed: float | None = None
    kind: str = ""
    note: str = ""
    lr: float | None = None
    steps: float | None = None
    curves: Curves | None = field(default=None, repr=False)

    def __str__(self) -> str:
        figures = "" if self.measured is None else f"measured {self.measured:.3g}, allowed {self.allowed:.3g}"
        return ": ".join(filter(None, (f"{self.name} {self.verdict}", self.kind, figures, self.note)))


Plan = Iterable[tuple[str, Callable[[], Row]]]  # the rows by name, each with what measures it


def judged(name: str, found: Discrepancy, kind: str) -> Row:
    """The row of what was found; it is of that kind if it fails."""
    verdict, kind = (PASS, "") if found.holds else (FAIL, kind)
    return Row(name, verdict, found.measured, found.tolerance, kind, found.what)


@dataclass(frozen=True)
class Reference:
    """What parts are declared to be like: an optimizer with its arguments, a linear layer, loss, step or batches.

    ``clip`` is the norm at which the step promises to clip the gradient, and ``tolerance`` the relative distance
    that a part is allowed which rounds on purpose. Raises InputError for one that is no such number.
    """

    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    arguments: Mapping[str, Any] | None = None
    linear: Callable[..., nn.Module] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    step: Callable[[torch.optim.Optimizer, Callable[[], Tensor]], None] | None = None
    batches: Callable[[Tensor, int | None, list[torch.Generator]], Iterator[Tensor]] | None = None
    clip: float | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"clip: expected a finite norm above 0, got {self.clip}")
        if not 0 <= self.tolerance < 1:
            raise InputError(f"like tolerance: expected 0 or more and below 1, got {self.tolerance}")

    @property
    def parts(self) -> dict[str, Any]:
        """The parts of a stack that are declared, by name."""
        return {name: part for name in LIKE if (part := getattr(self, name)) is not None}


LIKE = ("optimizer", "linear", "loss", "step", "batches")


def reference_of(
    stack: Stack,
    optimizer: str | None = None,
    arguments: Sequence[str] = (),
    linear: str | None = None,
    loss: str | None = None,
    step: str | None = None,
    batches: str | None = None,
    clip: float | None = None,
    tolerance: float = 0.0,
) -> Reference:
    """A reference from what a command line says; raises InputError for one with nothing to compare."""
    if optimizer is not None and stack.optimizer is None:
        raise InputError(f"like: expected an optimizer to compare with {optimizer}, got none")
    if arguments and optimizer is None:
        raise InputError("like arguments: expected an optimizer that takes them, got none")
    if clip is not None and stack.step is take_step:
        raise InputError(f"clip: expected a step that clips at {clip:g}, got none")
    named = {"optimizer": optimizer, "linear": linear, "loss": loss, "step": step, "batches": batches}
    parts = {part: resolve(name) for part, name in named.items() if name is not None}
    return Reference(arguments=arguments_of(arguments), clip=clip, tolerance=tolerance, **parts)


def declared(stack: Stack, like: Reference) -> Stack:
    """The stack with its parts replaced by what they are declared to be like.

    An optimizer that rounds on purpose is judged by what it is found to be.
    """
    parts = like.parts
    if like.tolerance:
        parts.pop("optimizer", None)
    if "optimizer" in parts:
        parts["arguments"] = like.arguments or {}
    return replace(stack, **parts)
