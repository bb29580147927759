"""What an optimizer evaluates where that is not what it trains, as an average, and switches between by eval() and train()."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from identity_props.engine.ensemble import Ensemble
from identity_props.laws.base import SGD, Case, State, ensemble_of, gentle, optimizer_of, snapshot
from identity_props.laws.linear import astray
from identity_props.stack.guard import RAISED
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant


def weights_shown(ensemble: Ensemble, optimizer: Any) -> State:
    """What is evaluated where that is not what is trained, as an average."""
    if not _switches(optimizer):
        return {}
    optimizer.eval()
    return {f"{name} in eval()": weight for name, weight in snapshot(ensemble).items()}


def _switches(optimizer: Any) -> bool:
    """Whether it keeps other weights to evaluate than to train on, and switches between them."""
    return all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))


def lost_by_switching(stack: Stack, case: Case, variant: Variant) -> int:
    """Weights that an optimizer's own eval() and train() do not bring back, or that a second eval() moves."""
    ensemble, lost = ensemble_of(stack, case, variant), 0
    own: Any = optimizer_of(stack, SGD, ensemble.parameters, gentle(stack, case))
    if not _switches(own):
        return 0
    x = case.x.to(stack.device, stack.dtype)
    for step in range(case.steps):
        with seeded(step, stack.device):
            ensemble.step(own, x)
        before = snapshot(ensemble)
        own.eval()
        own.train()
        lost += astray(stack, case, before, snapshot(ensemble))
    own.eval()
    shown = snapshot(ensemble)
    with suppress(*RAISED):
        own.eval()
    return lost + astray(stack, case, shown, snapshot(ensemble))
