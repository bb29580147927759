"""The command ``identity-props check``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.cli.given import PATH, SEED, names_from_here
from identity_props.cli.judged import asked_of, what_to_judge
from identity_props.cli.terminal import ALL_HOLD, ONE_FAILS, options, say, show
from identity_props.errors import InputError
from identity_props.stack.importing import importing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from identity_props.conformance.asked import Asked, Named
    from identity_props.conformance.rows import Row


@click.command()
@what_to_judge
@click.option(
    "--guard",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="A step that takes longer hangs; 0 waits for ever.  [default: 60; 600 if compiled]",
)
@click.option(
    "--features",
    default="",
    metavar="SIZES",
    help="Sizes that the layer takes, such as 16,64; laws of other sizes do not apply.  [default: any]",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all that is drawn.")
@click.option(
    "--quick", is_flag=True, help="Only whether it moves, what it is, and the contract of torch.optim."
)
@click.option("--all", "all_rows", is_flag=True, help="Show also the laws that do not apply, and why.")
@click.option("--in-process", is_flag=True, help="Try the parts in this process, for a debugger.")
@options("scheduler")
@click.option("--out", type=PATH, help="Folder to write check.json and report.html to.")
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the table.")
def check(
    guard: float | None,
    seed: int,
    quick: bool,
    all_rows: bool,
    in_process: bool,
    scheduler: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    **what: Any,
) -> int:
    """Judge an optimizer, a layer, where they run, or a whole trainer, by the laws that apply to them.

    Which ones apply is found by trying the parts, or follows from what --like and its kin declare. A --layer of
    any kind is judged by its own forward pass. A trainer is asked for small trainings and judged by the weights that
    it leaves. All is tried in a process of its own, so that what exits or crashes is a row, and the others still run.
    """
    click.get_current_context().with_resource(names_from_here())
    asked = asked_of(seed, guard, quick, **what)
    with _judged(asked, in_process, scheduler) as (stack, judged):
        with importing():  # torch, while the other process works
            from identity_props.conformance.rows import FAIL
            from identity_props.report import documents, files, page, tables

        if out is not None:
            files.check_free(out, force, documents.CHECK, page.FILE)
            files.make(out)
        rows = []
        for row in judged:
            rows.append(row)
            say(f"{len(rows)} {row.verdict} {row.name}")
    rows.sort(key=lambda row: stack.rows.index(row.name))
    document = documents.check_results(rows, stack, seed)
    show(document if as_json else tables.check_table(rows, stack, all_rows))
    if out is not None:
        context = {k: v for k, v in document.items() if k != "rows"}
        written = files.write(out, document, documents.CHECK)
        say(f"wrote {written} and {files.replace_file(out / page.FILE, page.of_check(rows, stack, context))}")
    return ONE_FAILS if any(row.verdict == FAIL for row in rows) else ALL_HOLD


def _judged(
    asked: Asked, in_process: bool, scheduler: str | None
) -> AbstractContextManager[tuple[Named, Iterator[Row]]]:
    """What is judged and its rows: here, in a process of its own, or on the workers of a cluster."""
    from identity_props.conformance import isolated
    from identity_props.conformance.asked import AskedTrainer

    if scheduler is None:
        return isolated.here(asked) if in_process else isolated.judged(asked)
    if in_process or not isinstance(asked, AskedTrainer):
        raise InputError(
            "--scheduler: expected a --trainer or a --command, whose laws are shared out, got others"
        )
    with importing():
        from identity_props.conformance import clustered
    return clustered.judged(asked, scheduler, say)
