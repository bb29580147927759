"""The command ``identity-props laws``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from identity_props.cli.terminal import ALL_HOLD, put
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.laws import Law
    from identity_props.layers import LayerLaw
    from identity_props.trainers import TrainerLaw


@click.command(name="laws")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def list_laws(names: tuple[str, ...]) -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from.

    With a NAME, that law in full, with what it needs of a part and what commonly breaks it.
    """
    from identity_props.conformance.rows import OTHERS
    from identity_props.laws import LAWS
    from identity_props.layers import LAYER_LAWS
    from identity_props.trainers import TRAINER_LAWS

    for name in names or (*LAWS, *TRAINER_LAWS, *LAYER_LAWS):
        if name in LAWS:
            _tell(LAWS[name])
            put(f"  exercises  {', '.join(sorted(LAWS[name].axes))}")
            if names:
                put(f"  applies to {', '.join(sorted(LAWS[name].needs)) or 'every stack'}")
                _tell_more(LAWS[name])
        elif name in TRAINER_LAWS:
            _tell(TRAINER_LAWS[name])
            put(
                f"  applies to trainers{' that offer ' * bool(needs := TRAINER_LAWS[name].needs)}{', '.join(needs)}"
            )
            if names:
                _tell_rules(TRAINER_LAWS[name])
                _tell_more(TRAINER_LAWS[name])
        elif name in LAYER_LAWS:
            _tell(LAYER_LAWS[name])
            put(f"  applies to {', '.join(LAYER_LAWS[name].needs) or 'every layer'}")
            if names:
                put(f"  else       {LAYER_LAWS[name].why}")
                _tell_more(LAYER_LAWS[name])
        elif name in OTHERS:
            put(f"{name}: {OTHERS[name]}.")
        else:
            near = get_close_matches(name, [*LAWS, *TRAINER_LAWS, *LAYER_LAWS, *OTHERS])
            raise InputError(
                f"laws: expected {' or '.join(near) or 'a name that `laws` lists'}, got {name!r}"
            )
    return ALL_HOLD


def _tell(law: Law | TrainerLaw | LayerLaw) -> None:
    put(f"{law.name}: {law.statement.rstrip('.')}.")
    put(f"  source     {law.source}")
    put(f"  tolerance  {' '.join(law.derivation.split())}")


def _tell_rules(law: TrainerLaw) -> None:
    for rule, says in law.named.items():
        put(f"  {'rule' if rule in law.rules else 'slip'}       {rule}: {says}")


def _tell_more(law: Law | TrainerLaw | LayerLaw) -> None:
    from identity_props.faults import ALL_FAULTS
    from identity_props.faults.findings import breaking

    put(f"  broken is  {law.kind}")
    known = [ALL_FAULTS[name] for name in breaking(law.name)]
    put("  commonly broken by" + ("" if known else " nothing that the audit plants"))
    for fault in known:
        put(f"    {fault.name}: {fault.what} ({fault.source})")
