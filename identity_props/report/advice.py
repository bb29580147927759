"""Advice off an atlas, as a table and as a document; needs no torch."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from identity_props.atlas.advising import Advice, listed
from identity_props.atlas.axes import NAMES
from identity_props.atlas.reading import STATES, Seen
from identity_props.report.dialect import an_object, count, figure, list_of, number, of_type, one_of, text

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
    "data": text("of the atlas"),
    "side": count("pixels a side"),
    "asked": _KNOBS,
    "agreeing": an_object({state: count("cells") for state in STATES}, "how cells ended that are as asked"),
    "nearest": an_object(_END, "the cell that agrees with most of it"),
    "ways": list_of(
        an_object({"turn": _KNOBS, "beside": _KNOBS, **_END}), "cells that learn, the nearest first"
    ),
}


def document(found: Advice) -> dict[str, Any]:
    """What ``advise --json`` prints; null stands for a figure that is not finite."""
    told = [{"turn": dict(way.turned), "beside": dict(way.beside), **_end(way.to)} for way in found.ways]
    at = found.nearest
    of = {"data": at.data, "side": at.side, "asked": dict(found.asked), "agreeing": found.ends}
    return {"schema": SCHEMA, **of, "nearest": _end(at), "ways": told}


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


def told(found: Advice) -> str:
    """Of what the atlas is, and what it says of what was asked, in a line each."""
    at, cells = found.nearest, len(found.agreeing)
    of = f"{at.data}, {at.side} x {at.side} pixels, {at.steps:,} steps"
    if cells > 1:
        ends = ", ".join(f"{count} {state}" for state, count in found.ends.items() if count)
        return f"{of}: {cells} cells are so, {ends}"
    there = {name: getattr(at.cell, name) for name in found.asked}
    other = {name: value for name, value in there.items() if value != found.asked[name]}
    which = "one cell is so" if cells else "no cell is so; the nearest has"
    knobs = listed({**other, **found.beside})
    ended = f"{at.state}, median FVU {_figure(at.median)}, {at.learned} of {len(at.fvu)} learn"
    return f"{of}: {which}{',' * bool(cells and knobs)}{' ' * bool(knobs)}{knobs}: {ended}"


def table(found: Advice) -> Table | None:
    """One row a way: what to turn, what else is so there, how sure, and what comes of it; None where there is none."""
    if not found.ways:
        return None
    grid = Table(box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    beside = any(way.beside for way in found.ways)
    for name in ("turn", *["where"] * beside, "learn", "sure", "median FVU", "step"):
        words = name in ("turn", "where")
        grid.add_column(name, justify="left" if words else "right", no_wrap=not words)
    for way in found.ways:
        end, figures = way.to, f"{way.to.learned}/{len(way.to.fvu)}"
        where = [listed(way.beside)] * beside
        turn = str(way) or "nothing: it learns"
        grid.add_row(turn, *where, figures, f"{end.sure:.0%}", _figure(end.median), f"{end.when:.0f}")
    return grid


FOOT = "learn: replicas. sure: share of all seeds that learn, at least, with 95% for a cell by itself."


def _figure(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "infinite"
