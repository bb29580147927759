"""Papers: algorithms of the zoo as classes of torch.optim, to compare with."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import Tensor

from identity_props.errors import InputError
from identity_props.task.algorithms import ALGORITHMS, Algorithm, Cell

PREFIX = "paper:"


def of_paper(name: str) -> type[Paper]:
    """The optimizer that ``paper:NAME`` names; raises InputError for one that the zoo has not."""
    name = name.removeprefix(PREFIX)
    if name not in ALGORITHMS:
        near = get_close_matches(name, ALGORITHMS, cutoff=0.3) or sorted(ALGORITHMS)
        raise InputError(f"{PREFIX}{name}: expected an algorithm such as {', '.join(near)}, got {name!r}")
    algorithm = ALGORITHMS[name]
    base = Paper if algorithm.shown is None else Showing
    return type(algorithm.name, (base,), {"algorithm": algorithm, "__doc__": algorithm.equation})


class Paper(torch.optim.Optimizer):
    """Takes the steps of its algorithm, in the dtype of its parameters; raises InputError for other arguments."""

    algorithm: ClassVar[Algorithm]

    def __init__(self, params: Any, **arguments: Any) -> None:
        defaults = {**self.algorithm.defaults, **arguments}
        if unknown := sorted(defaults.keys() - self.algorithm.defaults.keys()):
            known = ", ".join(self.algorithm.defaults)
            raise InputError(
                f"{self.algorithm.title}: expected arguments of {known}, got {', '.join(unknown)}"
            )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each group, of all at once where the algorithm measures them so."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [self._cells(group) for group in self.param_groups]
        groups = [[cell for cells in groups for cell in cells]] if self.algorithm.whole else groups
        for cells, group in zip(groups, self.param_groups, strict=False):
            self.algorithm.step([cell for _, cell in cells], group)
            for p, cell in cells:
                p.copy_(cell.w)
        return loss

    def _cells(self, group: dict[str, Any]) -> list[tuple[Tensor, Cell]]:
        """Of each parameter, whose memory is its state."""
        return [(p, Cell(p.detach().clone(), p.grad, self.state[p])) for p in group["params"]]


class Showing(Paper):
    """One whose paper evaluates other weights than those that it trains: ``eval()`` shows them."""

    kept: dict[Tensor, Tensor] | None = None

    @torch.no_grad()
    def eval(self) -> None:
        """Show what the paper evaluates."""
        if self.kept is None and (show := self.algorithm.shown) is not None:
            self.kept = {}
            for group in self.param_groups:
                for p, cell in self._cells(group):
                    self.kept[p] = cell.w
                    p.copy_(show(cell, group))

    @torch.no_grad()
    def train(self) -> None:
        """Go on with what is trained."""
        for p, w in (self.kept or {}).items():
            p.copy_(w)
        self.kept = None
