"""What a book shows, in sentences: runs of examples or tokens that weigh the same, and all that is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from identity_props.trainers.accounting import STEPS, TOKENS, Book
from identity_props.trainers.ledger import ranges

RUNS = 12  # of places with equal labels that a sentence names
EACH = 6  # epochs whose weights a sentence names one by one


def said(book: Book) -> list[str]:
    """What a book shows, in sentences."""
    noun = "tokens" if book.by == TOKENS else "examples"
    mixed, unclear = {*book.mixed}, {*book.unclear}
    labels = [
        "are mixed with others"
        if place in mixed
        else "are unclear"
        if place in unclear
        else _label(book, column, place)
        for place, column in enumerate(book.weights.mT.tolist())
    ]
    found = [_counted(labels, noun) if len([*groupby(labels)]) > RUNS else ranges(labels, noun)]
    if mixed:
        found.append(
            f"mixed: up to {float(book.leaks.max()):.2g} of an example lies in the direction of others, where 0 is right"
        )
    if not bool((book.moved <= book.near).all()):
        what = "ids that are not used" if book.by == TOKENS else "directions that are held out"
        found.append(f"{what} moved by {float(book.moved.max()):.2g}, where 0 is right")
    if unclear:
        found.append("unclear: what is left of an example fits no weights and steps")
    if book.differing:
        found.append(f"ranks hold {book.differing} weights that are not the same bit for bit")
    if book.steps is not None:
        found.append(_steps(book))
    if book.why:
        found.append(f"weights are those of whole epochs, not of steps: {book.why}")
    return found


def _counted(labels: Sequence[str], noun: str) -> str:
    """How many have each label, where places would be too many to read."""
    counts = Counter(labels).most_common()
    return f"{noun}: " + ", ".join(f"{count} {label}" for label, count in counts)


def _steps(book: Book) -> str:
    """How many steps it reports, and how many the weights show, where that is another number."""
    shown = int((book.weights != 0).any(1).sum())
    reported = f"it reports {book.steps} optimizer step{'s' * (book.steps != 1)}"
    return reported + (f", the weights show {shown}" if book.by == STEPS and shown != book.steps else "")


def _label(book: Book, column: Sequence[float], place: int) -> str:
    """What one example or token weighs: "weigh 2 in each epoch"."""
    if place in book.masked:
        return "are masked" if number(column[0]) == "0" else f"are masked and weigh {number(column[0])}"
    starts = [0, *book.ends[:-1]]
    epochs = [
        " + ".join(filter(lambda text: text != "0", map(number, column[start:end]))) or "0"
        for start, end in zip(starts, book.ends, strict=True)
    ]
    if {*epochs} == {"0"}:
        return "are never trained on"
    if len({*epochs}) == 1:
        return f"weigh {epochs[0]}" + " in each epoch" * (len(epochs) > 1)
    if len(epochs) <= EACH:
        return f"weigh {', '.join(epochs)} in epochs 1-{len(epochs)}"
    totals = [sum(column[start:end]) for start, end in zip(starts, book.ends, strict=True)]
    return f"weigh {number(min(totals))} to {number(max(totals))} an epoch"


def number(weight: float) -> str:
    """A weight for people, to three digits; what rounding leaves is 0."""
    return "?" if math.isnan(weight) else f"{weight:.3g}" if abs(weight) >= 5e-4 else "0"
