"""The law of orders: another permutation each epoch, read off the step of each example, or off what an epoch does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import apart, tolerance
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotApplicable, TrainedError
from identity_props.trainers.reading import Reading

OWN = "its order cannot be read: steps do not follow the rate asked for, or do not repeat"
SEEDS = 3, 271_831
NATURAL = tuple(place // 2 for place in range(16))  # the step of each example
ROUND = [[(place + by) % 16 for place in range(16)][::way] for by in range(16) for way in (1, -1)]
TURNED = {tuple(places.index(one) // 2 for one in range(16)) for places in ROUND}
STAYING = "each epoch is the natural order turned round: neighbours stay"


@trainer_law(
    "order",
    "Shuffled, each epoch is a permutation of the examples, another one each epoch, and each seed has its own.",
    "the falling rate names the step of each exposure, see ledger.decoded; without one, (I - W) P is what an epoch leaves",
    needs="shuffle",
    kind="wrong order",
    rules={
        "examples": "examples are shuffled",
        "batches": "whole batches are shuffled: the same examples are always together",
    },
)
def order(bench: Bench) -> Reading:
    """Exact, as steps are whole numbers; of epochs' maps, rounding as in trajectory, eightfold for two solutions. Null
    hypothesis: orders are drawn uniformly, two seeds, two epochs each.

    A pair of equal orders of 16 examples in 8 batches of 2 has probability 2^8 / 16! < 2e-11, so that a correct
    trainer fails with less than 1e-10. That the second epoch of each seed has the batches of its first has 1 / 15!! = 5e-7
    a seed, and that an order is the natural one turned round, 2^8 16 2 / 16! < 1e-9; the smallest deviation that is seen
    is one example out of its place. The seeds lie as far apart as no seed + c epoch goes; one is enough where none is offered.
    """
    bench.offers(shuffle=True)
    seeds = SEEDS if "seed" in bench.reads else SEEDS[:1]
    if not bench.offers(schedule="linear"):
        return _by_maps(bench, seeds)
    epochs = [one for seed in seeds for one in _epochs(bench, seed)]
    if not all(map(len, epochs)):
        return _by_maps(bench, seeds)
    apart_ = {tuple(one.argmax(0).tolist()) for one in epochs}
    whole = all(
        bool((one != 0).sum(0).eq(1).all()) and bool((one - one.round()).abs().max() < 1e-3) for one in epochs
    )
    if not whole:
        return _orders(
            epochs, len(epochs), "an epoch is no permutation: an example is missing, or comes twice"
        )
    if same := len(epochs) - len(apart_):
        return _orders(epochs, same, _which(epochs))
    if apart_ <= TURNED:
        return _orders(epochs, len(epochs), STAYING)
    together = all(_batches(one) == _batches(two) for one, two in zip(epochs[::2], epochs[1::2], strict=True))
    return replace(_orders(epochs, 0, ""), rule="batches" if together else "examples")


def _batches(epoch: Tensor) -> set[tuple[int, ...]]:
    return {tuple(step.nonzero().flatten().tolist()) for step in epoch}


def _which(epochs: list[Tensor]) -> str:
    first, second, other, *_ = (tuple(one.argmax(0).tolist()) for one in [*epochs, *epochs])
    if first == NATURAL:
        return "nothing is shuffled"
    return (
        "each epoch has the same order"
        if first == second
        else "each seed has the same orders"
        if first == other
        else ""
    )


def _orders(epochs: Sequence[Tensor], wrong: int, words: str) -> Reading:
    what = f"of {len(epochs)} orders, two epochs a seed, those that are no new permutation"
    return Reading(Discrepancy(float(wrong), 0.0, what), words=words)


def _epochs(bench: Bench, seed: int) -> list[Tensor]:
    """Weights [8, 16] of each of two epochs, [0, 16] where they cannot be read."""
    book = bench.ledger(16, 2, 2, shuffle=True, seed=seed)
    return list(book.weights[: 0 if book.unclear else 16].tensor_split(2))


# Without a falling rate -------------------------------------------------------------------------------


def _by_maps(bench: Bench, seeds: Sequence[int]) -> Reading:
    """Whether two epochs, or two seeds, do the same to what is missing; which example comes when is not read."""
    near = 8 * tolerance(bench.dtype, 16)
    found: list[Tensor] = []
    for seed in seeds:
        one, two = (slow(bench, epochs, shuffle=True, seed=seed) for epochs in (1, 2))
        first = bench.trained(one).weights
        if not apart(bench.once(one).weights, [w.double() for w in first], one.start) <= near:
            raise NotApplicable(OWN)
        found += maps(one, first, bench.trained(two).weights)
    asked = slow(bench, 1)
    unshuffled = _of_order(bench, asked, range(16))
    same = sum(any(alike(one, other, near) for other in found[:place]) for place, one in enumerate(found))
    if any(alike(one, unshuffled, near) for one in found):
        return _orders(found, max(1, same), "nothing is shuffled")
    turned = [_of_order(bench, asked, places) for places in ROUND]
    if all(any(alike(one, other, near) for other in turned) for one in found):
        return _orders(found, len(found), STAYING)
    words = (
        "each epoch has the same order"
        if alike(found[0], found[1], near)
        else "each seed has the same orders"
    )
    return replace(_orders(found, same, words if same else ""), rule="" if same else "examples")


def _of_order(bench: Bench, asked: Asked, places: Sequence[int]) -> Tensor:
    """What an epoch does that reads the examples in this order."""
    read = replace(asked, examples=asked.examples[[*places]])
    return maps(asked, bench.expected(read, plan(16, 2)), asked.start)[0]


def slow(bench: Bench, epochs: int, **options: Any) -> Asked:
    """Steps so small that what an epoch does can be undone."""
    asked = bench.drawn(16, 2, epochs, **options)
    return replace(asked, lr=asked.lr / 4)


def maps(asked: Asked, first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What each of two epochs does to I - W, [d, d], from the weights after one and after both; raises TrainedError."""
    if not all(bool(w.isfinite().all()) for w in (*first, *second)):
        raise TrainedError("its weights are not finite")
    before, between, after = (
        torch.eye(len(w)).double() - w.double() for (w,) in (asked.start, first, second)
    )
    return torch.linalg.solve(before, between), torch.linalg.solve(between, after)


def alike(one: Tensor, other: Tensor, near: float) -> bool:
    """Whether two epochs do the same, relative to what they do."""
    return bool((one - other).norm() <= near * (one - torch.eye(len(one)).double()).norm())
