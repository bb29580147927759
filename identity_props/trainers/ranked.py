"""Laws of ranks: several processes, each with its share of the examples, are one training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import OFF, Bench, Reading, tolerance
from identity_props.trainers.ledger import plan, told
from identity_props.trainers.protocol import Asked, Left, NotApplicable, NotOffered

SIZE = 4  # of a micro-batch on a rank


@trainer_law(
    "ranks",
    "Two data-parallel processes are one: all examples, each once, in batches twice as large; ranks are equal.",
    "the mean of the ranks' gradients is the gradient of their batches together",
    needs="ranks",
    kind="ranks differ",
)
def ranks(bench: Bench) -> Reading:
    """Rounding as in trajectory; ranks hold the same bits, as what each adds is reduced before."""
    asked, left = _spread(bench, 0)
    first, last = left[0].weights, left[-1].weights
    differ = sum(int((~(a == b)).sum()) for a, b in zip(first, last, strict=True))
    if differ:
        return Reading(Discrepancy(differ, 0.0, "weights that are not the same bit for bit on both ranks"))
    return _read(bench, asked, left[0], {"": plan(2 * SIZE * bench.ranks, SIZE * bench.ranks)})


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
    """Rounding as in trajectory; the rules differ by a whole weight. One example more than ranks hold in a step."""
    asked, left = _spread(bench, 1)
    whole = SIZE * bench.ranks
    tables = {
        "whole": plan(whole + 1, whole),
        "padded": _steps([[*range(whole)], [whole, *range(bench.ranks - 1)]]),
        "wrapped": _steps([[*range(whole)], [whole, *range(whole - 1)]]),
        "dropped": plan(whole + 1, whole, drop_last=True),
    }
    return _read(bench, asked, left[0], tables)


def _steps(batches: Sequence[Sequence[int]]) -> Tensor:
    """Weights [steps, n] where each step is a mean over what it holds, some of it perhaps twice."""
    size = len(batches[0])
    rows = torch.zeros(len(batches), size + 1, dtype=torch.float64)
    for row, batch in zip(rows, batches, strict=True):
        for place in batch:
            row[place] += size / len(batch)
    return rows


def _spread(bench: Bench, which: int) -> tuple[Asked, list[Left]]:
    """What is asked of ranks, and what each left; both at once, since starting ranks takes longest."""
    if bench.ranks == 1:
        raise NotApplicable("asked for with --ranks 2")
    bench.trained(bench.asked(4, 2))
    if bench.spread is None or "ranks" not in bench.reads:
        raise NotOffered("ranks")
    whole = SIZE * bench.ranks
    both = [bench.asked(n, SIZE, ranks=bench.ranks) for n in (2 * whole, whole + 1)]
    if not bench.spreads:
        bench.spreads = bench.spread(both)
    left = bench.spreads[which]
    for one in left:
        if isinstance(one, Exception):
            raise one
    return both[which], [one for one in left if isinstance(one, Left)]


def _read(bench: Bench, asked: Asked, left: Left, tables: dict[str, Tensor]) -> Reading:
    """The nearest rule, whatever the order of the examples: at a constant rate it counts for nothing."""
    near = tolerance(bench.dtype, 16)
    offs = {rule: bench.off(asked, left, bench.expected(asked, table)) for rule, table in tables.items()}
    fitting = [rule for rule, off in offs.items() if off <= near]
    chosen = fitting[0] if fitting else next(iter(tables))
    words = told(bench.account(asked, left), 4 * near)
    return Reading(Discrepancy(offs[chosen], near, OFF), fitting[0] if fitting else "", words)
