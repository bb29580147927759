"""The page of real trainers: it is what was measured, every deviation has its reason, every fault a reproduction."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from identity_props.trainers.names import NAMES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs/explanation"
FOUND = json.loads((DOCS / "real-trainers.json").read_text())
SCRIPTS = sorted((DOCS / "reproductions").glob("*.py"))


def module(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def made():
    return module("real_trainers_page")


def test_the_page_is_made_of_what_was_measured(made):
    assert (DOCS / "real-trainers.md").read_text() == made.page(FOUND)


def test_picture_and_ledgers_are_made_of_what_was_measured():
    books = json.loads((DOCS / "real-trainers-ledgers.json").read_text())
    picture, ledgers = (DOCS / name for name in ("real-trainers.svg", "real-trainers-ledgers.md"))
    assert picture.read_text() == module("real_trainers_picture").picture(FOUND, ledgers.name)
    assert ledgers.read_text() == module("real_trainers_accounts").accounts(FOUND, books)
    assert picture.stat().st_size + ledgers.stat().st_size < 2e6


def test_each_cell_of_picture_and_tables_leads_to_a_ledger_that_is_there():
    places = {*re.findall(r'<tr id="([^"]+)"', (DOCS / "real-trainers-ledgers.md").read_text())}
    drawn = re.findall(r'href="real-trainers-ledgers\.md#([^"]+)"', (DOCS / "real-trainers.svg").read_text())
    told = re.findall(r"real-trainers-ledgers\.md#([^)]+)\)", (DOCS / "real-trainers.md").read_text())
    assert {*drawn} == places
    assert {*told} == places
    assert len(drawn) == len(places)


def test_each_cell_of_the_picture_is_told_in_words():
    root = ElementTree.fromstring((DOCS / "real-trainers.svg").read_text())
    links = [one for one in root.iter() if one.tag.endswith("}a")]
    assert links
    for link in links:
        (title,) = (one.text for one in link if one.tag.endswith("}title"))
        assert link.get("aria-label") == title
        assert any(word in title for word in ("pass", "design", "FAIL", "does not apply"))


def test_every_deviation_has_a_reason_and_every_reason_a_deviation(made):
    names = dict.fromkeys(one["name"] for one in FOUND)
    rows = [(name, row) for name in names for row in made.deviations(FOUND, name)]
    assert [(name, row["name"]) for name, row in rows if "?" in made.reason(name, row)] == []
    assert set(made.OWN) <= {(name, row["name"]) for name, row in rows}
    assert set(made.ALIKE) <= {(row["name"], row.get("kind", "")) for _, row in rows}


def test_a_row_that_fails_is_told_by_the_trainer_s_own_reason(made):
    rows = [(one["name"], row["name"]) for one in FOUND for row in one["rows"] if row["verdict"] == "fail"]
    assert set(rows) <= set(made.OWN)


def test_every_fault_has_a_reproduction_of_its_framework_alone(made):
    faults = [what for what, _, _ in made.OWN.values() if what.startswith("*fault*")]
    named = {found for what in faults for found in re.findall(r"\w+\.py", what)}
    assert all(re.search(r"\w+\.py", what) for what in faults)
    assert named == {script.name for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_reproduction_has_fifteen_lines_at_most_and_nothing_of_ours(script):
    *_, code = script.read_text().split('"""')
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "identity_props" not in code


@pytest.mark.trainers
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_fault_is_still_there(script):
    """A release that mends one fails here: then the page is to be made anew."""
    package = script.stem.partition("_")[0]
    if find_spec(package) is None or (script.stem == "keras_order" and find_spec("tensorflow") is None):
        pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_it_covers_a_dozen_trainers_by_fifteen_laws_and_five_on_two_ranks(made):
    alone, together = ([one for one in FOUND if one["ranks"] == ranks] for ranks in (1, 2))
    judged = [made.applying(one) for one in alone if not made.of_tokens(one)]
    assert len(judged) >= 12
    assert min(judged) >= 15
    assert len(together) >= 5


def test_tox_and_the_extras_have_each_trainer_that_has_a_name():
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    (section,) = (name for name in tox.sections() if name.startswith("testenv:trainers-"))
    named = section.partition("{")[2].rstrip("}").split(",")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(named) == NAMES.keys() - {"plain"}
    assert {name for name in named if NAMES[name] != "torch"} <= extras.keys()
