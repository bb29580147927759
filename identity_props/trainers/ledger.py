"""The ledger: what the weights that a trainer leaves say of each example, how often, when, with what weight.

One linear layer from 0, orthonormal examples, their own target: an example's gradient touches its own direction
alone, so (I - W) x_i = x_i times the product over the steps that saw it of (1 - q_t w_it), q_t = 2 lr_t / (d b),
b the examples that a step is meant to hold, w_it the example's weight in units of 1 / b: 1 is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import torch
from torch import Tensor

from identity_props.errors import InputError
from identity_props.trainers.protocol import Asked

Q = 1 / 4  # of a weight of 1 at a step: far from 0 and from 1, so that rounding hides nothing


def orthonormal(n: int, d: int, seed: int) -> Tensor:
    """Examples [n, d] at right angles to each other, of length 1: a drawn rotation of one-hot ones."""
    if n > d:
        raise InputError(f"examples: expected at most as many as features, {d}, got {n}")
    drawn = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q[:n]


# Tables of what is meant ------------------------------------------------------------------------------


def plan(
    n: int,
    size: int,
    accumulate: int = 1,
    epochs: int = 1,
    micro: str = "examples",
    window: str = "mean",
    drop_last: bool = False,
) -> Tensor:
    """Weights [steps, n] of a training that reads examples in order, micro-batches of ``size``, under a rule.

    A short micro-batch counts by its *examples*, as one more of the *means*, or by a *fixed* divisor. An incomplete
    window of micro-batches is stepped on with the *mean* of what it holds, divided by a *fixed* number, *carried*
    into the next epoch, so too and *ended* with the mean of what is left at last, or *dropped*.
    """
    batches = [[*range(at, min(at + size, n))] for at in range(0, n, size)]
    batches = [one for one in batches if len(one) == size] if drop_last else batches
    if window in ("carried", "ended"):
        windows = [*_chunks(batches * epochs, accumulate)]
    else:
        windows = [*_chunks(batches, accumulate)] * epochs
    kept = [one for one in windows if window in ("mean", "fixed", "ended") or len(one) == accumulate]
    rows = [_row(n, one, size, accumulate, micro, window) for one in kept]
    return torch.stack(rows) if rows else torch.zeros(0, n, dtype=torch.float64)


def _row(n: int, held: list[list[int]], size: int, accumulate: int, micro: str, window: str) -> Tensor:
    """Weights [n] of one step on the micro-batches that its window holds."""
    row = torch.zeros(n, dtype=torch.float64)
    whole = accumulate / len(held) if window in ("mean", "ended") else 1.0
    examples = sum(map(len, held))
    for batch in held:
        weight = {"examples": len(held) * size / examples, "means": size / len(batch), "fixed": 1.0}[micro]
        for place in batch:
            row[place] += weight * whole
    return row


def _chunks(items: Sequence[list[int]], size: int) -> Iterable[list[list[int]]]:
    return ([*items[at : at + size]] for at in range(0, len(items), size))


def totals(asked: Asked, epochs: int) -> Iterator[list[int]]:
    """What a trainer may take for the optimizer steps of 1 to ``epochs`` epochs, as its windows are."""
    batches = -(-len(asked.examples) // (asked.batch_size * asked.ranks))
    whole, kept = -(-batches // asked.accumulate), batches // asked.accumulate
    yield [whole * one for one in range(1, epochs + 1)]
    yield [max(1, kept * one) for one in range(1, epochs + 1)]
    yield [max(1, batches * one // asked.accumulate) for one in range(1, epochs + 1)]


# What is read -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Account:
    """What the weights say of a whole training: products [n] of (1 - q w) over each example's steps.

    ``leaks`` [n] is how much of what became of an example lies off its own direction, 0 where none was mixed.
    """

    products: Tensor
    leaks: Tensor

    def weights(self, q: float = Q) -> Tensor:
        """Of examples that were trained on once, [n]."""
        return (1 - self.products) / q

    def times(self, near: float, q: float = Q) -> list[int | None]:
        """How often each was trained on with weight 1, None where that is not what the product says, or none is left."""
        found = []
        for product in self.products.tolist():
            left = 2 * near / q < product < math.inf
            count = round(math.log(product) / math.log(1 - q)) if left else None
            fits = count is not None and count >= 0 and abs(product - (1 - q) ** count) <= near
            found.append(count if fits else None)
        return found


def account(weights: Tensor, examples: Tensor) -> Account:
    """Read one layer [d, d], trained from 0 on orthonormal examples [n, d], in float64."""
    x = examples.double()
    left = x - x @ weights.double().mT  # (I - W) x_i, a row each
    products = (left * x).sum(1)
    return Account(products, (left - products[:, None] * x).norm(dim=1))


def told(found: Account, near: float, epochs: int = 1, q: float = Q) -> str:
    """An account in words, runs of equal weight as ranges: "examples 0-31 weigh 1, 32-47 weigh 2"."""
    pairs = zip(found.times(near, q), found.products.tolist(), strict=True)
    said = ranges([_label(count, product, near, epochs, q) for count, product in pairs])
    mixed = [place for place, leak in enumerate(found.leaks.tolist()) if not leak <= near]
    return said + (f"; {places(mixed)} mixed with others" if mixed else "")


def _label(count: int | None, product: float, near: float, epochs: int, q: float) -> str:
    if count == 0:
        return "are never trained on"
    if count is not None:
        times = f"{count} times in {epochs} epoch{'s' * (epochs > 1)}"
        return "weigh 1" if count == epochs else f"are trained on {times}"
    if epochs == 1 or not product > near:
        return f"weigh {(1 - product) / q:.4g}" + f" in all of {epochs} epochs" * (epochs > 1)
    return f"weigh {(1 - product ** (1 / epochs)) / q:.4g}"


def ranges(labels: Sequence[str], noun: str = "examples") -> str:
    """Labels of places 0, 1, ... in words, each label once, with the runs of places that have it."""
    runs: dict[str, list[list[int]]] = {}
    for label, run in groupby(range(len(labels)), key=lambda place: labels[place]):
        runs.setdefault(label, []).append([*run])
    said = [f"{', '.join(_run(run) for run in found)} {label}" for label, found in runs.items()]
    return f"{noun} " + ", ".join(said)


def _run(run: Sequence[int]) -> str:
    return f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"


def places(found: Sequence[int]) -> str:
    """Examples by place, the first few of many."""
    return f"examples {', '.join(map(str, found[:6]))}{', ...' if len(found) > 6 else ''}"


# Step by step -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ledger:
    """Weights [steps, n] that each example had in each step, and what each lost of itself to others [n].

    ``unclear`` are places of examples whose account fits no steps: their columns hold NaN. ``ends`` are the numbers
    of steps by the end of each epoch.
    """

    weights: Tensor
    leaks: Tensor
    unclear: list[int]
    ends: list[int]


Entries = list[tuple[int, float]]  # steps that trained on an example, and its weight in each
MOST = 3  # exposures of weight 1 in one epoch that are looked for
ROUND = 64  # what rounding may do at most, over what it does


def decoded(
    constant: Sequence[Account], clocked: Sequence[Account], steps: Sequence[int], near: float, q: float = Q
) -> Ledger:
    """The ledger of a training of E epochs, from those of 1 to E at a constant rate and at a falling one.

    At a constant rate an epoch multiplies by 1 - q w, which is the weight alone; under rates lr (1 - k / K), K of
    ``steps``, by 1 - q (1 - k / K) w, which then names step k, as the earlier ones are known. An example is taken
    to be trained on once an epoch with any weight, or two or three times with weight 1, which goes before a weight
    of 2 - q or 3 - 3 q + q^2. Two numbers an epoch say no more than that: twice with other weights is unclear, as
    are two choices of steps that fit alike, and a weight of 1 / q, after which nothing is left to be read; a
    smaller q reads that. ``near`` is the error of a product.
    """
    ones, twos = (torch.stack([one.products for one in group], 1).tolist() for group in (constant, clocked))
    columns = [_entries(one, two, steps, near, q) for one, two in zip(ones, twos, strict=True)]
    weights = torch.zeros(steps[-1], len(columns), dtype=torch.float64)
    for place, entries in enumerate(columns):
        for step, weight in entries or ():
            weights[step, place] += weight
        if entries is None:
            weights[:, place] = math.nan
    unclear = [place for place, entries in enumerate(columns) if entries is None]
    return Ledger(weights, constant[-1].leaks, unclear, [*steps])


def _entries(
    constant: Sequence[float], clocked: Sequence[float], steps: Sequence[int], near: float, q: float
) -> Entries | None:
    """Of one example, over all epochs; None where no steps fit."""
    entries: Entries = []
    before = 1.0
    for product, ticked, total in zip(constant, clocked, steps, strict=True):
        known = math.prod(1 - q * (1 - step / total) * weight for step, weight in entries)
        least = min(1.0, abs(before), abs(known))
        if least <= near or not math.isfinite(product + ticked):  # nothing is left to be multiplied
            return None
        new = _of_epoch(product / before, ticked / known, total, near / least, q)
        if new is None:
            return None
        entries, before = entries + new, product
    return entries


def _of_epoch(factor: float, ticked: float, total: int, near: float, q: float) -> Entries | None:
    """What multiplies an example by ``factor`` at a constant rate and by ``ticked`` at a falling one."""
    if abs(1 - factor) <= near:
        return [] if abs(1 - ticked) <= near else None
    for count in range(2, MOST + 1):
        if abs(factor - (1 - q) ** count) <= near and (found := _several(ticked, count, total, near, q)):
            return found
    step = total * (1 - (1 - ticked) / (1 - factor))
    slack = min(1 / 4, 4 * total * near / abs(1 - factor))
    if abs(step - round(step)) <= slack and 0 <= round(step) < total:
        return [(round(step), (1 - factor) / q)]
    return None


def _several(ticked: float, count: int, total: int, near: float, q: float) -> Entries | None:
    """Steps of weight 1 whose product is nearest, the last being what the others leave; None where none is near,
    or others are as near."""
    rates = [1 - q * (1 - step / total) for step in range(total)]
    found: list[tuple[float, tuple[int, ...]]] = [(math.inf, ()), (math.inf, ())]
    for chosen in combinations(range(total), count - 1):
        others = math.prod(rates[step] for step in chosen)
        last = round(total * (1 - (1 - ticked / others) / q))
        if chosen[-1] < last < total:
            found.append((abs(others * rates[last] - ticked), (*chosen, last)))
    (off, best), (other, _), *_ = sorted(found)
    clear = off <= near and other > 8 * max(off, near / ROUND)
    return [(step, 1.0) for step in best] if clear else None
