"""The page of real trainers: what was measured, and for every deviation what it is, and what can be done."""

import json
import re
from pathlib import Path

from real_trainers_picture import anchor
from real_trainers_reasons import ALIKE, OWN

REPRODUCTIONS = Path(__file__).parent / "reproductions"
ASKER = Path(__file__).parents[2] / "benchmarks/asker.json"
LEDGERS = "real-trainers-ledgers.md"
SIGNS = {"pass": "pass", "design": "design", "fail": "**FAIL**", "not applicable": "-"}


def page(found):
    """The page in Markdown."""
    alone, together = ([one for one in found if one["ranks"] == ranks] for ranks in (1, 2))
    lines = [INTRODUCTION.strip().format(**_counts(alone, together)), "", *_versions(alone)]
    lines += [
        "",
        PICTURE.strip(),
        "",
        "## Alone",
        "",
        *_table(alone, lambda law: not law.startswith("ranks")),
    ]
    lines += ["", "## On two ranks", "", *_table(together, lambda law: law.startswith("ranks"))]
    lines += ["", "## Deviations", "", LEGEND.strip()]
    for name in dict.fromkeys(one["name"] for one in found if deviations(found, one["name"])):
        lines += [
            "",
            f"### {name}",
            "",
            "| law | what the ledger shows | what it is | known as | what to do |",
        ]
        lines += ["|---|---|---|---|---|", *(_line(name, row) for row in deviations(found, name))]
    return "\n".join(
        [
            *lines,
            "",
            *asked_script(),
            "",
            REST.strip(),
            "",
            "## The faults, in a few lines each",
            "",
            *reproductions(),
        ]
    )


def _counts(alone, together):
    rows = [row for one in alone for row in one["rows"]]
    judged = [applying(one) for one in alone if not of_tokens(one)]
    return {
        "trainers": len(alone),
        "laws": min(judged),
        "tokens": ", ".join(
            f"{one['name']} by its {applying(one)} laws of tokens" for one in alone if of_tokens(one)
        ),
        "fails": sum(row["verdict"] == "fail" for row in rows),
        "designs": sum(row["verdict"] == "design" for row in rows),
        "ranks": len(together),
        "minutes": round(sum(one["seconds"] for one in [*alone, *together]) / 60),
    }


def applying(one):
    """How many laws apply to a trainer."""
    return sum(row["verdict"] != "not applicable" for row in one["rows"][1:])


def of_tokens(one):
    """Whether it trains on tokens alone."""
    (row,) = (row for row in one["rows"] if row["name"] == "trajectory")
    return row.get("note") == "examples"


def _versions(alone):
    lines = ["| trainer | versions | laws that apply | seconds |", "|---|---|---|---|"]
    for one in alone:
        versions = ", ".join(f"{package} {version}" for package, version in one["versions"].items())
        lines.append(f"| {one['name']} | {versions} | {applying(one)} | {one['seconds']} |")
    return lines


def _table(found, wanted):
    """Laws by trainers."""
    verdicts = {one["name"]: {row["name"]: row["verdict"] for row in one["rows"]} for one in found}
    laws = dict.fromkeys(row["name"] for one in found for row in one["rows"] if wanted(row["name"]))
    lines = [f"| law | {' | '.join(verdicts)} |", "|---" * (len(verdicts) + 1) + "|"]
    for law in laws:
        cells = [_cell(name, law, rows.get(law)) for name, rows in verdicts.items()]
        lines.append(f"| {law} | {' | '.join(cells)} |")
    return lines


def _cell(name, law, verdict):
    """Its sign, which leads to the ledger."""
    return f"[{SIGNS[verdict]}]({LEDGERS}#{anchor(name, law)})" if verdict else "-"


def deviations(found, name):
    """Rows of a trainer that fail or are its design, of one rank and those of ranks."""
    rows = [row for one in found if one["name"] == name for row in one["rows"]]
    first = {}
    for row in rows:
        if row["verdict"] in ("fail", "design"):
            first.setdefault(row["name"], row)
    return list(first.values())


def reason(name, row):
    """(what it is, known as, what to do) of a deviation; question marks that the tests refuse."""
    return OWN.get((name, row["name"])) or ALIKE.get((row["name"], row.get("kind", ""))) or ("?", "?", "?")


def _line(name, row):
    shown = re.split("; documented in |[,;] distance of the", row.get("note", ""))[0]
    return f"| {row['name']} | {shown.replace('|', '')} | {' | '.join(reason(name, row))} |"


def asked_script():
    """What the question's own script was recorded to end with."""
    lines = [
        SCRIPT.strip(),
        "",
        "| layers | epochs | backend | test MSE | processor seconds |",
        "|---|---|---|---|---|",
    ]
    for one in json.loads(ASKER.read_text()):
        told = " ".join(f"{name} {version}" for name, version in one["versions"].items())
        figures = f"{one['mse']:.0f} | {one['processor seconds']}"
        lines.append(f"| {one['depth']} | {one['epochs']} | {one['backend']}, {told} | {figures} |")
    return lines


def reproductions():
    """Each file as it stands."""
    for file in sorted(REPRODUCTIONS.glob("*.py")):
        yield from ("```python", file.read_text().strip(), "```", "")


SCRIPT = """
## The question's script

784 dense ReLU units a layer, RMSprop, raw MNIST, as it stands in Keras: `benchmarks/asker.py`. Published are 167.95 with one
layer and 523.72 with four after 20 epochs; our claims *seed-network-1* and *seed-network-4* allow 100 to 325 and 390 to 710,
and a slow test asks the same of the script, on whichever backend is there.
"""
PICTURE = """
![Laws by trainers: most cells are kept; resuming, windows and schedules under accumulation are where they differ; the two
tables below say the same in words](real-trainers.svg)

Each cell leads to its ledger, here and in the tables: what the trainer's weights say of the training that the law asks for.
"""
INTRODUCTION = """
# Real trainers

What `identity-props check --trainer NAME` says of {trainers} trainers as they are installed, each judged by at least
{laws} laws ({tokens}), {ranks} of them on two ranks too. Rows that fail: {fails}; rows that follow another rule in use, or one that
the framework documents: {designs}. Made by `docs/explanation/real_trainers.py`, which `tox -e backends` runs, in
{minutes} minutes of a processor, and as many again for the ledgers; all that was measured is in [real-trainers.json](real-trainers.json). What each
adapter follows of its framework's own pages is cited at its head, in `identity_props/trainers`.
"""
LEGEND = """
*fault*: it contradicts the framework's own documentation, or another of its paths; below is a script for each that needs
the framework alone. *design*: it is documented, or one of the rules in use that no page of the framework's excludes.
*ours*: it comes of the adapter. Known issues are repository#number; *not found* says that a search found none.
"""
REST = """
## What is not here

- **composer**: mosaicml 0.32.1 asks for torch below 2.7.1; where torch is newer, pip goes back to releases of 2022, whose
  dependencies no longer build.
- **deepspeed** on two ranks; alone it is judged. `deepspeed.initialize` first compiles its shared-memory operator, which
  needs a C++ compiler and 80 seconds of a processor; broken off, it leaves a lock on which the next start waits for ever.
- **torchtitan** 0.3.0 installs, with `datasets` of an older release than the others; its trainer builds models, data and
  optimizers, Adam and AdamW, of its own registry, and takes its device to be `cuda` where there is no accelerator.
- **trl** takes tokens alone, which is why laws of examples do not apply to it. That packed sequences do not attend to one
  another is not seen here: the model has no attention.
- **flax** has no loop of its own: its examples call Optax as *optax* does.
- **fastai** in float64: its smoothed loss refuses it, so it is judged in float32.
- **keras-tensorflow** beside torch: TensorFlow 2.20 and later end the process where Triton, which torch brings, is
  imported after it ([tensorflow#124205](https://github.com/tensorflow/tensorflow/issues/124205)); the adapter imports it
  before.
"""
