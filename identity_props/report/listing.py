"""What the commands ``laws`` and ``faults`` print, kept on disk: the registries import torch, which a list can do without."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from identity_props.task import keeping

if TYPE_CHECKING:
    from identity_props.laws import Law
    from identity_props.layers import LayerLaw
    from identity_props.trainers import TrainerLaw

PACKAGE = Path(__file__).parent.parent
LAWS, ROWS, FAULTS = "laws", "rows", "faults"

Two = Sequence[list[str]]  # lines of a list, and further ones for who asks by name
Told = dict[str, Two]


def listed() -> dict[str, Told]:
    """Laws, the rows of a check that are none, and faults, in the order of the registries."""
    file, source = keeping.CACHE / "listing.json", _source()
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
        kept = json.loads(file.read_bytes())
        if kept["source"] == source:
            return dict(kept["listed"])
    made = {LAWS: _laws(), ROWS: _rows(), FAULTS: _faults()}
    keeping.keep(file, json.dumps({"source": source, "listed": made}).encode())
    return made


def _source() -> str:
    """A checksum of all that the registries are made of."""
    read = hashlib.sha256(f"{sys.version}/{sys.flags.optimize}/{version('torch')}".encode())
    for file in sorted({*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json")}):
        read.update(f"{file.relative_to(PACKAGE)}\n".encode() + file.read_bytes())
    return read.hexdigest()


def _laws() -> Told:
    from identity_props.laws import LAWS
    from identity_props.layers import LAYER_LAWS
    from identity_props.trainers import TRAINER_LAWS

    return {
        **{name: _of_stacks(law) for name, law in LAWS.items()},
        **{name: _of_trainers(law) for name, law in TRAINER_LAWS.items()},
        **{name: _of_layers(law) for name, law in LAYER_LAWS.items()},
    }


def _of_stacks(law: Law) -> Two:
    exercises = f"  exercises  {', '.join(sorted(law.axes))}"
    applies = f"  applies to {', '.join(sorted(law.needs)) or 'every stack'}"
    return [*_statement(law), exercises], [applies, *_broken(law)]


def _of_trainers(law: TrainerLaw) -> Two:
    applies = f"  applies to trainers{' that offer ' * bool(law.needs)}{', '.join(law.needs)}"
    rules = [
        f"  {'rule' if rule in law.rules else 'slip'}       {rule}: {says}"
        for rule, says in law.named.items()
    ]
    return [*_statement(law), applies], [*rules, *_broken(law)]


def _of_layers(law: LayerLaw) -> Two:
    applies = f"  applies to {', '.join(law.needs) or 'every layer'}"
    return [*_statement(law), applies], [f"  else       {law.why}", *_broken(law)]


def _statement(law: Law | TrainerLaw | LayerLaw) -> list[str]:
    return [
        f"{law.name}: {law.statement.rstrip('.')}.",
        f"  source     {law.source}",
        f"  tolerance  {' '.join(law.derivation.split())}",
    ]


def _broken(law: Law | TrainerLaw | LayerLaw) -> list[str]:
    from identity_props.faults import ALL_FAULTS
    from identity_props.faults.findings import breaking

    known = [ALL_FAULTS[name] for name in breaking(law.name)]
    return [
        f"  broken is  {law.kind}",
        "  commonly broken by" + ("" if known else " nothing that the audit plants"),
        *(f"    {fault.name}: {fault.what} ({fault.source})" for fault in known),
    ]


def _rows() -> Told:
    from identity_props.conformance.rows import OTHERS

    return {name: ([f"{name}: {says}."], []) for name, says in OTHERS.items()}


def _faults() -> Told:
    from identity_props.faults import ALL_FAULTS, TrainerFault

    told: Told = {}
    for fault in ALL_FAULTS.values():
        twin = "plain" if isinstance(fault, TrainerFault) else fault.twin.name
        unseen = [f"  unseen  {fault.equivalent}"] if fault.equivalent else []
        lines = [f"{fault.name}: {fault.what}", f"  source  {fault.source}", f"  twin    {twin}", *unseen]
        told[fault.name] = (lines, [])
    return told
