"""The account of a trainer: what each example, or token, weighs at each step of a training that a user asks for.

It is read as in ledger, from trainings of 1 to E epochs. Where a falling rate does not name the steps, two constant
rates tell what each example weighs in each epoch: all its exposures together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from identity_props.errors import InputError
from identity_props.stack.guard import alive
from identity_props.trainers import tokens
from identity_props.trainers.bench import Bench, tolerance, totals
from identity_props.trainers.ledger import Account, Ledger, Q, account, decoded, orthonormal, ranges
from identity_props.trainers.protocol import IGNORED, Asked, Left, NotOffered, TrainedError

STEPS, EPOCHS, TOKENS = "steps", "epochs", "tokens"  # what a row of weights is of
SMALLER = 3 / 8  # of q, for a second reading: a weight that ends an example at one q does not at the other
RUNS = 12  # of places with equal labels that a sentence names
MOST = 6  # exposures of equal weight in one epoch that are told apart by two rates


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
        if self.resume_at is not None and not 0 < self.resume_at < self.batches * self.epochs:
            last = self.batches * self.epochs - 1
            raise InputError(f"resume_at: expected 1 to {last}, a micro-batch inside, got {self.resume_at}")
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
    bench.dtype  # noqa: B018 - what is asked from here on is in it
    return _of_tokens(bench, training) if training.tokens else _Accounts(bench, training).book()


# Examples ---------------------------------------------------------------------------------------------


class _Accounts:
    """Trainings of 1 to E epochs, at some q and schedule, and what each left."""

    def __init__(self, bench: Bench, training: Training) -> None:
        self.bench, self.training = bench, training
        n = training.examples
        self.held = orthonormal(n + 2, n + 2, bench.seed)[n:]  # not trained on
        self.x = bench.asked(n, 1).examples
        self.near = 4 * tolerance(bench.dtype, 16)
        self.clock = bool(bench.offers(schedule="linear"))
        self.differing = 0

    def asked(self, q: float, schedule: str = "constant") -> list[Asked]:
        """A training of each number of epochs."""
        training = self.training
        held = {"held": self.held.to(self.bench.dtype)} if training.evaluate else {}
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
        alive()
        stop = self.training.resume_at
        if stop is None or stop >= self.training.batches * asked.epochs:
            return self.bench.trained(asked)
        with TemporaryDirectory(prefix="identity-props-") as folder:
            here = replace(asked, folder=Path(folder))
            self.bench.once(replace(here, stop=stop))
            return (self.bench.again or self.bench.once)(replace(here, resume=True))

    def _on_ranks(self, asked: Sequence[Asked]) -> list[Left]:
        found = []
        for each in self.bench.on_ranks(asked):
            for left in each:
                if isinstance(left, Exception):
                    raise left
            first, last = each[0], each[-1]
            assert isinstance(first, Left) and isinstance(last, Left)
            pairs = zip(first.weights, last.weights, strict=True)
            self.differing += sum(int((~(a == b)).sum()) for a, b in pairs)
            found.append(first)
        return found

    def read(self, q: float) -> _Read:
        """The accounts at one q, and the ledger that fits them best where a falling rate is offered."""
        groups = [self.asked(q), *([self.asked(q, "linear")] if self.clock else [])]
        left = self.left(*groups)
        accounts = [[account(one.weights[0], self.x) for one in group] for group in left]
        every = [*totals(groups[0][0], self.training.epochs)]
        reported = [one.steps for one in left[0]]
        if all(reported):
            every.append([int(one or 0) for one in reported])
        books = [decoded(*accounts, steps, self.near, q) for steps in every] if self.clock else []
        best = min(books, key=lambda one: len(one.unclear), default=None)
        return _Read(q, left[0][-1], accounts[0], best)

    def book(self) -> Book:
        """By steps, with a second q where the first does not show all; by epochs where no steps fit."""
        q = min(Q, 2 / self.training.epochs)  # so that something is left of an example at the end
        first = self.read(q)
        if first.ledger is not None and not first.ledger.unclear:
            return self._book(STEPS, first, first.ledger)
        second = self.read(SMALLER * q)
        books = [(STEPS, one.ledger) for one in (second, first) if one.ledger is not None]
        books.append((EPOCHS, by_epochs(first, second, self.near)))
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
            self.bench.dtype,
            self.near,
            read.left.steps,
            "" if by == STEPS else why,
            differing=self.differing,
        )


@dataclass(frozen=True, eq=False)
class _Read:
    """At one q: what was left after all epochs, the accounts after each, and the ledger by steps, if there is one."""

    q: float
    left: Left
    accounts: list[Account]
    ledger: Ledger | None


def by_epochs(one: _Read, other: _Read, near: float) -> Ledger:
    """What each example weighs in each epoch [epochs, n], from constant rates at two q.

    Exposures of weights w multiply by prod (1 - q w): equal ones, and any two, are told apart by two q.
    """
    factors = [_factors(read.accounts) for read in (one, other)]
    columns = [
        [_total((a, one.q), (b, other.q), near) for a, b in zip(*pair, strict=True)]
        for pair in zip(*factors, strict=True)
    ]
    weights = torch.tensor(columns, dtype=torch.float64).mT
    unclear = weights.isnan().any(0)
    weights[:, unclear] = math.nan
    places = unclear.nonzero()[:, 0].tolist()
    return Ledger(weights, one.accounts[-1].leaks, places, [*range(1, len(weights) + 1)])


def _factors(accounts: Sequence[Account]) -> list[list[float]]:
    """Of each example, what each epoch multiplies it by; NaN once nothing is left of it."""
    products = torch.stack([torch.ones_like(accounts[0].products), *(one.products for one in accounts)], 1)
    return (products[:, 1:] / products[:, :-1]).tolist()


def _total(one: tuple[float, float], other: tuple[float, float], near: float) -> float:
    """The sum of the weights of an epoch's exposures from two (factor, q); NaN where none fit."""
    (f, q), (g, p) = one, other
    if abs(1 - f) <= near and abs(1 - g) <= near:
        return 0.0
    slack = 8 * near / p
    for count in range(1, MOST + 1):
        if count == 1 or min(f, g) > 0:
            a, b = (_weight(*each, count) for each in (one, other))
            if abs(a - b) <= slack * max(1.0, abs(a)):
                return count * a
    product = ((1 - g) / p - (1 - f) / q) / (q - p)  # of two weights, and their sum
    total = (1 - f) / q + q * product
    return total if total**2 >= 4 * product else math.nan


def _weight(factor: float, q: float, count: int) -> float:
    return (1 - (factor if count == 1 else factor ** (1 / count))) / q


# Tokens -----------------------------------------------------------------------------------------------


def _of_tokens(bench: Bench, training: Training) -> Book:
    """The weight of each token in the step that it is in, see tokens.account."""
    asked = tokens.training(bench, training.batch_size, accumulate=training.accumulate)
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
        bench.dtype,
        4 * tolerance(bench.dtype, 16),
        left.steps,
        lengths=[len(one) for one in drawn.ids],
        masked=(labels == IGNORED).nonzero()[:, 0].tolist(),
    )


# In words ---------------------------------------------------------------------------------------------


def said(book: Book) -> list[str]:
    """What a book shows, in sentences."""
    noun = "tokens" if book.by == TOKENS else "examples"
    mixed, unclear = {*book.mixed}, {*book.unclear}
    labels = [
        "are mixed with others"
        if place in mixed
        else "are unclear"
        if place in unclear
        else _label(book, column, place)
        for place, column in enumerate(book.weights.mT.tolist())
    ]
    found = [_counted(labels, noun) if len([*groupby(labels)]) > RUNS else ranges(labels, noun)]
    if mixed:
        found.append(
            f"mixed: up to {float(book.leaks.max()):.2g} of an example lies in the direction of others, where 0 is right"
        )
    if not bool((book.moved <= book.near).all()):
        what = "ids that are not used" if book.by == TOKENS else "directions that are held out"
        found.append(f"{what} moved by {float(book.moved.max()):.2g}, where 0 is right")
    if unclear:
        found.append("unclear: what is left of an example fits no weights and steps")
    if book.differing:
        found.append(f"ranks hold {book.differing} weights that are not the same bit for bit")
    if book.steps is not None:
        found.append(f"it reports {book.steps} optimizer steps" + _against(book))
    if book.why:
        found.append(f"weights are those of whole epochs, not of steps: {book.why}")
    return found


def _counted(labels: Sequence[str], noun: str) -> str:
    """How many have each label, where places would be too many to read."""
    counts = Counter(labels).most_common()
    return f"{noun}: " + ", ".join(f"{count} {label}" for label, count in counts)


def _against(book: Book) -> str:
    """How many steps the weights show, where that is another number."""
    rows = book.weights.shape[0]
    return "" if book.by != STEPS or rows == book.steps else f", the weights show {rows}"


def _label(book: Book, column: Sequence[float], place: int) -> str:
    """What one example or token weighs: "weigh 2 in each epoch"."""
    if place in book.masked:
        return "are masked" if number(column[0]) == "0" else f"are masked and weigh {number(column[0])}"
    starts = [0, *book.ends[:-1]]
    epochs = [
        " + ".join(filter(lambda text: text != "0", map(number, column[start:end]))) or "0"
        for start, end in zip(starts, book.ends, strict=True)
    ]
    if {*epochs} == {"0"}:
        return "are never trained on"
    if len({*epochs}) == 1:
        return f"weigh {epochs[0]}" + " in each epoch" * (len(epochs) > 1)
    if len(epochs) <= MOST:
        return f"weigh {', '.join(epochs)} in epochs 1-{len(epochs)}"
    return f"weigh {number(sum(column) / len(epochs))} an epoch on average"


def number(weight: float) -> str:
    """A weight for people, to three digits; what rounding leaves is 0."""
    return "?" if math.isnan(weight) else f"{weight:.3g}" if abs(weight) >= 5e-4 else "0"
