"""The map of the question's corner: ``python docs/explanation/atlas.py [FOLDER]``.

Takes the cells of a FOLDER that ``identity-props atlas --preset question --out FOLDER`` made into the atlas that comes
with the package, and draws where-learned.svg and the section of why.md that speaks of it; without one, it draws alone.
"""

import sys
from itertools import product
from pathlib import Path

from identity_props.atlas.reading import BETWEEN, DIVERGED, FAILED, NEAR, QUESTION, decides, opened, turns
from identity_props.report.maps import SIGNS

HERE = Path(__file__).parent
PICTURE, PAGE = HERE / "where-learned.svg", HERE / "why.md"
VARIANTS, SCHEDULES = ("plain-relu", "linear", "residual"), ("constant", "linear-decay")
SHADES = {NEAR: "#17662f", BETWEEN: "#cfe6d4", FAILED: "#f6dcd4", DIVERGED: "#a3210f"}
STYLE = """<style>text { font: 12px sans-serif; fill: #333; text-anchor: middle } .name { text-anchor: start }
.light { fill: #fff }</style><rect width="100%" height="100%" fill="#fff"/>"""
SIZE, LEFT, TOP = 22, 30, 24  # of a cell; and left of and above a map


def picture(cells):
    """SVG of the asker's RMSprop on grey levels: a map a variant and schedule, rate by depth."""
    cells = [one for one in cells if (one.cell.optimizer, one.cell.scaling) == ("RMSprop", "none")]
    rates, depths = (
        sorted({one.cell.lr for one in cells}),
        sorted({one.cell.depth for one in cells}, reverse=True),
    )
    wide, high = LEFT + SIZE * len(rates) + 14, TOP + SIZE * len(depths) + 22
    drawn = [
        f'<g transform="translate({wide * column} {high * row})">{_map(cells, variant, schedule, rates, depths)}</g>'
        for (row, schedule), (column, variant) in product(enumerate(SCHEDULES), enumerate(VARIANTS))
    ]
    legend = ", ".join(f"{sign} {state}" for state, sign in SIGNS.items())
    size = f'viewBox="0 0 {3 * wide} {2 * high + 26}" width="{3 * wide}"'
    title = f"RMSprop on grey levels, rate by depth: {_counted(cells)}"
    foot = f'<text class="name" x="{LEFT}" y="{2 * high + 14}">Rows: layers; columns: rates. {legend}.</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{title}</title>{STYLE}'
    return f"{head}{''.join(drawn)}{foot}</svg>\n"


def _map(cells, variant, schedule, rates, depths):
    drawn = [f'<text class="name" x="{LEFT}" y="{TOP - 8}">{variant}, {schedule}</text>']
    drawn += [
        f'<text x="{LEFT - 10}" y="{TOP + SIZE * k + 15}">{depth}</text>' for k, depth in enumerate(depths)
    ]
    for one in cells:
        if (one.cell.variant, one.cell.schedule) == (variant, schedule):
            x, y = LEFT + SIZE * rates.index(one.cell.lr), TOP + SIZE * depths.index(one.cell.depth)
            box = f'<rect x="{x}" y="{y}" width="{SIZE - 1}" height="{SIZE - 1}" fill="{SHADES[one.state]}"/>'
            light = ' class="light"' if one.state in (NEAR, DIVERGED) else ""
            drawn.append(f'{box}<text{light} x="{x + SIZE / 2}" y="{y + 15}">{SIGNS[one.state]}</text>')
    ends = [f"{rate:g}" if k % 4 == 0 else "" for k, rate in enumerate(rates)]
    foot = TOP + SIZE * len(depths) + 14
    drawn += [f'<text x="{LEFT + SIZE * (k + 0.5)}" y="{foot}">{end}</text>' for k, end in enumerate(ends)]
    return "".join(drawn)


def _counted(cells):
    """Near-identity cells of each variant and schedule, in words."""
    told = []
    for variant, schedule in product(VARIANTS, SCHEDULES):
        ends = [one.state for one in cells if (one.cell.variant, one.cell.schedule) == (variant, schedule)]
        told.append(f"{variant}, {schedule} {ends.count(NEAR)} of {len(ends)}")
    return "; ".join(told)


def section(cells):
    """Markdown: what decides, and what the turns that move most do."""
    rows = [
        f"| {one} | {one.moved:,} of {one.failed:,} | {one.broken:,} of {one.learned:,} |"
        for one in turns(cells)[:8]
        if one.moved
    ]
    heads = "| turn | failed cells that become near-identity | near-identity cells that become failed |"
    asked = [one for one in cells if (one.cell.optimizer, one.cell.scaling) == ("RMSprop", "none")]
    near = f"Near-identity cells of RMSprop on grey levels: {_counted(asked)}."
    return "\n".join(
        [decides(cells), "", near, "", _plain(cells), "", _dead(cells), "", heads, "|---|---:|---:|", *rows]
    )


def _plain(cells):
    """What the map says of plain ReLU layers: whether any other knob alone was enough."""
    relu = [one for one in cells if one.cell.variant == "plain-relu"]
    near, rates = sum(one.state == NEAR for one in relu), [one.cell.lr for one in relu]
    kinds = [len({getattr(one.cell, axis) for one in relu}) for axis in ("optimizer", "scaling", "depth")]
    told = f"**Plain ReLU layers: {near} of {len(relu)} cells are near-identity**, over rates of {min(rates):g} to {max(rates):g}, "
    return (
        told
        + "{} optimizers, {} scalings and {} depths, so this is what tuning them has to offer.".format(*kinds)
    )


def _dead(cells):
    """Residual networks that are the identity because their branches died."""
    near = [one for one in cells if one.cell.variant == "residual" and one.state == NEAR]
    zero = sum(one.median == 0 for one in near)
    told = f"In {zero} of the {len(near)} near-identity cells of residual networks the median error is 0 to the last bit: "
    return f"{told}their ReLU branches have died, and what goes round them is the identity."


def filled(page, cells):
    """The page with its section, between <!-- atlas --> and <!-- end -->."""
    before, begin, rest = page.partition("<!-- atlas -->\n")
    return f"{before}{begin}{section(cells)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def main():
    if len(sys.argv) > 1:
        from identity_props.atlas.store import Atlas

        Atlas(Path(sys.argv[1])).write_file(QUESTION)
    cells = opened()
    PICTURE.write_text(picture(cells), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(), cells))


if __name__ == "__main__":
    main()
