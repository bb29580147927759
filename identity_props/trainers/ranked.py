"""Laws of ranks: several processes, each with its share of the examples, are one training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import OFF, tolerance
from identity_props.trainers.ledger import Account, Q, account, orthonormal, plan, told
from identity_props.trainers.ordering import alike, maps
from identity_props.trainers.protocol import Asked, Left, NotApplicable, NotOffered
from identity_props.trainers.reading import Reading
from identity_props.trainers.telling import nearest

SIZE = 4  # of a micro-batch on a rank
EQUAL = "weights that are not the same bit for bit on all ranks"


@trainer_law(
    "ranks",
    "Two data-parallel processes are one: all examples, each once, in batches twice as large; ranks are equal.",
    "the mean of the ranks' gradients is the gradient of their batches together",
    needs="ranks",
    kind="ranks differ",
)
def ranks(bench: Bench) -> Reading:
    """Rounding as in trajectory; ranks hold the same bits, as what each adds is reduced before.

    Where each example comes twice, ranks that go their own way for a while leave 1 - 2 q + 2 q^2 of it, and not what one
    step leaves that has it twice, 1 - 2 q, or two steps, (1 - q)^2.
    """
    found = _read(bench, "even", lambda n, whole: {"": plan(n, whole)})
    return _twice(bench) if found.found.holds else found


@trainer_law(
    "ranks-uneven",
    "Where examples do not fill the ranks' last batches, each is still trained on once an epoch.",
    "torch.utils.data.DistributedSampler repeats examples, and says so",
    needs="ranks",
    rules={
        "whole": "the last step is a mean over what all ranks hold",
        "padded": "examples are repeated until ranks hold as many: those of the last step weigh more",
        "wrapped": "the last batches are filled with examples from the start",
    },
    slips={"dropped": "what does not fill all ranks is not trained on"},
)
def ranks_uneven(bench: Bench) -> Reading:
    """As of ranks-schedule. One example more than ranks hold in a step, and which one is repeated is not asked."""
    n = SIZE * bench.ranks + 1
    tables = {
        "whole": plan(n, n - 1),
        "padded": _steps([[*range(n - 1)], [n - 1, *range(bench.ranks - 1)]]),
        "wrapped": _steps([[*range(n - 1)], [n - 1, *range(n - 2)]]),
        "dropped": plan(n, n - 1, drop_last=True),
    }
    return _by_size(bench, "uneven", lambda asked, rule: bench.expected(asked, tables[rule]), tables)


@trainer_law(
    "ranks-shuffled",
    "Shuffled, ranks share the examples: each is trained on once an epoch, by one of them.",
    "ranks that shuffle each for itself do not leave the others what they do not take: datasets#5696",
    needs="ranks shuffle",
    kind="ranks differ",
)
def ranks_shuffled(bench: Bench) -> Reading:
    """As of ranks."""
    return _read(bench, "shuffled", lambda n, whole: {"": plan(n, whole, epochs=2)})


@trainer_law(
    "ranks-order",
    "Shuffled, ranks share the examples out otherwise each epoch.",
    "a sampler has to be told the epoch: pytorch#31771, DALLE-pytorch#230",
    needs="ranks shuffle",
    kind="wrong order",
)
def ranks_order(bench: Bench) -> Reading:
    """Rounding as in trajectory, eightfold, of what each of two epochs does to I - W, see order.

    Null hypothesis: orders are drawn uniformly. That 4 batches of 8 examples are the same in both epochs has
    probability (8!)^4 / 32! < 2e-17.
    """
    asked, (first, *_) = _spread(bench, "epoch")
    _, (second, *_) = _spread(bench, "epochs")
    one, other = maps(asked, first.weights, second.weights)
    same = alike(one, other, 8 * tolerance(bench.dtype, 16))
    words = "each epoch has the same order" if same else ""
    return Reading(Discrepancy(float(same), 0.0, "second epochs with the order of the first"), words=words)


@trainer_law(
    "ranks-accumulated",
    "Micro-batches that ranks accumulate are one batch of all.",
    "what is accumulated before a reduction is part of it: build-nanogpt#30",
    needs="ranks accumulate",
    kind="ranks differ",
)
def ranks_accumulated(bench: Bench) -> Reading:
    """As of ranks."""
    return _read(bench, "accumulated", lambda n, whole: {"": plan(n, whole, 2)})


@trainer_law(
    "ranks-clip",
    "The gradient that is clipped is that of all ranks together.",
    "DeepSpeed#1801: the first rank alone clipped",
    needs="ranks clip",
    kind="ranks differ",
)
def ranks_clip(bench: Bench) -> Reading:
    """As of ranks, and 2e-6 / c, see clip. Examples not seen yet have gradients of one length at right angles."""
    return _read(bench, "clipped", lambda n, whole: {"": plan(n, whole)})


@trainer_law(
    "ranks-schedule",
    "The rate of a step is counted in steps, not in ranks.",
    "accelerate#2926, transformers#24088: it fell as many times as fast",
    needs="ranks schedule",
    rules={"steps": "counted in steps"},
    slips={"ranks": "counted once a step for each rank"},
)
def ranks_schedule(bench: Bench) -> Reading:
    """Rounding as in trajectory, four times: of products, by size. Which example met which rate is not asked."""

    def expected(asked: Asked, rule: str) -> list[Tensor]:
        falls = {"steps": 1, "ranks": bench.ranks}[rule]
        rates = [asked.lr * max(0.0, 1 - falls * k / 4) for k in range(4)]
        return bench.expected(asked, plan(len(asked.examples), SIZE * bench.ranks), rates=rates)

    return _by_size(bench, "scheduled", expected, ("steps", "ranks"))


@trainer_law(
    "ranks-loss",
    "The training loss that is reported is the mean over the examples of all ranks.",
    "transformers#12220, ArcticTraining#62: it was the first rank's",
    needs="ranks loss",
    kind="wrong figure",
    rules={
        "examples": "a mean over the examples of all ranks",
        "final": "a mean over the examples of all ranks, all at the final weights",
    },
)
def ranks_loss(bench: Bench) -> Reading:
    """As of training-loss. Losses are 1, 1/2, 1/4, ..., so that no rank's share has the mean of all."""
    asked, left = _spread(bench, "told")
    measured = left[0].loss
    if measured is None:
        raise NotOffered("loss, which it does not report")
    descent, n = bench.recursion(asked, 1), len(asked.examples)
    states = zip(("examples", "final"), descent.states(plan(n, n)), strict=True)
    means = {rule: descent.losses(layers).mean() for rule, layers in states}
    return nearest(float(measured), means, f"loss that it reports, {float(measured):.6g}")


def _asked(bench: Bench) -> dict[str, Asked]:
    """All that is asked of ranks, of what the trainer offers."""
    whole = SIZE * bench.ranks
    sizes: Mapping[str, tuple[int, int, dict[str, Any]]] = {
        "even": (2 * whole, 1, {}),
        "uneven": (whole + 1, 1, {}),  # at a smaller q: no example is at its end after the last, short step
        "shuffled": (2 * whole, 2, {"shuffle": True}),
        "accumulated": (2 * whole, 1, {"accumulate": 2}),
        "scheduled": (4 * whole, 1, {"schedule": "linear"}),
        "clipped": (2 * whole, 1, {"clip": 1.0}),
    }
    asked = {
        name: bench.asked(n, SIZE, epochs, ranks=bench.ranks, **options)
        for name, (n, epochs, options) in sizes.items()
        if bench.offers(**options).keys() == options.keys()
    }
    if "shuffled" in asked:
        asked |= {
            name: bench.drawn(4 * whole, SIZE, epochs, shuffle=True, ranks=bench.ranks)
            for name, epochs in (("epoch", 1), ("epochs", 2))
        }
    asked["uneven"] = bench.asked(whole + 1, SIZE, ranks=bench.ranks, q=Q / SIZE)
    if one := asked.get("clipped"):
        # b gradients of length 2 / (d b) at right angles
        norm = 2 / one.examples.shape[1] / whole**0.5
        asked["clipped"] = replace(one, clip=norm / 2)
    lengths = 2.0 ** (-torch.arange(whole, dtype=torch.float64) / 2)
    x = orthonormal(whole, whole + 2, bench.seed) * lengths[:, None]
    pairs = orthonormal(whole, 2 * whole + 2, bench.seed).repeat(2, 1)
    return asked | {
        "told": bench.asked(whole, SIZE, ranks=bench.ranks, examples=x),
        "twice": bench.asked(2 * whole, SIZE, ranks=bench.ranks, examples=pairs),
    }


def _spread(bench: Bench, name: str) -> tuple[Asked, list[Left]]:
    """What is asked of ranks, and what each left; all at once, since starting ranks takes longest."""
    if bench.ranks == 1:
        raise NotApplicable("asked for with --ranks 2")
    bench.see_ranks()
    asked = _asked(bench)
    if name not in asked:
        raise NotOffered(OPTION[name])
    if not bench.spreads:
        bench.spreads = bench.on_ranks([*asked.values()])
    left = bench.spreads[[*asked].index(name)]
    for one in left:
        if isinstance(one, Exception):
            raise one
    return asked[name], [one for one in left if isinstance(one, Left)]


OPTION = {
    **dict.fromkeys(("shuffled", "epoch", "epochs"), "shuffle"),
    "accumulated": "accumulate",
    "scheduled": "schedule",
    "clipped": "clip",
}


def _read(bench: Bench, name: str, tables: Callable[[int, int], dict[str, Tensor]]) -> Reading:
    """The nearest rule, whatever the order of the examples: at a constant rate it counts for nothing."""
    asked, left = _spread(bench, name)
    first, last = left[0].weights, left[-1].weights
    if differ := sum(int((~(a == b)).sum()) for a, b in zip(first, last, strict=True)):
        return Reading(Discrepancy(differ, 0.0, EQUAL))
    near = tolerance(bench.dtype, 16) + (2e-6 / asked.clip if asked.clip else 0.0)
    rules = tables(len(asked.examples), SIZE * bench.ranks)
    offs = {rule: bench.off(asked, left[0], bench.expected(asked, table)) for rule, table in rules.items()}
    fitting = [rule for rule, off in offs.items() if off <= near]
    chosen = fitting[0] if fitting else next(iter(rules))
    words = told(bench.account(asked, left[0]), 4 * near)
    return Reading(Discrepancy(offs[chosen], near, OFF), "".join(fitting[:1]), words)


def _twice(bench: Bench) -> Reading:
    """What is left of examples that come twice, in one step or in two, as ranks share them."""
    asked, left = _spread(bench, "twice")
    found, near = account(left[0].weights[0], asked.examples), tolerance(bench.dtype, 16)
    both = torch.tensor([(1 - Q) ** 2, 1 - 2 * Q], dtype=torch.float64)
    off = (found.products[:, None] - both).abs().min(1).values.max()
    return Reading(Discrepancy(float(off), near, "what is left of an example that comes twice"))


def _steps(batches: Sequence[Sequence[int]]) -> Tensor:
    """Weights [steps, n] where each step is a mean over what it holds, some of it perhaps twice."""
    size = len(batches[0])
    rows = torch.zeros(len(batches), size + 1, dtype=torch.float64)
    for row, batch in zip(rows, batches, strict=True):
        for place in batch:
            row[place] += size / len(batch)
    return rows


def _by_size(
    bench: Bench, name: str, expected: Callable[[Asked, str], list[Tensor]], rules: Iterable[str]
) -> Reading:
    """The nearest rule by what became of the examples, whichever they are, each in its own direction."""
    asked, left = _spread(bench, name)
    first, last = left[0].weights, left[-1].weights
    if differ := sum(int((~(a == b)).sum()) for a, b in zip(first, last, strict=True)):
        return Reading(Discrepancy(differ, 0.0, EQUAL))
    found, near = account(first[0], asked.examples), 4 * tolerance(bench.dtype, 16)
    leak = float(found.leaks.max())
    offs = {rule: _off(found, account(expected(asked, rule)[0], asked.examples)) for rule in rules}
    fitting = [rule for rule, off in offs.items() if off <= near and leak <= near]
    chosen = fitting[0] if fitting else next(iter(offs))
    what = "product of an example's factors, by size" if leak <= near else "part of an example that leaks"
    q = 2 * asked.lr / (asked.examples.shape[1] * SIZE * bench.ranks)
    off = offs[chosen] if leak <= near else leak
    words = told(found, near, asked.epochs, q) if asked.schedule == "constant" else ""
    return Reading(Discrepancy(off, near, what), "".join(fitting[:1]), words)


def _off(found: Account, expected: Account) -> float:
    return float((found.products.sort().values - expected.products.sort().values).abs().max())
