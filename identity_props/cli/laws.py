"""The command ``identity-props laws``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD


@click.command(name="laws")
def list_laws() -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from."""
    from identity_props.laws import LAWS

    for law in LAWS.values():
        click.echo(f"{law.name}: {law.statement}.")
        click.echo(f"  source     {law.source}")
        click.echo(f"  tolerance  {' '.join(law.derivation.split())}")
        click.echo(f"  exercises  {', '.join(sorted(law.axes))}")
    return ALL_HOLD
