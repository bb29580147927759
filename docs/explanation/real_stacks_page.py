"""The page of real stacks: what was measured, what each part is, and the reason of every row that fails."""

import math
from pathlib import Path

from real_stacks_reasons import WHY

REPRODUCTIONS = Path(__file__).parent / "faults"
MANY = "pytorch-optimizer"
COLUMNS = "| part | version | what it is | pass | fails | lr | steps | why |"


def page(found):
    """The page in Markdown."""
    lines = [INTRODUCTION.strip().format(**_counts(found))]
    for group in dict.fromkeys(one["group"] for one in found):
        lines += ["", f"## {group}", "", COLUMNS, "|---" * 8 + "|"]
        lines += [_line(one) for one in found if one["group"] == group]
    return "\n".join([*lines, "", "## The faults, in a few lines each", "", *reproductions()])


def _counts(found):
    many = [one for one in found if one["group"] == MANY]
    known = [one for one in many if recognised(one)["verdict"] == "pass"]
    return {
        "known": len(known),
        "own": sum(own_name(one) for one in known),
        "many": len(many),
        "wrong": sum(recognised(one)["verdict"] == "fail" for one in many),
        "told": sum("recognised" in rows(one) for one in found),
        "asked": sum("copies" in rows(one) for one in found),
        "full": sum("resume" in rows(one) for one in found),
        "parts": len(found),
        "failing": sum(any(row["verdict"] == "fail" for row in one["rows"]) for one in found),
        "torch": next(one["version"] for one in found if one["package"] == "torch"),
    }


def rows(one):
    """A part's rows by name."""
    return {row["name"]: row for row in one["rows"]}


def recognised(one):
    """The row that says what it is; one that does not apply where none was asked."""
    return rows(one).get(
        "recognised", {"name": "recognised", "verdict": "not applicable", "note": "not asked"}
    )


def own_name(one):
    """Whether what it is recognised as bears its name."""
    title, name = (
        _letters(text) for text in (recognised(one).get("note", "").partition(" (")[0], one["name"])
    )
    return name in title or title in name or OTHERWISE_CALLED.get(one["name"], "?") in title


def _letters(text):
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _what(one):
    """Its algorithm, or the nearest with the distance."""
    row = recognised(one)
    note = row.get("note", "")
    if row["verdict"] == "pass":
        return f"**{note.partition(' (')[0]}**"
    if "depend on the loss" in note:
        return "none known: its steps depend on the loss"
    nearest = note.partition("nearest is ")[2]
    if not nearest:
        return "-" if note in ("", "not asked") else "none known: it raises"
    slip = nearest.rpartition("as if ")[2] if row["verdict"] == "fail" else ""
    apart = nearest.rpartition("apart by ")[2].split(" ")[0]
    said = f"as if {slip}" if slip else "none known"
    return f"{said}; nearest {nearest.partition(' (')[0]}" + (f", {apart}" if apart and not slip else "")


def _line(one):
    learns = rows(one).get("learns-identity", {})
    failed = [row for row in one["rows"] if row["verdict"] == "fail"]
    passed = sum(row["verdict"] == "pass" for row in one["rows"])
    fails = ", ".join(f"{row['name']} ({row.get('kind', '')}{_figures(row)})" for row in failed)
    steps = learns.get("steps", math.inf)
    cells = (
        one["name"],
        one["version"],
        _what(one),
        passed,
        fails or "-",
        _short(learns.get("lr")),
        _short(steps),
    )
    return f"| {' | '.join(map(str, cells))} | {why(one['name'], failed)} |"


def _figures(row):
    return f" {row['measured']:.1e} > {row['allowed']:.1e}" if "measured" in row else ""


def _short(value):
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "-"


def why(name, failed):
    """What explains the rows that fail, or a question mark that the tests refuse."""
    return WHY.get(name, "?") if failed else ""


def reproductions():
    """Each file as it stands."""
    for file in sorted(REPRODUCTIONS.glob("*.py")):
        yield from ("```python", file.read_text().strip(), "```", "")


OTHERWISE_CALLED = {  # names of pytorch-optimizer, in letters of the algorithm's title
    "accsgd": "acceleratedsgd",
    "adanorm": "adamnorm",
    "ftrl": "ftrl",
    "grokfastadamw": "grokfast",
    "msvag": "msvag",
    "sgdw": "sgd",
    "signsgd": "signum",
    "tiger": "signum",
}
INTRODUCTION = """
**{known} of {many} optimizers of pytorch-optimizer compute what a paper says**, {own} of them what the paper of their own
name does; the others of the {known} equal another on every walk, as those do whose own part is off by default. {wrong} are
recognised as one gone wrong; of the rest none is known, and the table names the nearest, which accuses them of nothing.

# Real stacks

What `identity-props check` says of optimizers and layers as they are installed: {parts} parts, of which {failing} fail a
row. Made by `docs/explanation/real_stacks.py`, which `tox -e stacks` runs, on a CPU with torch {torch}, seed 0; all that
was measured is in [real-stacks.json](real-stacks.json). {told} of them were asked what they are, {asked} the
[contract of torch.optim](contract.md), {full} the laws of training, all of them who learns.
A part that wants the model, or whose constructor raises, is asked whether it moves, and nothing after that.

**what it is** is the row `recognised`: the algorithm that it equals, or the nearest, with the median distance after 12
steps relative to the way gone. **pass** counts the rows that pass, those that do not apply left out; **lr** is the best of
the thirteen rates searched, **steps** the median step at which FVU was 0.001 (a linear layer on whitened digits, full
batches, 1,250 steps, rate decayed linearly). **why** says of a failure whether it is a *fault* of the part, a *limit* of
what it is made for or can represent, or its *design*: something that it does on purpose and that a law does not expect.
"""
