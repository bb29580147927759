"""Terminals and pages of any width: no figure is cut, and what lists the registries imports little."""

import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from identity_props.cli import main
from identity_props.conformance.rows import OTHERS, Row, statement
from identity_props.laws import LAWS
from identity_props.report import page, pictures
from identity_props.report.fitting import Fitted
from identity_props.report.tables import check_table
from identity_props.stack.stack import Stack
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


LISTS = """
import sys
from identity_props.cli import main
assert [main([name]) for name in ("laws", "faults")] == [0, 0]
print(*sorted({"scipy", "hypothesis", "torchvision", "jinja2", "jsonschema"} & sys.modules.keys()), file=sys.stderr)
assert main(["claims"]) == 0
print(*sorted({"scipy.stats", "hypothesis", "torchvision", "jinja2"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.processes
def test_what_lists_the_registries_imports_torch_and_little_else():
    done = subprocess.run([sys.executable, "-c", LISTS], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
