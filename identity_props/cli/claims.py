"""The command ``identity-props claims``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD, put


@click.command(name="claims")
def list_claims() -> int:
    """List the claims: what each says, its source, its error rates and what was measured."""
    from identity_props.claims.registry import CLAIMS
    from identity_props.claims.verdict import FALSE_HOLD, share_found

    for claim in CLAIMS.values():
        put(f"{claim.name}: {claim.statement}.")
        put(f"  source    {claim.source}")
        put(f"  measured  {claim.evidence}")
        put(
            f"  judged    holds if more than {claim.share:.0%} of seeds do; said wrongly with probability"
            f" {FALSE_HOLD:g} at most, missed with 1e-6 at most where {share_found(claim.share):.0%} do"
        )
    return ALL_HOLD
