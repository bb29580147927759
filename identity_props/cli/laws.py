"""The command ``identity-props laws``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from identity_props.cli.terminal import ALL_HOLD, put
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.laws import Law


@click.command(name="laws")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def list_laws(names: tuple[str, ...]) -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from.

    With a NAME, that law in full, with what it needs of a part and what commonly breaks it.
    """
    from identity_props.conformance.rows import OTHERS
    from identity_props.laws import LAWS

    for name in names or LAWS:
        if name in LAWS:
            _tell(LAWS[name])
            if names:
                _tell_more(LAWS[name])
        elif name in OTHERS:
            put(f"{name}: {OTHERS[name]}.")
        else:
            near = get_close_matches(name, [*LAWS, *OTHERS])
            raise InputError(
                f"laws: expected {' or '.join(near) or 'a name that `laws` lists'}, got {name!r}"
            )
    return ALL_HOLD


def _tell(law: Law) -> None:
    put(f"{law.name}: {law.statement}.")
    put(f"  source     {law.source}")
    put(f"  tolerance  {' '.join(law.derivation.split())}")
    put(f"  exercises  {', '.join(sorted(law.axes))}")


def _tell_more(law: Law) -> None:
    from identity_props.faults import FAULTS
    from identity_props.faults.findings import breaking

    put(f"  applies to {', '.join(sorted(law.needs)) or 'every stack'}")
    put(f"  broken is  {law.kind}")
    known = [FAULTS[name] for name in breaking(law.name)]
    put("  commonly broken by" + ("" if known else " nothing that the audit plants"))
    for fault in known:
        put(f"    {fault.name}: {fault.what} ({fault.source})")
