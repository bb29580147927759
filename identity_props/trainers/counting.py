"""Laws of what is counted: steps, examples, micro-batches, and the losses that are told."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import tolerance
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotOffered
from identity_props.trainers.reading import Reading, first_wrong

LEDGER = "From (I - W) x_i = x_i times the product of (1 - q_t w_it), x_i orthonormal, W_0 = 0"


@trainer_law(
    "steps",
    "Optimizer steps taken are those asked for: ceil(n / (batch x accumulate)) an epoch.",
    "AiDotNet#1360: training stopped after one iteration",
    kind="wrong count",
)
def steps(bench: Bench) -> Reading:
    """A whole number, which has no tolerance."""
    asked = bench.asked(10, 4, 3)
    taken = bench.trained(asked).steps
    if taken is None:
        raise NotOffered("steps, which it does not report")
    return Reading(Discrepancy(abs(taken - 9), 0.0, f"|steps - 9|, it took {taken}"))


@trainer_law(
    "trajectory",
    "The weights are those of mini-batch gradient descent, each batch in the order read.",
    "W_{k+1} = W_k - lr grad of the batch's mean squared error, in float64",
)
def trajectory(bench: Bench) -> Reading:
    """8 (steps + 1) sum sqrt(n) eps for two sums a step of at most 64 terms, see laws.base.rounding.

    Of one layer, and of two, where those are offered: each has its rate from the trainer.
    """
    asked = bench.drawn(12, 4, 2)
    found = [bench.matched(asked, {"": bench.expected(asked, plan(12, 4, epochs=2))})]
    with suppress(NotOffered):  # by one that trains one layer
        asked = bench.drawn(12, 4, 2, layers=2)
        found.append(bench.matched(asked, {"": bench.expected(asked, plan(12, 4, epochs=2))}))
    return first_wrong(found)


@trainer_law(
    "every-example",
    "Over E epochs each example is trained on E times, shuffled or not, and none held out moves anything.",
    LEDGER,
)
def every_example(bench: Bench) -> Reading:
    """Rounding as in trajectory. The order counts for nothing at a constant rate: examples do not meet."""
    found = []
    for options in ({}, *[{"shuffle": True}] * bool(bench.offers(shuffle=True))):
        asked = bench.asked(12, 4, 3, **options)
        found.append(bench.matched(asked, {"": bench.expected(asked, plan(12, 4, epochs=3))}))
    return first_wrong(found)


@trainer_law(
    "last-batch",
    "An incomplete last batch is a mean over what it holds.",
    LEDGER,
    rules={
        "mean": "a mean over what it holds",
        "fixed": "divided by the batch size asked for: its examples weigh as much as others",
    },
    slips={"dropped": "its examples are not trained on"},
)
def last_batch(bench: Bench) -> Reading:
    """Rounding as in trajectory; the rules differ by a whole weight."""
    asked = bench.asked(10, 4)
    tables = {
        "mean": plan(10, 4),
        "dropped": plan(10, 4, drop_last=True),
        "fixed": plan(10, 4, micro="fixed"),
    }
    return bench.matched(asked, expected(bench, asked, tables))


@trainer_law(
    "drop-last",
    "Where it is asked for, an incomplete last batch is dropped, and nothing else; shuffled, of any examples.",
    LEDGER,
    needs="drop_last",
)
def drop_last(bench: Bench) -> Reading:
    """Rounding as in trajectory; the rules differ by a whole weight.

    Null hypothesis: each epoch drops 2 of 10 examples, drawn uniformly. That one of them is dropped in all of 16
    epochs has probability 10 (1/5)^16 < 7e-11; the smallest deviation seen is an example that never comes.
    """
    asked = bench.asked(10, 4, 2, drop_last=True)
    found = bench.matched(asked, {"": bench.expected(asked, plan(10, 4, epochs=2, drop_last=True))})
    asked = bench.asked(8, 4, 2, drop_last=True)
    whole = bench.matched(asked, {"": bench.expected(asked, plan(8, 4, epochs=2))})
    found = first_wrong([found, whole])
    if not found.found.holds or not bench.offers(shuffle=True):
        return found
    asked = bench.asked(10, 4, 16, drop_last=True, shuffle=True)
    left = bench.trained(asked)
    times = bench.account(asked, left).times(tolerance(bench.dtype, 16))
    never = times.count(0) if sum(time or 0 for time in times) == 8 * 16 else math.inf
    what = "examples never trained on in 16 shuffled epochs that drop 2 of 10 each"
    return Reading(Discrepancy(never, 0.0, what), words=bench.words(asked, left))


@trainer_law(
    "accumulation",
    "Micro-batches of equal size, accumulated, are one batch of all.",
    LEDGER,
    needs="accumulate",
    rules={"mean": "one batch of all"},
    slips={"summed": "the sum of the micro-batches' means: the rate times their number"},
)
def accumulation(bench: Bench) -> Reading:
    """Rounding as in trajectory."""
    asked = bench.asked(16, 2, 2, accumulate=4)
    table = plan(16, 2, 4, 2)
    return bench.matched(asked, expected(bench, asked, {"mean": table, "summed": 4 * table}))


@trainer_law(
    "unequal",
    "Micro-batches of unequal size, accumulated, are one batch of all.",
    LEDGER + "; transformers#34191",
    needs="accumulate",
    rules={
        "examples": "one batch of all",
        "means": "a mean of the micro-batches' means: examples of a short one weigh more",
        "fixed": "divided by the number of examples asked for",
    },
    slips={"waits": "too few for a step, which is never taken"},
)
def unequal(bench: Bench) -> Reading:
    """Rounding as in trajectory; the rules differ by 1/8 of a weight at least."""
    asked = bench.asked(14, 4, accumulate=4)
    tables = {rule: plan(14, 4, 4, micro=rule) for rule in ("examples", "means", "fixed")}
    return bench.matched(asked, expected(bench, asked, {**tables, "waits": 0 * tables["examples"]}))


@trainer_law(
    "window",
    "An incomplete window of micro-batches at an epoch's end is stepped on, with the mean of what it holds.",
    LEDGER,
    needs="accumulate",
    rules={
        "mean": "stepped on with the mean of what it holds",
        "fixed": "stepped on, divided by the number of micro-batches asked for",
        "carried": "carried into the next epoch: the last one of a training is never stepped on",
        "ended": "carried into the next epoch: the last one of a training is stepped on with the mean of what it holds",
    },
    slips={"dropped": "its examples are read and not trained on"},
)
def window(bench: Bench) -> Reading:
    """Rounding as in trajectory; the rules differ by a whole weight. After three epochs, one and a half of carried
    windows is left over: after one it is as if they were dropped, after two as if divided by a fixed number.
    """
    asked = bench.asked(12, 2, 3, accumulate=4)
    rules = ("mean", "fixed", "carried", "ended", "dropped")
    tables = {rule: plan(12, 2, 4, 3, window=rule) for rule in rules}
    return bench.matched(asked, expected(bench, asked, tables))


@trainer_law(
    "frozen",
    "A frozen layer stays as it is, bit for bit, decay or not.",
    "torch: requires_grad_(False) takes a parameter out of training",
    needs="frozen",
    kind="moved",
)
def frozen(bench: Bench) -> Reading:
    """Nothing is computed, so nothing is rounded: 0."""
    options = bench.offers(decay=0.1, momentum=0.5)
    asked = bench.drawn(8, 4, 2, layers=2, frozen=(0,), **options)
    first, second = _of_two(bench, asked)
    moved = float((first.double() - asked.start[0].double()).abs().max())
    trained = float((second.double() - asked.start[1].double()).abs().max())
    stands = Discrepancy(math.inf if trained == 0 else 0.0, 0.0, "the other layer stands still")
    return Reading(
        stands if trained == 0 else Discrepancy(moved, 0.0, "largest change of a frozen layer's weight")
    )


def _of_two(bench: Bench, asked: Asked) -> list[Tensor]:
    """Both layers; raises NotOffered where it refuses what ``network()`` has frozen, and all else is well."""
    try:
        return bench.trained(asked).weights
    except RuntimeError as error:
        bench.trained(replace(asked, frozen=()))
        raise NotOffered(f"frozen: it refuses it: {error}") from error


def expected(bench: Bench, asked: Asked, tables: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Layers that each rule's table leaves."""
    return {rule: bench.expected(asked, table) for rule, table in tables.items()}
