"""What a run leaves: a table that fits a terminal, and results.json, whole or not at all."""

import json
import math

import pytest
from rich.console import Console

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import FAILS, HOLDS, Outcome
from identity_props.conformance import rows
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Row
from identity_props.errors import InputError
from identity_props.report.documents import RESULTS, results, summary
from identity_props.report.files import check_free, make, write
from identity_props.report.tables import check_table, table
from identity_props.stack.stack import Stack


def outcome(name="linear-1", verdict=HOLDS, fvu=(1e-6, 3e-6, 2e-6), steps=(992.0, 1250.0, math.inf)):
    return Outcome(CLAIMS[name], verdict, len(fvu), fvu, fvu, steps, 1250, 12.3456)


def test_a_summary_counts_nan_as_the_largest_and_shows_no_number_for_it():
    assert summary([3.0, math.nan, 1.0]) == {"min": 1.0, "median": 3.0, "max": None}
    assert summary([math.nan, math.inf, 1.0]) == {"min": 1.0, "median": None, "max": None}


def test_the_table_fits_eighty_columns_without_cutting_anything(small):
    console = Console(width=80, record=True)
    rows = [outcome(name, HOLDS, (0.1,) * 64) for name in CLAIMS]
    console.print(table(rows, small))
    printed = console.export_text()
    assert "…" not in printed
    assert all(name in printed for name in CLAIMS)
    assert f"{len(CLAIMS)} of {len(CLAIMS)} claims hold" in printed


def test_the_worst_seed_of_a_claim_to_fail_is_the_one_that_did_best(small):
    console = Console(width=80, record=True)
    console.print(table([outcome("plain-relu-2-seed", FAILS, (0.5, 0.02, 0.3))], small))
    row = next(line for line in console.export_text().splitlines() if line.startswith("plain-relu-2-seed"))
    assert row.split() == ["plain-relu-2-seed", "fails", "fails", "3/3", "3.0e-01", "2.0e-02", "1250", "1250"]


def test_results_hold_what_is_needed_to_repeat_and_compare_them(small):
    document = results([outcome()], small, Stack(), seed=7, jobs=2, interrupted=False)
    assert set(document) >= {"schema", "versions", "machine", "threads", "seed", "data", "stack", "claims"}
    assert document["data"]["fingerprint"] == small.fingerprint
    (claim,) = document["claims"]
    assert claim["fvu"] == {"min": 1e-6, "median": 2e-6, "max": 3e-6}
    assert claim["steps_to_identity"] == {"min": 992.0, "median": 1250.0, "max": None}
    assert {claim[key] for key in ("name", "verdict", "expects")} == {"linear-1", "holds", "learns"}
    assert (claim["replicas"], claim["successes"], claim["budget_steps"], claim["seconds"]) == (
        3,
        3,
        1250,
        12.346,
    )


def test_results_are_written_as_strict_json(tmp_path):
    file = write(tmp_path, {"claims": [None, 1.5]}, RESULTS)
    assert json.loads(file.read_text()) == {"claims": [None, 1.5]}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_write_that_fails_leaves_the_old_results_and_nothing_else(tmp_path, monkeypatch):
    write(tmp_path, {"claims": ["old"]}, RESULTS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, {"claims": [math.nan]}, RESULTS)

    def full(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("identity_props.report.files.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, {"claims": ["new"]}, RESULTS)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert "old" in (tmp_path / "results.json").read_text()


def test_results_that_are_there_are_kept_unless_forced(tmp_path):
    check_free(tmp_path, False, "results.json")
    write(tmp_path, {}, RESULTS)
    with pytest.raises(InputError, match="is already there; --force replaces it"):
        check_free(tmp_path, False, "results.json")
    check_free(tmp_path, True, "results.json")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder to write to"):
        make(tmp_path / "file" / "out")


ROWS = [
    Row("moves", PASS),
    Row("layout", NOT_APPLICABLE, note="not elementwise"),
    Row("freeze", FAIL, 2.0, 0.0, kind="wrong step"),
]


def shown(given, **options):
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(check_table(given, Stack(), **options))
    return captured.get()


def test_what_fails_comes_first_and_ends_in_its_address_and_what_does_not_apply_is_counted():
    out = shown(ROWS)
    assert out.index("freeze") < out.index("identity-props laws freeze") < out.index("moves")
    assert "not elementwise" not in out
    assert "1 pass, 1 fail; 1 law does not apply; --all shows them and why" in out
    assert "not elementwise" in shown(ROWS, all_rows=True)


def test_addresses_are_pages_where_the_package_says_where_its_pages_are(monkeypatch):
    monkeypatch.setattr(rows, "_documentation", lambda: "https://docs.test/")
    assert str(ROWS[2]).endswith(
        "wrong step: measured 2, allowed 0; see https://docs.test/reference/laws/freeze/"
    )
