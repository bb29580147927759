"""What a run found: a table for people, results.json for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from identity_props import __version__
from identity_props.conformance import FAIL, NOT_APPLICABLE, PASS, Row
from identity_props.data import Pixels
from identity_props.errors import InputError
from identity_props.gate import Change
from identity_props.metrics import FAILED, NEAR_IDENTITY
from identity_props.running import cores, threads
from identity_props.stack import Stack
from identity_props.verdict import Outcome

SCHEMA = "identity-props/results/1"
RESULTS, CHECK = "results.json", "check.json"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow")


def table(outcomes: Sequence[Outcome], pixels: Pixels) -> Table:
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
    return grid


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
    return f"{held} of {len(outcomes)} claims hold. {meaning}"


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Minimum, median and maximum, with NaN above infinity, and None for what is not finite."""
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    middle = statistics.median_high(ordered)
    three = {"min": ordered[0], "median": middle, "max": ordered[-1]}
    return {name: value if math.isfinite(value) else None for name, value in three.items()}


def results(
    outcomes: Sequence[Outcome], pixels: Pixels, stack: Stack, seed: int, jobs: int, interrupted: bool
) -> dict[str, Any]:
    """What results.json holds; None (null) stands for a figure that is not finite or never came."""
    return {
        "schema": SCHEMA,
        **context(pixels, stack, seed, jobs),
        "interrupted": interrupted,
        "claims": [_claim(outcome) for outcome in outcomes],
    }


def context(pixels: Pixels, stack: Stack, seed: int, jobs: int) -> dict[str, Any]:
    """What a run was made with, and on."""
    data = {"name": pixels.name, "shape": pixels.shape and [*pixels.shape], "train": len(pixels.train)}
    return {
        "versions": _versions(),
        "machine": _machine(stack),
        "jobs": jobs,
        "threads": threads(jobs, pixels),
        "seed": seed,
        "data": data | {"test": len(pixels.test), "fingerprint": pixels.fingerprint},
        "stack": stack.describe(),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"identity_props": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _machine(stack: Stack) -> dict[str, Any]:
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": cores()}
    if torch.device(stack.device).type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(stack.device)
    return machine


def _claim(outcome: Outcome) -> dict[str, Any]:
    claim = outcome.claim
    return {
        "name": claim.name,
        "statement": claim.statement,
        "verdict": outcome.verdict,
        "expects": claim.expects,
        "required_share": claim.share,
        "replicas": outcome.replicas,
        "successes": outcome.successes,
        "fvu": summary(outcome.fvu),
        "fvu_pixels": summary(outcome.fvu_pixels),
        "steps_to_identity": summary(outcome.steps_to_identity),
        "budget_steps": outcome.budget_steps,
        "seconds": round(outcome.seconds, 3),
    }


def check_free(out: Path, force: bool, *names: str) -> None:
    """Raise InputError where a file of these names is already there and is not to be replaced."""
    for name in names:
        if (out / name).exists() and not force:
            raise InputError(f"{out / name}: is already there; --force replaces it, another --out keeps it")


def make(out: Path, option: str = "--out") -> None:
    """Make the folder and see that a file can be written there; raises InputError, naming the option."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"{option} {out}: expected a folder to write to, got: {error.strerror}") from error


def write(out: Path, document: dict[str, Any], name: str = RESULTS) -> Path:
    """Write a document as JSON, see ``replace_file``; returns its path."""
    return replace_file(out / name, json.dumps(document, indent=2, allow_nan=False) + "\n")


def replace_file(path: Path, text: str) -> Path:
    """Write a file whole or not at all, a reader never sees a part of it; returns its path."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
    ) as file:
        try:
            print(text, file=file, end="", flush=True)
            os.chmod(file.name, 0o644)  # a temporary file is private, a result is not
            os.replace(file.name, path)
        finally:
            Path(file.name).unlink(missing_ok=True)
    return path


CHECK_SCHEMA, GATE_SCHEMA = "identity-props/check/1", "identity-props/gate/1"


def check_table(rows: Sequence[Row], stack: Stack) -> Table:
    """One row a law, claim or comparison: verdict, measured, allowed, and why."""
    counts = ", ".join(f"{sum(r.verdict == v for r in rows)} {v}" for v in (PASS, FAIL, NOT_APPLICABLE))
    grid = Table(
        title=str(stack), title_justify="left", caption=counts, caption_justify="left", box=SIMPLE_HEAD
    )
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    for heading in ("law", "verdict"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("measured", "allowed"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("of what, or why")
    for row in rows:
        figures = ("" if value is None else f"{value:.1e}" for value in (row.measured, row.allowed))
        note = ": ".join(filter(None, (row.kind, row.note)))
        style = {FAIL: "bold red", NOT_APPLICABLE: "dim"}.get(row.verdict)
        short = "n/a" if row.verdict == NOT_APPLICABLE else row.verdict
        grid.add_row(row.name, short, *figures, Text(note), style=style)
    return grid


def check_results(rows: Sequence[Row], stack: Stack, seed: int) -> dict[str, Any]:
    """What ``check --json`` prints; null stands for a figure that is not finite or not there."""
    return {
        "schema": CHECK_SCHEMA,
        "versions": _versions(),
        "machine": _machine(stack),
        "seed": seed,
        "stack": stack.describe(),
        "rows": [_finite(row) for row in rows],
    }


def gate_results(changes: Sequence[Change], passed: bool) -> dict[str, Any]:
    """What ``gate --json`` prints; null stands for a figure that is not finite."""
    return {"schema": GATE_SCHEMA, "passed": passed, "rows": [_finite(change) for change in changes]}


def _finite(row: Row | Change) -> dict[str, Any]:
    values = asdict(row)
    values.pop("curves", None)  # for the page
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def gate_table(changes: Sequence[Change], passed: bool, of_note: bool = False) -> Table:
    """A row a comparison, with the smallest change that would be seen; ``of_note`` leaves out the same."""
    verdict = "passes" if passed else "fails"
    compared = [change for change in changes if "/" in change.name]
    caption = f"The gate {verdict}: {len(compared)} comparisons, {_words(compared)}."
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
    return grid


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
