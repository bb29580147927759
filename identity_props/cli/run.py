"""The command ``identity-props run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from identity_props.cli.given import PATH
from identity_props.cli.terminal import ALL_HOLD, INTERRUPTED, ONE_FAILS, OPTIONS, options, say, show
from identity_props.cli.work import prepared, replicas_option
from identity_props.stack.importing import importing


@click.command()
@options(*OPTIONS)
@replicas_option(8)
@click.option("--out", type=PATH, help="Folder to write results.json and report.html to.")
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def run(out: Path | None, force: bool, as_json: bool, seed: int, **given: Any) -> int:
    """Train the claims' networks and say which claims hold.

    Progress goes to stderr, the table to stdout. Ctrl-C keeps the claims that are finished.
    """
    with importing():
        from identity_props.report import documents, files, page, tables

    if out is not None:
        files.check_free(out, force, documents.RESULTS, page.FILE)
    work = prepared(seed=seed, **given)
    if out is not None:
        files.make(out)
    outcomes, interrupted = work.judged(explained=out is not None)
    document = documents.results(outcomes, work.pixels, work.stack, seed, work.jobs, interrupted)
    show(document if as_json else tables.table(outcomes, work.pixels))
    if out is not None:
        context = documents.context(work.pixels, work.stack, seed, work.jobs)
        html = page.of_run(outcomes, work.pixels, context)
        say(
            f"wrote {files.write(out, document, documents.RESULTS)} and {files.replace_file(out / page.FILE, html)}"
        )
    if interrupted:
        return INTERRUPTED
    return ALL_HOLD if all(outcome.holds for outcome in outcomes) else ONE_FAILS
