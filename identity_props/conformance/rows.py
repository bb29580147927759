"""What a check says, row by row, and what a part may be declared to be like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import torch
from torch import nn

from identity_props.claims.verdict import Curves
from identity_props.errors import InputError
from identity_props.stack.stack import Stack, arguments_of, resolve

PASS, FAIL, NOT_APPLICABLE, NOT_RUN = "pass", "fail", "not applicable", "not run"
HANGS, EXITS, CRASHES = COSTLY = "hangs", "exits", "crashes"  # failures that cost a guard, or a process
ENOUGH = 3  # rows that fail so; the rest is not run

# the rows of a check that are no laws, and what each says
OTHERS = {
    "moves": "sixteen steps of a small network keep its dtypes and shapes, stay finite and change a weight",
    "like-optimizer": "it takes the steps of the optimizer that it is declared to be like",
    "like-linear": "its outputs and gradients are those of the layer that it is declared to be like",
    "learns-identity": "a linear layer on whitened digits ends near-identity within 1,250 steps",
}


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
        said = ": ".join(filter(None, (f"{self.name} {self.verdict}", self.kind, figures, self.note)))
        return f"{said}; see {self.address}" if self.verdict == FAIL else said

    @property
    def address(self) -> str:
        """Where its law is told in full: the page, where the package says where its pages are, else a command."""
        pages = _documentation()
        return f"{pages}reference/laws/{self.name}/" if pages else f"identity-props laws {self.name}"


@cache
def _documentation() -> str:
    """The address that the installed package gives, empty where it gives none or is not installed."""
    with suppress(PackageNotFoundError):
        urls = (url.split(", ", 1) for url in metadata("identity-props").get_all("Project-URL") or ())
        return next((url for name, url in urls if name == "Documentation"), "")
    return ""


def by_weight(rows: Sequence[Row]) -> list[Row]:
    """What fails, what is not run, what passes, what does not apply, each in the order measured."""
    return sorted(rows, key=lambda row: (FAIL, NOT_RUN, PASS, NOT_APPLICABLE).index(row.verdict))


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
