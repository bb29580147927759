"""The page of real stacks: it is what was measured, and every failure has its reason."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs/explanation"
FOUND = json.loads((DOCS / "real-stacks.json").read_text())


@pytest.fixture(scope="module")
def real_stacks():
    spec = spec_from_file_location("real_stacks_page", DOCS / "real_stacks_page.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_what_was_measured(real_stacks):
    assert (DOCS / "real-stacks.md").read_text() == real_stacks.page(FOUND)


def test_every_part_that_fails_a_row_has_a_reason_and_no_other_has(real_stacks):
    failing = {one["name"] for one in FOUND if any(row["verdict"] == "fail" for row in one["rows"])}
    assert failing == set(real_stacks.WHY)


def test_every_fault_has_a_reproduction(real_stacks):
    faults = [name for name, why in real_stacks.WHY.items() if why.startswith("*fault*")]
    names = [name.rpartition(":")[2].lower() for name in faults]
    assert [name for name in names if name not in real_stacks.REPRODUCTIONS.lower()] == []


def test_it_covers_torch_a_dozen_others_and_six_layers():
    groups = [one["group"] for one in FOUND]
    assert groups.count("torch.optim") == 15
    assert groups.count("other packages") >= 12
    assert groups.count("layers") == 6
    assert groups.count("pytorch-optimizer") == 128


def test_the_reproductions_of_torch_s_faults_reproduce_them(real_stacks, capsys):
    """A release of torch that mends one of them fails here: then the page is to be made anew."""
    blocks = re.findall(r"```python\n(.*?)```", real_stacks.REPRODUCTIONS, re.DOTALL)
    names = {}
    exec("\n".join(blocks[:3]), names)
    nadam, asgd = capsys.readouterr().out.splitlines()
    assert nadam == "torch.float32 torch.float64"
    assert names["ends"][0].sub(names["ends"][1]).abs().max() > 1e-12, asgd
