"""The README: its commands are accepted, its lists complete, its example runs."""

import re
import shlex
from pathlib import Path

import pytest

from identity_props.claims.registry import CLAIMS
from identity_props.cli import commands
from identity_props.laws import LAWS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


RUN = re.compile(r"^ *- run: (.*)$", re.MULTILINE)  # of a GitHub Actions file
LINES = [line for block in blocks("console") for line in block.splitlines()]
LINES += [line for block in blocks("yaml") for line in RUN.findall(block)]
TEST_COMMAND = next(line for line in LINES if line.endswith("pytest -n auto"))


@pytest.mark.parametrize("line", [line for line in LINES if "identity-props " in line])
def test_every_command_it_shows_is_accepted(line):
    _, name, *arguments = shlex.split(line.split("/bin/")[-1])
    command = commands.commands[name]
    assert command.make_context(name, arguments).command is command


def test_its_table_names_every_claim_of_the_default_run():
    table, *_ = blocks("text")
    rows = [line.split()[0] for line in table.splitlines()[3:] if not line[0].isdigit()]
    assert rows == [claim.name for claim in CLAIMS.values() if not claim.slow]


def test_its_numbers_of_claims_and_laws_are_true():
    assert f"measures {len(LAWS)} laws" in README
    assert f"trains {len([claim for claim in CLAIMS.values() if not claim.slow])} claims" in README


def test_its_options_are_those_of_the_plugin(pytestconfig):
    shown = set(re.findall(r"`(--identity-[a-z-]+)`", README))
    actions = pytestconfig._parser.optparser._actions
    assert shown == {name for action in actions for name in action.option_strings if "--identity" in name}


def test_its_tox_environments_are_those_of_tox_ini():
    table = re.search(r"\| tox environment.*?\n\n", README, re.DOTALL).group()
    shown = "".join(re.findall(r"^\|.*?\|", table, re.MULTILINE))
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", shown)) == sorted(environments)


EXAMPLES, FOR_PYTEST = blocks("python")[:2], blocks("python")[2]


def test_its_example_of_a_test_is_one_that_pytest_collects(here):
    _, out, _ = here(FOR_PYTEST, "-m", "identity", "--collect-only")
    assert "1 test collected" in out


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, ["measured ", ""], strict=True)))
def test_its_examples_run(example, said, one_family, capsys):
    exec(example, {"__name__": "__main__"})
    assert said in capsys.readouterr().out


def test_ci_runs_its_test_command():
    assert TEST_COMMAND in (ROOT / ".ci/run").read_text().splitlines()
