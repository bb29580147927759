"""The command ``identity-props gate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.cli.given import PATH, names_from_here
from identity_props.cli.terminal import ALL_HOLD, ONE_FAILS, OPTIONS, options, say, show
from identity_props.cli.work import prepared, replicas_option, stack_options
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.claims.registry import Claim
    from identity_props.claims.verdict import Outcome
    from identity_props.stack.stack import Stack
    from identity_props.task.data import Pixels


@click.command()
@options(*OPTIONS)
@stack_options
@replicas_option(16, most=2048)  # eight times so many are what a baseline holds at most
@click.option("--baseline", type=PATH, required=True, help="File in the working folder.")
@click.option(
    "--update",
    is_flag=True,
    help="Record the run there in place of comparing it; other claims of the file stay.",
)
@click.option(
    "--force", is_flag=True, help="Record also a run whose claims do not all hold, or in place of another."
)
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
    is their share that is compared. What cannot be compared fails. With --claims that part of the baseline
    is compared, or recorded anew.
    """
    from identity_props import gate
    from identity_props.report import documents, files, tables

    click.get_current_context().with_resource(names_from_here())
    gate.check_place(baseline)
    if update:
        files.make(baseline.parent, "--baseline")
    before = _before(baseline, update, force)
    work = prepared(own=partial(_own, before, update), **given)
    outcomes, interrupted = work.judged()
    if interrupted:
        raise KeyboardInterrupt
    context = documents.context(work.pixels, work.stack, work.seed, work.jobs)
    context["stack"] = gate.stack_of_record(work.stack)
    if update:
        return _recorded(baseline, before, outcomes, context, force)
    assert before is not None, "it has been read"
    asked = [claim.name for claim in work.claims] if given["claims"] else None
    changes = gate.compare(before, gate.record(outcomes, context), asked)
    passed, left = gate.passes(changes, strict), gate.left_out(before, asked)
    show(
        documents.gate_results(changes, passed, left) if as_json else tables.gate_table(changes, passed, left)
    )
    if summary is not None:
        tables.append_markdown(summary, changes, passed)
    return ALL_HOLD if passed else ONE_FAILS


def _before(path: Path, update: bool, force: bool) -> dict[str, Any] | None:
    """The baseline, None where one is recorded and there is none, or a damaged one that may be lost."""
    from identity_props import gate

    if update and not path.exists():
        return None
    try:
        return gate.read(path)
    except InputError as error:
        if update and force:
            return None
        raise InputError(f"{error}; --update --force replaces it" if update else str(error)) from error


def _own(
    before: Mapping[str, Any] | None, update: bool, pattern: str | None, stack: Stack, pixels: Pixels
) -> list[Claim]:
    """Claims of the stack's own: all that it may have where they are recorded, else those of the baseline."""
    from identity_props import gate

    names = gate.named(pattern, before if not update else None)
    same = before and (not update or before["stack"] == gate.stack_of_record(stack))
    found = gate.own_claims(names, stack, pixels, gate.rates_of(before) if same else {})
    for name, one in found.items():
        if isinstance(one, str):
            say(f"left out: {name}, {one}")
    claims = [one for one in found.values() if not isinstance(one, str)]
    if not claims:
        raise InputError("claims: expected one that this stack learns, got none")
    return claims


def _recorded(
    path: Path,
    before: Mapping[str, Any] | None,
    outcomes: Sequence[Outcome],
    context: Mapping[str, Any],
    force: bool,
) -> int:
    from identity_props import gate
    from identity_props.report import files

    own = [outcome.claim.name for outcome in outcomes if outcome.claim.lr is not None and not outcome.holds]
    for name in own:
        say(f"left out: {name}, which this stack does not learn")
    kept = [outcome for outcome in outcomes if outcome.claim.name not in own]
    failing = ", ".join(outcome.claim.name for outcome in kept if not outcome.holds) or ", ".join(
        own * (not kept)
    )
    if failing and not (force and kept):
        raise InputError(f"--update: expected claims that hold, got {failing}; --force records them")
    recorded = gate.with_kept(before, gate.record(kept, context), force)
    others = len(recorded["claims"]) - len(kept)
    written = files.replace_file(path, gate.text(recorded))
    say(f"wrote {written}" + (f": {len(kept)} claims, beside {others} that it had" if others else ""))
    return ALL_HOLD
