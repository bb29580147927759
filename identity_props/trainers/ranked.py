"""Laws of ranks: several processes, each with its share of the examples, are one training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.task.minibatch import linear_rates
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import OFF, Bench, Reading, tolerance
from identity_props.trainers.counting import nearest
from identity_props.trainers.ledger import account, orthonormal, plan, told
from identity_props.trainers.protocol import Asked, Left, NotApplicable, NotOffered

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
    """Rounding as in trajectory; ranks hold the same bits, as what each adds is reduced before."""
    return _read(bench, "even", lambda n, whole: {"": plan(n, whole)})


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
    """Rounding as in trajectory, four times; the rules differ by a whole weight. One example more than ranks hold in a
    step; which example it is, and which are repeated, is not asked: the accounts are compared by size.
    """
    return _read(
        bench,
        "uneven",
        lambda n, whole: {
            "whole": plan(n, whole),
            "padded": _steps([[*range(whole)], [whole, *range(bench.ranks - 1)]]),
            "wrapped": _steps([[*range(whole)], [whole, *range(whole - 1)]]),
            "dropped": plan(n, whole, drop_last=True),
        },
    )


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
    """As of ranks: which example met which rate is not asked, how many met each is."""
    asked, left = _spread(bench, "scheduled")
    exact = linear_rates(asked.lr, 4)
    rates = {"steps": exact, "ranks": [asked.lr * max(0.0, 1 - bench.ranks * k / 4) for k in range(4)]}
    table = plan(len(asked.examples), SIZE * bench.ranks)
    near = 4 * tolerance(bench.dtype, 16)
    ends = {rule: bench.expected(asked, table, rates=one)[0] for rule, one in rates.items()}
    offs = {rule: _apart(left[0].weights[0], one, asked) for rule, one in ends.items()}
    fitting = [rule for rule, off in offs.items() if off <= near]
    chosen = fitting[0] if fitting else "steps"
    return Reading(
        Discrepancy(offs[chosen], near, "product of an example's factors, by size"), "".join(fitting[:1])
    )


@trainer_law(
    "ranks-loss",
    "The training loss that is reported is the mean over the examples of all ranks.",
    "transformers#12220, ArcticTraining#62: it was the first rank's",
    needs="ranks loss",
    kind="wrong figure",
    rules={"examples": "a mean over the examples of all ranks"},
)
def ranks_loss(bench: Bench) -> Reading:
    """As of training-loss. Losses are 1, 1/2, 1/4, ..., so that no rank's share has the mean of all."""
    asked, left = _spread(bench, "told")
    measured = left[0].loss
    if measured is None:
        raise NotOffered("loss, which it does not report")
    mean = asked.examples.double().square().mean()
    return nearest(float(measured), {"examples": mean}, f"loss that it reports, {float(measured):.6g}")


def _asked(bench: Bench) -> dict[str, Asked]:
    """All that is asked of ranks, of what the trainer offers."""
    whole = SIZE * bench.ranks
    sizes: Mapping[str, tuple[int, int, dict[str, Any]]] = {
        "even": (2 * whole, 1, {}),
        "uneven": (whole + 1, 1, {}),
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
    if one := asked.get("clipped"):
        # b gradients of length 2 / (d b) at right angles
        norm = 2 / one.examples.shape[1] / whole**0.5
        asked["clipped"] = replace(one, clip=norm / 2)
    lengths = 2.0 ** (-torch.arange(whole, dtype=torch.float64) / 2)
    x = orthonormal(whole, whole + 2, bench.seed) * lengths[:, None]
    return asked | {"told": bench.asked(whole, SIZE, ranks=bench.ranks, examples=x)}


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
    "shuffled": "shuffle",
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
    ends = {rule: bench.expected(asked, table) for rule, table in rules.items()}
    offs = {rule: bench.off(asked, left[0], end) for rule, end in ends.items()}
    if name == "uneven":
        near = 4 * near
        offs = {rule: _apart(left[0].weights[0], end[0], asked) for rule, end in ends.items()}
    fitting = [rule for rule, off in offs.items() if off <= near]
    chosen = fitting[0] if fitting else next(iter(rules))
    words = told(bench.account(asked, left[0]), 4 * near)
    return Reading(Discrepancy(offs[chosen], near, OFF), "".join(fitting[:1]), words)


def _steps(batches: Sequence[Sequence[int]]) -> Tensor:
    """Weights [steps, n] where each step is a mean over what it holds, some of it perhaps twice."""
    size = len(batches[0])
    rows = torch.zeros(len(batches), size + 1, dtype=torch.float64)
    for row, batch in zip(rows, batches, strict=True):
        for place in batch:
            row[place] += size / len(batch)
    return rows


def _apart(weights: Tensor, expected: Tensor, asked: Asked) -> float:
    """Largest distance of what became of the examples, by size, with what was mixed into others."""
    found, exact = account(weights, asked.examples), account(expected, asked.examples)
    off = (found.products.sort().values - exact.products.sort().values).abs().max()
    return float(torch.maximum(off, found.leaks.max()))
