"""An atlas on disk: a folder of Parquet files, one a group of cells as it is finished, or one file.

Each file is written whole or not at all, under a name of its own, so whatever ends a run loses only cells
that still trained. ``tidied`` merges small files into one. A run holds 8 bytes of each finished cell in
memory, and merging some 100.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from identity_props.atlas.axes import NAMES, Cell
from identity_props.errors import InputError, MissingError

FORMAT = b"identity-props/atlas/1"
SUFFIX, FEW = ".parquet", 64  # files of a folder that are left as they are
VERSIONS = ("identity_props", "torch", "numpy", "python")
SETTINGS = ("data", "side", "fingerprint", "steps", "replicas", "seed")
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What all cells of one run have in common."""

    data: str
    side: int
    fingerprint: str
    steps: int
    replicas: int
    seed: int


def arrow() -> Any:
    """Import pyarrow and its parts; raises MissingError."""
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(
            "atlas: expected pyarrow, got none: pip install 'identity-props[atlas]'"
        ) from error
    return pyarrow


def schema() -> Any:
    """Columns of an atlas: the cell, the settings, what came of it, and with what it was made."""
    pa = arrow()
    cell = {name: pa.string() for name in NAMES} | {"depth": pa.int16(), "width": pa.int32()}
    cell |= {"batch": pa.int32(), "lr": pa.float64()}
    settings = {"data": pa.string(), "side": pa.int16(), "fingerprint": pa.string(), "steps": pa.int32()}
    settings |= {"replicas": pa.int32(), "seed": pa.int64()}
    found = {
        "fvu": pa.list_(pa.float32()),  # of each replica at the end, in grey levels
        "reached": pa.list_(pa.int32()),  # first measured step near-identity, -1 where there was none
        "measured": pa.list_(pa.int32()),
        "curve": pa.list_(pa.float32()),  # median FVU at the steps measured, in the space trained in
        "seconds": pa.float32(),
    }
    made = dict.fromkeys(VERSIONS, pa.string()) | {"threads": pa.int16()}
    return pa.schema(list({**cell, **settings, **found, **made}.items()), metadata={b"format": FORMAT})


def key(cell: Cell, settings: Settings) -> int:
    """64 bits that tell cells apart: of a billion of them two are the same with a chance of 3%."""
    text = repr((astuple(cell), astuple(settings)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _key_of(row: Mapping[str, Any]) -> int:
    return key(Cell(*(row[n] for n in NAMES)), Settings(*(row[n] for n in SETTINGS)))


def row(cell: Cell, settings: Settings, found: Mapping[str, Any], made: Mapping[str, Any]) -> Row:
    """A row of an atlas."""
    return {**asdict(cell), **asdict(settings), **found, **made}


class Atlas:
    """A folder of Parquet files, or one; raises InputError for what is damaged or something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not os.path.exists(path):
            raise InputError(f"{path}: expected an atlas, a folder of {SUFFIX} files or one, got nothing")

    def files(self) -> list[Path]:
        """Its files, the oldest names first; temporary ones begin with a point."""
        if self.path.is_file():
            return [self.path]
        return sorted(p for p in self.path.glob(f"*{SUFFIX}") if not p.name.startswith("."))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Record batches, one file at a time."""
        parquet, names = arrow().parquet, {*schema().names}
        for path in self.files():
            try:
                with parquet.ParquetFile(path) as file:
                    found = file.schema_arrow
                    if (found.metadata or {}).get(b"format") != FORMAT or not names <= {*found.names}:
                        raise InputError(
                            f"{path}: expected a file of an atlas, {FORMAT.decode()}, got another"
                        )
                    yield from file.iter_batches(columns=None if columns is None else [*columns])
            except (OSError, arrow().ArrowException) as error:
                told = str(error).splitlines()[0]
                raise InputError(f"{path}: expected a file of an atlas, got a damaged one: {told}") from error

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows as dictionaries, as they lie."""
        for batch in self.batches(columns):
            yield from batch.to_pylist()

    def keys(self) -> NDArray[np.uint64]:
        """Keys of the finished cells, sorted, 8 bytes each."""
        found = (_key_of(one) for one in self.rows((*NAMES, *SETTINGS)))
        return np.unique(np.fromiter(found, np.uint64))

    def versions(self) -> set[tuple[str, ...]]:
        """Those that made it."""
        return {tuple(one[name] for name in VERSIONS) for one in self.rows(VERSIONS)}

    def add(self, rows: Sequence[Row]) -> Path:
        """Write a group of finished cells at once; raises InputError where there is no place."""
        table = arrow().Table.from_pylist([*rows], schema=schema())
        return self._written([table], f"cells-{uuid.uuid4().hex[:12]}{SUFFIX}")

    def _written(self, tables: Iterable[Any], name: str) -> Path:
        parquet, path, temporary = arrow().parquet, self.path / name, self.path / f".{name}"
        try:
            with open(temporary, "wb") as file:
                with parquet.ParquetWriter(file, schema(), compression="zstd") as writer:
                    for table in tables:
                        writer.write(table)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            told = error.strerror or error
            raise InputError(
                f"{path}: expected room for a file, got: {told}; what is finished is kept"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    def tidied(self) -> None:
        """Merge the files into one, if they are many, a cell that is there twice once.

        A run that ends between the two steps leaves cells twice, which readers see once.
        """
        files = self.files()
        if len(files) > FEW:
            self._written(self._tables(), f"cells-{uuid.uuid4().hex[:12]}{SUFFIX}")
            for path in files:
                path.unlink(missing_ok=True)

    def write_file(self, path: Path) -> None:
        """All cells as one file, where there is none yet."""
        Atlas(path.parent)._written(self._tables(), path.name)

    def _tables(self) -> Iterator[Any]:
        pa = arrow()
        for some in in_chunks(self.unique(), 4096):
            yield pa.Table.from_pylist(some, schema=schema())

    def unique(self) -> Iterator[Row]:
        """Rows, each cell once."""
        seen: set[int] = set()
        for one in self.rows():
            found = _key_of(one)
            if found not in seen:
                seen.add(found)
                yield one


def in_chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of ``size`` and what is left."""
    held: list[Row] = []
    for one in rows:
        held.append(one)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
