"""The laws of a trainer, shared out over the workers of a Dask cluster.

Laws that stand in one module share trainings, so these are one task. Each is measured in a process of its own there, as
``isolated`` does it here, and says first whether the trainer trains at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby

from identity_props.conformance import isolated
from identity_props.conformance.asked import AskedTrainer, Named
from identity_props.conformance.rows import FAIL, Row
from identity_props.conformance.training import TRAINS
from identity_props.stack.crews import crew, each
from identity_props.trainers import TRAINER_LAWS

Part = tuple[Named, list[Row]]


@contextmanager
def judged(
    asked: AskedTrainer, scheduler: str, say: Callable[[str], None]
) -> Iterator[tuple[Named, Iterator[Row]]]:
    """The trainer by name, and its rows as they come, those of a part together.

    Raises what making the trainer raises on a worker, and MissingError where the scheduler is gone.
    """
    with crew(asked, 1, 1, scheduler, say) as workers:
        parts = (part for _, part in each(workers, measured, ((names,) for names in laws())))
        named, rows = next(parts)
        yield (
            replace(named, rows=(TRAINS, *TRAINER_LAWS)),
            _once(chain([rows], (other for _, other in parts))),
        )


def laws() -> list[tuple[str, ...]]:
    """Names of the laws of each part."""
    by_module = groupby(TRAINER_LAWS.values(), key=lambda law: law.measure.__module__)
    return [tuple(law.name for law in some) for _, some in by_module]


def measured(asked: AskedTrainer, names: tuple[str, ...]) -> Part:
    """A part, on a worker."""
    with isolated.judged(replace(asked, laws=names)) as (named, rows):
        return named, [*rows]


def _once(parts: Iterable[list[Row]]) -> Iterator[Row]:
    """Rows of all parts; whether it trains once, and alone where it does not."""
    for k, rows in enumerate(parts):
        yield from (row for row in rows if k == 0 or row.name != TRAINS or row.verdict == FAIL)
        if rows[0].verdict == FAIL:
            return
