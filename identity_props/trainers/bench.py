"""The bench that a trainer stands on: what it is asked, what it left, and how far that is from what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identity_props.stack.guard import RAISED, alive
from identity_props.stack.processes import temporary_folder
from identity_props.task.minibatch import Layers, Recursion, linear_rates
from identity_props.trainers import language
from identity_props.trainers.distance import OFF, apart, tolerance
from identity_props.trainers.language import RATE, V
from identity_props.trainers.ledger import (
    Account,
    Ledger,
    Q,
    account,
    decoded,
    orthonormal,
    plan,
    told,
    totals,
)
from identity_props.trainers.protocol import Asked, Fit, Left, NotApplicable, NotOffered, trained_by
from identity_props.trainers.reading import Reading, read

FEATURES = 12
LARGE, SMALL = 3, Q / 16  # weights above are read again, with less a step


@dataclass(eq=False)
class Bench:
    """A trainer under test: ``fit`` in this process, ``again`` in a new one, ``spread`` on ranks, a list for each thing
    asked of what each rank left."""

    fit: Fit
    again: Callable[[Asked], Left] | None = None
    spread: Callable[[Sequence[Asked]], list[list[Left | Exception]]] | None = None
    seed: int = 0
    ranks: int = 1
    reads: set[str] = field(default_factory=set)  # options that it has looked at
    offered: dict[str, bool] = field(default_factory=dict)
    left: dict[tuple[Any, ...], Left] = field(default_factory=dict)
    spreads: list[list[Left | Exception]] = field(default_factory=list)

    # What is asked ----------------------------------------------------------------------------

    def asked(self, n: int, batch_size: int, epochs: int = 1, q: float = Q, **options: Any) -> Asked:
        """A training on n orthonormal examples from 0, two features beyond them, with q = 1/4 a step."""
        d = n + 2
        held = batch_size * options.get("accumulate", 1) * options.get("ranks", 1)
        lr = options.pop("lr", q * d * held / 2)
        start = options.pop("start", (torch.zeros(d, d, dtype=torch.float64),))
        x = options.pop("examples", None)
        x = orthonormal(n, d, self.seed) if x is None else x
        return self._in_dtype(Asked(start, x, lr, batch_size, epochs, **options))

    def drawn(self, n: int, batch_size: int, epochs: int = 1, layers: int = 1, **options: Any) -> Asked:
        """A training on n normal examples of 12 features from drawn layers, so that the order of batches counts."""
        draw = torch.Generator().manual_seed(self.seed)
        x = torch.randn(n, FEATURES, generator=draw, dtype=torch.float64)
        eye = torch.eye(FEATURES, dtype=torch.float64)
        noise = torch.randn(layers, FEATURES, FEATURES, generator=draw, dtype=torch.float64)
        start = tuple(0.5 * eye + one / FEATURES for one in noise)
        return self.asked(n, batch_size, epochs, examples=x, start=start, lr=FEATURES / 16, **options)

    def sequences(self, size: int, epochs: int = 1, **options: Any) -> Asked:
        """A training on the drawn tokens, with examples too, which a trainer may train on that takes no tokens."""
        zeros = (torch.zeros(V, V, dtype=torch.float64),)
        x = torch.eye(V, dtype=torch.float64)
        given: dict[str, Any] = {
            "examples": x,
            "start": zeros,
            "lr": RATE,
            "tokens": language.drawn(self.seed),
        }
        return self.asked(V, size, epochs, **given, **options)

    def sample(self) -> Asked:
        """A small training in order, of tokens where it takes no examples."""
        return self.sequences(2) if self.tokens_alone else self.drawn(8, 4)

    def _in_dtype(self, asked: Asked) -> Asked:
        dtype = self.dtype if "dtype" in vars(self) else torch.float64
        return in_dtype(asked, dtype)

    # What comes of it -------------------------------------------------------------------------

    def trained(self, asked: Asked) -> Left:
        """What the trainer makes of it, once for each thing asked; raises NotOffered and what the trainer raises."""
        key = asked.key
        if key not in self.left:
            self.left[key] = self.once(asked)
        return self.left[key]

    def once(self, asked: Asked) -> Left:
        """What the trainer makes of it now, in a folder of its own unless it is given one; it may take the guard's time."""
        alive()
        if asked.folder != Path():
            return trained_by(self.fit, asked, self.reads)
        with temporary_folder() as folder:
            return trained_by(self.fit, replace(asked, folder=Path(folder)), self.reads)

    def offers(self, **options: Any) -> dict[str, Any]:
        """Those of some options that the trainer offers, each asked for by itself."""
        return {name: value for name, value in options.items() if self._offered(name, value)}

    def _offered(self, name: str, value: Any) -> bool:
        if name not in self.offered:
            try:
                self.trained(self.asked(4, 2, **{name: value}))
            except NotOffered:
                self.offered[name] = False
            else:
                self.offered[name] = True
        return self.offered[name]

    @cached_property
    def tokens_alone(self) -> bool:
        """Whether it says of itself that it takes no examples."""
        try:
            self.trained(self.drawn(8, 4))
        except NotOffered as option:
            return str(option) == "examples"
        except RAISED:
            return False
        return False

    @cached_property
    def dtype(self) -> torch.dtype:
        """What the trainer computes in: float64, unless it refuses that, or rounds as float32 does.

        Weights that float32 holds exactly are its own; a figure kept in it shows in what is left, whatever the order.
        """
        asked = self.sample()
        with suppress(*RAISED):
            others = () if self.tokens_alone else (self.asked(8, 4), *self._falling())
            single = _is_single(self.trained(asked).weights) or any(map(self._rounds, (asked, *others)))
            return torch.float32 if single else torch.float64
        self.trained(in_dtype(asked, torch.float32))  # raises what it raises
        return torch.float32

    def _falling(self) -> list[Asked]:
        """A training at a rate that falls, where that is offered: some compute rates in float32."""
        with suppress(*RAISED):
            return [self.asked(12, 4, schedule="linear")] if self.offers(schedule="linear") else []
        return []

    def on_ranks(self, asked: Sequence[Asked]) -> list[list[Left | Exception]]:
        """What each rank left of each thing asked; raises NotOffered."""
        spread = self.see_ranks()
        alive()
        return spread(asked)

    def see_ranks(self) -> Callable[[Sequence[Asked]], list[list[Left | Exception]]]:
        """What starts ranks; raises NotOffered for a trainer that does not look at their number."""
        self.trained(self.asked(4, 2))
        if self.spread is None or "ranks" not in self.reads:
            raise NotOffered("ranks")
        return self.spread

    def _rounds(self, asked: Asked) -> bool:
        """Whether it is as far from what is expected of batches in order as float32 is."""
        off = self.off(asked, self.trained(asked), self.known(asked))
        return tolerance(torch.float64, 4) < off <= tolerance(torch.float32, 4)

    # What is expected -------------------------------------------------------------------------

    def known(self, asked: Asked) -> Layers:
        """Layers that a training leaves which reads its batches in order, a step each."""
        if asked.tokens is not None:
            return [language.in_order(asked)]
        return self.expected(asked, plan(len(asked.examples), asked.batch_size, epochs=asked.epochs))

    def expected(self, asked: Asked, table: Tensor, **rules: Any) -> Layers:
        """Layers that a training leaves which follows a table of weights [steps, n]."""
        return self.recursion(asked, len(table), **rules).end(table)

    def recursion(self, asked: Asked, steps: int, **rules: Any) -> Recursion:
        """The descent that is asked for, of so many steps, its momentum as the trainer's law of that finds it."""
        ahead = rules.pop("nesterov", None)
        rates = linear_rates(asked.lr, steps) if asked.schedule == "linear" else [asked.lr] * steps
        return Recursion(
            asked.examples,
            asked.batch_size * asked.accumulate * asked.ranks,
            rules.pop("rates", rates),
            momentum=asked.momentum,
            decay=asked.decay,
            clip=asked.clip,
            frozen=asked.frozen,
            nesterov=ahead if ahead is not None else asked.momentum > 0 and self.nesterov,
            start=list(asked.start),
            **rules,
        )

    @cached_property
    def nesterov(self) -> bool:
        """Whether momentum that it offers looks ahead, as Nesterov's does: a rule of its law, and then of all others."""
        asked = self.drawn(12, 4, 3, momentum=0.5)
        ahead = self.expected(asked, plan(12, 4, epochs=3), nesterov=True)
        with suppress(*RAISED):
            return self.off(asked, self.trained(asked), ahead) <= tolerance(self.dtype, 16)
        return False

    def off(self, asked: Asked, trained: Left, expected: Layers) -> float:
        """Distance of the weights from those expected, relative to how far these moved; NaN stays."""
        return apart(trained.weights, expected, asked.start)

    def matched(
        self,
        asked: Asked,
        candidates: Mapping[str, Layers],
        slack: float = 0.0,
        steps: int | None = None,
    ) -> Reading:
        """What was left beside what each rule would leave, the first being right; the nearest is named if it is near."""
        trained = self.trained(asked)
        self.reads_in_order(asked)
        near = max(slack, tolerance(self.dtype, steps or 16))
        offs = {rule: self.off(asked, trained, one) for rule, one in candidates.items()}
        words = self.words(asked, trained)
        return read(offs, near, OFF, words)

    def reads_in_order(self, asked: Asked) -> None:
        """Raise NotApplicable where the order of examples counts, and the trainer has one of its own."""
        whole = len(asked.examples) % (asked.batch_size * asked.accumulate * asked.ranks) == 0
        if not (whole and self._readable(asked)) and not self.in_order:
            raise NotApplicable("it reads examples in an order of its own")

    @cached_property
    def in_order(self) -> bool:
        """Whether examples are read in order, or should be: it does not shuffle unasked, all else being right.

        All else is right where each example counts as it should, and where one batch holds all: then no order shows.
        """
        ordered, *others = (
            (self.sequences(2), self.sequences(8))
            if self.tokens_alone
            else (self.drawn(12, 4, 2), self.asked(12, 4, 2), self.drawn(12, 12, 2))
        )
        near = tolerance(self.dtype, 16)

        def exact(asked: Asked) -> bool:
            return self.off(asked, self.trained(asked), self.known(asked)) <= near

        return exact(ordered) or not all(map(exact, others)) or "shuffle" in self.reads

    @staticmethod
    def _readable(asked: Asked) -> bool:
        """Whether the weights are an account of each example, whatever the order."""
        plainly = not (asked.momentum or asked.decay or asked.clip) and asked.schedule == "constant"
        return plainly and len(asked.start) == 1 and not asked.start[0].any() and asked.tokens is None

    def account(self, asked: Asked, trained: Left) -> Account:
        """What the weights say of each example, for trainings that start from 0 on orthonormal ones."""
        return account(trained.weights[0], asked.examples)

    def ledger(self, n: int, batch_size: int, epochs: int = 1, **options: Any) -> Ledger:
        """The weight of each example at each step, from trainings of 1 to ``epochs`` epochs at two schedules."""
        first = self._ledger(Q, n, batch_size, epochs, options)
        if not first.unclear:
            return first
        second = self._ledger(SMALL, n, batch_size, epochs, options)
        return second if len(second.unclear) < len(first.unclear) else first

    def _ledger(self, q: float, n: int, batch_size: int, epochs: int, options: Mapping[str, Any]) -> Ledger:
        asked = [self.asked(n, batch_size, one, q=q, **options) for one in range(1, epochs + 1)]
        constant, clocked = (
            [self.account(one, self.trained(one)) for one in group]
            for group in (asked, [replace(one, schedule="linear") for one in asked])
        )
        near = tolerance(self.dtype, epochs)
        books = [decoded(constant, clocked, steps, near, q) for steps in totals(asked[0], epochs)]
        return min(books, key=lambda book: len(book.unclear))

    def words(self, asked: Asked, trained: Left) -> str:
        """The account in words, empty where it cannot be read."""
        if not self._readable(asked):
            return ""
        found, near = self.account(asked, trained), 4 * tolerance(self.dtype, 16)
        if asked.epochs == 1 or bool((found.products >= (1 - LARGE * Q) ** asked.epochs - near).all()):
            return told(found, near, asked.epochs)
        slow = replace(asked, lr=asked.lr * SMALL / Q)  # weights of 4 and more overshoot
        return told(self.account(slow, self.trained(slow)), near, asked.epochs, SMALL)


def _is_single(weights: Sequence[Tensor]) -> bool:
    return all(bool((one == one.float().to(one.dtype)).all()) for one in weights)


def in_dtype(asked: Asked, dtype: torch.dtype) -> Asked:
    """The same training with its numbers in another dtype."""
    held = None if asked.held is None else asked.held.to(dtype)
    start = tuple(one.to(dtype) for one in asked.start)
    return replace(asked, start=start, examples=asked.examples.to(dtype), held=held)
