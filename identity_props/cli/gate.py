"""The command ``identity-props gate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.cli.given import PATH
from identity_props.cli.terminal import ALL_HOLD, ONE_FAILS, OPTIONS, options, say, show
from identity_props.cli.work import prepared, replicas_option
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.claims.verdict import Outcome


@click.command()
@options(*OPTIONS)
@replicas_option(16, most=2048)  # eight times so many are what a baseline holds at most
@click.option("--baseline", type=PATH, required=True, help="File in the working folder.")
@click.option("--update", is_flag=True, help="Record the run there in place of comparing it.")
@click.option("--force", is_flag=True, help="Record also a run whose claims do not all hold.")
@click.option("--strict", is_flag=True, help="Better, faster, other versions or machines fail too.")
@click.option(
    "--summary",
    type=PATH,
    envvar="GITHUB_STEP_SUMMARY",
    show_envvar=True,
    help="File that the table is appended to, in Markdown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def gate(
    baseline: Path, update: bool, force: bool, strict: bool, summary: Path | None, as_json: bool, **given: Any
) -> int:
    """Compare a run with a recorded one: slower, worse, better or faster, claim by claim.

    A change is named that is clear by a rank test over replicas, at 1e-4 for all claims together, and
    larger than a tenth in steps or a factor of two in FVU. Where half of the replicas never get there, it
    is their share that is compared. What cannot be compared fails.
    """
    from identity_props import gate
    from identity_props.report import documents, files, tables

    gate.check_place(baseline)
    if update:
        files.make(baseline.parent, "--baseline")
    before = None if update else gate.read(baseline)
    work = prepared(**given)
    outcomes, interrupted = work.judged()
    if interrupted:
        raise KeyboardInterrupt
    context = documents.context(work.pixels, work.stack, work.seed, work.jobs)
    after = gate.record(outcomes, context)
    if before is None:
        return _recorded(baseline, after, outcomes, force)
    changes = gate.compare(before, after)
    passed = gate.passes(changes, strict)
    show(documents.gate_results(changes, passed) if as_json else tables.gate_table(changes, passed))
    if summary is not None:
        tables.append_markdown(summary, changes, passed)
    return ALL_HOLD if passed else ONE_FAILS


def _recorded(path: Path, baseline: dict[str, Any], outcomes: Sequence[Outcome], force: bool) -> int:
    from identity_props import gate
    from identity_props.report import files

    failing = ", ".join(outcome.claim.name for outcome in outcomes if not outcome.holds)
    if failing and not force:
        raise InputError(f"--update: expected claims that hold, got {failing}; --force records them")
    say(f"wrote {files.replace_file(path, gate.text(baseline))}")
    return ALL_HOLD
