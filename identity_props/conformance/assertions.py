"""Assertions for a user's own tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from identity_props.conformance.checking import check, unbuilt
from identity_props.conformance.following import THREADS, limited
from identity_props.conformance.layered import check_layer
from identity_props.conformance.learning import learning, searched_rate
from identity_props.conformance.meant import like_plan
from identity_props.conformance.rows import DESIGN, FAIL, Reference, Row
from identity_props.conformance.training import check_trainer
from identity_props.errors import InputError
from identity_props.layers import LayerBench
from identity_props.layers.given import shapes_of
from identity_props.stack.stack import Stack, resolve
from identity_props.stack.unchanged import unchanged
from identity_props.trainers import Bench
from identity_props.trainers.protocol import Fit
from identity_props.trainers.running import bench_of, trainer_of


def assert_conforms(stack: Stack, like: Reference | None = None, seed: int = 0) -> None:
    """Raise AssertionError, with predicted and measured figures, for each row of ``check`` that fails."""
    __tracebackhide__ = True
    _none_fails(stack, check(stack, like, seed))


def _none_fails(judged: object, rows: Iterable[Row]) -> None:
    """Raise AssertionError with a line a row that fails; as no assert, which pytest would explain with all rows."""
    __tracebackhide__ = True
    if failed := [row for row in rows if row.verdict == FAIL]:
        raise AssertionError("\n".join([f"{judged}:", *map(str, failed)]))


def assert_like(stack: Stack, like: Reference, seed: int = 0) -> None:
    """Raise AssertionError for a part that does not do what the one it is declared to be like does.

    Raises InputError where none is declared.
    """
    __tracebackhide__ = True
    if not like.parts and like.clip is None:
        raise InputError("like: expected a part to compare with, got none")
    with unchanged(THREADS):
        rows = [measure() for _, measure in like_plan(stack, like, seed)]
    _none_fails(stack, rows)


def assert_learns_identity(stack: Stack, seed: int = 0) -> None:
    """Raise AssertionError unless a linear layer learns the identity on whitened pixels."""
    __tracebackhide__ = True
    unbuilt(stack, Reference(), limited(None, stack.mode))
    with unchanged(THREADS):
        outcome, lr = learning(stack, seed)
        advice = "" if outcome.holds or stack.lr is None else f"; {searched_rate(stack)}"
    if not outcome.holds:
        raise AssertionError(f"{stack}: {outcome}; at lr {lr:.3g}{advice}")


def assert_layer(
    factory: Callable[..., nn.Module] | str,
    input_shape: Sequence[int] | Sequence[Sequence[int]],
    kind: str = "float",
    arguments: Mapping[str, Any] | None = None,
    like: Callable[..., nn.Module] | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    mode: str = "eager",
) -> None:
    """Raise AssertionError for each law of layers that the layer breaks which ``factory(**arguments)`` makes.

    ``input_shape`` is that of one example, or of one for each input, of ``kind`` float or tokens. ``like`` makes a
    layer that it has to equal. Raises InputError for what is no such layer.
    """
    __tracebackhide__ = True
    made = resolve(factory) if isinstance(factory, str) else factory
    reference = resolve(like) if isinstance(like, str) else like
    bench = LayerBench(made, shapes_of(input_shape), kind, arguments or {}, reference, seed, device, mode)
    _none_fails(bench, check_layer(bench, limited(None, mode)))


def assert_trains(fit: Fit | str, accept: Sequence[str] = (), seed: int = 0, ranks: int = 1) -> None:
    """Raise AssertionError for each law of trainers that ``fit(asked)`` breaks, and warn of rules to accept by name.

    ``fit`` by name, as pkg.mod:fit or one of ours, is resumed in a process of its own and started on ``ranks``;
    a function is resumed in this one, and is asked for no ranks.
    """
    __tracebackhide__ = True
    trainer = trainer_of(fit, (), None) if isinstance(fit, str) else None
    with bench_of(trainer, seed, ranks) if trainer else nullcontext(Bench(fit, seed=seed)) as bench:  # type: ignore[arg-type]
        rows = [*check_trainer(bench, accept, designs=trainer.designs() if trainer else {})]
    for row in rows:
        if row.verdict == DESIGN:
            warnings.warn(f"{row}; accept={row.kind!r} if it is meant", stacklevel=2)
    _none_fails(trainer or fit, rows)
