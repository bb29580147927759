"""The command ``identity-props faults``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD, put


@click.command(name="faults")
def list_faults() -> int:
    """List the faults that audit plants: what each does wrong, and where it was seen."""
    from identity_props.report.listing import FAULTS, listed

    for lines, _ in listed()[FAULTS].values():
        for line in lines:
            put(line)
    return ALL_HOLD
