"""What a check says, row by row, and what a part may be declared to be like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from identity_props.claims.verdict import Curves
from identity_props.errors import InputError
from identity_props.stack.stack import Stack, arguments_of, resolve

PASS, FAIL, NOT_APPLICABLE, NOT_RUN = "pass", "fail", "not applicable", "not run"
HANGS, EXITS, CRASHES = COSTLY = "hangs", "exits", "crashes"  # failures that cost a guard, or a process
ENOUGH = 3  # rows that fail so; the rest is not run


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


def enough(rows: Iterable[Row]) -> bool:
    """Whether so many rows hang or end the process that the rest is not run."""
    return sum(row.kind in COSTLY for row in rows) >= ENOUGH


def not_run(name: str) -> Row:
    """The row of one that is not tried any more."""
    return Row(name, NOT_RUN, note=f"not tried, as {ENOUGH} rows hang or end the process")


@dataclass(frozen=True)
class Reference:
    """What a part is declared to be like: an optimizer with its arguments, and a linear layer."""

    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    arguments: Mapping[str, Any] | None = None
    linear: Callable[..., nn.Module] | None = None


def reference_of(
    stack: Stack, optimizer: str | None = None, arguments: Sequence[str] = (), linear: str | None = None
) -> Reference:
    """A reference from what a command line says; raises InputError for one with nothing to compare."""
    if optimizer is not None and stack.optimizer is None:
        raise InputError(f"like: expected an optimizer to compare with {optimizer}, got none")
    if arguments and optimizer is None:
        raise InputError("like arguments: expected an optimizer that takes them, got none")
    return Reference(
        None if optimizer is None else resolve(optimizer),
        arguments_of(arguments),
        None if linear is None else resolve(linear),
    )


def declared(stack: Stack, like: Reference) -> Stack:
    """The stack with its parts replaced by what they are declared to be like."""
    known = replace(stack, linear=like.linear or stack.linear)
    if like.optimizer is None:
        return known
    return replace(known, optimizer=like.optimizer, arguments=like.arguments or {})
