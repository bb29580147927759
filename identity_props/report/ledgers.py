"""The account of a trainer for people: a table, and the page with a picture of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from identity_props.conformance.asked import Named
from identity_props.report import page, pictures
from identity_props.trainers.accounting import EPOCHS, STEPS, TOKENS, Book
from identity_props.trainers.wording import number, said

WIDTH, GAP = 80, 3  # of a terminal, and between columns
FEWEST = 3  # epochs that are shown, if there are as many, however many steps they have
MOST_ROWS = 64  # of a table
SWITCHES = {"shuffle": "shuffled", "drop_last": "the last batch dropped", "evaluate": "evaluated"}
NOTHING = "·"  # a weight of 0


@dataclass(frozen=True)
class Run:
    """Examples first to last, whose columns are equal: what each weighs at each step, as text."""

    first: int
    last: int
    weights: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def runs(book: Book) -> list[Run]:
    """Examples in runs of equal columns; of tokens, each sequence is one, its tokens in place of steps."""
    columns = [tuple(map(shown, column)) for column in book.weights.mT.tolist()]
    notes = dict.fromkeys(book.unclear, "unclear") | dict.fromkeys(book.mixed, "mixed")
    if book.by == TOKENS:
        return [*_sequences(book, [column[0] for column in columns], notes)]
    keys = [(column, notes.get(place, "")) for place, column in enumerate(columns)]
    found = []
    for (column, note), places in groupby(range(len(keys)), key=keys.__getitem__):
        first, *others = places
        found.append(Run(first, [first, *others][-1], column, note))
    return found


def _sequences(book: Book, weights: Sequence[str], notes: dict[int, str]) -> Iterator[Run]:
    at = 0
    for place, length in enumerate(book.lengths):
        within = range(at, at + length)
        cells = tuple("-" if k in book.masked and weights[k] == NOTHING else weights[k] for k in within)
        yield Run(place, place, cells, next((notes[k] for k in within if k in notes), ""))
        at += length


def shown(weight: float) -> str:
    """A weight as text, a dot for 0."""
    text = number(weight)
    return NOTHING if text == "0" else text


@dataclass(frozen=True)
class Columns:
    """Columns of a table that belong together: those of an epoch, or all."""

    heading: str
    columns: Sequence[int]


def groups(book: Book, found: Sequence[Run]) -> list[Columns]:
    """Steps by epoch; epochs, or places of tokens, all in one."""
    if book.by != STEPS:
        widest = max(len(run.weights) for run in found)
        return [Columns("epoch" if book.by == EPOCHS else "tokens", range(widest))]
    starts = [0, *book.ends[:-1]]
    return [
        Columns(f"epoch {k}", range(*ends)) for k, ends in enumerate(zip(starts, book.ends, strict=True), 1)
    ]


# The table --------------------------------------------------------------------------------------------


def table(book: Book, trainer: Named) -> RenderableType:
    """A row a run of examples, a column an epoch with its steps, then what it shows in words.

    What does not fit 80 columns is left out, and said.
    """
    found = runs(book)
    every = groups(book, found)
    kept = _fitting(every, _wide(found), any(run.note for run in found))
    columns = sum(len(group.columns) for group in every) - sum(len(group.columns) for group in kept)
    sentences = [*said(book), *_folded(columns, len(found) - MOST_ROWS)]
    words = [Text(_sentence(sentence)) for sentence in sentences]
    return Group(Text(title(book, trainer), style="italic"), _grid(book, found, kept), *words)


def _grid(book: Book, found: Sequence[Run], kept: Sequence[Columns]) -> Table:
    grid, wide = Table(box=SIMPLE_HEAD), _wide(found)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 2, 0, 0)
    grid.add_column("sequence" if book.by == TOKENS else "examples", no_wrap=True)
    for group in kept:
        numbers = _line([str(k + 1) for k in group.columns], wide)
        grid.add_column(Text(f"{group.heading}\n{numbers}"), no_wrap=True)
    if any(run.note for run in found):
        grid.add_column("", no_wrap=True)
    for run in found[:MOST_ROWS]:
        cells = [_line([*_cells(run, group)], wide) for group in kept]
        grid.add_row(str(run), *cells, run.note, style="bold red" if run.note else None)
    return grid


def _wide(found: Sequence[Run]) -> int:
    """Characters of the longest weight or number of a step."""
    cells = [cell for run in found for cell in (*run.weights, str(len(run.weights)))]
    return max(map(len, cells), default=1)


def _cells(run: Run, group: Columns) -> Iterator[str]:
    for k in group.columns:
        yield run.weights[k] if k < len(run.weights) else ""


def _line(cells: Sequence[str], wide: int) -> str:
    return " ".join(cell.rjust(wide) for cell in cells)


def _fitting(every: Sequence[Columns], wide: int, noted: bool) -> list[Columns]:
    """The first columns of each group, as many as fit, of the first groups."""
    room = WIDTH - len("examples") - GAP - (GAP + len("unclear")) * noted
    for most in range(max(len(group.columns) for group in every), 0, -1):
        kept = [Columns(group.heading, group.columns[:most]) for group in every]
        while len(kept) > 1 and sum(_width(group, wide) for group in kept) > room:
            kept.pop()
        if len(kept) >= min(FEWEST, len(every)) and sum(_width(group, wide) for group in kept) <= room:
            break
    return kept


def _width(group: Columns, wide: int) -> int:
    return GAP + max(len(group.heading), len(group.columns) * (wide + 1) - 1)


def _folded(columns: int, rows: int) -> list[str]:
    """What is not shown."""
    left = [f"{columns} more columns"] * (columns > 0) + [f"{rows} more rows"] * (rows > 0)
    return [f"not shown here, but by --json: {' and '.join(left)}"] if left else []


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def title(book: Book, trainer: Named) -> str:
    """Who trained, and on what: "trainer plain: 48 examples, batches of 8, 4 micro-batches a step, 3 epochs"."""
    training = book.training
    asked = [
        f"{len(book.lengths)} sequences" if book.by == TOKENS else f"{training.examples} examples",
        f"batches of {training.batch_size}",
        f"{training.accumulate} micro-batches a step" if training.accumulate > 1 else "",
        f"{training.epochs} epochs" if training.epochs > 1 else "1 epoch",
        f"{training.ranks} ranks" if training.ranks > 1 else "",
        f"resumed after {training.resume_at} micro-batches" if training.resume_at else "",
        *(words for name, words in SWITCHES.items() if getattr(training, name)),
    ]
    return f"{trainer}: {', '.join(filter(None, asked))}"


# The page ---------------------------------------------------------------------------------------------


def of_ledger(book: Book, trainer: Named, document: dict[str, Any]) -> str:
    """The page of an account: what it shows in words, its picture, and a table."""
    found = runs(book)
    every = groups(book, found)
    figures = tuple(_figure(book, *drawn) for drawn in pictures_of(book, found, every))
    words = " ".join(map(_sentence, said(book)))
    made = {name: document[name] for name in ("versions", "machine", "stack", "training", "dtype")}
    sections = [page.Section("account", "Examples by steps", MEANING, (_table(book, found, every),), figures)]
    return page.rendered("What does each example weigh?", f"{title(book, trainer)}. {words}", sections, made)


MEANING = (
    "A weight is an example's share of the step, in units of 1 / the examples that a step is meant to hold: 1 is right, 0, "
    "a dot, where the step does not train on it. It is read from the weights that the trainer leaves, and from nothing else."
)
MOST_FIGURES = 8


def pictures_of(book: Book, found: Sequence[Run], every: Sequence[Columns]) -> Iterator[tuple[Any, str]]:
    """Pictures of up to ten columns each, and which columns these are."""
    heads = {group.columns[0]: group.heading for group in every if group.columns}
    columns = sorted(k for group in every for k in group.columns)
    noun = {STEPS: "steps", EPOCHS: "epochs", TOKENS: "tokens"}[book.by]
    rows = [
        (f"{run}{'*' * bool(run.note)}", run.weights, 1 if book.by == TOKENS else run.last - run.first + 1)
        for run in found[:MOST_ROWS]
    ]
    for at in range(0, min(len(columns), MOST_FIGURES * pictures.COLUMNS), pictures.COLUMNS):
        part = columns[at : at + pictures.COLUMNS]
        what = f"{noun} {part[0] + 1} to {part[-1] + 1} of {len(columns)}"
        alternative = f"Weights at {what}: {_read(rows, part)}"
        yield pictures.weights(rows, part, heads, noun.removesuffix("s"), alternative), what


def _read(rows: Sequence[tuple[str, Sequence[str], int]], part: Sequence[int]) -> str:
    """A picture's rows in words."""
    said = (f"{label} {' '.join(cells[k] for k in part if k < len(cells))}" for label, cells, _ in rows)
    return "; ".join(said).replace(NOTHING, "0")


def _figure(book: Book, picture: Any, what: str) -> page.Figure:
    who = "a row a sequence" if book.by == TOKENS else "a row a run of examples with equal weights"
    words = "; ".join(
        sorted({*["* unclear"] * bool(book.unclear), *["* mixed with others"] * bool(book.mixed)})
    )
    caption = f"{what.capitalize()}, {who}: the weight as number and shade, a dot for 0. {words}"
    return page.Figure(picture, caption.strip())


def _table(book: Book, found: Sequence[Run], every: Sequence[Columns]) -> page.Table:
    rows = tuple(
        (str(run), *(" ".join(_cells(run, group)) for group in every), run.note) for run in found[:MOST_ROWS]
    )
    left = f" {len(found) - MOST_ROWS} more are in ledger.json." if len(found) > MOST_ROWS else ""
    headings = ("sequence" if book.by == TOKENS else "examples", *(group.heading for group in every), "note")
    return page.Table(f"The weights at each step, in order.{left}", headings, rows)
