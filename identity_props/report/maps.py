"""Heat maps of the atlas: rate by depth, one radio group each, so that a mouse hovers and arrow keys walk.

A cell says its state by shade and by sign, and tells the rest where it is pointed at or chosen. Nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from identity_props.atlas.reading import BETWEEN, DIVERGED, FAILED, NEAR, Seen

SIGNS = {NEAR: "\N{CHECK MARK}", BETWEEN: "~", FAILED: "\N{MULTIPLICATION SIGN}", DIVERGED: "\N{INFINITY}"}


def heat(
    cells: Sequence[Seen],
    group: str,
    title: str,
    lines: Mapping[str, float],
    rates: Sequence[float],
    depths: Sequence[int],
) -> Markup:
    """One map of cells that differ in depth and rate, on a log axis of ``rates``; ``lines`` are rates by name.

    Rates and depths of several maps are the same, so that their cells lie side by side. ``group`` tells its radio buttons
    from those of other maps.
    """
    at = {(one.cell.depth, one.cell.lr): one for one in cells}
    body = Markup("").join(
        Markup('<span class="deep">{}</span>').format(depth)
        + Markup("").join(_cell(at.get((depth, rate)), group) for rate in rates)
        for depth in sorted(depths, reverse=True)
    )
    feet = Markup('<span class="deep">depth</span>') + Markup("").join(
        Markup('<span class="rate">{}</span>').format(_exponent(rate)) for rate in rates
    )
    drawn = Markup("").join(_line(name, value, rates) for name, value in lines.items())
    style = f"grid-template-columns: 2.4rem repeat({len(rates)}, minmax(0, 1fr))"
    return Markup(
        '<fieldset class="heat"><legend>{}</legend><div class="cells" style="{}">{}{}<div class="over">{}</div></div></fieldset>'
    ).format(title, style, body, feet, drawn)


def _cell(one: Seen | None, group: str) -> Markup:
    if one is None:
        return Markup("<span></span>")
    kind = one.state.partition("-")[0]
    told = words(one)
    return Markup(
        '<label class="cell {}"><input type="radio" name="{}" aria-label="{}"><span aria-hidden="true">{}</span>'
        '<span class="told" aria-hidden="true">{}</span></label>'
    ).format(kind, group, told, SIGNS[one.state], told)


def words(one: Seen) -> str:
    """A cell in words: state, median and spread."""
    low, high = one.fvu[0], one.fvu[-1]
    when = f", seen at step {one.when:.0f}" if math.isfinite(one.when) else ""
    return (
        f"depth {one.cell.depth}, rate {one.cell.lr:g}: {one.state}, median FVU {figure(one.median)}"
        f" ({figure(low)} to {figure(high)}), {one.learned} of {len(one.fvu)} learn{when}"
    )


def figure(value: float) -> str:
    """FVU in two digits."""
    return f"{value:.1e}" if math.isfinite(value) else "none"


def _exponent(rate: float) -> Markup:
    power = math.log10(rate)
    if abs(power - round(power)) > 0.01:
        return Markup("")
    return Markup("<span>10<sup>{}</sup></span>").format(str(round(power)).replace("-", "\N{MINUS SIGN}"))


def _line(name: str, value: float, rates: Sequence[float]) -> Markup:
    """A line between the rates that it lies between; none where it is off the map."""
    place = position(value, rates)
    if place is None:
        return Markup("")
    kind = name.partition(" ")[0]
    return Markup('<i class="line {}" style="left: {:.2f}%" title="{} {:.3g}"></i>').format(
        kind, place, name, value
    )


def position(value: float, rates: Sequence[float]) -> float | None:
    """Percent of the width at which a rate lies, where a column has its rate in its middle; None off the map."""
    logs = [math.log(rate) for rate in rates]
    if len(logs) < 2 or not 0 < value < math.inf:
        return None
    here = math.log(value)
    before = sum(one <= here for one in logs) - 1
    k = min(max(before, 0), len(logs) - 2)
    place = (k + 0.5 + (here - logs[k]) / (logs[k + 1] - logs[k])) / len(logs)
    return 100 * place if 0 <= place <= 1 else None
