"""The page that answers the question: its tables are what its command found."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs/explanation"
FOUND = json.loads((DOCS / "why.json").read_text())


def script(name):
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def why():
    return script("why")


def test_its_map_and_what_it_says_of_it_are_those_of_the_atlas():
    pytest.importorskip("pyarrow")
    atlas = script("atlas")
    cells, page = atlas.opened(), (DOCS / "why.md").read_text()
    assert atlas.filled(page, cells) == page
    assert atlas.decides(cells) in page
    assert (DOCS / "where-learned.svg").read_text() == atlas.picture(cells)


def test_its_tables_are_what_was_found(why):
    page = (DOCS / "why.md").read_text()
    assert why.filled(page, FOUND) == page
    assert all(table in page for table in why.tables(FOUND).values())


def test_what_is_learned_from_the_map_is_what_it_shows():
    pytest.importorskip("pyarrow")
    atlas = script("atlas")
    cells = atlas.opened()
    near = [one.cell for one in cells if one.state == "near-identity"]
    assert (atlas.turns(cells)[0].axis, atlas.turns(cells)[0].value) == ("variant", "residual")
    assert not [cell for cell in near if cell.variant == "plain-relu"]
    asked = [
        cell for cell in near if (cell.optimizer, cell.scaling, cell.variant) == ("RMSprop", "none", "linear")
    ]
    assert {cell.schedule for cell in asked} == {"linear-decay"}
    assert 10**1.4 <= max(cell.lr for cell in asked) / min(cell.lr for cell in asked) <= 10**1.6


@pytest.mark.parametrize("depth", FOUND)
def test_the_parts_sum_to_the_error_and_named_ones_are_95_percent(depth):
    parts = {part["name"]: part["fvu"] for part in FOUND[depth]["parts"]}
    assert sum(parts.values()) == pytest.approx(FOUND[depth]["fvu"], abs=1e-6)
    assert parts["other"] <= 0.05 * FOUND[depth]["fvu"]


def test_what_it_says_is_most_of_the_error_is(why):
    largest = {
        depth: max(found["parts"], key=lambda part: part["fvu"])["name"] for depth, found in FOUND.items()
    }
    assert largest == {"1": "dead outputs", "4": "saturated hidden units"}
