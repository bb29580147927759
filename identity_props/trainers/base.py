"""What a law of trainers is: a training to ask for, what its weights have to be, and by what rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from identity_props.errors import InputError
from identity_props.trainers.bench import Bench
from identity_props.trainers.reading import Reading


@dataclass(frozen=True)
class TrainerLaw:
    """An exact statement about a trainer.

    ``rules`` are what is in use among correct trainers, the first what the statement says: a trainer that follows
    another is told so, and not accused. ``slips`` are other rules that have a name, each with what it means.
    ``needs`` are options of Asked that the law asks for; ``derivation`` says where the tolerance comes from.
    """

    name: str
    statement: str
    source: str
    needs: tuple[str, ...]
    kind: str
    rules: Mapping[str, str]
    slips: Mapping[str, str]
    derivation: str
    measure: Callable[[Bench], Reading] = field(repr=False)

    def right(self, reading: Reading, accepted: Sequence[str] = ()) -> bool:
        """Whether a reading is what the statement says, or one of the rules that are accepted beside it."""
        meant = [*[*self.rules][:1], *(rule for rule in self.named if rule in accepted)]
        return reading.found.holds and (not self.named or reading.rule in meant)

    @property
    def named(self) -> dict[str, str]:
        """All rules that have a name."""
        return {**self.rules, **self.slips}


TRAINER_LAWS: dict[str, TrainerLaw] = {}
Measure = Callable[[Bench], Reading]


def trainer_law(
    name: str,
    statement: str,
    source: str,
    needs: str = "",
    kind: str = "wrong weights",
    rules: Mapping[str, str] | None = None,
    slips: Mapping[str, str] | None = None,
) -> Callable[[Measure], Measure]:
    """Register a measurement as a law of trainers; its docstring is the derivation, needs are words."""

    def register(measure: Measure) -> Measure:
        if name in TRAINER_LAWS or not measure.__doc__:
            raise InputError(f"trainer law {name}: expected a new name and a docstring")
        TRAINER_LAWS[name] = TrainerLaw(
            name,
            statement,
            source,
            tuple(needs.split()),
            kind,
            rules or {},
            slips or {},
            measure.__doc__,
            measure,
        )
        return measure

    return register
