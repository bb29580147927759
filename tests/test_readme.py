"""The README: short, its commands accepted, its numbers true, its example and its links good."""

import re
import shlex
from pathlib import Path

import pytest
from torch.optim import SGD

from identity_props.claims.registry import CLAIMS
from identity_props.cli import commands
from identity_props.faults import ALL_FAULTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


LINES = [line for block in blocks("console") for line in block.splitlines()]
TEST_COMMAND = next(line for line in LINES if line.endswith("pytest -n auto"))


def test_it_is_a_front_door_and_no_corridor():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("line", [line for line in LINES if "identity-props " in line])
def test_every_command_it_shows_is_accepted(line):
    _, name, *arguments = shlex.split(line.split("/bin/")[-1])
    command = commands.commands[name]
    assert command.make_context(name, arguments).command is command


def test_its_numbers_of_claims_and_faults_are_true():
    assert f"trains {len([claim for claim in CLAIMS.values() if not claim.slow])} claims" in README
    assert f"plants {len(ALL_FAULTS)} documented" in README


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_what_it_links_to_is_there(target):
    assert (ROOT / target).is_file()


def test_its_example_runs(one_family):
    (example,) = blocks("python")
    names = {"__name__": "__main__"}
    exec(example, names)
    assert names["stack"].optimizer is SGD


def test_ci_runs_its_test_command():
    assert TEST_COMMAND in (ROOT / ".ci/run").read_text().splitlines()
