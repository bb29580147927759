"""A plan followed row by row: whatever a part or a trainer does in one, it is that row, and the next is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from identity_props.conformance.rows import FAIL, HANGS, Plan, Row, enough, not_run
from identity_props.engine.training import RanksDifferError
from identity_props.stack.guard import RAISED, ForkError, HangError, no_forks, time_limit
from identity_props.stack.importing import import_all
from identity_props.stack.unchanged import unchanged

THREADS = 1  # more of them cost more than they bring with 16 pixels
GUARD, COMPILED = 60.0, 600.0  # seconds a step may take, and one that is compiled, on a busy machine too
LEAST_GUARD = 1.0  # once one hung


def followed(plan: Plan, guard: float, done: Sequence[Row] = ()) -> Iterator[Row]:
    """Rows of a plan, from the first that is not done; a hang costs the limit once, then less."""
    import_all()
    rows = [*done]
    for name, measure in islice(plan, len(done), None):
        rows.append(after(rows, name, measure, guard))
        yield rows[-1]


def limited(guard: float | None, mode: str = "eager") -> float:
    """The guard that is asked for, else that of a mode."""
    return guard if guard is not None else COMPILED if mode == "compiled" else GUARD


def after(rows: Sequence[Row], name: str, measure: Callable[[], Row], guard: float) -> Row:
    """A row after others: with a shorter guard where one of them hung, not run where it happened too often."""
    if enough(rows):
        return not_run(name)
    hung = any(row.kind == HANGS for row in rows)
    return guarded(name, measure, min(guard, max(LEAST_GUARD, guard / 10)) if hung else guard)


def guarded(name: str, measure: Callable[[], Row], seconds: float) -> Row:
    """A row, or how it ended without one."""
    try:
        with unchanged(THREADS), time_limit(seconds), no_forks():
            return measure()
    except HangError as error:
        return Row(name, FAIL, kind=HANGS, note=str(error))
    except ForkError as error:
        return Row(name, FAIL, kind="forks", note=str(error))
    except RanksDifferError as error:
        return Row(name, FAIL, kind="ranks differ", note=str(error))
    except RAISED as error:  # a user's part may raise anything, and the other rows still run
        return Row(name, FAIL, kind="error", note=f"{type(error).__name__}: {' '.join(str(error).split())}")
