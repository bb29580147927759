"""The page of an atlas, and what decides as a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from markupsafe import Markup

from identity_props.atlas.axes import Cell, optimizer_of
from identity_props.atlas.reading import NEAR, STATES, Seen, Turn, decides, shown, turns
from identity_props.report.dialect import an_object, count, list_of, text
from identity_props.report.maps import SIGNS, figure, heat
from identity_props.report.page import Figure, Section, Table, rendered
from identity_props.task.data import Pixels
from identity_props.task.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.task.theory import critical_rate, expected_fvu, modes, momentum_edge

MOST = 6_000  # cells of a page
SCHEMA = "identity-props/atlas/1"
SHOWN = 12  # turns of a table
PANEL = (
    "optimizer",
    "scaling",
    "schedule",
    "variant",
    "batch",
    "init",
    "width",
)  # one map each, in this order


def page(cells: Sequence[Seen], pixels: Pixels, context: dict[str, Any]) -> str:
    """The page: what decides, then for each optimizer its maps, one a scaling, schedule and variant."""
    ordered = sorted(cells, key=_place)[:MOST]
    lead = decides(cells) + (f" The first {MOST:,} cells are shown." if len(cells) > MOST else "")
    sections = [Section("decides", "What decides", _MEANING, tables=(_turns(turns(cells)),))]
    sections.append(Section("signs", "How to read the maps", _reading(ordered)))
    several = {name for name in PANEL if len({getattr(one.cell, name) for one in ordered}) > 1}
    for optimizer, some in groupby(ordered, key=lambda one: (one.cell.optimizer, one.steps)):
        sections.append(
            _optimizer(f"{optimizer[0]}, {optimizer[1]:,} steps", [*some], pixels, several, len(sections))
        )
    return rendered("Where is the identity learned?", lead, sections, context)


_MEANING = (
    "A turn changes one knob to one value and leaves all others. It is counted over the failed cells, diverged ones among"
    " them, that have such a neighbour in the atlas, and over those that learn."
)


def _place(one: Seen) -> tuple[Any, ...]:
    return (
        one.cell.optimizer,
        one.steps,
        *(getattr(one.cell, name) for name in PANEL[1:]),
        one.cell.depth,
        one.cell.lr,
    )


def _reading(cells: Sequence[Seen]) -> str:
    signs = ", ".join(f"{SIGNS[state]} {state}" for state in STATES)
    widths = sorted({one.cell.width for one in cells})
    deaths = ", ".join(_death(width) for width in widths)
    return (
        f"Rows are depths, columns rates. {signs}, each of the median replica; empty: not trained. Point at a cell, or choose one and walk with"
        " the arrow keys, for its median and spread; tables have all of them. Solid: the critical rate d / \N{GREEK SMALL LETTER LAMDA}"
        "\N{SUBSCRIPT ONE} from which gradient descent diverges, or d (1 + \N{GREEK SMALL LETTER MU}) / \N{GREEK SMALL LETTER LAMDA}"
        "\N{SUBSCRIPT ONE} with momentum; dashed: the least rate that reaches near-identity within the budget, as the spectrum"
        " predicts. Both are exact for one linear layer in full batches, and a guide elsewhere. Adaptive optimizers have neither."
        f" The depth at which half of the signals die in ReLU layers is {deaths}."
    )


def _death(width: int) -> str:
    """Layers after which a point has no unit alive with a chance of 1/2, from theory.probability_alive."""
    layers = 1 + math.log(0.5) / math.log1p(-(2.0**-width)) if width < 50 else 1 + math.log(2) * 2.0**width
    return f"{layers:.3g} at width {width}, {'on' if layers <= 8 else 'far off'} the map"


def _optimizer(heading: str, cells: list[Seen], pixels: Pixels, several: set[str], number: int) -> Section:
    figures: list[Figure] = []
    rates, depths = ({getattr(one.cell, name) for one in cells} for name in ("lr", "depth"))
    for names, some in groupby(cells, key=lambda one: [getattr(one.cell, name) for name in PANEL[1:]]):
        panel, group = [*some], f"map-{number}-{len(figures)}"
        title = ", ".join(
            _named(name, value) for name, value in zip(PANEL[1:], names, strict=True) if name in several
        )
        lines = theory(panel[0].cell, panel[0].steps, pixels)
        picture = heat(panel, group, title or heading, lines, sorted(rates), sorted(depths)) + _details(panel)
        told = "; ".join(f"{name} {value:.3g}" for name, value in lines.items())
        near = sum(one.state == NEAR for one in panel)
        figures.append(
            Figure(picture, f"{near} of {len(panel)} cells near-identity{'; ' * bool(told)}{told}.")
        )
    return Section(f"optimizer-{number}", heading, figures=tuple(figures))


def _named(name: str, value: Any) -> str:
    return f"{name} {value}" if name in ("width", "batch", "scaling") else str(value)


def _details(panel: Sequence[Seen]) -> Markup:
    heads = ("depth", "rate", "state", "median FVU", "least", "most", "learn")
    rows = Markup("").join(
        Markup("<tr><th scope=row>{}</th>{}</tr>").format(
            one.cell.depth, Markup("").join(Markup("<td>{}</td>").format(cell) for cell in _figures(one))
        )
        for one in panel
    )
    head = Markup("").join(Markup("<th scope=col>{}</th>").format(name) for name in heads)
    return Markup(
        "<details><summary>Table</summary><table><caption>FVU in grey levels</caption><thead><tr>{}</tr></thead>"
        "<tbody>{}</tbody></table></details>"
    ).format(head, rows)


def _figures(one: Seen) -> tuple[str, ...]:
    spread = (figure(value) for value in (one.median, one.fvu[0], one.fvu[-1]))
    return (f"{one.cell.lr:g}", one.state, *spread, f"{one.learned}/{len(one.fvu)}")


# Theory ---------------------------------------------------------------------------------------------


def theory(cell: Cell, steps: int, pixels: Pixels) -> dict[str, float]:
    """Rates that theory knows of gradient descent, with or without momentum, by name; none of other optimizers."""
    name, arguments = optimizer_of(cell.optimizer)
    momentum = float(dict(arguments).pop("momentum", 0.0))
    if name != "torch.optim:SGD" or {*dict(arguments)} - {"momentum"}:
        return {}
    eigenvalues, power, variance = _spectrum(pixels, cell.scaling)
    edge = momentum_edge(eigenvalues, momentum)
    found = {"edge of momentum" if momentum else "critical rate": edge}
    least = (
        _least(eigenvalues, power, variance, steps) if not momentum and cell.schedule == "constant" else None
    )
    return found | ({"budget": least} if least else {})


@cache
def _spectrum(pixels: Pixels, scaling: str) -> tuple[Any, Any, float]:
    scaled = pixels.scaled(scaling)
    return *modes(scaled.train, scaled.test), pixel_variance(scaled.test)


def _least(eigenvalues: Any, power: Any, variance: float, steps: int) -> float | None:
    """Least rate whose expected FVU after ``steps`` is near-identity, None where no rate is fast enough."""
    low, high = 0.0, critical_rate(eigenvalues) / 2  # FVU falls with the rate up to there, mode by mode
    if expected_fvu(eigenvalues, power, variance, high, steps)[0] > NEAR_IDENTITY:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        enough = expected_fvu(eigenvalues, power, variance, middle, steps)[0] <= NEAR_IDENTITY
        low, high = (low, middle) if enough else (middle, high)
    return high


# What decides ----------------------------------------------------------------------------------------


def _turns(found: Sequence[Turn]) -> Table:
    rows = tuple(
        (str(one), f"{one.moved:,}", f"{one.failed:,}", f"{one.broken:,}", f"{one.learned:,}")
        for one in found[:SHOWN]
    )
    heads = ("turn", "become near-identity", "of failed", "become failed", "of near-identity")
    return Table("What one turn does, those first that move most.", heads, rows, frozenset({1, 2, 3, 4}))


_TURN = {
    "axis": text("the knob"),
    "value": text("what it is turned to"),
    "moved": count("failed cells that become near-identity"),
    "failed": count("failed cells that have such a neighbour"),
    "broken": count("near-identity cells that become failed"),
    "learned": count("near-identity cells that have such a neighbour"),
}
SHAPE = {
    "cells": count("cells of the atlas"),
    "states": an_object({state: count("cells") for state in STATES}, "how many ended how"),
    "says": text("what decides, in words"),
    "turns": list_of(an_object(_TURN), "by how many cells they move"),
}


def document(cells: Sequence[Seen], context: Mapping[str, Any]) -> dict[str, Any]:
    """What ``atlas --json`` prints."""
    ends = [one.state for one in cells]
    told = [{**vars(one), "value": shown(one.value)} for one in turns(cells)]
    states = {state: ends.count(state) for state in STATES}
    return {
        "schema": SCHEMA,
        **context,
        "cells": len(cells),
        "states": states,
        "says": decides(cells),
        "turns": told,
    }
