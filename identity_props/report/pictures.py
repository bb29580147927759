"""Pictures for the page: inline SVG that follows the page's colours, and PNG as data URIs.

Every one has a text alternative, and none tells things apart by colour alone. Lengths are in SVG user units.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from identity_props.task.metrics import FAILED, NEAR_IDENTITY

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 40  # margins of a plot
LEAST = 1e-16  # FVU: below it is rounding
MOST = 1e4  # FVU: above it a curve leaves the plot
LARGEST = 392  # pixels of a picture of a matrix


class Axes:
    """Log-log axes: ``x`` and ``y`` take a value to its place, ``frame`` draws ticks and labels."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], labels: tuple[str, str]) -> None:
        self.xs, self.ys, self.labels = xs, ys, labels

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(value, *self.xs)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(value, *self.ys)

    def frame(self) -> str:
        ticks = []
        for power in _powers(*self.xs):
            at, foot = self.x(10.0**power), HEIGHT - BOTTOM
            ticks.append(f'<path class="tick" d="M{at:.1f} {TOP}V{foot}"/>')
            ticks.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{_power(power)}</text>')
        for power in _powers(*self.ys):
            at = self.y(10.0**power)
            ticks.append(f'<path class="tick" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            ticks.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_power(power)}</text>')
        across, up = self.labels
        middle = (TOP + HEIGHT - BOTTOM) / 2
        ticks.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{across}</text>')
        turned = f'transform="translate(14 {middle}) rotate(-90)" text-anchor="middle"'
        return "".join([*ticks, f"<text {turned}>{up}</text>"])

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> str:
        """A polyline, broken where a value is not finite."""
        path, down = [], False
        for x, y in points:
            if not math.isfinite(y):
                down = False
                continue
            y = min(max(y, self.ys[0]), self.ys[1])
            path.append(f"{'L' if down else 'M'}{self.x(x):.1f} {self.y(y):.1f}")
            down = True
        return f'<path class="{kind}" d="{"".join(path)}"/>'

    def band(self, low: float, high: float, kind: str, label: str) -> str:
        """A shaded range of y with its name."""
        low, high = max(low, self.ys[0]), min(high, self.ys[1])
        if low >= high:
            return ""
        top, foot = self.y(high), self.y(low)
        box = f'x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" height="{foot - top:.1f}"'
        name = f'<text class="name" x="{LEFT + 6}" y="{foot - 6:.1f}">{label}</text>'
        return f'<rect class="{kind}" {box}/>{name if foot - top > 16 else ""}'


def _share(value: float, low: float, high: float) -> float:
    return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))


def _powers(low: float, high: float) -> range:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return range(first, last + 1, max(1, math.ceil((last - first) / 6)))


def _power(power: int) -> Markup:
    digits = str(power).replace("-", "\N{MINUS SIGN}")
    return Markup('10<tspan dy="-5" font-size="9">{}</tspan>').format(digits)


def svg(
    content: str, alternative: str, size: tuple[int, int] = (WIDTH, HEIGHT), kind: str = "plot"
) -> Markup:
    """An image of that size, with its text alternative."""
    head = Markup('<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}">').format(
        kind, alternative, *size
    )
    return head + Markup(content) + Markup("</svg>")


def curves(
    steps: Sequence[int],
    fvu: Sequence[Sequence[float]],
    predicted: Sequence[float] | None,
    alternative: str,
) -> Markup:
    """FVU [K][E] of every replica over steps [E] on log axes, with both bands and a predicted curve [E].

    Step 0 stands at 1/2; what is not finite breaks a curve, and it ends in a cross.
    """
    seen = [v for curve in [*fvu, predicted or ()] for v in curve if math.isfinite(v) and v > 0]
    low = 10.0 ** math.floor(math.log10(max(LEAST, min([*seen, 1e-4]))))
    high = 10.0 ** math.ceil(math.log10(min(MOST, max([*seen, 10.0]))))
    axes = Axes((0.5, max(10.0, steps[-1])), (low, high), ("optimizer steps", "FVU on test"))
    at = [max(step, 0.5) for step in steps]
    drawn = [
        axes.band(low, NEAR_IDENTITY, "near", "near-identity"),
        axes.band(FAILED, high, "failed", "failed"),
        axes.frame(),
        *(axes.line(zip(at, curve, strict=True), "curve") for curve in fvu),
        *(_cross(axes, at, curve) for curve in fvu),
    ]
    if predicted is not None:
        drawn.append(axes.line(zip(at, predicted, strict=True), "predicted"))
    return svg("".join(drawn), alternative)


def _cross(axes: Axes, at: Sequence[float], curve: Sequence[float]) -> str:
    lost = next((k for k, v in enumerate(curve) if not math.isfinite(v)), 0)
    return f'<text class="mark" x="{axes.x(at[lost]):.1f}" y="{TOP + 12}">x</text>' if lost else ""


def spectrum(eigenvalues: Tensor, unlearned: Tensor, alternative: str) -> Markup:
    """Eigenvalues [d] over their rank on log axes: dots, and crosses for directions not yet learned."""
    values = eigenvalues.tolist()
    floor = max(values[0] * 1e-12, 1e-300)
    axes = Axes(
        (0.9, max(10.0, len(values))), (floor, values[0] * 2), ("rank of the direction", "eigenvalue")
    )
    learned, missing = [], []
    for k, value in enumerate(values):
        if value > floor:
            x, y = axes.x(k + 1), axes.y(value)
            if unlearned[k]:
                missing.append(f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6")
            else:
                learned.append(f"M{x:.1f} {y:.1f}h0")
    marks = f'<path class="dots" d="{"".join(learned)}"/><path class="crosses" d="{"".join(missing)}"/>'
    return svg(axes.frame() + marks, alternative)


def frequencies(power: Tensor, alternative: str) -> Markup:
    """Power [r, 2] of an error, a line, and of its target, dashed, over cycles a picture on log axes; 0 stands at 1/2."""
    seen = power[power > 0]
    high = 10.0 ** math.ceil(math.log10(float(seen.max()) if len(seen) else 1.0))
    low = max(10.0 ** math.floor(math.log10(float(seen.min()) if len(seen) else 0.1)), high * 1e-8)
    axes = Axes((0.5, max(10.0, len(power))), (low, high), ("cycles a picture", "power"))
    at = [max(0.5, float(k)) for k in range(len(power))]
    error, target = (list(zip(at, column, strict=True)) for column in power.T.tolist())
    return svg(axes.frame() + axes.line(error, "power") + axes.line(target, "power dashed"), alternative)


# Images ---------------------------------------------------------------------------------------------


def png(grey: Tensor) -> str:
    """A data URI of grey levels [h, w], cut to 0-255."""
    image = Image.fromarray(grey.nan_to_num(0).clamp(0, 255).round().to(torch.uint8).numpy())
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def image(grey: Tensor, alternative: str, kind: str) -> Markup:
    """An image of grey levels [h, w]."""
    return Markup('<img class="{}" src="{}" alt="{}">').format(kind, png(grey), alternative)


def pairs(examples: tuple[Tensor, Tensor], shape: tuple[int, int], alternative: str) -> Markup:
    """Inputs above their outputs, both [n, d] in grey levels, one column an example."""
    rows = [torch.cat([_framed(x.reshape(shape)) for x in half], 1) for half in examples]
    return image(torch.cat(rows), alternative, "pairs")


def _framed(tile: Tensor) -> Tensor:
    framed: Tensor = torch.nn.functional.pad(tile, (1, 1, 1, 1), value=128.0)
    return framed


def dead_map(dead: Tensor, mean: Tensor, shape: tuple[int, int], alternative: str) -> Markup:
    """The mean input [d] in grey levels, crossed where the output is dead [d]."""
    high, wide = shape
    crosses = [
        f"M{k % wide + 0.2:.1f} {k // wide + 0.2:.1f}l.6 .6m0 -.6l-.6 .6"
        for k in dead.nonzero()[:, 0].tolist()
    ]
    picture = f'<image class="sharp" href="{png(mean.reshape(shape))}" width="{wide}" height="{high}"/>'
    return svg(f'{picture}<path class="dead" d="{"".join(crosses)}"/>', alternative, (wide, high), "map")


def matrix(values: Tensor, alternative: str) -> tuple[Markup, float]:
    """A matrix [d, d] from black (-limit) over grey (0) to white (+limit), and that limit: its .999 quantile."""
    limit = float(values.abs().flatten().sort().values[int(0.999 * (values.numel() - 1))]) or 1.0
    return image(127.5 * (1 + values / limit), alternative, "matrix"), limit


# The weights of examples ----------------------------------------------------------------------------

COLUMNS, CELL = 10, 35  # of a picture, and the width of one


def weights(
    rows: Sequence[tuple[str, Sequence[str], int]],
    columns: Sequence[int],
    heads: Mapping[int, str],
    noun: str,
    alternative: str,
) -> Markup:
    """Weights as numbers on a shade: a row a run of examples, (places, weight at each column, how many they are).

    ``heads`` names what begins at a column, with a heavy line; a column is a ``noun``. A row is the taller the more
    examples it is of.
    """
    top, drawn = 34, [_left_of(24, noun)]
    for label, cells, count in rows:
        high = min(80, max(18, 3 * count))
        drawn.append(_left_of(top + high / 2, label))
        drawn += [
            _cell(LEFT + CELL * at, top, high, cells[k]) for at, k in enumerate(columns) if k < len(cells)
        ]
        top += high
    for at, k in enumerate(columns):
        x = LEFT + CELL * at
        drawn.append(f'<text x="{x + CELL / 2}" y="28" text-anchor="middle">{k + 1}</text>')
        if k in heads:
            drawn.append(f'<path class="begins" d="M{x} 2V{top}"/><text x="{x + 4}" y="12">{heads[k]}</text>')
    return svg("".join(drawn), alternative, (WIDTH, top + 2))


def _left_of(y: float, label: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _cell(x: float, y: float, high: float, text: str) -> str:
    """One weight; shades end at a weight of 2, so that the number stays readable."""
    value = float(text) if text[:1].isdigit() else 0.0
    shade = 0.06 + 0.12 * min(value, 2.0) if value else 0.0
    box = f'<rect class="weight" x="{x}" y="{y}" width="{CELL}" height="{high}" fill-opacity="{shade:.2f}"/>'
    return f'{box}<text x="{x + CELL / 2}" y="{y + high / 2 + 4:.1f}" text-anchor="middle">{text}</text>'


# Where the error goes -------------------------------------------------------------------------------


LETTERS = {
    "not trained yet": "0",
    "shifted statistics": "M",
    "step-size floor": "F",
    "noise in evaluation": "E",
    "noise in training": "Z",
    "weight decay": "A",
    "not in the input": "I",
    "too narrow": "K",
    "saturated hidden units": "H",
    "saturated outputs": "U",
    "slow directions": "W",
    "output layer": "Y",
}


def letter(name: str) -> str:
    """The letter of a part in a bar, another for each."""
    return LETTERS.get(name, name[0].upper())


def bar(shares: Sequence[tuple[str, float]], alternative: str) -> Markup:
    """Shares of one error by the name of the part, side by side; hatched, and lettered where there is room."""
    at, drawn = 1.0, []  # borders lie within the picture, or it cuts them
    for k, (name, share) in enumerate(shares):
        width = (WIDTH - 2) * share
        if width >= 1:
            drawn.append(f'<rect class="part part-{k}" x="{at:.1f}" y="1" width="{width:.1f}" height="28"/>')
            drawn.append(_lettered(at + width / 2, name) if width >= 18 else "")
        at += width
    return svg("".join(drawn), alternative, (WIDTH, 30), "bar")


def _lettered(x: float, name: str) -> str:
    back = f'<circle class="plate" cx="{x:.1f}" cy="15" r="9"/>'
    return f'{back}<text x="{x:.1f}" y="19" text-anchor="middle">{letter(name)}</text>'


def hatches(count: int) -> Markup:
    """One pattern a part, for the whole page."""
    lines = (
        "",
        "M0 4h8",
        "M4 0v8",
        "M0 0l8 8",
        "M0 8l8-8",
        "M0 4h8M4 0v8",
        "M0 0l8 8M0 8l8-8",
        "M4 4h.1",
        "M0 2h8M0 6h8",
    )
    patterns = (
        f'<pattern id="hatch-{k}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect class="ground-{(k + k // len(lines)) % 3}" width="8" height="8"/>'
        f'<path class="hatch" d="{lines[k % len(lines)]}"/></pattern>'
        for k in range(count)
    )
    return Markup(f'<svg class="hatches" aria-hidden="true" width="0" height="0">{"".join(patterns)}</svg>')
