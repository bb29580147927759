"""Published: a recognised algorithm as an optimizer, which learns what its paper's recurrence can learn.

An implementation that is one step for step is not to be accused of what the algorithm does not do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from identity_props.conformance.recognised import IS
from identity_props.conformance.recognition import recognise
from identity_props.stack.stack import PARTS, Stack
from identity_props.task.algorithms import Arguments, Cell
from identity_props.task.algorithms.base import Step

# FVU apart by less is the same: torch's own come within 1e-3 of their papers' over 40 steps, four of pytorch-optimizer's
# to two digits over 1,250, and its Adai, which is another than its paper's, is 8,000 times as far
TWICE = 2.0


class Published(torch.optim.Optimizer):
    """An algorithm of the zoo as an optimizer: weights and memory in float64, parameters rounded to their dtype."""

    def __init__(self, params: Iterable[Any], lr: float, taken: Step, arguments: Arguments) -> None:
        super().__init__(params, {"lr": lr})
        self.taken, self.arguments = taken, arguments

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """The recurrence on the parameters of each group."""
        for group in self.param_groups:
            cells = [self._cell(p) for p in group["params"]]
            self.taken(cells, {**self.arguments, "lr": float(group["lr"])})
            for p, cell in zip(group["params"], cells, strict=True):
                p.copy_(cell.w)

    def _cell(self, p: Tensor) -> Cell:
        cell: Cell = self.state[p].setdefault("cell", Cell(p.double().clone()))
        cell.g = None if p.grad is None else p.grad.double()
        return cell


def as_published(stack: Stack, seed: int = 0) -> tuple[str, Stack] | None:
    """The algorithm that a stack's optimizer is, and the stack with that in its place; None where it is none.

    Or where another part is not torch's own, which may be what fails, or what is evaluated is not what is trained.
    """
    usual, optimizer = Stack(), stack.optimizer
    own = all(getattr(stack, part) is getattr(usual, part) for part in PARTS if part != "optimizer")
    if optimizer is None or not own:
        return None
    make = partial(optimizer, **stack.arguments)
    found = recognise(make, seed)
    if found.verdict != IS or found.step is None or found.algorithm is None or found.algorithm.shown:
        return None
    (group, *_) = make([torch.nn.Parameter(torch.zeros(1, 1))], lr=1.0).param_groups
    arguments = {**(found.arguments or {}), "weight_decay": group.get("weight_decay", 0.0)}
    taken = partial(Published, taken=found.step, arguments=arguments)
    return found.algorithm.title, replace(stack, optimizer=taken, arguments={})


def ends_alike(fvu: Sequence[float], other: Sequence[float]) -> bool:
    """Whether networks of the same seeds end at FVUs within a factor of two, or none of a pair at a finite one.

    One of them may have been judged by more seeds, which follow those that both have.
    """

    def alike(a: float, b: float) -> bool:
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.isfinite(a) == math.isfinite(b)
        return max(a, b) <= TWICE * min(a, b)

    return all(alike(a, b) for a, b in zip(fvu, other, strict=False))
