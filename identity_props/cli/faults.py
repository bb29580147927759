"""The command ``identity-props faults``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD, put


@click.command(name="faults")
def list_faults() -> int:
    """List the faults that audit plants: what each does wrong, and where it was seen."""
    from identity_props.faults import ALL_FAULTS, TrainerFault

    for fault in ALL_FAULTS.values():
        put(f"{fault.name}: {fault.what}")
        put(f"  source  {fault.source}")
        put(f"  twin    {'plain' if isinstance(fault, TrainerFault) else fault.twin.name}")
        if fault.equivalent:
            put(f"  unseen  {fault.equivalent}")
    return ALL_HOLD
