"""What was found, for people: a table each of ``run``, ``check`` and ``gate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from identity_props.claims.verdict import Outcome
from identity_props.conformance.asked import Named
from identity_props.conformance.hints import TRY
from identity_props.conformance.rows import (
    DESIGN,
    FAIL,
    NOT_APPLICABLE,
    NOT_RUN,
    PASS,
    Row,
    by_weight,
    figure,
)
from identity_props.errors import InputError
from identity_props.gate import Change
from identity_props.report.documents import summary
from identity_props.report.fitting import Fitted
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels
from identity_props.task.metrics import FAILED, NEAR_IDENTITY


def table(outcomes: Sequence[Outcome], pixels: Pixels) -> Fitted:
    """One row a claim: expectation, verdict, seeds that did it, median FVU, steps to near-identity."""
    title = f"Who learns the identity? {pixels.name}, {pixels.d} pixels"
    grid = Table(
        title=title, caption=_caption(outcomes), title_justify="left", caption_justify="left", box=SIMPLE_HEAD
    )
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)  # 80 columns hold it
    for heading in ("claim", "expects", "verdict"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("seeds", "FVU", "worst", "steps", "budget"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        grid.add_row(*_row(outcome), style=None if outcome.holds else "bold red")
    return Fitted(grid, ("budget", "worst", "expects", "seeds"))


def _row(outcome: Outcome) -> tuple[str, ...]:
    fvu, steps = summary(outcome.fvu), summary(outcome.steps_to_identity)
    worst = "min" if outcome.claim.expects == "fails" else "max"
    return (
        outcome.claim.name,
        outcome.claim.expects,
        outcome.verdict,
        f"{outcome.successes}/{outcome.replicas}",
        _shown(fvu["median"]),
        _shown(fvu[worst]),
        "-" if steps["median"] is None else f"{steps['median']:.0f}",
        str(outcome.budget_steps),
    )


def _shown(value: float | None) -> str:
    return "inf" if value is None else f"{value:.1e}"


def _caption(outcomes: Sequence[Outcome]) -> str:
    held = sum(outcome.holds for outcome in outcomes)
    meaning = f"FVU {NEAR_IDENTITY:g} or less is near-identity, {FAILED:g} or more failed."
    failing = any(outcome.claim.expects == "fails" for outcome in outcomes)
    stumble = " A claim that expects `fails` holds where its networks fail." if failing else ""
    return f"{held} of {len(outcomes)} claims hold. {meaning}{stumble}"


def check_table(rows: Sequence[Row], stack: Stack | Named, all_rows: bool = False) -> Table:
    """One row a law, claim or comparison: verdict, measured, allowed, and why; what fails comes first.

    What is not run is one row. What does not apply is counted, and shown with ``all_rows``.
    """
    grid = Table(title=str(stack), title_justify="left", box=SIMPLE_HEAD)
    grid.caption, grid.caption_justify = _counts(rows, all_rows), "left"
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    for heading in ("law", "verdict"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("measured", "allowed"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("of what, or why")
    for row in by_weight(_folded(rows)):
        if all_rows or row.verdict != NOT_APPLICABLE:
            grid.add_row(*_cells(row), style=_STYLES.get(row.verdict))
    return grid


_STYLES = {FAIL: "bold red", NOT_APPLICABLE: "dim", NOT_RUN: "yellow", DESIGN: "cyan"}


def _folded(rows: Sequence[Row]) -> list[Row]:
    """One row for all that are not run."""
    left = [row for row in rows if row.verdict == NOT_RUN]
    told = [replace(row, name=f"{len(left)} others") for row in left[:1]]
    return [row for row in rows if row.verdict != NOT_RUN] + told


def _cells(row: Row) -> tuple[str | Text, ...]:
    figures = ("" if value is None else _figure(value) for value in (row.measured, row.allowed))
    note = ": ".join(filter(None, (row.kind, row.note)))
    told = f"{note}\n{row.address}" if row.verdict == FAIL else note
    return (row.name, "n/a" if row.verdict == NOT_APPLICABLE else row.verdict, *figures, Text(told))


def _figure(value: float) -> str:
    """Two digits, or all of a count."""
    return figure(value) if float(value).is_integer() else f"{value:.1e}"


def _counts(rows: Sequence[Row], all_rows: bool) -> str:
    passed, failed, left, never, design = (
        sum(row.verdict == verdict for row in rows)
        for verdict in (PASS, FAIL, NOT_APPLICABLE, NOT_RUN, DESIGN)
    )
    laws = "law does" if left == 1 else "laws do"
    told = f"{passed} pass, {failed} fail" + (f", {never} not run" if never else "")
    rules = ", ".join(dict.fromkeys(row.kind for row in rows if row.verdict == DESIGN))
    told += f", {design} by design (--accept {rules})" if design else ""
    folded = f"; {left} {laws} not apply" if left else ""
    told += f"{folded}{'' if all_rows or not left else '; --all shows them and why'}"
    return "\n".join([told, *_hints(rows)])


def _hints(rows: Sequence[Row]) -> list[str]:
    """What rows that do not apply say to try, each once; two at most, as one leads to the next."""
    hints = [
        row.note.rpartition("; ")[2] for row in rows if row.verdict == NOT_APPLICABLE and TRY in row.note
    ]
    return [f"{hint[0].upper()}{hint[1:]}." for hint in dict.fromkeys(hints)][:2]


def gate_table(
    changes: Sequence[Change], passed: bool, left_out: Sequence[str] = (), of_note: bool = False
) -> Fitted:
    """A row a comparison, with the smallest change that would be seen; ``of_note`` leaves out the same.

    The last line says how it ends, of what, and why where it fails.
    """
    compared = [change for change in changes if "/" in change.name]
    caption = f"{len(compared)} comparisons, {_words(compared)}."
    caption += f" Left out by --claims: {len(left_out)} of the baseline's." if left_out else ""
    caption = f"The gate passes: {caption}" if passed else f"{caption}\nThe gate fails: {_reasons(changes)}."
    grid = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    grid.add_column("claim / figure", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    for heading in ("factor", "p", "seen from"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("note")
    for change in changes:
        if of_note and change.word == "same":
            continue
        style = "bold red" if change.alarming else None if change.verdict == "same" else "yellow"
        grid.add_row(*gate_row(change), style=style)
    return Fitted(grid, ("p", "seen from"))


def gate_lines(changes: Sequence[Change], passed: bool) -> str:
    """The table of what is not the same, as plain text; all rows that are the same in one line."""
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(gate_table(changes, passed, of_note=True))
    return captured.get()


def gate_row(change: Change) -> tuple[str, ...]:
    """Name, verdict, factor, p, smallest change seen, note."""
    if "/" not in change.name:
        return (change.name, change.word, "", "", "", change.note)
    found = f"{change.found:.2f}" if math.isfinite(change.found) else "-"
    figures = (f"{change.factor:.3g}", f"{change.p:.1g}", found)
    return (change.name, change.word, *figures, change.note)


def _reasons(changes: Sequence[Change]) -> str:
    """The first three rows that alarm, or that differ where none does, which a strict gate fails for."""
    told = [change for change in changes if change.alarming] or [c for c in changes if c.verdict != "same"]
    rows = [f"{c.name} {c.word}" + (f" x {c.factor:.3g}" if "/" in c.name else f", {c.note}") for c in told]
    more = [f"and {len(rows) - 3} rows more"] if len(rows) > 3 else []
    return "; ".join([*rows[:3], *more]) or "nothing was compared"


def _words(compared: Sequence[Change]) -> str:
    words = [change.word for change in compared]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or "none"


def append_markdown(path: Path, changes: Sequence[Change], passed: bool) -> None:
    """Append the rows that are not the same to a summary; raises InputError where it cannot be written."""
    lines = [f"### identity-props gate {'passes' if passed else 'fails'}", ""]
    lines += ["| claim / figure | verdict | factor | p | seen from | note |", "|---|---|---|---|---|---|"]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in gate_row(change)) + " |"
        for change in changes
        if change.word != "same"
    ]
    try:
        with path.open("a", encoding="utf-8") as file:
            print(*lines, "", sep="\n", file=file)
    except OSError as error:
        raise InputError(f"--summary {path}: expected a file to append to, got: {error.strerror}") from error
