"""What each example weighs in each epoch, where no falling rate names the steps: from constant rates at two q."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from identity_props.trainers.ledger import Account, Ledger

MOST = 6  # exposures of equal weight in one epoch that are told apart
At = tuple[float, Sequence[Account]]  # a q, and the accounts after each number of epochs


def by_epochs(one: At, other: At, near: float) -> Ledger:
    """What each example weighs in each epoch [epochs, n], from constant rates at two q.

    Exposures of weights w multiply by prod (1 - q w): equal ones, and any two, are told apart by two q.
    """
    (q, accounts), (p, others) = one, other
    columns = [
        [_total((a, q), (b, p), near) for a, b in zip(*pair, strict=True)]
        for pair in zip(_factors(accounts), _factors(others), strict=True)
    ]
    weights = torch.tensor(columns, dtype=torch.float64).mT
    unclear = weights.isnan().any(0)
    weights[:, unclear] = math.nan
    places = unclear.nonzero()[:, 0].tolist()
    return Ledger(weights, accounts[-1].leaks, places, [*range(1, len(weights) + 1)])


def _factors(accounts: Sequence[Account]) -> list[list[float]]:
    """Of each example, what each epoch multiplies it by; NaN once nothing is left of it."""
    products = torch.stack([torch.ones_like(accounts[0].products), *(one.products for one in accounts)], 1)
    return (products[:, 1:] / products[:, :-1]).tolist()


def _total(one: tuple[float, float], other: tuple[float, float], near: float) -> float:
    """The sum of the weights of an epoch's exposures from two (factor, q); NaN where none fit."""
    (f, q), (g, p) = one, other
    if abs(1 - f) <= near and abs(1 - g) <= near:
        return 0.0
    slack = 8 * near / p
    for count in range(1, MOST + 1):
        if count == 1 or min(f, g) > 0:
            a, b = (_weight(*each, count) for each in (one, other))
            if abs(a - b) <= slack * max(1.0, abs(a)):
                return count * a
    product = ((1 - g) / p - (1 - f) / q) / (q - p)  # of two weights, and their sum
    total = (1 - f) / q + q * product
    return total if total**2 >= 4 * product else math.nan


def _weight(factor: float, q: float, count: int) -> float:
    return (1 - (factor if count == 1 else factor ** (1 / count))) / q
