"""Laws of what is drawn: initial weights, and the batches of an epoch."""

from __future__ import annotations

import math
from itertools import combinations, islice

import torch
from scipy.special import bdtr, bdtrc
from torch import Tensor

from identity_props.laws.base import Case, Discrepancy, ensemble_of, law
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant
from identity_props.task.theory import probability_alive

NETWORKS, WIDTH, HIDDEN = 256, 2, 4


@law(
    "born-dead",
    "with symmetric weights and zero bias a point passes L ReLU layers of width N alive with probability"
    " (1 - 2^-N)^L",
    "Rister, Rubin 2020, 2007.06192; Lu et al. 2019, 1903.06733",
    "odd-width",
    needs="affine layer, relu, symmetric init",
    kind="wrong init",
)
def born_dead(stack: Stack, case: Case) -> Discrepancy:
    """A binomial test over 256 networks at 1e-6 false alarms: discrepancy -log10 p, allowed 6. For
    P = (3/4)^4 = 0.32 a share that is off by 0.23 is found with probability .99.
    """
    variant = Variant("plain-relu", HIDDEN, "none", width=WIDTH)
    drawn = case.generator()
    seeds = torch.randint(2**31, (1,), generator=drawn).item()
    point = torch.randn(1, WIDTH, generator=drawn, dtype=torch.float64)
    many = Case(torch.eye(WIDTH, dtype=torch.float64).expand(NETWORKS, -1, -1), seed=int(seeds))
    ensemble = ensemble_of(stack, many, variant)
    alive = int((ensemble.predict(point.to(stack.device, stack.dtype)) > 0).any(2).sum())
    p = probability_alive(WIDTH, HIDDEN)
    tail = 2 * min(bdtr(alive, NETWORKS, p), bdtrc(alive - 1, NETWORKS, p))
    return Discrepancy(-math.log10(max(tail, 1e-300)), 6, f"-log10 p of {alive} alive of {NETWORKS}")


@law(
    "distinct",
    "no two layers of a network start from the same weights, nor do networks of two seeds",
    "numbers drawn one after the other; tensorflow#18706",
    "odd-width",
    needs="affine layer, symmetric init",
    kind="wrong init",
)
def distinct(stack: Stack, case: Case) -> Discrepancy:
    """None: pairs of matrices that share more than half of their entries are counted, and of two that
    are drawn from a continuum none is shared.
    """
    few = Case(case.x[:3], case.factor, case.steps, case.seed)
    state = ensemble_of(stack, few, Variant("linear", 4, "none", bias=False)).state
    drawn = [weight for p in state.values() for weight in p.detach().flatten(1).unbind()]
    same = sum(bool((a == b).float().mean() > 0.5) for a, b in combinations(drawn, 2))
    return Discrepancy(same, 0, f"pairs of {len(drawn)} matrices that are the same")


EXAMPLES, SIZES = 64, (1, 7, 16)


@law(
    "epoch",
    "an epoch holds every example once, in batches of the size asked for and a rest, in an order of its own"
    " for each epoch and each network",
    "the loader's contract; two of 64! orders are the same with probability 1e-89",
    "odd-width",
    kind="wrong data",
)
def epoch(stack: Stack, case: Case) -> Discrepancy:
    """None: examples, batches and orders are counted."""
    data = torch.arange(1.0, 1 + EXAMPLES * case.d, device=stack.device).reshape(EXAMPLES, case.d)
    wrong = 0
    for size in SIZES:
        generators = [torch.Generator().manual_seed(seed) for seed in (case.seed, case.seed + 1)]
        batches = stack.batches(data, size, generators)
        epochs = [[*islice(batches, math.ceil(EXAMPLES / size))] for _ in range(2)]
        wrong += sum(_missized(one, size) for one in epochs)
        orders = [order for one in epochs for order in torch.cat(one, 1)]
        wrong += sum(_miscounted(order, data) for order in orders)
        wrong += sum(torch.equal(a, b) for a, b in combinations(orders, 2))
    return Discrepancy(wrong, 0, "examples, batches and orders that are wrong")


def _missized(batches: list[Tensor], size: int) -> int:
    *full, last = (batch.shape[1] for batch in batches)
    return sum(n != size for n in full) + (last != (EXAMPLES % size or size))


def _miscounted(order: Tensor, data: Tensor) -> int:
    """Examples that are not there exactly once, and others that are there."""
    same = (order[:, None] == data).all(2)  # [seen, n]
    return int((same.sum(0) != 1).sum() + (~same.any(1)).sum())
