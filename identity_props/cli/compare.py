"""What ``explain --compare`` does in place of explaining."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from identity_props.cli.terminal import ALL_HOLD, say, show
from identity_props.errors import InputError

BESIDE = ("compared", "out", "force", "as_json")


def compare(paths: tuple[Path, Path], out: Path | None, force: bool, as_json: bool) -> int:
    """Set two explanation.json side by side, part by part; raises InputError for what cannot be."""
    from identity_props.report import files, page
    from identity_props.report.compare import FILE, document, of_comparison, read, table

    _check_alone(click.get_current_context())
    found = read(paths)
    if out is not None:
        files.check_free(out, force, FILE, page.FILE)
        files.make(out)
    made = document(found)
    show(made if as_json else table(found))
    if out is not None:
        html = files.replace_file(out / page.FILE, of_comparison(found))
        say(f"wrote {files.write(out, made, FILE)} and {html}")
    return ALL_HOLD


def _check_alone(context: click.Context) -> None:
    """Raise InputError for an option that says what to explain, since nothing is."""
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in BESIDE:
            raise InputError(
                f"--compare: expected --out, --force or --json beside it alone, got {parameter.opts[0]}"
            )
