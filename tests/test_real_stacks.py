"""The page of real stacks: it is what was measured, and every failure has its reason."""

import importlib
import json
import os
import re
import runpy
import time
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs/explanation"
FOUND = json.loads((DOCS / "real-stacks.json").read_text())
SCRIPTS = sorted((DOCS / "faults").glob("*.py"))
PACKAGES = ("torch_optimizer", "pytorch_optimizer", "dadaptation", "optimi", "schedulefree", "torch")


@pytest.fixture(scope="module")
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("real_stacks_page")


def test_the_page_is_made_of_what_was_measured(made):
    assert (DOCS / "real-stacks.md").read_text() == made.page(FOUND)


def test_its_first_line_counts_who_computes_what_a_paper_says(made):
    many = [one for one in FOUND if one["group"] == "pytorch-optimizer"]
    known = sum(made.recognised(one)["verdict"] == "pass" for one in many)
    first, *_ = (DOCS / "real-stacks.md").read_text().splitlines()
    assert first.startswith(f"**{known} of 128 optimizers of pytorch-optimizer compute what a paper says**")


def test_every_part_that_fails_a_row_has_a_reason_and_no_other_has(made):
    failing = {one["name"] for one in FOUND if any(row["verdict"] == "fail" for row in one["rows"])}
    assert failing == set(made.WHY)


def test_every_fault_has_a_reproduction(made):
    faults = [name for name, why in made.WHY.items() if why.startswith("*fault*")]
    told = "".join(script.read_text() for script in SCRIPTS).lower()
    assert [name for name in faults if name.rpartition(":")[2].split(" ")[0].lower() not in told] == []


def test_it_covers_torch_a_dozen_others_and_six_layers():
    groups = [one["group"] for one in FOUND]
    assert groups.count("torch.optim") == 15
    assert groups.count("other packages") >= 12
    assert groups.count("layers") == 6
    assert groups.count("pytorch-optimizer") == 128


def test_parts_are_measured_beside_one_another_and_each_ends_in_its_way(monkeypatch):
    """One that is slow, one that raises and one that ends its process; what is done first comes first."""
    ways = {
        "waits": lambda: time.sleep(1) or [{"name": "moves", "verdict": "pass"}],
        "raises": lambda: 1 / 0,
        "ends": lambda: os._exit(0),
    }
    found = dict(measured(ways, monkeypatch, seconds=900))
    assert found == {
        "raises": "ZeroDivisionError: division by zero",
        "ends": "it ended its process",
        "waits": "",
    }
    assert [*found][-1] == "waits"


def test_a_part_that_never_ends_is_told(monkeypatch):
    assert dict(measured({"hangs": lambda: time.sleep(900)}, monkeypatch, 0.5)) == {
        "hangs": "not finished in 0.5 s"
    }


def measured(ways, monkeypatch, seconds):
    """Name and note, or kind, of each as it comes, two beside one another."""
    monkeypatch.syspath_prepend(str(DOCS))
    made = importlib.import_module("real_stacks")
    monkeypatch.setattr(made, "SECONDS", seconds)
    monkeypatch.setattr(made, "measure", lambda group, name, quick: ways[name]())
    for one in made.measured([("torch.optim", name, "torch") for name in ways], quick=True, jobs=2):
        yield one["name"], one["rows"][0].get("note") or one["rows"][0].get("kind", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_reproduction_has_fifteen_lines_at_most_and_nothing_of_ours(script):
    *_, code = script.read_text().split('"""')
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "identity_props" not in code
    assert re.search(r"^ *(assert|raise) ", code, re.MULTILINE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_fault_is_still_there(script):
    """The script asserts it. A release that mends one fails here: then the page is to be made anew."""
    pytest.importorskip(next(package for package in PACKAGES if script.stem.startswith(package)))
    runpy.run_path(str(script))
