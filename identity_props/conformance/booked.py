"""The account of a trainer, kept in a process of its own: what ends or hangs it is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from identity_props.conformance.asked import Named
from identity_props.conformance.isolated import ENDED, working
from identity_props.errors import InputError, MissingError

if TYPE_CHECKING:
    from identity_props.conformance.rows import Row
    from identity_props.trainers.accounting import Book
    from identity_props.trainers.running import Trainer


@dataclass(frozen=True)
class AskedBook:
    """A trainer as a command line says it, see ``trainer_of``, and the fields of ``Training`` to account for."""

    name: str | None
    arguments: tuple[str, ...]
    command: str | None
    training: Mapping[str, Any]
    guard: float
    quiet = alone = True

    @contextmanager
    def made(self) -> Iterator[tuple[Named, Callable[[Sequence[Row]], Iterator[Book]]]]:
        """The trainer, and what accounts for it; raises InputError or MissingError."""
        from identity_props.trainers.accounting import Training
        from identity_props.trainers.running import trainer_of

        training = Training(**self.training)
        trainer = trainer_of(self.name, self.arguments, self.command)
        parts = {"trainer": str(trainer), "version": trainer.version, "ranks": training.ranks}

        def books(_: Sequence[Row]) -> Iterator[Book]:
            yield _kept(trainer, training, self.guard)

        yield Named(str(trainer), parts, "cpu", ("ledger",)), books


def _kept(trainer: Trainer, training: Any, guard: float) -> Book:
    """The book; raises InputError for a trainer that raises, hangs, forks, or does not offer what is asked."""
    from identity_props.conformance.following import THREADS
    from identity_props.stack.guard import RAISED, ForkError, HangError, no_forks, time_limit
    from identity_props.stack.importing import import_all
    from identity_props.stack.unchanged import unchanged
    from identity_props.trainers.accounting import kept
    from identity_props.trainers.protocol import NotOffered
    from identity_props.trainers.running import bench_of

    import_all()
    try:
        with (
            bench_of(trainer, training.seed, training.ranks, training.resume_at is not None) as bench,
            unchanged(THREADS),
            time_limit(guard),
            no_forks(),
        ):
            return kept(bench, training)
    except (InputError, MissingError):
        raise
    except NotOffered as option:
        raise InputError(
            f"{trainer}: expected one that offers what is asked, it does not: {option}"
        ) from None
    except (HangError, ForkError) as error:
        raise InputError(f"{trainer}: expected one that leaves weights, got: {error}") from None
    except RAISED as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{trainer}: expected one that leaves weights, got {said}") from None


def here(asked: AskedBook) -> tuple[Named, Book]:
    """The trainer by name and its book, in this process, which a trainer may end."""
    with asked.made() as (named, books):
        return named, next(books(()))


def kept_apart(asked: AskedBook) -> tuple[Named, Book]:
    """The trainer by name and its book; nothing is left running. Raises InputError where it ends the process."""
    with working(asked) as judge:
        named = judge.named()
        told, book = judge.next()
        if told == ENDED:
            raise InputError(f"{named}: expected one that leaves weights, got one that {book[1]}")
        judge.next()  # it has finished, its own processes too
        return named, book
