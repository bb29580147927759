"""The report: one HTML page that needs nothing else, of what ``run``, ``check`` or ``explain`` found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from identity_props.conformance.rows import Row, by_weight, statement
from identity_props.explanation.explain import Explanation
from identity_props.report import pictures
from identity_props.report.explain import NONE_FITS, after, helpless, nothing
from identity_props.report.portraits import Figure as Figure
from identity_props.report.portraits import portrait
from identity_props.task.data import Pixels
from identity_props.task.metrics import FAILED, NEAR_IDENTITY, pixel_variance
from identity_props.task.theory import critical_rate, expected_fvu, modes

if TYPE_CHECKING:  # imports of a second, which `explain` does without
    from identity_props.claims.verdict import Outcome
    from identity_props.conformance.asked import Named
    from identity_props.engine.trial import Trial
    from identity_props.stack.stack import Stack

FILE = "report.html"


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its headings, and its rows of cells, the first of which heads its row.

    A cell is text, escaped, or markup made here. ``numeric`` are the columns set to the right.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str | Markup, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of the page; ``anchor`` is its id."""

    anchor: str
    heading: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def of_run(outcomes: Sequence[Outcome], pixels: Pixels, context: dict[str, Any]) -> str:
    """The page of a run: verdicts, where the error of each first replica goes, and a section a claim."""
    held = sum(outcome.holds for outcome in outcomes)
    lead = f"{held} of {len(outcomes)} claims hold on {pixels.name} with {pixels.d} pixels. {_MEANING}"
    sections = [Section("verdicts", "Verdicts", tables=(_verdicts(outcomes),))]
    explained = [(outcome.claim.name, outcome.explanation) for outcome in outcomes if outcome.explanation]
    if explained:
        sections.append(_errors(explained))
    sections += [_claim(outcome, pixels) for outcome in outcomes]
    return rendered("Who learns the identity?", lead, sections, context)


def of_check(rows: Sequence[Row], stack: Stack | Named, context: dict[str, Any]) -> str:
    """The page of a check: a row a law, and how the stack learns."""
    failed = sum(row.verdict == "fail" for row in rows)
    lead = f"{stack}: {failed} of {len(rows)} rows fail."
    sections = [Section("rows", "Laws and learning", tables=(_rows(by_weight(rows)),))]
    for row in rows:
        if row.curves is not None:
            figure = _curves(row.curves, None, row.name)
            sections.append(Section("curves", "How it learns", row.note, figures=(figure,)))
    return rendered("Does this stack train rightly?", lead, sections, context)


def of_explanation(found: Explanation, context: dict[str, Any]) -> str:
    """The page of one network."""
    state = "It is near-identity." if found.near_identity else "It is not the identity."
    lead = (
        f"{state} FVU {found.fvu:.3g} on test, a mean squared error of {found.mse:.4g} grey levels squared. "
        f"{_MEANING}"
    )
    sections = [_errors([(found.name, found)]), Section("parts", "Its parts", tables=(_parts(found),))]
    if found.advice:
        sections.append(Section("advice", "What to do", tables=(_advice(found),)))
    elif not found.near_identity:
        sections.append(Section("advice", "What to do", NONE_FITS))
    sections.append(Section("pictures", "What it learned", figures=tuple(portrait(found))))
    return rendered(f"Why is {found.name} not the identity?", lead, sections, context)


_MEANING = (
    f"FVU is the share of the pixels' variance that is not reproduced: {NEAR_IDENTITY:g} or less is near-identity, "
    f"{FAILED:g} or more failed, and predicting the mean gives 1."
)


# Tables -----------------------------------------------------------------------------------------------


def _verdicts(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        link = Markup('<a href="#claim-{0}">{0}</a>').format(outcome.claim.name)
        figures = (
            _number(_median(outcome.fvu)),
            _number(_median(outcome.steps_to_identity)).replace("infinite", "never"),
            str(outcome.budget_steps),
        )
        seeds = f"{outcome.successes}/{outcome.replicas}"
        rows.append((link, outcome.claim.expects, _verdict(outcome.verdict), seeds, *figures))
    headings = ("claim", "expects", "verdict", "seeds", "median FVU", "steps to near-identity", "budget")
    return Table(
        "One row a claim; its name leads to its figures. One that expects “fails” holds where its networks fail.",
        headings,
        tuple(rows),
        frozenset({3, 4, 5, 6}),
    )


def _rows(rows: Sequence[Row]) -> Table:
    cells = tuple(
        (
            row.name,
            _verdict(row.verdict),
            _number(row.measured),
            _number(row.allowed),
            ": ".join(filter(None, (row.kind, row.note))),
            f"{statement(row.name)}." if statement(row.name) else "",
        )
        for row in rows
    )
    headings = ("law", "verdict", "measured", "allowed", "note", "what it says")
    return Table("One row a law, claim or comparison.", headings, cells, frozenset({2, 3}))


def _parts(found: Explanation) -> Table:
    rows = tuple(
        (
            f"{pictures.letter(part.name)} {part.name}",
            _number(part.fvu) if part.measured else "-",
            f"{_share(part.fvu, found.fvu):.1%}" if part.measured else "-",
            part.what if part.fvu or not part.measured else "",
        )
        for part in found.parts
        if part.fvu or not part.measured
    )
    caption = "In the order they are taken: what two parts share goes to the first. They sum to the FVU."
    caption += nothing(found)
    return Table(caption, ("part", "FVU", "share", "what"), rows, frozenset({1, 2}))


def _advice(found: Explanation) -> Table:
    rows = tuple(
        (one.name, _number(one.before), after(one) if one.after is None else _number(one.after), one.why)
        for one in found.advice
    )
    caption = f"Each change with the same seed and as many steps; FVU in grey levels{helpless(found)}."
    return Table(caption, ("change", "FVU before", "FVU after", "why"), rows, frozenset({1, 2}))


_MARKS = {"holds": "✓", "pass": "✓", "fails": "✗", "fail": "✗", "undecided": "?"}


def _verdict(verdict: str) -> Markup:
    kind = {"✓": "good", "✗": "bad"}.get(_MARKS.get(verdict, ""), "open")
    mark = (
        Markup('<span aria-hidden="true">{}</span> ').format(_MARKS[verdict])
        if verdict in _MARKS
        else Markup("")
    )
    return Markup('<span class="{}">{}{}</span>').format(kind, mark, verdict)


def _number(value: float | None) -> str:
    """A figure as text; what is not finite as a word."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinite"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.2e}"


def _median(values: Sequence[float]) -> float:
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    return ordered[len(ordered) // 2]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# Sections ---------------------------------------------------------------------------------------------


def _errors(explained: Sequence[tuple[str, Explanation]]) -> Section:
    """One bar a network."""
    figures = []
    for name, found in explained:
        shares = [(part.name, _share(part.fvu, found.fvu)) for part in found.parts]
        words = ", ".join(f"{part} {share:.0%}" for part, share in shares if share >= 0.005) or "no error"
        picture = pictures.bar(shares, f"Where the error of {name} goes: {words}")
        near = ", near-identity" if found.near_identity else ""
        figures.append(Figure(picture, f"{name}, FVU {found.fvu:.2g}{near}: {words}."))
    there = {part.name: pictures.letter(part.name) for _, one in explained for part in one.parts if part.fvu}
    letters = ", ".join(f"{letter} {name}" for name, letter in there.items()) or "No part has any"
    text = f"One bar a network, the first seed, its whole error being the width. {letters}."
    return Section("errors", "Where the error goes", text, figures=tuple(figures))


def _claim(outcome: Outcome, pixels: Pixels) -> Section:
    claim, figures = outcome.claim, []
    text = f"{claim.statement}. Verdict: {outcome.verdict}, {outcome.successes} of {outcome.replicas} seeds. Source: {claim.source}."
    if outcome.curves is not None:
        trial = claim.plan(pixels)[0]
        figures.append(_curves(outcome.curves, predicted(trial, pixels, outcome.curves[0]), claim.name))
    if outcome.explanation is not None:
        figures += portrait(outcome.explanation)
    return Section(f"claim-{claim.name}", claim.name, text, figures=tuple(figures))


def _curves(
    curves: tuple[Sequence[int], Sequence[Sequence[float]]], expected: list[float] | None, name: str
) -> Figure:
    steps, fvu = curves
    last = _number(_median([curve[-1] for curve in fvu]))
    caption = f"FVU of all {len(fvu)} replicas over {steps[-1]} steps, the last {last} at the median"
    caption += "; dashed, what theory predicts from the spectrum." if expected else "."
    return Figure(pictures.curves(steps, fvu, expected, f"{name}: {caption}"), caption)


def predicted(trial: Trial, pixels: Pixels, steps: Sequence[int]) -> list[float] | None:
    """FVU expected after each of ``steps``; None but for gradient descent on one linear layer in full batches."""
    recipe, variant = trial.recipe, trial.variant
    linear = variant.depth == 1 and variant.name in ("linear", "scaled-input")
    if not (linear and recipe.optimizer == "torch.optim:SGD" and recipe.batch_size is None):
        return None
    scaled = pixels.scaled(variant.scaling)
    eigenvalues, power = modes(scaled.train, scaled.test)
    if recipe.lr >= critical_rate(eigenvalues):
        return None
    return expected_fvu(eigenvalues, power, pixel_variance(scaled.test), recipe.lr, list(steps)).tolist()


# The page ---------------------------------------------------------------------------------------------


def rendered(title: str, lead: str, sections: Sequence[Section], context: dict[str, Any]) -> str:
    """The page, with what it was made with as its last section."""
    made = Table("What this was made with.", ("what", "value"), tuple(_flat(context)))
    told = [*sections, Section("made", "Versions, seed and machine", tables=(made,))]
    page = {"title": title, "lead": lead, "sections": told, "hatches": pictures.hatches(20)}
    return _template().render(**page)


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name} ")
        else:
            rows.append((f"{before}{name}", "-" if value is None else str(value)))
    return rows


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("identity_props.report", "")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("page.html.j2")
