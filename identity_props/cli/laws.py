"""The command ``identity-props laws``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD, put


@click.command(name="laws")
def list_laws() -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from."""
    from identity_props.laws import LAWS

    for law in LAWS.values():
        put(f"{law.name}: {law.statement}.")
        put(f"  source     {law.source}")
        put(f"  tolerance  {' '.join(law.derivation.split())}")
        put(f"  exercises  {', '.join(sorted(law.axes))}")
    return ALL_HOLD
