"""What a check says, row by row, and what a part may be declared to be like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.claims.verdict import Curves
from identity_props.conformance.papers import PREFIX, of_paper
from identity_props.errors import InputError
from identity_props.laws import LAWS, Discrepancy
from identity_props.stack.loop import take_step
from identity_props.stack.stack import Stack, arguments_of, resolve

PASS, FAIL, NOT_APPLICABLE, NOT_RUN = "pass", "fail", "not applicable", "not run"
DESIGN = (
    "design"  # of a trainer: another rule that is in use, or that it documents, until it is accepted by name
)
HANGS, EXITS, CRASHES = COSTLY = "hangs", "exits", "crashes"  # failures that cost a guard, or a process
ENOUGH = 3  # rows that fail so; the rest is not run

# the rows of a check that are no laws, and what each says
OTHERS = {
    "moves": "sixteen steps of a small network keep its dtypes and shapes, stay finite and change a weight",
    "recognised": "where it is a published optimizer it takes that one's steps, whatever befalls its parameters",
    "like-optimizer": "it takes the steps of the optimizer that it is declared to be like",
    "like-linear": "its outputs and gradients are those of the layer that it is declared to be like",
    "like-loss": "its value and gradient are those of the loss that it is declared to be like, at one pixel too",
    "like-step": "it leaves the parameters that the step leaves which it is declared to be like",
    "like-batches": "they are those that the batches yield which they are declared to be like, of equal seeds",
    "like-clip": "the gradient of all parameters is clipped at the norm that is declared, and not below it; where none"
    " is, calls of clip_grad_norm_ are given a gradient",
    "learns-identity": "a linear layer on whitened digits ends near-identity within 1,250 steps",
    "like-layer": "its outputs and gradients are those of the layer that it is declared to be like, of any kind",
    "computes": "a layer gives finite outputs, and a pass back leaves finite gradients",
    "trains": "a trainer takes a small training to its end and leaves finite weights that it has moved",
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
        said = ": ".join(filter(None, (f"{self.name} {self.verdict}", self.kind, self.figures, self.note)))
        return f"{said}; see {self.address}" if self.verdict == FAIL else said

    @property
    def figures(self) -> str:
        """What was measured and what is allowed, of counts as whole numbers; empty where there are none."""
        if self.measured is None or self.allowed is None:
            return ""
        return f"measured {figure(self.measured)}, allowed {figure(self.allowed)}"

    @property
    def address(self) -> str:
        """Where its law is told in full: the page, where the package says where its pages are, else a command."""
        pages = _documentation()
        return f"{pages}reference/laws/{self.name}/" if pages else f"identity-props laws {self.name}"


def figure(value: float) -> str:
    """Three digits, or all of a whole number, such as a count."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


@cache
def _documentation() -> str:
    """The address that the installed package gives, empty where it gives none or is not installed."""
    with suppress(PackageNotFoundError):
        urls = (url.split(", ", 1) for url in metadata("identity-props").get_all("Project-URL") or ())
        return next((url for name, url in urls if name == "Documentation"), "")
    return ""


def statement(name: str) -> str:
    """What a row's law or comparison says, without a full stop; empty for a name of neither."""
    from identity_props.layers import LAYER_LAWS
    from identity_props.trainers import TRAINER_LAWS

    law = LAWS.get(name) or TRAINER_LAWS.get(name) or LAYER_LAWS.get(name)
    return (law.statement if law else OTHERS.get(name, "")).rstrip(".")


def by_weight(rows: Sequence[Row]) -> list[Row]:
    """What fails, what is not run, what is by design, what passes, what does not apply, each as measured."""
    order = (FAIL, NOT_RUN, DESIGN, PASS, NOT_APPLICABLE)
    return sorted(rows, key=lambda row: order.index(row.verdict))


def enough(rows: Iterable[Row]) -> bool:
    """Whether so many rows hang or end the process that the rest is not run."""
    return sum(row.kind in COSTLY for row in rows) >= ENOUGH


def not_run(name: str) -> Row:
    """The row of one that is not tried any more."""
    return Row(name, NOT_RUN, note=f"not tried, as {ENOUGH} rows hang or end the process")


Plan = Iterable[tuple[str, Callable[[], Row]]]  # the rows by name, each with what measures it


def judged(name: str, found: Discrepancy, kind: str) -> Row:
    """The row of what was found; it is of that kind if it fails."""
    verdict, kind = (PASS, "") if found.holds else (FAIL, kind)
    return Row(name, verdict, found.measured, found.tolerance, kind, found.what)


@dataclass(frozen=True)
class Reference:
    """What parts are declared to be like: an optimizer with its arguments, a linear layer, loss, step or batches.

    ``clip`` is the norm at which the step promises to clip the gradient, and ``tolerance`` the relative distance
    that a part is allowed which rounds on purpose. A ``novel`` optimizer is meant to be none that is published.
    Raises InputError for one that is no such number.
    """

    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    arguments: Mapping[str, Any] | None = None
    linear: Callable[..., nn.Module] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    step: Callable[[torch.optim.Optimizer, Callable[[], Tensor]], None] | None = None
    batches: Callable[[Tensor, int | None, list[torch.Generator]], Iterator[Tensor]] | None = None
    clip: float | None = None
    tolerance: float = 0.0
    novel: bool = False

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
    novel: bool = False,
) -> Reference:
    """A reference from what a command line says; raises InputError for one with nothing to compare."""
    if optimizer is not None and stack.optimizer is None:
        raise InputError(f"like: expected an optimizer to compare with {optimizer}, got none")
    if novel and stack.optimizer is None:
        raise InputError("novel: expected an optimizer that is none of the published, got none")
    if arguments and optimizer is None:
        raise InputError("like arguments: expected an optimizer that takes them, got none")
    if clip is not None and stack.step is take_step:
        raise InputError(f"clip: expected a step that clips at {clip:g}, got none")
    named = {"optimizer": optimizer, "linear": linear, "loss": loss, "step": step, "batches": batches}
    parts = {part: _named(name) for part, name in named.items() if name is not None}
    return Reference(arguments=arguments_of(arguments), clip=clip, tolerance=tolerance, novel=novel, **parts)


def _named(name: str) -> Any:
    """An object by its module, or an optimizer by its paper."""
    return of_paper(name) if name.startswith(PREFIX) else resolve(name)


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
