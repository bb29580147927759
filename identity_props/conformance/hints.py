"""Hints: a trait that holds at the first step alone, which an optimizer that is meant to be another may show.

It may as well be something else by right, so it is no failure: a hint says how to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

from identity_props.conformance.trying import LR, SHAPE, Walk, same, tried
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack
from identity_props.task.theory import adam_first_step, rmsprop_steps

TRY = "try --like torch.optim:"
Fits = Callable[[Walk, Tensor], bool]


def _descends(walk: Walk, first: Tensor) -> bool:
    return same(walk(first), -LR * first)


def _descends_with_momentum(walk: Walk, first: Tensor) -> bool:
    return same(walk(first, momentum=0.9), -LR * first)


def _decays(walk: Walk, first: Tensor) -> bool:
    return same(walk(first, weight_decay=0.1), -LR * (first + 0.1))


def _adam(walk: Walk, first: Tensor) -> bool:
    return same(walk(first), adam_first_step(first, LR))


def _rmsprop(walk: Walk, first: Tensor) -> bool:
    return same(walk(first, alpha=0.9, eps=1e-30), rmsprop_steps(first, LR, 0.9, 1e-30))


# by trait: whether it holds of a first step from ones, whose step that is, and what to try
PARTLY: dict[str, tuple[Fits, str, str]] = {
    "gradient-descent": (_descends, "gradient descent's", "SGD, with its --like-arg"),
    "momentum": (_descends_with_momentum, "momentum's", "SGD, with its --like-arg"),
    "decay": (_decays, "that of coupled weight decay", "SGD, with its --like-arg"),
    "adam throughout": (_adam, "Adam's", "Adam"),
    "rmsprop": (_rmsprop, "RMSprop's", "RMSprop"),
}


def hint(stack: Stack, missing: Iterable[str]) -> str:
    """What to try where a trait that a law misses holds of the first step; empty where none does."""
    known = _partly(stack)
    return next((known[trait] for trait in sorted(missing) if trait in known), "")


@lru_cache(maxsize=64)
def _partly(stack: Stack) -> dict[str, str]:
    """Hints by trait."""
    if stack.optimizer is None:
        return {}
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64)
    walk = Walk(stack.optimizer, stack.arguments)
    with seeded(0):
        return {
            trait: f"its first step is {whose}, later ones are not: if that is meant, {TRY}{like}"
            for trait, (fits, whose, like) in PARTLY.items()
            if tried(fits, walk, first)
        }
