"""The page of ledgers: of each trainer and law what was seen, and what each example weighs, where that was asked for."""

from html import escape

from real_trainers_ledgers import SHARED
from real_trainers_picture import WORDS, anchor, cells

INTRODUCTION = """
# Ledgers of real trainers

What each cell of [Real trainers](real-trainers.md) rests on, a table a trainer: the verdict of a law, what the weights that the
trainer left say, and a small ledger of the kind of training that the law asks for. 1 is an equal share of the examples that
a step is meant to hold, a dot is 0. [How the ledger works](ledger.md).
"""


def accounts(found, books):
    """The page in Markdown, of what was measured and the ledgers by trainer and law."""
    rows = cells(found)
    lines = [INTRODUCTION.strip()]
    for trainer in dict.fromkeys(name for name, _ in rows):
        lines += ["", f"## {trainer}", "", "<table>", f"<caption>{trainer}</caption>"]
        lines.append(
            '<thead><tr><th scope="col">law</th><th scope="col">verdict</th><th scope="col">what is seen</th></tr></thead>'
        )
        lines.append("<tbody>")
        shown = {}
        for (name, law), row in rows.items():
            if name == trainer:
                lines.append(_row(trainer, law, row, books.get(trainer, {}), shown))
        lines += ["</tbody>", "</table>"]
    return "\n".join(lines) + "\n"


def _row(trainer, law, row, books, shown):
    verdict = ": ".join(filter(None, (WORDS[row["verdict"]], row.get("kind"))))
    seen = escape(row.get("note", ""))
    if row["verdict"] != "not applicable":
        seen += _ledger(trainer, law, books, shown)
    return f'<tr id="{anchor(trainer, law)}"><th scope="row">{law}</th><td>{escape(verdict)}</td><td>{seen}</td></tr>'


def _ledger(trainer, law, books, shown):
    """The ledger of a training alike, where it was kept; once a trainer, later laws lead to it."""
    of = law if law in books else SHARED.get(law)
    if of not in books:
        return ""
    if of in shown:
        return f' <a href="#{shown[of]}">Ledger</a>'
    shown[of] = anchor(trainer, law)
    return f'<pre tabindex="0">{escape(books[of])}</pre>'
