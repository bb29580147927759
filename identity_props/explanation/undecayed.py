"""What weight decay costs: the short run again without it, beside the one with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from identity_props.engine.trial import Recipe
from identity_props.explanation.settling import Settled, settle
from identity_props.stack.stack import resolve
from identity_props.task.data import Pixels

DECAY = "weight_decay"  # what optimizers of torch and their kin call it
ROUNDS = 3  # more of the run without it
WORTH = 0.01  # of the error: less in the first is not followed up
AT_REST = 0.9  # of where it was: a run with decay that ends below is still learning


def decay_of(recipe: Recipe) -> float:
    """The weight decay that a recipe trains with, by its arguments or its optimizer's default; 0 for none."""
    try:
        known = inspect.signature(resolve(recipe.optimizer)).parameters.get(DECAY)
    except (TypeError, ValueError):  # what has no signature
        known = None
    default = known.default if known is not None else 0.0
    found = dict(recipe.arguments).get(DECAY, default)
    return float(found) if isinstance(found, int | float) else 0.0


def without_decay(recipe: Recipe) -> Recipe:
    """The recipe without its weight decay; itself where it has none."""
    if not decay_of(recipe):
        return recipe
    return replace(recipe, arguments=tuple((dict(recipe.arguments) | {DECAY: 0.0}).items()))


def undecayed(
    settled: Settled,
    start: nn.Module,
    pixels: Pixels,
    recipe: Recipe | None,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Settled, float]:
    """The short run from ``start``, and the FVU that it ends better by without weight decay, where it has some.

    Undoing what a decay did takes longer than a short run. So it goes on three times more, as long as the run with
    decay has come to rest and does not go on falling as well.
    """
    if recipe is None or not decay_of(recipe):
        return settled, 0.0
    held, bare = settled, without_decay(recipe)
    free = settle(start, pixels, bare, seed, on_step)
    for _ in range(ROUNDS):
        if _end(settled) - _end(free) < WORTH * settled.before:
            break
        held = settle(held.model, pixels, recipe, seed, on_step)
        if _end(held) < AT_REST * _end(settled):
            break
        free = settle(free.model, pixels, bare, seed, on_step)
    fall = _end(settled) - _end(free)
    return (replace(settled, model=free.model), fall) if fall > 0 else (settled, 0.0)


def _end(run: Settled) -> float:
    return run.quiet if math.isfinite(run.quiet) else run.after
