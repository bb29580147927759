"""Data of one's own: examples from files, split into train and test, as Pixels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identity_props.errors import InputError, MissingError
from identity_props.task.data import Pixels, digits, mnist
from identity_props.task.files import READERS, SHOWN, Rows, kinds, read

NAMED = ("digits", "mnist")
TEST_SHARE = 5  # one example of so many is for test, where one file holds all
FEWEST = 4  # rows that can be split, into halves of 2


def read_data(
    file: str | Path,
    *,
    test: str | Path | None = None,
    target: str | Path | None = None,
    test_target: str | Path | None = None,
    shape: tuple[int, int] | None = None,
    seed: int = 0,
) -> Pixels:
    """Examples [n, d] of .npy, .npz, .csv, .parquet, .safetensors, or a folder of images, as Pixels.

    A file that holds ``x_train`` and ``x_test``, or a second file ``test``, says what is for test; else every
    fifth example is, drawn by ``seed``. ``target`` [n, d] is what the examples are to be mapped to, themselves
    without one, and ``test_target`` [m, d] that of a second file. Rows [h, w], or ``shape``, make pictures.
    Warns of constant columns of a table. Raises MissingError for what is not there, InputError for what cannot
    be learned.
    """
    halves, name = _halves(file, test, shape, seed), Path(file).name
    goals = None
    if target is None and test_target is not None:
        raise InputError(f"{test_target}: expected a target of the other examples too, got none")
    if target is not None:
        if (test is None) != (test_target is None):
            raise InputError("target: expected one for each file of examples, a second for those of test")
        goals = _halves(target, test_target, shape, seed)
        for half, goal in zip(halves, goals, strict=True):
            _check_pair(half, goal)
        name = f"{name} to {Path(target).name}"
    picture = _shape(halves[0], shape)
    if picture is None:
        _warn_of_constants(halves[0])
    train, held = (_tensor(half) for half in halves)
    targets = None if goals is None else (_tensor(goals[0]), _tensor(goals[1]))
    return Pixels(name, train, held, picture, targets=targets, top=_white(train))


def load(
    name: str, side: int, data_dir: str | Path | None = None, download: bool = False, **given: Any
) -> Pixels:
    """``digits`` or ``mnist`` by name, at one side, or a file, as ``read_data`` takes it with the rest."""
    if name == "digits":
        return digits(side)
    if name == "mnist":
        return mnist(side, data_dir, download)
    if Path(name).suffix not in READERS and not os.path.exists(name):
        raise InputError(f"data: expected digits, mnist or a file ({kinds()}), got {name!r}")
    return read_data(name, **given)


def read_curve(file: str | Path | None) -> list[float] | None:
    """Losses in the order of training: a list of .npy, or the last column of a table; None of None."""
    if file is None:
        return None
    if not os.path.isfile(file):
        raise MissingError(f"{file}: expected a file of losses, there is none")
    if Path(file).suffix not in (".npy", ".csv", ".tsv"):
        raise InputError(
            f"{file}: expected losses as .npy, .csv or .tsv, got {Path(file).suffix or 'no suffix'}"
        )
    (held,) = READERS[Path(file).suffix](Path(file)).values()
    losses = held[0].reshape(len(held[0]), -1)[:, -1] if held[0].size else held[0]
    if losses.dtype.kind not in "iuf" or len(losses) < 2 or not np.isfinite(losses).all():
        raise InputError(f"{file}: expected two finite losses or more, got others")
    return [float(loss) for loss in losses]


# Halves -----------------------------------------------------------------------------------------------


def _halves(
    file: str | Path, test: str | Path | None, shape: tuple[int, int] | None, seed: int
) -> tuple[Rows, Rows]:
    held = read(file, shape)
    if test is not None:
        if len(held) == 2:
            raise InputError(f"{test}: expected no second file, since {file} holds both halves")
        halves = held[0], _only(read(test, shape), test)
    elif len(held) == 2:
        halves = held[0], held[1]
    else:
        return _split(held[0], seed)
    for half in halves:
        if len(half.x) < 2:
            raise InputError(f"{half.file}: expected 2 rows or more, got {len(half.x)}")
    if halves[0].x.shape[1] != halves[1].x.shape[1]:
        raise InputError(
            f"{halves[1].file}: expected rows of {halves[0].x.shape[1]} numbers, as {halves[0].file} has,"
            f" got {halves[1].x.shape[1]}"
        )
    return halves


def _only(held: Sequence[Rows], file: str | Path) -> Rows:
    if len(held) != 1:
        raise InputError(f"{file}: expected one array, got two halves")
    return held[0]


def _split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    n = len(rows.x)
    if n < FEWEST:
        raise InputError(
            f"{rows.file}: expected {FEWEST} rows or more, to train and to test on, got {n}; or give a second file"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    cut = max(2, n // TEST_SHARE)
    train, test = rows.x[np.sort(order[cut:])], rows.x[np.sort(order[:cut])]
    return tuple(Rows(rows.file, x, rows.columns, rows.shape) for x in (train, test))  # type: ignore[return-value]


def _check_pair(half: Rows, goal: Rows) -> None:
    for what, axis in (("rows, one an example", 0), ("columns", 1)):
        if half.x.shape[axis] != goal.x.shape[axis]:
            raise InputError(
                f"{goal.file}: expected {half.x.shape[axis]} {what}, as {half.file} has, got {goal.x.shape[axis]}"
            )


def _shape(rows: Rows, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    if asked is not None and math.prod(asked) != rows.x.shape[1]:
        raise InputError(
            f"{rows.file}: expected {'x'.join(map(str, asked))} = {math.prod(asked)} numbers a row,"
            f" got {rows.x.shape[1]}"
        )
    return asked or rows.shape


def _warn_of_constants(rows: Rows) -> None:
    constant = np.flatnonzero((rows.x == rows.x[:1]).all(0))
    if 0 < len(constant) < rows.x.shape[1]:
        names = ", ".join(rows.named(k) for k in constant[:SHOWN]) + (", ..." * (len(constant) > SHOWN))
        told = f"{len(constant)} of {rows.x.shape[1]} columns are constant, and have no variance to explain"
        warnings.warn(f"{rows.file}: {told}: {names}", stacklevel=3)


def _tensor(rows: Rows) -> Tensor:
    kept = rows.x if rows.x.dtype == np.float64 else rows.x.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept))


def _white(train: Tensor) -> float:
    """What ``unit`` divides by: 255 for grey levels, 1 for numbers of 0 to 1, else the largest there is."""
    low, high = float(train.min()), float(train.max())
    if low >= 0 and high <= 1:
        return 1.0
    if low >= 0 and high <= 255 and bool((train == train.round()).all()):
        return 255.0
    return max(abs(low), abs(high))
