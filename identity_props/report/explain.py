"""What ``explain`` found: tables for people, explanation.json for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from identity_props.explanation.explain import Advice, Explanation
from identity_props.report.fitting import Fitted
from identity_props.task.metrics import NEAR_IDENTITY

FILE = "explanation.json"
SCHEMA = "identity-props/explanation/1"
FORGOTTEN = (
    " Above 1 it is worse than predicting the mean: of a network of your own, are these its --weights, and is"
    " --scaling that of its training?"
)
NONE_FITS = "Of all changes that are known here none is expected to remove a twentieth of it."
BAR = 20  # characters of a part that is the whole error


def tables(found: Explanation) -> RenderableType:
    """The parts with their shares, then the advice."""
    parts = _grid(f"Why is {found.name} not the identity?", ("part", "FVU", "share", "", "what"), _sum(found))
    for part in (one for one in found.parts if one.fvu or not one.measured):
        share = part.fvu / found.fvu if found.fvu else 0.0
        figures = (f"{part.fvu:.2e}", f"{share:.1%}") if part.measured else ("-", "-")
        parts.add_row(part.name, *figures, "█" * round(BAR * share), part.what)
    parts.columns[-1].min_width = 20
    shown = Fitted(parts, ("", "what"))
    if not found.advice:
        return shown if found.near_identity else Group(shown, "", Text(NONE_FITS))
    advice = _grid(
        "What to do",
        ("change", "FVU before", "after", "why"),
        f"FVU in grey levels, one seed, the same budget{_how(found)}{helpless(found)}",
    )
    for one in found.advice:
        advice.add_row(one.name, f"{one.before:.2e}", after(one), one.why)
    return Group(shown, "", advice)


def _grid(title: str, headings: Sequence[str], caption: str) -> Table:
    grid = Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    for heading in headings:
        numeric = heading in ("FVU", "share", "FVU before", "after")
        grid.add_column(
            heading, justify="right" if numeric else "left", no_wrap=heading not in ("what", "why")
        )
    return grid


def _sum(found: Explanation) -> str:
    if found.near_identity:
        return f"FVU {found.fvu:.2e}: it is near-identity, {NEAR_IDENTITY:g} or less, and there is nothing to repair."
    asked = FORGOTTEN if found.fvu > 1 else ""
    asked += nothing(found).replace(" ", "\n", 1)
    return f"The parts sum to FVU {found.fvu:.4g}{_mse(found)}, in the order they are taken.{asked}"


def nothing(found: Explanation) -> str:
    """The names of parts that are 0, in a sentence with a space before it; empty where there are none."""
    names = ", ".join(part.name for part in found.parts if part.measured and not part.fvu)
    return f" Nothing is: {names}." if names else ""


def _mse(found: Explanation) -> str:
    return f", a mean squared error of {found.mse:.4g} grey levels squared"


def _how(found: Explanation) -> str:
    """How what is not tried can be."""
    if not any(one.after is None and not one.by_hand for one in found.advice):
        return ""
    known = all(part.measured or "decayed" in part.what for part in found.parts)
    return "; --try trains each" if known else "; --try trains each, with --optimizer, --lr and --steps"


def helpless(found: Explanation) -> str:
    """That nothing of what was tried halves the error, where that is so."""
    tried = [one for one in found.advice if one.after is not None]
    helped = any(one.after is not None and one.after <= one.before / 2 for one in tried)
    return "; none of those tried halves the error" if tried and not helped else ""


def after(one: Advice) -> str:
    """FVU once a change was made, or why there is none."""
    if one.after is None:
        return "by hand" if one.by_hand else "not tried"
    return f"{one.after:.2e}" if math.isfinite(one.after) else "diverges"


def document(found: Explanation, context: dict[str, Any]) -> dict[str, Any]:
    """What explanation.json holds; None (null) stands for a figure that is not finite or was not tried."""
    advice = [asdict(one) | {"after": _finite(one.after)} for one in found.advice]
    return {
        "schema": SCHEMA,
        **context,
        "name": found.name,
        "fvu": found.fvu,
        "fvu_pixels": found.fvu_pixels,
        "mse": found.mse,
        "near_identity": found.near_identity,
        "parts": [asdict(part) for part in found.parts],
        "readouts": [*found.readouts],
        "narrowest": found.narrowest,
        "by_rank": _short(found.by_rank),
        "by_pixel": _short(found.by_pixel),
        "by_frequency": [] if found.by_frequency is None else [*map(_short, found.by_frequency)],
        "dead_outputs": found.dead.nonzero()[:, 0].tolist(),
        "advice": advice,
    }


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
