"""Layers that take some sizes alone, such as multiples of 8: data of those widths, and laws of others left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from identity_props.laws.families import Family
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels, digits

SIDES = (7, 14, 28)


class SizeError(Exception):
    """A law wants a layer of a size that is not among those that the stack names."""


@dataclass(frozen=True)
class OfSizes:
    """A layer's factory that builds those of the named sizes alone; raises SizeError for another."""

    linear: Callable[..., nn.Module]
    features: tuple[int, ...]

    def __call__(self, fan_in: int, fan_out: int, **arguments: Any) -> nn.Module:
        """The layer."""
        if not {fan_in, fan_out} <= {*self.features}:
            raise SizeError(
                f"of a layer {fan_in} to {fan_out}, and --features are {', '.join(map(str, self.features))}"
            )
        return self.linear(fan_in, fan_out, **arguments)


def of_its_sizes(stack: Stack) -> Stack:
    """The stack, whose layers are built in its ``features`` alone where it names some."""
    return replace(stack, linear=OfSizes(stack.linear, stack.features)) if stack.features else stack


def families_of(families: Sequence[Family], features: Sequence[int]) -> tuple[Family, ...]:
    """The families with the widths that are named, in turn, and no more odd pixels than these have room for."""
    if not features:
        return tuple(families)
    widths = [features[k % len(features)] for k in range(max(len(families), len(features)))]
    return tuple(_of_width(families[k % len(families)], d) for k, d in enumerate(widths))


def _of_width(family: Family, d: int) -> Family:
    dead, equal = min(family.dead, d // 4), min(family.equal, max(1, d // 4))
    return replace(family, d=d, rank=min(family.rank, d), dead=dead, equal=equal)


def digits_of(features: Sequence[int], train: int, test: int) -> Pixels:
    """Digits of 49 pixels, or of as many as the fewest features: those of the largest variance, of 784 at most."""
    if not features:
        return digits(7, train=train, test=test)
    d = min(features)
    side = next((side for side in SIDES if side * side >= d), SIDES[-1])
    drawn = digits(side, train=train, test=test)
    kept = torch.argsort(drawn.train.var(0), descending=True, stable=True)[:d].sort().values
    return Pixels(drawn.name, drawn.train[:, kept], drawn.test[:, kept])
