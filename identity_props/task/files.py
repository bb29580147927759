"""Files of examples: arrays, tables and folders of images, read into rows of finite numbers; nothing is unpickled."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from identity_props.errors import InputError, MissingError

HALVES = (("x_train", "x_test"), ("train", "test"))  # names of arrays that hold both
SHOWN = 5  # names in a message


@dataclass(frozen=True, eq=False)
class Rows:
    """What one file holds: numbers [n, d], the names of their columns, if any, and the picture's shape."""

    file: str
    x: np.ndarray[Any, Any]
    columns: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None

    def named(self, column: int) -> str:
        return f"column {column + 1}" + (f" ({self.columns[column]!r})" if self.columns else "")


def read(file: str | Path, shape: tuple[int, int] | None) -> list[Rows]:
    """One set of rows, or those of train and of test."""
    path = Path(file)
    if path.is_dir():
        return [_checked(str(file), _images(path, shape))]
    if not os.path.isfile(path):
        raise MissingError(f"{file}: expected a file or a folder of images, there is none")
    if path.suffix not in READERS:
        raise InputError(f"{file}: expected one of {kinds()}, got {path.suffix or 'no suffix'}")
    held = READERS[path.suffix](path)
    if len(held) == 1:
        return [_checked(str(file), *next(iter(held.values())))]
    for names in HALVES:
        if set(names) <= held.keys():
            return [_checked(f"{file}, {name}", *held[name]) for name in names]
    raise InputError(f"{file}: expected one array, or x_train and x_test, got {_listed(held)}")


def _listed(held: dict[str, Any]) -> str:
    return ", ".join([*islice(held, SHOWN)]) + (", ..." * (len(held) > SHOWN)) or "none"


def _checked(file: str, x: np.ndarray[Any, Any], columns: tuple[str, ...] = ()) -> Rows:
    """Rows of finite numbers, flat; pictures [n, h, w] keep their shape."""
    if x.dtype.kind not in "biuf":
        raise InputError(f"{file}: expected numbers, got {x.dtype}")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"{file}: expected rows of numbers [n, d], got {[*x.shape]}")
    inner = [size for size in x.shape[1:] if size != 1]
    flat = x.reshape(len(x), -1)
    rows = Rows(file, flat, columns, (inner[0], inner[1]) if x.ndim > 2 and len(inner) == 2 else None)
    wrong = np.argwhere(~np.isfinite(flat)) if x.dtype.kind == "f" else np.empty((0, 2), int)
    if len(wrong):
        row, column = map(int, wrong[0])
        raise InputError(
            f"{file}: expected finite numbers, got {flat[row, column]} in row {row + 1}, {rows.named(column)},"
            f" and {len(wrong) - 1} others"
        )
    return rows


Held = dict[str, tuple[Any, ...]]  # by name: numbers, and the names of their columns


def _numpy(path: Path) -> Held:
    try:
        held = np.load(path, allow_pickle=False)
        return {"": (held,)} if isinstance(held, np.ndarray) else {name: (held[name],) for name in held.files}
    except Exception as error:  # zipfile's, numpy's own, or of objects
        told = str(error).split(".")[0] or type(error).__name__
        raise InputError(f"{path}: expected arrays of numbers that numpy saved, got: {told}") from error


def _safetensors(path: Path) -> Held:
    from safetensors.torch import load_file

    try:
        held = load_file(path)
    except Exception as error:  # its own, or torch's
        raise InputError(f"{path}: expected a whole safetensors file, got: {error}") from error
    narrow = (torch.bfloat16, torch.float16)
    return {name: ((x.float() if x.dtype in narrow else x).numpy(),) for name, x in held.items()}


def _csv(path: Path) -> Held:
    """Numbers, with a line of names above or without; commas, semicolons or tabs."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a table as text, got other bytes") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = max(",;\t", key=first.count)
    names = next(csv.reader([first], delimiter=mark), [])
    headed = not all(map(_is_number, names))
    body = io.StringIO(text)
    try:
        with warnings.catch_warnings(action="ignore"):  # of a file without a row, which is refused below
            skipped = _before(text, headed)
            x = np.loadtxt(body, delimiter=mark, skiprows=skipped, quotechar='"', comments=None, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: {_what_is_wrong(text, mark, names, headed)}") from error
    return {"": (x, tuple(names) if headed else ())}


def _before(text: str, headed: bool) -> int:
    """Lines above the numbers."""
    blank = next((k for k, line in enumerate(text.splitlines()) if line.strip()), 0)
    return blank + 1 if headed else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _what_is_wrong(text: str, mark: str, names: Sequence[str], headed: bool) -> str:
    """The first cell that is no number, or the first line of another width."""
    lines = csv.reader(text.splitlines(), delimiter=mark)
    for cells in islice(lines, _before(text, headed), None):
        if cells and len(cells) != len(names):
            return f"expected {len(names)} columns, got {len(cells)} in line {lines.line_num}"
        for k, cell in enumerate(cells):
            if not _is_number(cell):
                named = f"column {k + 1}" + (f" ({names[k]!r})" if headed else "")
                what = repr(cell) if cell.strip() else "an empty cell"
                return f"expected numbers alone, got {what} in line {lines.line_num}, {named}"
    return "expected a table of numbers, got another file"


def _parquet(path: Path) -> Held:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(f"{path}: reading it needs pyarrow: pip install 'identity-props[data]'") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: expected a whole parquet file, got a damaged one") from error
    for k, field in enumerate(table.schema):
        of = pyarrow.types
        if not (of.is_integer(field.type) or of.is_floating(field.type)):
            raise InputError(
                f"{path}: expected numbers alone, got {field.type} in column {k + 1} ({field.name!r})"
            )
    names = tuple(table.column_names)
    columns = [table.column(k).to_numpy().astype(np.float64) for k in range(len(names))]  # null is NaN
    return {"": (np.stack(columns, 1) if columns else np.empty((0, 0)), names)}


def _images(folder: Path, shape: tuple[int, int] | None) -> np.ndarray[Any, Any]:
    """Grey levels [n, h, w] of every image below a folder, by name; resized where a shape is asked."""
    from PIL import Image
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

    files = [
        file for file in sorted(folder.rglob("*")) if has_file_allowed_extension(file.name, IMG_EXTENSIONS)
    ]
    if not files:
        raise InputError(f"{folder}: expected images, there are none")
    pictures: list[np.ndarray[Any, Any]] = []
    for file in files:
        try:
            image = Image.open(file).convert("L")
        except OSError as error:
            raise InputError(f"{file}: expected an image, got a damaged one") from error
        if shape is not None:
            image = image.resize(shape[::-1], Image.Resampling.BOX)
        pictures.append(np.asarray(image))
        if pictures[-1].shape != pictures[0].shape:
            sizes = " and ".join("x".join(map(str, one.shape)) for one in (pictures[0], pictures[-1]))
            raise InputError(f"{file}: expected images of one size, got {sizes}; a shape resizes them")
    return np.stack(pictures)


READERS: dict[str, Callable[[Path], Held]] = {
    ".csv": _csv,
    ".npy": _numpy,
    ".npz": _numpy,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".tsv": _csv,
}


def kinds() -> str:
    """What is read, for a message."""
    return ", ".join([*READERS, "a folder of images"])
