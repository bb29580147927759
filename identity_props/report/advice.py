"""Advice off an atlas, as a table and as a document; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from identity_props.atlas.axes import NAMES
from identity_props.atlas.reading import STATES, Seen, Way, shown
from identity_props.report.dialect import an_object, count, figure, list_of, number, of_type, one_of

SCHEMA = "identity-props/advice/1"
_KNOBS = an_object(
    {name: of_type(["string", "number"], "its value") for name in NAMES}, "knobs by name", NAMES
)
_END = {
    "cell": _KNOBS,
    "state": one_of("how its median replica ended", *STATES),
    "steps": count("its budget"),
    "replicas": count("networks"),
    "learned": count("networks that ended near-identity"),
    "sure": number("share of all seeds that learn, at least, with 95%"),
    "fvu": figure("median FVU in grey levels"),
    "reached": figure("step at which the median replica was first seen near-identity"),
}
SHAPE = {
    "asked": _KNOBS,
    "nearest": an_object(_END, "the cell that agrees with most of it"),
    "ways": list_of(an_object({"turn": _KNOBS, **_END}), "cells that learn, the nearest first"),
}


def document(asked: Mapping[str, Any], at: Seen, ways: Sequence[Way]) -> dict[str, Any]:
    """What ``advise --json`` prints; null stands for a figure that is not finite."""
    told = [{"turn": dict(way.turned), **_end(way.to)} for way in ways]
    return {"schema": SCHEMA, "asked": dict(asked), "nearest": _end(at), "ways": told}


def _end(one: Seen) -> dict[str, Any]:
    return {
        "cell": vars(one.cell),
        "state": one.state,
        "steps": one.steps,
        "replicas": len(one.fvu),
        "learned": one.learned,
        "sure": one.sure,
        "fvu": one.median if math.isfinite(one.median) else None,
        "reached": one.when if math.isfinite(one.when) else None,
    }


def table(asked: Mapping[str, Any], at: Seen, ways: Sequence[Way]) -> Table:
    """One row a way: what to turn, how sure, and what comes of it."""
    grid = Table(title=_asked(asked, at), title_justify="left", box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    grid.caption = "learn: replicas; sure: share of all seeds that learn, at least, with 95%"
    grid.caption_justify = "left"
    for name in ("turn", "learn", "sure", "median FVU", "step"):
        grid.add_column(name, justify="left" if name == "turn" else "right", no_wrap=name != "turn")
    for way in ways:
        end, count = way.to, len(way.to.fvu)
        turn = str(way) or "nothing: it learns"
        grid.add_row(
            turn, f"{end.learned}/{count}", f"{end.sure:.0%}", _figure(end.median), f"{end.when:.0f}"
        )
    if not ways:
        grid.caption = "No cell of this atlas learns."
    return grid


def _asked(asked: Mapping[str, Any], at: Seen) -> str:
    there = {name: getattr(at.cell, name) for name in asked}
    other = ", ".join(f"{name} {shown(there[name])}" for name in asked if there[name] != asked[name])
    near = f" at the nearest cell, {other}" if other else ""
    return f"{at.state}{near}: median FVU {_figure(at.median)}, {at.learned} of {len(at.fvu)} learn"


def _figure(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "none"
