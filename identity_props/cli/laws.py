"""The command ``identity-props laws``."""

from __future__ import annotations

from difflib import get_close_matches

import click

from identity_props.cli.terminal import ALL_HOLD, put
from identity_props.errors import InputError


@click.command(name="laws")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def list_laws(names: tuple[str, ...]) -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from.

    With a NAME, that law in full, with what it needs of a part and what commonly breaks it.
    """
    from identity_props.report.listing import LAWS, ROWS, listed

    told = listed()
    known = told[LAWS] | told[ROWS]
    for name in names or told[LAWS]:
        if name not in known:
            near = get_close_matches(name, known)
            raise InputError(
                f"laws: expected {' or '.join(near) or 'a name that `laws` lists'}, got {name!r}"
            )
        briefly, further = known[name]
        for line in (*briefly, *(further if names else ())):
            put(line)
    return ALL_HOLD
