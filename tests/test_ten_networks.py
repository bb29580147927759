"""The page of ten networks: its table is what its script found, and says what the issue of it asks."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs/explanation"
FOUND = json.loads((DOCS / "ten-networks.json").read_text())


HELD = json.loads((DOCS / "held-back.json").read_text())


def script(name):
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ten():
    return script("ten_networks")


def test_its_table_is_what_was_found(ten):
    page = (DOCS / "ten-networks.md").read_text()
    assert ten.filled(page, FOUND) == page
    assert FOUND.keys() == ten.NETWORKS.keys()
    assert len(FOUND) == 10


@pytest.mark.parametrize("name", FOUND)
def test_named_parts_are_nine_tenths_and_the_first_advice_halves_the_error(name):
    assert FOUND[name]["named"] >= 0.9
    assert sum(FOUND[name]["parts"].values()) == pytest.approx(1, abs=1e-6)
    assert FOUND[name]["after"] <= FOUND[name]["fvu_pixels"] / 2


def test_twelve_more_are_told_likewise_and_where_no_change_halves_the_error_the_page_says_so(monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    held, page = script("held_back"), (DOCS / "ten-networks.md").read_text()
    assert held.filled(page, HELD, "held back") == page
    assert HELD.keys() == held.NETWORKS.keys()
    assert all(one["named"] >= 0.9 for one in HELD.values())
    assert [name for name, one in HELD.items() if "least" in one] == ["rounded weights", "code of 24 bits"]
    assert f"leaves {HELD['rounded weights']['least']:.1e}" in page
    assert HELD["code of 24 bits"]["least"] > HELD["code of 24 bits"]["fvu_pixels"] / 2
    assert "halves the error of a code of 24 bits" in page


@pytest.mark.thorough
def test_a_network_is_explained_as_recorded(ten):
    """The quickest of them; numbers of other machines differ in their last digits, and names do not."""
    made = ten.examined("not trained")
    assert made["first"] == FOUND["not trained"]["first"]
    assert made["parts"] == pytest.approx(FOUND["not trained"]["parts"], abs=1e-3)
