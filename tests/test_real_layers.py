"""The page of real layers: it is what was measured, every failure has its reason, every fault a reproduction."""

import importlib
import json
import re
import runpy
import warnings
from pathlib import Path

import pytest

from identity_props.stack.unchanged import unchanged

DOCS = Path(__file__).parent.parent / "docs/explanation"
LAYERS = json.loads((DOCS / "real-layers.json").read_text())["layers"]
SCRIPTS = sorted((DOCS / "layer_reproductions").glob("*.py"))
FAILING = {(name, row) for name, one in LAYERS.items() for row in one.get("fails", {})}


@pytest.fixture(scope="module")
def real_layers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("real_layers")


def test_the_page_is_made_of_what_was_measured(real_layers):
    assert (DOCS / "real-layers.md").read_text() == real_layers.page_of(
        json.loads((DOCS / "real-layers.json").read_text())
    )


def test_every_row_that_fails_has_a_reason_and_no_other_has(real_layers):
    reasons = {(name, row) for name, rows in real_layers.REASONS.items() for row in rows}
    assert reasons == FAILING
    assert [name for name, one in LAYERS.items() if "error" in one] == []


def test_every_fault_names_a_reproduction_and_every_reproduction_a_fault(real_layers):
    whys = {why for rows in real_layers.REASONS.values() for why in rows.values()}
    assert all(re.match(r"\*(fault|limit|design)\*", why) for why in whys)
    faults = [why for why in whys if why.startswith("*fault*")]
    named = [re.findall(r"`(layer_reproductions/\w+\.py)`", why) for why in faults]
    assert all(len(found) == 1 for found in named)
    assert {found for (found,) in named} == {f"layer_reproductions/{script.name}" for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_fault_is_still_there_in_fifteen_lines_of_torch_alone(script):
    """A release that mends one fails here: then the page is to be made anew."""
    *_, code = script.read_text().split('"""')
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "identity_props" not in code
    with unchanged(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(script))


def test_it_covers_torch_s_own_layers_and_six_packages(real_layers):
    groups = [name.partition(":")[0] for name in LAYERS]
    assert groups.count("torch.nn") >= 80
    assert {*groups} == {*real_layers.GROUPS}
