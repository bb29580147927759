"""Which laws name a fault that is planted in the plain loop, or accuse a clean one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

from identity_props.conformance.rows import DESIGN, FAIL
from identity_props.conformance.training import check_trainer
from identity_props.faults.base import TrainerFault, TrainerTwin
from identity_props.stack.ranks import on_ranks
from identity_props.trainers import Bench
from identity_props.trainers.protocol import Asked, Fit, Left, attempted


def accusing(one: TrainerFault | TrainerTwin, ranks: int = 2, seed: int = 0) -> tuple[str, ...]:
    """Laws that fail, or that name another rule than those which a clean loop follows."""
    rules = one.rules if isinstance(one, TrainerTwin) else ()
    bench = Bench(one.fit, spread=partial(_spread, one.fit), seed=seed, ranks=ranks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what a fault does
        rows = [*check_trainer(bench)]
    others = [row for row in rows if row.verdict == DESIGN and row.kind not in rules]
    return tuple(row.name for row in rows if row.verdict == FAIL or row in others)


def _spread(fit: Fit, asked: Sequence[Asked]) -> list[list[Left | Exception]]:
    left = on_ranks(asked[0].ranks, _of_rank, fit, asked)
    return [[*each] for each in zip(*left, strict=True)]


def _of_rank(fit: Fit, asked: Sequence[Asked]) -> list[Left | Exception]:
    return [attempted(fit, one) for one in asked]
