"""The table of real trainers as a picture, laws by trainers: each cell leads to its ledger, by mouse, keyboard or voice."""

from html import escape

SIDE, HEAD, LEFT, GAP = 22, 112, 132, 2  # pixels of a cell, of names above and beside, between cells
LINE = 18  # of the legend
WORDS = {"pass": "pass", "design": "design", "fail": "FAIL", "not applicable": "does not apply"}
MARKS = {"pass": "", "design": "~", "fail": "x", "not applicable": ""}  # not by colour alone
LEGEND = {
    "pass": "the law is kept",
    "design": "another rule, in use or documented",
    "fail": "no such rule; the page says what it is",
    "not applicable": "not offered",
}
STYLE = """
.laws text { font: 12px system-ui, sans-serif; fill: currentColor }
.laws .mark { font-weight: 700; fill: #fff; text-anchor: middle; pointer-events: none }
.laws .pass { fill: #7fb3d5 } .laws .design { fill: #b9770e } .laws .fail { fill: #b03a2e }
.laws .not-applicable { fill: #888; opacity: .25 }
.laws a:hover rect, .laws a:focus rect { stroke: currentColor; stroke-width: 2.5; opacity: 1 }
.laws a:focus { outline: none }
"""


def anchor(trainer, law):
    """The place of a cell's ledger on its page."""
    return f"{trainer}-{law}"


def cells(found):
    """{(trainer, law): row} of those alone, and of laws of ranks those on two."""
    return {
        (one["name"], row["name"]): row
        for one in found
        for row in one["rows"]
        if row["name"].startswith("ranks") == (one["ranks"] > 1)
    }


def picture(found, page):
    """An SVG whose cells lead to anchors of ``page``."""
    rows = cells(found)
    trainers, laws = (list(dict.fromkeys(key[place] for key in rows)) for place in (0, 1))
    laws = [
        *(law for law in laws if not law.startswith("ranks")),
        *(law for law in laws if law.startswith("ranks")),
    ]
    width = LEFT + SIDE * len(trainers) + 60
    height = HEAD + SIDE * len(laws) + LINE * (len(LEGEND) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' class="laws" role="group" aria-label="Laws by trainers; each cell leads to its ledger">',
        f"<style>{STYLE}</style>",
        *(_head(trainer, LEFT + SIDE * k) for k, trainer in enumerate(trainers)),
    ]
    for k, law in enumerate(laws):
        y = HEAD + SIDE * k
        lines += [
            f'<g role="list" aria-label="{law}">',
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{law}</text>',
        ]
        lines += [
            _cell(trainer, law, rows.get((trainer, law)), LEFT + SIDE * place, y, page)
            for place, trainer in enumerate(trainers)
        ]
        lines.append("</g>")
    lines += [_legend(k, verdict, HEAD + SIDE * len(laws)) for k, verdict in enumerate(LEGEND)]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _head(trainer, x):
    at = f"{x + 15},{HEAD - 8}"
    return (
        f'<text x="{x + 15}" y="{HEAD - 8}" transform="rotate(-60 {at})" aria-hidden="true">{trainer}</text>'
    )


def _cell(trainer, law, row, x, y, page):
    """A square, with a mark where it is no pass, and its words."""
    verdict = row["verdict"] if row else "not applicable"
    words = ": ".join(filter(None, (f"{trainer}, {law}", WORDS[verdict], row.get("kind") if row else "")))
    at = f'x="{x}" y="{y}" width="{SIDE - GAP}" height="{SIDE - GAP}" rx="3"'
    square = f'<rect {at} class="{verdict.replace(" ", "-")}"/>'
    if row is None:
        return f"<g>{square}</g>"
    mark = f'<text x="{x + 10}" y="{y + 15}" class="mark" aria-hidden="true">{MARKS[verdict]}</text>' * bool(
        MARKS[verdict]
    )
    link = f'<a href="{page}#{anchor(trainer, law)}" aria-label="{escape(words)}">'
    return f'<g role="listitem">{link}<title>{escape(words)}</title>{square}{mark}</a></g>'


def _legend(k, verdict, top):
    y = top + 14 + LINE * k
    square = f'<rect x="{LEFT}" y="{y}" width="13" height="13" rx="3" class="{verdict.replace(" ", "-")}"/>'
    mark = (
        f'<text x="{LEFT + 6.5}" y="{y + 11}" class="mark" aria-hidden="true">{MARKS[verdict]}</text>'
        * bool(MARKS[verdict])
    )
    return f'{square}{mark}<text x="{LEFT + 22}" y="{y + 11}">{WORDS[verdict]}: {LEGEND[verdict]}</text>'
