"""The account of a trainer: what each example, or token, weighs at each step of a training that a user asks for.

It is read as in ledger, from trainings of 1 to E epochs. Where a falling rate does not name the steps, two constant
rates tell what each example weighs in each epoch: all its exposures together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identity_props.errors import InputError
from identity_props.stack.processes import temporary_folder
from identity_props.trainers import tokens
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import tolerance
from identity_props.trainers.exposures import by_epochs
from identity_props.trainers.ledger import Account, Ledger, Q, account, decoded, orthonormal, totals
from identity_props.trainers.protocol import IGNORED, Asked, Left, TrainedError

STEPS, EPOCHS, TOKENS = "steps", "epochs", "tokens"  # what a row of weights is of
SMALLER = 3 / 8  # of q, for a second reading: a weight that ends an example at one q does not at the other


@dataclass(frozen=True)
class Training:
    """A training to account for; ``resume_at`` counts micro-batches of a rank.

    Raises InputError for one that nobody could do.
    """

    examples: int = 48
    batch_size: int = 8
    accumulate: int = 1
    epochs: int = 3
    ranks: int = 1
    resume_at: int | None = None
    evaluate: bool = False
    shuffle: bool = False
    drop_last: bool = False
    tokens: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "batch_size", "accumulate", "epochs", "ranks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.resume_at is not None and self.ranks > 1:
            raise InputError("resume_at: expected 1 rank, whose training is stopped, got several")
        every = self.batches * self.epochs
        if self.resume_at is not None and not 0 < self.resume_at < every:
            raise InputError(
                f"resume_at: expected more than 0 and less than {every}, all micro-batches, got {self.resume_at}"
            )
        beside = ("ranks", "resume_at", "evaluate", "shuffle", "drop_last")
        given = [name for name in beside if getattr(self, name) != getattr(Training, name)]
        if self.tokens and (given or self.epochs > 1):
            raise InputError(
                f"tokens: expected one epoch, in order, on one rank, got {', '.join(given or ['epochs'])}"
            )

    @property
    def batches(self) -> int:
        """Micro-batches of a rank in an epoch."""
        size = self.batch_size * self.ranks
        return self.examples // size if self.drop_last else -(-self.examples // size)

    @property
    def options(self) -> dict[str, Any]:
        """What a trainer is asked beside examples, batch size and epochs."""
        names = ("accumulate", "ranks", "shuffle", "drop_last", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Book:
    """What was found of a training.

    ``weights`` [rows, n] are those of each step, or of each epoch in all, or of the one step that each token is in;
    NaN stands in columns that are ``unclear``. ``ends`` are the rows at each epoch's end. ``leaks`` [n] is what became
    of each off its own direction, ``moved`` what directions moved that were held out; both are 0 up to ``near``,
    computed in ``dtype``. ``steps`` are the optimizer steps that it reports, ``why`` says why no steps are shown,
    ``lengths`` are the tokens of each sequence, and ``differing`` weights that are not the same on all ranks.
    """

    training: Training
    by: str
    weights: Tensor
    ends: list[int]
    leaks: Tensor
    moved: Tensor
    unclear: list[int]
    dtype: torch.dtype
    near: float
    steps: int | None = None
    why: str = ""
    lengths: list[int] = field(default_factory=list)
    masked: list[int] = field(default_factory=list)
    differing: int = 0

    @property
    def mixed(self) -> list[int]:
        """Places of examples that were mixed with others."""
        return [place for place, leak in enumerate(self.leaks.tolist()) if not leak <= self.near]

    def describe(self) -> dict[str, Any]:
        """What was asked, by name."""
        return asdict(self.training)


def kept(bench: Bench, training: Training) -> Book:
    """The account of a training; raises NotOffered for what the trainer does not offer, and what it raises."""
    return _of_tokens(bench, training) if training.tokens else _Accounts(bench, training).book()


@dataclass(frozen=True, eq=False)
class _Read:
    """At one q: what was left after all epochs, the accounts after each, and the ledger by steps, if there is one."""

    q: float
    left: Left
    accounts: list[Account]
    ledger: Ledger | None


# Examples ---------------------------------------------------------------------------------------------


class _Accounts:
    """Trainings of 1 to E epochs, at some q and schedule, and what each left."""

    def __init__(self, bench: Bench, training: Training) -> None:
        self.bench, self.training = bench, training
        self.dtype = bench.dtype  # what is asked from here on is in it
        n = training.examples
        self.held = orthonormal(n + 2, n + 2, bench.seed)[n:]  # not trained on
        self.x = bench.asked(n, 1).examples
        self.near = 4 * tolerance(self.dtype, 16)
        self.error = tolerance(self.dtype, training.epochs)  # of a product
        self.clock = bool(bench.offers(schedule="linear"))
        self.differing = 0

    def asked(self, q: float, schedule: str = "constant") -> list[Asked]:
        """A training of each number of epochs."""
        training = self.training
        held = {"held": self.held.to(self.dtype)} if training.evaluate else {}
        size, options = training.batch_size, training.options | held
        return [
            self.bench.asked(training.examples, size, one, q=q, schedule=schedule, **options)
            for one in range(1, training.epochs + 1)
        ]

    def left(self, *groups: list[Asked]) -> list[list[Left]]:
        """What each group of trainings leaves; on ranks all are done at once, since those take long to start."""
        every = [one for group in groups for one in group]
        found = self._on_ranks(every) if self.training.ranks > 1 else [*map(self._once, every)]
        for one in found:
            if not all(bool(layer.isfinite().all()) for layer in one.weights):
                raise TrainedError("weights: expected finite numbers, got others")
        each = self.training.epochs
        return [found[at : at + each] for at in range(0, len(found), each)]

    def _once(self, asked: Asked) -> Left:
        stop = self.training.resume_at
        if stop is None or stop >= self.training.batches * asked.epochs:
            return self.bench.trained(asked)
        with temporary_folder() as folder:
            here = replace(asked, folder=Path(folder))
            self.bench.once(replace(here, stop=stop))
            return (self.bench.again or self.bench.once)(replace(here, resume=True))

    def _on_ranks(self, asked: Sequence[Asked]) -> list[Left]:
        found = []
        for each in self.bench.on_ranks(asked):
            for left in each:
                if isinstance(left, Exception):
                    raise left
            ranks = [left for left in each if isinstance(left, Left)]
            pairs = zip(ranks[0].weights, ranks[-1].weights, strict=True)
            self.differing += sum(int((~(a == b)).sum()) for a, b in pairs)
            found.append(ranks[0])
        return found

    def read(self, q: float) -> _Read:
        """The accounts at one q, and the ledger that fits them best where a falling rate is offered."""
        asked = self.asked(q)
        constant, *clocked = self.left(asked, *([self.asked(q, "linear")] if self.clock else []))
        accounts = self.accounts(constant)
        every = [*totals(asked[0], self.training.epochs)]
        if all(one.steps for one in constant):
            every.append([one.steps or 0 for one in constant])
        books = [
            decoded(accounts, self.accounts(late), steps, self.error, q)
            for late in clocked
            for steps in every
        ]
        best = min(books, key=lambda one: (len(one.unclear), one.ends[-1]), default=None)  # the fewest steps
        return _Read(q, constant[-1], accounts, best)

    def accounts(self, left: Sequence[Left]) -> list[Account]:
        """What each says of the examples."""
        return [account(one.weights[0], self.x) for one in left]

    def book(self) -> Book:
        """By steps, with a second q where the first does not show all; by epochs where no steps fit."""
        q = min(Q, 2 / self.training.epochs)  # so that something is left of an example at the end
        first = self.read(q)
        if first.ledger is not None and not first.ledger.unclear:
            return self._book(STEPS, first, first.ledger)
        second = self.read(SMALLER * q)
        books = [(STEPS, one.ledger) for one in (second, first) if one.ledger is not None]
        books.append((EPOCHS, by_epochs((first.q, first.accounts), (second.q, second.accounts), self.error)))
        by, chosen = min(books, key=lambda one: len(one[1].unclear))
        return self._book(by, first, chosen)

    def _book(self, by: str, read: _Read, found: Ledger) -> Book:
        offered = "its steps do not follow the falling rate that names them"
        why = offered if self.clock else "it offers no falling rate, which names them"
        return Book(
            self.training,
            by,
            found.weights,
            found.ends,
            found.leaks,
            (self.held @ read.left.weights[0].double().mT).norm(dim=1),
            found.unclear,
            self.dtype,
            self.near,
            read.left.steps,
            "" if by == STEPS else why,
            differing=self.differing,
        )


# Tokens -----------------------------------------------------------------------------------------------


def _of_tokens(bench: Bench, training: Training) -> Book:
    """The weight of each token in the step that it is in, see tokens.account."""
    dtype = bench.dtype  # what is asked from here on is in it
    asked = bench.sequences(training.batch_size, accumulate=training.accumulate)
    left = bench.trained(asked)
    drawn = asked.tokens
    assert drawn is not None
    labels = torch.cat(drawn.labels)
    weights, leaks = tokens.account(asked, left), tokens.leaks(asked, left)
    return Book(
        training,
        TOKENS,
        weights[None],
        [1],
        leaks,
        tokens.unused(asked, left),
        [],
        dtype,
        4 * tolerance(dtype, 16),
        left.steps,
        lengths=[len(one) for one in drawn.ids],
        masked=(labels == IGNORED).nonzero()[:, 0].tolist(),
    )
