"""The axes of the atlas: their values from text, and the cells that a product of them has.

A cell is a place on every axis. Cells that differ in rate and schedule alone train together, see
``engine.together``, so these two are the innermost.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from identity_props.errors import InputError

MOST = 100_000  # values of one axis


@dataclass(frozen=True)
class Cell:
    """A place on every axis; ``width`` is that of the hidden layers, ``batch`` 0 for all examples at once."""

    variant: str
    depth: int
    width: int
    scaling: str
    optimizer: str
    batch: int
    init: str
    schedule: str
    lr: float


NAMES = tuple(field.name for field in fields(Cell))


# Values from text -----------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^(]*\))", text)]


def _counts(text: str) -> list[int]:
    """1,4 or 1:8, both ends included."""
    found: list[int] = []
    for part in _words(text):
        low, colon, high = part.partition(":")
        if colon and int(high) - int(low) >= MOST:
            raise ValueError(part)
        found += range(int(low), int(high) + 1) if colon else [int(low)]
    return found


def _rates(text: str) -> list[float]:
    """0.1,1 or 1e-5:1e1:24, evenly spaced on a log axis; of three digits, so that rates of two ranges meet."""
    found: list[float] = []
    for part in _words(text):
        low, *more = part.split(":")
        high, count = (more[0], int(more[1])) if more else (low, 1)
        if not (0 < float(low) <= float(high) < math.inf and 0 < count <= MOST and len(more) != 1):
            raise ValueError(part)
        ratio = math.log(float(high) / float(low)) / max(count - 1, 1)
        found += [float(f"{float(low) * math.exp(k * ratio):.3g}") for k in range(count)]
    return found


@dataclass(frozen=True)
class Axis:
    """How values are read, what is valid, and the default, as text."""

    read: Callable[[str], Sequence[Any]]
    valid: str
    default: str
    help: str


AXES = {
    "variant": Axis(
        _words, "names such as plain-relu,linear,residual", "plain-relu,linear,residual", "Networks."
    ),
    "depth": Axis(_counts, "counts such as 1:8 or 1,4", "1:4", "Layers."),
    "width": Axis(_counts, "counts such as 49,196", "", "Units of hidden layers.  [default: the pixels]"),
    "scaling": Axis(_words, "names such as none,unit", "unit", "Of input and target."),
    "optimizer": Axis(
        _words, "names such as SGD,Adam or SGD(momentum=0.9)", "RMSprop", "torch's, or pkg.mod:Name."
    ),
    "batch": Axis(_counts, "counts such as 32,128, 0 for all", "32", "Examples of a batch."),
    "init": Axis(_words, "names such as glorot,torch", "glorot", "Initial weights."),
    "schedule": Axis(_words, "constant or linear-decay", "constant", "Of the rate."),
    "lr": Axis(_rates, "rates such as 0.01,0.1 or 1e-5:1e1:24", "1e-4:1:9", "Rates."),
}


@dataclass(frozen=True)
class Grid:
    """Values by axis, and the cells of their product that are networks."""

    values: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, texts: Mapping[str, str], d: int) -> Grid:
        """A grid from texts, by axis; an axis that is not named has its default. Raises InputError."""
        unknown = [name for name in texts if name not in AXES]
        if unknown:
            raise InputError(f"axis: expected one of {', '.join(AXES)}, got {unknown[0]!r}")
        return cls(
            {name: _read(name, texts.get(name, axis.default or str(d))) for name, axis in AXES.items()}
        )

    def shapes(self, d: int) -> Iterator[tuple[Any, ...]]:
        """Values of all axes but schedule and rate, one a group of cells that could train together."""
        outer = [self.values[name] for name in NAMES[:-2]]
        return (shape for shape in product(*outer) if _possible(shape, d))

    def count(self, d: int) -> int:
        """Cells, without going through them."""
        networks = product(*(self.values[name] for name in NAMES[:4]))
        others = math.prod(len(self.values[name]) for name in NAMES[4:])
        return others * sum(_possible(one, d) for one in networks)

    def lines(self, d: int) -> Iterator[list[Cell]]:
        """Cells by shape: those of one list differ in schedule and rate alone."""
        for shape in self.shapes(d):
            inner = product(self.values["schedule"], self.values["lr"])
            yield [Cell(**dict(zip(NAMES, (*shape, *rest), strict=True))) for rest in inner]


def _read(name: str, text: str) -> tuple[Any, ...]:
    axis = AXES[name]
    try:
        values = tuple(dict.fromkeys(axis.read(text)))
    except (ValueError, OverflowError, IndexError):
        values = ()
    if not values or "" in values or len(values) > MOST:
        raise InputError(f"{name}: expected {axis.valid}, got {text!r}")
    return values


def _possible(shape: Sequence[Any], d: int) -> bool:
    """Whether there is such a network: a residual one keeps its width, one layer has no hidden ones."""
    variant, depth, width, scaling = shape[:4]
    fits = width == d or not (variant == "residual" or depth == 1)
    return fits and not (variant == "scaled-input" and scaling in ("none", "unit"))


# Optimizers -----------------------------------------------------------------------------------------

# arguments beside the rate: RMSprop's are Keras', with which the question was asked
ARGUMENTS: dict[str, dict[str, Any]] = {
    "RMSprop": {"alpha": 0.9, "eps": 1e-7},
    "Muon": {"weight_decay": 0.0},
}
MATRICES_ALONE = ("torch.optim:Muon",)  # whose networks have no biases


def optimizer_of(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """pkg.mod:Name and arguments of SGD, SGD(momentum=0.9) or pkg.mod:Name; raises InputError."""
    name, opened, rest = text.partition("(")
    arguments = dict(ARGUMENTS.get(name, {}))
    if opened:
        try:
            call = ast.parse(f"f({rest}", mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError(text)
            arguments |= {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        except (SyntaxError, ValueError) as error:
            raise InputError(f"optimizer: expected such as SGD(momentum=0.9), got {text!r}") from error
    return name if ":" in name else f"torch.optim:{name}", tuple(arguments.items())


# Presets --------------------------------------------------------------------------------------------

_QUESTION = {"variant": "plain-relu,linear,residual", "depth": "1:4", "batch": "32"}
_ADAPTIVE = _QUESTION | {"schedule": "constant,linear-decay", "lr": "1e-4:1:9"}  # blind to a common scale
PRESETS: dict[str, tuple[Mapping[str, str], ...]] = {
    "question": (
        _ADAPTIVE | {"optimizer": "RMSprop", "scaling": "none"},
        _QUESTION | {"optimizer": "SGD", "scaling": "none,unit,standardise,whiten", "lr": "1e-5:1e2:15"},
        _ADAPTIVE | {"optimizer": "Adam", "scaling": "none"},
        _ADAPTIVE | {"optimizer": "RMSprop,Adam", "scaling": "standardise"},
        _QUESTION | {"optimizer": "SGD(momentum=0.9)", "scaling": "unit,standardise", "lr": "1e-3:1e2:11"},
        _QUESTION | {"optimizer": "Muon", "depth": "1,4", "scaling": "none", "lr": "1e-3:1e-1:5"},
    ),
}


def grids(preset: str | None, texts: Mapping[str, str], d: int) -> list[Grid]:
    """The grids of a preset, with axes that are given in the place of its own, or that of the axes alone."""
    if preset is None:
        return [Grid.of(texts, d)]
    if preset not in PRESETS:
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return [Grid.of({**own, **texts}, d) for own in PRESETS[preset]]
