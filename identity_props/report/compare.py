"""Two explanations side by side, part by part: a table for people, a document for programs, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from identity_props.errors import InputError, MissingError
from identity_props.report import page, pictures
from identity_props.report.comparison import SCHEMA as COMPARISON
from identity_props.report.explain import SCHEMA as EXPLANATION
from identity_props.report.fitting import Fitted
from identity_props.report.schemas import SCHEMAS

FILE = "comparison.json"
SIDES = ("a", "b")
HEADINGS = ("part", "a", "b", "b - a", "share of a", "share of b")  # a narrow page shows the first four
WHOLE = {"fvu": "all: FVU", "fvu_pixels": "FVU in grey levels", "mse": "squared error"}
UNITS = "FVU on test, each in the space its network works in; squared error in grey levels squared"


@dataclass(frozen=True)
class Row:
    """A part, or a figure of the whole, in both; None where it was not measured, and so in other parts."""

    name: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float | None:
        """Of b from a; None where one was not measured."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class Compared:
    """Two explanation documents of the same data by the same version, and where they lie."""

    paths: tuple[Path, Path]
    documents: tuple[dict[str, Any], dict[str, Any]]

    @property
    def parts(self) -> list[Row]:
        """One a part, in the order taken; what only b has comes last."""
        a, b = (_measured(one) for one in self.documents)
        return [Row(name, a.get(name, 0.0), b.get(name, 0.0)) for name in dict.fromkeys([*a, *b])]

    @property
    def whole(self) -> list[Row]:
        """FVU, that in grey levels, and the squared error."""
        return [Row(name, *(one[key] for one in self.documents)) for key, name in WHOLE.items()]

    def __str__(self) -> str:
        return "; ".join(
            f"{side} is {one['name']}, {path}"
            for side, path, one in zip(SIDES, self.paths, self.documents, strict=True)
        )


def _measured(document: Mapping[str, Any]) -> dict[str, float | None]:
    return {part["name"]: part["fvu"] if part["measured"] else None for part in document["parts"]}


def read(paths: tuple[Path, Path]) -> Compared:
    """Two explanation.json; raises MissingError or InputError for what cannot be compared, and says which and why."""
    a, b = (_read(path) for path in paths)
    versions = [one["versions"]["identity_props"] for one in (a, b)]
    if versions[0] != versions[1]:
        raise InputError(
            f"--compare: expected two of one version, whose parts mean the same, got {' and '.join(map(str, versions))}"
        )
    if a["data"]["fingerprint"] != b["data"]["fingerprint"]:
        told = " and ".join(_data(one["data"]) for one in (a, b))
        raise InputError(f"--compare: expected two on the same data, got {told}")
    return Compared(paths, (a, b))


def _data(data: Mapping[str, Any]) -> str:
    return f"{data['name']} with {data['train']} + {data['test']} examples, {data['fingerprint'][:8]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError(f"--compare {path}: expected a file, there is none") from error
    except OSError as error:
        raise InputError(f"--compare {path}: expected a file, got: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--compare {path}: expected JSON, got: {error}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != EXPLANATION:
        raise InputError(f"--compare {path}: expected {EXPLANATION}, got {schema or 'no schema'}")
    problem = next(Draft202012Validator(SCHEMAS["explanation"]).iter_errors(found), None)
    if problem is not None:
        where = problem.json_path.removeprefix("$.")
        raise InputError(f"--compare {path}: expected what explain writes, got at {where}: {problem.message}")
    return found


def document(found: Compared) -> dict[str, Any]:
    """What ``explain --compare --json`` prints; null stands for what was not measured."""
    sides = {
        side: {"file": str(path), "name": one["name"], "seed": one["seed"]}
        for side, path, one in zip(SIDES, found.paths, found.documents, strict=True)
    }
    first = found.documents[0]
    rows = [_row(row) for row in found.parts]
    whole = {key: _row(row) for key, row in zip(WHOLE, found.whole, strict=True)}
    kept = {"version": first["versions"]["identity_props"], "data": first["data"]}
    return {"schema": COMPARISON, **kept, **sides, **whole, "parts": rows}


def _row(row: Row) -> dict[str, Any]:
    return {"name": row.name, "a": row.a, "b": row.b, "difference": row.difference}


def table(found: Compared) -> Fitted:
    """One row a part that either has, then the whole."""
    grid = Table(title=Text("Two networks, part by part"), title_justify="left", box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    nothing = ", ".join(row.name for row in found.parts if row.a == row.b == 0)
    told = [str(found), UNITS, f"In neither is: {nothing}." if nothing else ""]
    grid.caption, grid.caption_justify = Text("\n".join(filter(None, told))), "left"
    for heading in HEADINGS:
        name = heading == "part"
        grid.add_column(heading, justify="left" if name else "right", no_wrap=not name)
    for cells in rows(found):
        grid.add_row(*cells)
    return Fitted(grid, ("share of a", "share of b", "a", "b"))


def rows(found: Compared) -> list[tuple[str, ...]]:
    """Cells of the parts that either has, and of the whole."""
    a, b = (one["fvu"] for one in found.documents)
    parts: list[tuple[str, ...]] = [
        (row.name, _figure(row.a), _figure(row.b), _signed(row), _share(row.a, a), _share(row.b, b))
        for row in found.parts
        if not row.a == row.b == 0
    ]
    return parts + [(row.name, _figure(row.a), _figure(row.b), _signed(row), "", "") for row in found.whole]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _share(value: float | None, whole: float) -> str:
    return "-" if value is None else f"{value / whole if whole else 0.0:.1%}"


def _signed(row: Row) -> str:
    return "-" if row.difference is None else f"{row.difference:+.2e}"


def of_comparison(found: Compared) -> str:
    """The page: a bar each, the parts with their differences, and what each is advised."""
    lead = f"{found}. {UNITS}."
    figures = tuple(_bar(side, one) for side, one in zip(SIDES, found.documents, strict=True))
    parts = page.Table(
        "FVU of each part; the difference is what b has more than a, and what was not measured is in other parts.",
        HEADINGS,
        tuple(rows(found)),
        frozenset(range(1, len(HEADINGS))),
    )
    sections = [
        page.Section(
            "errors",
            "Where the errors go",
            f"One bar a network, its whole error being the width. {_letters(found)}.",
            figures=figures,
        ),
        page.Section("parts", "Part by part", tables=(parts,)),
    ]
    advice = tuple(
        _advice(side, one) for side, one in zip(SIDES, found.documents, strict=True) if one["advice"]
    )
    if advice:
        sections.append(page.Section("advice", "What to do", tables=advice))
    return page.rendered("Two networks, part by part", lead, sections, _made(found))


def _made(found: Compared) -> dict[str, Any]:
    """What both were made with: once where it is the same, else of a and of b."""
    a, b = found.documents
    made: dict[str, Any] = {}
    for key in ("versions", "machine", "seed", "data", "stack"):
        made |= {key: a[key]} if a[key] == b[key] else {f"{key} of a": a[key], f"{key} of b": b[key]}
    return made


def _letters(found: Compared) -> str:
    there = [row.name for row in found.parts if row.a or row.b]
    return ", ".join(f"{pictures.letter(name)} {name}" for name in there) or "No part has any"


def _bar(side: str, one: Mapping[str, Any]) -> page.Figure:
    shares = [(part["name"], part["fvu"] / one["fvu"] if one["fvu"] else 0.0) for part in one["parts"]]
    words = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005) or "no error"
    told = f"{side}, {one['name']}, FVU {one['fvu']:.2g}: {words}."
    return page.Figure(pictures.bar(shares, told), told)


def _advice(side: str, one: Mapping[str, Any]) -> page.Table:
    told = tuple((each["name"], f"{each['before']:.2e}", _after(each), each["why"]) for each in one["advice"])
    return page.Table(
        f"Of {side}, {one['name']}; FVU in grey levels.",
        ("change", "before", "after", "why"),
        told,
        frozenset({1, 2}),
    )


def _after(each: Mapping[str, Any]) -> str:
    if each["after"] is None:
        return "by hand" if each["by_hand"] else "-"  # not tried, or it diverged
    return f"{each['after']:.2e}"
