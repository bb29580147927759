"""Which laws of trainers a trainer keeps, one row each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from identity_props.conformance.following import GUARD, followed
from identity_props.conformance.rows import DESIGN, FAIL, NOT_APPLICABLE, PASS, Plan, Row
from identity_props.errors import InputError
from identity_props.trainers import TRAINER_LAWS, Bench, Reading, TrainerLaw
from identity_props.trainers.distance import apart
from identity_props.trainers.protocol import NotApplicable, NotOffered, TrainedError

TRAINS = "trains"
Designs = dict[str, tuple[str, str]]  # of laws by name: the rule that a trainer documents, and where


def check_trainer(
    bench: Bench,
    accept: Sequence[str] = (),
    guard: float = GUARD,
    designs: Designs | None = None,
    done: Sequence[Row] = (),
    names: Sequence[str] = (),
) -> Iterator[Row]:
    """A row for each law of trainers, or those that are named, after one that says whether it trains at all.

    It is alone where it does not.
    """
    check_accepted(accept)
    for row in followed(planned(bench, accept, designs or {}, names), guard, done):
        yield row
        if row.name == TRAINS and row.verdict == FAIL:
            return


def check_accepted(accept: Sequence[str]) -> None:
    """Raise InputError for a rule that no law of trainers names."""
    known = dict.fromkeys(rule for law in TRAINER_LAWS.values() for rule in law.named)
    for rule in accept:
        if rule not in known:
            raise InputError(f"accept: expected {', '.join(known)}, got {rule!r}")


def planned(
    bench: Bench, accept: Sequence[str] = (), designs: Designs | None = None, names: Sequence[str] = ()
) -> Plan:
    """All rows of ``check_trainer``."""
    yield TRAINS, partial(_trains, bench)
    for law in (law for law in TRAINER_LAWS.values() if not names or law.name in names):
        yield law.name, partial(row_of, law, bench, accept, designs or {})


def _trains(bench: Bench) -> Row:
    try:
        dtype = bench.dtype
        asked = bench.sample()
        left = bench.trained(asked)
    except (NotOffered, TrainedError) as error:
        return Row(TRAINS, FAIL, kind="leaves no weights", note=str(error))
    way = apart(left.weights, [one.double() for one in asked.start], asked.start)
    if not all(bool(one.isfinite().all()) for one in left.weights):
        return Row(TRAINS, FAIL, kind="diverges", note="its weights are not finite")
    if way == 0:
        return Row(TRAINS, FAIL, kind="flat", note="it leaves the very weights that it was given")
    return Row(TRAINS, PASS, note=f"it computes in {str(dtype).removeprefix('torch.')}")


def row_of(law: TrainerLaw, bench: Bench, accept: Sequence[str] = (), designs: Designs | None = None) -> Row:
    """What a law says of a trainer."""
    design = (designs or {}).get(law.name)
    try:
        reading = law.measure(bench)
    except NotOffered as option:
        return Row(law.name, NOT_APPLICABLE, kind="not offered", note=str(option))
    except NotApplicable as reason:
        return Row(law.name, NOT_APPLICABLE, note=str(reason))
    except TrainedError as error:
        return Row(law.name, FAIL, kind="leaves no weights", note=str(error))
    verdict, kind = _verdict(law, reading, accept, design)
    found, off = reading.found, reading.off
    measured = found.measured if verdict != FAIL or off is None else off
    return Row(law.name, verdict, measured, found.tolerance, kind, _note(law, reading, verdict, design))


def _verdict(
    law: TrainerLaw, reading: Reading, accept: Sequence[str], design: tuple[str, str] | None
) -> tuple[str, str]:
    """A rule that is in use, or documented, is no fault; where one of those is accepted, others than it are."""
    if law.right(reading, accept):
        return PASS, ""
    meant = any(rule in law.rules for rule in accept)
    documented = design is not None and design[0] == reading.rule
    if reading.found.holds and not meant and (reading.rule in law.rules or documented):
        return DESIGN, reading.rule
    return FAIL, law.kind


def _note(law: TrainerLaw, reading: Reading, verdict: str, design: tuple[str, str] | None) -> str:
    rule = f"{reading.rule}: {law.named[reading.rule]}" if reading.rule else ""
    if verdict == DESIGN:
        where = f"documented in {design[1]}" if design and design[0] == reading.rule else ""
        return "; ".join(filter(None, (law.named[reading.rule], reading.words, where)))
    if verdict == PASS:
        return rule or reading.found.what
    return "; ".join(filter(None, (rule, reading.words, reading.found.what)))
