"""Terminals and pages of any width: no figure is cut, and what lists the registries imports little."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from identity_props.cli import main
from identity_props.conformance.rows import OTHERS, Row, statement
from identity_props.faults import ALL_FAULTS
from identity_props.laws import LAWS
from identity_props.layers import LAYER_LAWS
from identity_props.report import listing, page, pictures
from identity_props.report.fitting import Fitted
from identity_props.report.tables import check_table
from identity_props.stack.stack import Stack
from identity_props.task import keeping
from identity_props.trainers import TRAINER_LAWS


def shown(result, width):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(result)
    return captured.get()


def made():
    grid = Table()
    for heading in ("part", "bar", "FVU", "what"):
        grid.add_column(heading, no_wrap=heading != "what", min_width=12 if heading == "what" else None)
    grid.add_row("step-size floor", "█" * 20, "1.23e-02", "words that may wrap")
    return Fitted(grid, ("bar", "what"))


@pytest.mark.parametrize(("width", "left_out"), [(90, ""), (60, "bar"), (33, "bar, what"), (20, "bar, what")])
def test_whole_columns_go_before_a_figure_is_cut(width, left_out):
    out = shown(made(), width)
    assert ("More columns in a wider terminal" in " ".join(out.split())) == bool(left_out)
    assert width < 33 or ("1.23e-02" in out and "step-size floor" in out)
    assert ("█" in out) == ("bar" not in left_out)
    assert ("words" in out) == ("what" not in left_out)


@pytest.mark.parametrize("width", [50, 60, 80])
def test_no_figure_of_a_run_or_an_explanation_is_cut(width, few_digits, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["run", "--claims", "scaled-whiten,raw-diverges", "--replicas", "8", "--jobs", "1"]) == 0
    assert main(["explain", "--steps", "20"]) == 0
    assert "…" not in capsys.readouterr().out


def test_without_a_command_it_shows_its_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: ")
    assert len(out.splitlines()) > 15


def test_a_count_is_a_whole_number_in_the_table():
    out = shown(
        check_table([Row("resume", "fail", 12, 0, "not repeatable", "weights that differ")], Stack()), 90
    )
    assert out.splitlines()[3].split()[:4] == ["resume", "fail", "12", "0"]


def test_the_page_of_a_check_begins_with_what_fails_and_says_what_each_law_says():
    rows = [Row("resume", "pass", 0.0, 0.0), Row("gd-trajectory", "fail", 1.0, 0.0, "rate", "far off")]
    html = page.of_check(rows, Stack(), {})
    assert html.index(">gd-trajectory<") < html.index(">resume<")
    assert LAWS["resume"].statement[:30] in html


def test_every_row_has_a_statement():
    assert all(map(statement, [*LAWS, *TRAINER_LAWS, *OTHERS]))
    assert statement("no-such") == ""


def test_borders_of_a_bar_lie_within_its_picture():
    drawn = str(pictures.bar([("one", 0.5), ("two", 0.5)], "halves"))
    assert 'x="1.0"' in drawn
    assert 'y="1"' in drawn
    assert 'height="28"' in drawn


SAYS = """
import sys
from identity_props.cli import main
assert [main([name]) for name in {names}] == [0] * {count}
heavy = {{"torch", "scipy.stats", "hypothesis", "torchvision", "jinja2", "jsonschema"}}
print(*sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.processes
def test_what_lists_the_registries_imports_torch_the_first_time_and_little_else(tmp_path):
    def run(*names):
        code = SAYS.format(names=names, count=len(names))
        home = os.environ | {"HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home
        )

    first, again = run("laws", "faults"), run("laws", "faults")
    assert (first.stderr.split(), again.stderr.split()) == (["torch"], [])
    assert first.stdout == again.stdout
    assert run("claims").stderr.split() == ["torch"]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A list that is kept in a folder of its own."""
    monkeypatch.setattr(keeping, "CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "listing.json"


def test_what_is_listed_is_kept_until_the_source_is_another(kept, monkeypatch):
    made = listing.listed()
    assert [*made["laws"]] == [*LAWS, *TRAINER_LAWS, *LAYER_LAWS]
    assert [*made["faults"]] == [*ALL_FAULTS]
    monkeypatch.setattr(listing, "_laws", lambda: {"another": ([], [])})
    assert listing.listed()["laws"].keys() == made["laws"].keys()
    monkeypatch.setattr(listing, "_source", lambda: "another")
    assert [*listing.listed()["laws"]] == ["another"]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"source": 1}'])
def test_a_list_that_is_damaged_is_made_anew(damage, kept):
    made = listing.listed()
    kept.write_text(damage)
    assert listing.listed() == made
    assert json.loads(kept.read_text())["listed"].keys() == made.keys()


def test_a_source_that_changes_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "PACKAGE", tmp_path)
    (tmp_path / "one.py").write_text("x")
    before = listing._source()
    (tmp_path / "one.py").write_text("y")
    assert listing._source() != before


def test_a_list_is_made_where_nothing_can_be_kept(kept):
    kept.parent.touch()  # a file where the folder should be
    assert listing.listed()["faults"].keys() == ALL_FAULTS.keys()
