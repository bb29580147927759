"""What a command asks to be judged: parts, a trainer or a layer, named before any of them is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from identity_props.conformance.rows import Row


@dataclass(frozen=True)
class Named:
    """What is judged and its rows by name, where the parts themselves are not to be imported."""

    title: str
    parts: dict[str, Any]
    device: str
    rows: tuple[str, ...]

    def __str__(self) -> str:
        return self.title

    def describe(self) -> dict[str, Any]:
        """Names of the parts."""
        return self.parts


Measured = tuple[
    Named, Callable[[Sequence["Row"]], Iterator["Row"]]
]  # and the rows after those that are done


@dataclass(frozen=True)
class AskedParts:
    """Parts by the names that a command line says: arguments of ``stack_of`` and ``reference_of``."""

    parts: Mapping[str, Any]
    like: Mapping[str, Any]
    seed: int
    guard: float | None
    quick: bool = False
    quiet = alone = False

    @contextmanager
    def made(self) -> Iterator[Measured]:
        """The parts, and what measures them; raises InputError or MissingError."""
        from identity_props.conformance.checking import planned, resumed
        from identity_props.conformance.rows import reference_of
        from identity_props.stack.stack import stack_of

        stack = stack_of(**self.parts)
        like = reference_of(stack, **self.like)
        names = tuple(name for name, _ in planned(stack, like, self.seed, self.quick))
        named = Named(str(stack), stack.describe(), stack.device, names)
        yield named, partial(resumed, stack, like, self.seed, self.guard, self.quick)


@dataclass(frozen=True)
class AskedTrainer:
    """A trainer as a command line says it, see ``trainer_of``, the rules that it is meant to follow, and some laws or all."""

    name: str | None
    arguments: tuple[str, ...]
    command: str | None
    accept: tuple[str, ...]
    ranks: int
    seed: int
    guard: float | None
    laws: tuple[str, ...] = ()
    quiet = True  # frameworks draw bars and warn
    alone = True  # its first row is all, where that fails

    @contextmanager
    def made(self) -> Iterator[Measured]:
        """The trainer on its bench; raises InputError or MissingError."""
        from identity_props.conformance.following import limited
        from identity_props.conformance.training import check_accepted, check_trainer, planned
        from identity_props.trainers.running import bench_of, trainer_of

        check_accepted(self.accept)
        trainer = trainer_of(self.name, self.arguments, self.command)
        with bench_of(trainer, self.seed, self.ranks) as bench:
            names = tuple(name for name, _ in planned(bench, names=self.laws))
            parts = {"trainer": str(trainer), "version": trainer.version, "ranks": self.ranks}
            designs = trainer.designs()

            def rows(done: Sequence[Row]) -> Iterator[Row]:
                return check_trainer(bench, self.accept, limited(self.guard), designs, done, self.laws)

            yield Named(str(trainer), parts, "cpu", names), rows


@dataclass(frozen=True)
class AskedLayer:
    """A layer as a command line says it: arguments of ``layers.bench_of``."""

    layer: Mapping[str, Any]
    guard: float | None
    quiet = False
    alone = True  # its first row is all, where that fails

    @contextmanager
    def made(self) -> Iterator[Measured]:
        """The layer on its bench; raises InputError or MissingError."""
        from identity_props.conformance.following import limited
        from identity_props.conformance.layered import check_layer, planned
        from identity_props.layers import bench_of

        bench = bench_of(**self.layer)
        names = tuple(name for name, _ in planned(bench))
        named = Named(str(bench), bench.describe(), bench.device, names)
        yield named, lambda done: check_layer(bench, limited(self.guard, bench.mode), done)


Asked = AskedParts | AskedTrainer | AskedLayer


class Made(Protocol):
    """What a process makes and measures: something by name, and results after those that are done."""

    @property
    def quiet(self) -> bool:
        """Whether what it prints is nobody's."""

    @property
    def alone(self) -> bool:
        """Whether the first result is all, where that fails."""

    def made(self) -> AbstractContextManager[tuple[Named, Callable[[Sequence[Row]], Iterator[Any]]]]:
        """What is measured, in the process."""
