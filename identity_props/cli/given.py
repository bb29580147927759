"""What is given on a command line: paths, seeds, and names of what can be imported."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A path that the system can follow, there or not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        try:
            os.stat(path)
        except OSError as error:
            text = os.fsdecode(path)
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                shown = text if len(text) < 80 else f"{text[:80]}..."
                self.fail(f"{shown}: expected a path that can be followed, got: {error.strerror}", param, ctx)
        return path


class _Shape(click.ParamType):  # type: ignore[type-arg] # an older click has none
    """Height and width of a picture, such as 28x28."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        sides = str(value).lower().split("x")
        if len(sides) != 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
            self.fail(f"{value}: expected height and width, such as 28x28", param, ctx)
        return int(sides[0]), int(sides[1])


PATH = _Path(path_type=Path)
SHAPE = _Shape()
SEED = click.IntRange(0, 2**62)  # further replicas count on from it, and torch takes 64 bits
TRAINER = [
    click.option(
        "--trainer",
        metavar="NAME|PKG.MOD:FIT",
        help="Whole trainer: a name such as plain, lightning or keras-jax, or fit(asked).",
    ),
    click.option(
        "--trainer-arg",
        "trainer_arguments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Its arguments; repeat.",
    ),
    click.option(
        "--command",
        metavar="TEXT",
        help="A program as trainer: 'python train.py {data} {start} {out} --lr {lr} ...'.",
    ),
]


@contextmanager
def names_from_here() -> Iterator[None]:
    """Modules of the folder that the user is in can be imported, as with python -m."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove("")
