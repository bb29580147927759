"""Laws of what is drawn: initial weights, and the batches of an epoch."""

from __future__ import annotations

import math
from itertools import combinations, islice

import torch
from torch import Tensor

from identity_props.laws.base import Case, Discrepancy, ensemble_of, law, networks_of
from identity_props.stack.seeding import seeded
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
    first = int(torch.randint(2**31, (1,), generator=drawn).item())
    point = torch.randn(1, WIDTH, generator=drawn, dtype=torch.float64).to(stack.device, stack.dtype)
    narrow = Case(torch.eye(WIDTH, dtype=torch.float64).expand(case.replicas, -1, -1))
    networks = networks_of(stack, narrow, variant, range(first, first + NETWORKS))
    alive = sum(int((some.predict(point) > 0).any(2).sum()) for some in networks)
    p = probability_alive(WIDTH, HIDDEN)
    from scipy.special import bdtr, bdtrc  # half a second, which listing the laws does without

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
    seeds = range(case.seed, case.seed + 3)
    networks = networks_of(stack, case, Variant("linear", 4, "none", bias=False), seeds)
    states = [p.detach().flatten(1) for some in networks for p in some.state.values()]
    drawn = [weight for p in states for weight in p.unbind()]
    same = sum(bool((a == b).float().mean() > 0.5) for a, b in combinations(drawn, 2))
    return Discrepancy(same, 0, f"pairs of {len(drawn)} matrices that are the same")


@law(
    "units",
    "no two hidden units start with the same weights in and out: they would get the same gradients and never"
    " separate",
    "a permutation of the two leaves network and gradient as they are",
    "odd-width",
    needs="affine layer",
    kind="wrong init",
)
def units(stack: Stack, case: Case) -> Discrepancy:
    """None: pairs of units are counted, and of two that are drawn from a continuum none is the same."""
    state = ensemble_of(stack, case, Variant("linear", 2, "none", bias=False)).state
    first, second = (state[f"layers.{k}.weight"].detach() for k in (0, 1))
    each = torch.cat([first, second.mT], 2)  # [K, units, in + out]
    alike = (each[:, :, None] == each[:, None]).all(3).triu(1)
    return Discrepancy(int(alike.sum()), 0, "pairs of hidden units with the same weights")


EXAMPLES, SIZES, EPOCHS = 64, (1, 7, 16), 3


@law(
    "epoch",
    "an epoch holds every example once, in batches of the size asked for and a rest, in an order and in batches"
    " of its own for each epoch and each network, drawn from the generators given",
    "the loader's contract; lhotse#562",
    "odd-width",
    kind="wrong data",
)
def epoch(stack: Stack, case: Case) -> Discrepancy:
    """None: examples, orders and batches are counted. Two of 64! orders are the same with probability 1e-89;
    that one batch of 7 of 64 comes again within three epochs, in one of two networks, has 8e-7.
    """
    data = torch.arange(1.0, 1 + EXAMPLES * case.d, device=stack.device).reshape(EXAMPLES, case.d)
    wrong = 0
    for size in SIZES:
        with seeded(case.seed):
            epochs, again = (_epochs(stack, data, size, case.seed) for _ in range(2))
        wrong += sum(_missized(one, size) for one in epochs)
        orders = [order for one in epochs for order in torch.cat(one, 1)]
        wrong += sum(_miscounted(order, data) for order in orders)
        wrong += sum(torch.equal(a, b) for a, b in combinations(orders, 2))
        wrong += _repeated(epochs) if size > 1 else 0
        wrong += sum(
            not torch.equal(torch.cat(a, 1), torch.cat(b, 1)) for a, b in zip(epochs, again, strict=True)
        )
    return Discrepancy(wrong, 0, "examples, batches and orders that are wrong")


def _epochs(stack: Stack, data: Tensor, size: int, seed: int) -> list[list[Tensor]]:
    """Batches [K, size, d] of some epochs, drawn from generators of these seeds."""
    generators = [torch.Generator().manual_seed(seed + k) for k in range(2)]
    batches = stack.batches(data, size, generators)
    return [[*islice(batches, math.ceil(EXAMPLES / size))] for _ in range(EPOCHS)]


def _repeated(epochs: list[list[Tensor]]) -> int:
    """Full batches that a network has met before, in whatever order; each example is told by its first number."""
    seen = [
        (network, frozenset(examples.tolist()))
        for one in epochs
        for batch in one[:-1]
        for network, examples in enumerate(batch[:, :, 0])
    ]
    return len(seen) - len(set(seen))


def _missized(batches: list[Tensor], size: int) -> int:
    *full, last = (batch.shape[1] for batch in batches)
    return sum(n != size for n in full) + (last != (EXAMPLES % size or size))


def _miscounted(order: Tensor, data: Tensor) -> int:
    """Examples that are not there exactly once, and others that are there."""
    same = (order[:, None] == data).all(2)  # [seen, n]
    return int((same.sum(0) != 1).sum() + (~same.any(1)).sum())
