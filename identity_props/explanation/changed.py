"""A module changed from outside, and the best rate of a short search; the module that is given stays as it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from identity_props.engine.trial import Trial
from identity_props.errors import InputError
from identity_props.explanation.reachable import depend, normalises
from identity_props.explanation.readout import outputs
from identity_props.explanation.slopes import hooked, last_module, reach

SEARCHED = 64  # steps at each rate
LATER = 4  # the best and the present one go on for a quarter of the budget
FACTORS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)


class Bare(nn.Module):
    """A network [n, d] to [n, d] without what follows its last parametrised module, nor that where it normalises."""

    def __init__(self, model: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.model, self.last = model, [last]  # no module of its own, as it is one of the model's

    def forward(self, x: Tensor) -> Tensor:
        held: list[Tensor] = []

        def keep(module: nn.Module, given: Any, out: Tensor) -> Tensor:
            held[:] = [given[0] if normalises(module) else out]
            return out.clone()  # which an activation may change in place

        with hooked(self.last[0].register_forward_hook(keep)):
            y = self.model(x)
        return held[0].reshape_as(y)


class Around(nn.Module):
    """x + model(x): the input goes round the whole network, [n, d] to [n, d]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.model(x)
        return y


def without_output(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The network without its output activation; None where it has none that can be taken away."""
    copied = copy.deepcopy(model)
    last = last_module(copied, x)
    if last is None or not (depend(copied, x) or reach(copied, last, x) is not None):
        return None
    bare = Bare(copied, last)
    return bare if _fits(bare, x) else None


def _fits(model: nn.Module, x: Tensor) -> bool:
    try:
        return outputs(model, x[:2]).shape == x[:2].shape
    except InputError:  # as many numbers as the output has do not enter the tail
        return False


def without_dropout(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The network with all dropout at 0; None where it has no module of dropout."""
    copied = copy.deepcopy(model)
    dropping = [m for m in copied.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    for module in dropping:
        module.p = 0.0
    return copied if dropping else None


def gone_round(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The network with its input added to its output, and no output activation."""
    return Around(without_output(model, x) or copy.deepcopy(model))


Training = Callable[[Trial], float]


def best_rate(trial: Trial, trained: Training) -> float:
    """Of the rate times 1/10, 1, ..., 10,000 the one that leaves the least FVU after 64 steps, as ``trained`` tells.

    And of that and the rate itself the one that does after a quarter of all steps: what is fast at first may end higher.
    """
    own, longer = trial.recipe.lr, trial.steps // LATER
    first = _best_of([own * factor for factor in FACTORS], min(SEARCHED, max(1, trial.steps)), trial, trained)
    return first if first == own or longer <= SEARCHED else _best_of([own, first], longer, trial, trained)


def _best_of(rates: Sequence[float], steps: int, trial: Trial, trained: Training) -> float:
    left = {}
    for rate in rates:
        left[rate] = trained(replace(trial, steps=steps, recipe=replace(trial.recipe, lr=rate)))
    return min(left, key=lambda rate: left[rate] if math.isfinite(left[rate]) else math.inf)
