"""The atlas: cells that train together train as they would alone, and what is finished is never lost or repeated."""

import errno
import json
import os
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")
from identity_props.atlas import advising, store
from identity_props.atlas.advising import advised, nearest, of_one, ways
from identity_props.atlas.axes import AXES, NAMES, PRESETS, Cell, Grid, grids
from identity_props.atlas.exploring import Plan, explore, trial_of
from identity_props.atlas.reading import QUESTION, Seen, decides, seen, turns
from identity_props.atlas.store import Atlas, Settings
from identity_props.cli import main
from identity_props.cli.advise import say_hint
from identity_props.cli.asked import Asked
from identity_props.engine.together import StackedMuon, train_together
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.report import advice as report
from identity_props.stack.crews import crew
from identity_props.task.models import Variant

ROOT = Path(__file__).parent.parent
SEEDS = range(3, 6)


def trial(
    lr, optimizer="torch.optim:RMSprop", schedule="constant", variant="plain-relu", steps=9, **arguments
):
    recipe = Recipe(optimizer, lr, tuple(arguments.items()), schedule, batch_size=32)
    return Trial(Variant(variant, 2), recipe, steps)


# Trials that train together -------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "Adam"])
@pytest.mark.parametrize("variant", ["plain-relu", "linear", "residual"])
def test_trials_of_other_rates_end_as_each_of_them_alone(optimizer, variant, small):
    trials = [
        trial(lr, f"torch.optim:{optimizer}", schedule, variant)
        for lr in (1e-3, 1e-2)
        for schedule in ("constant", "linear-decay")
    ]
    for one, run in zip(trials, train_together(trials, small, SEEDS), strict=True):
        alone = train(one, small, SEEDS)
        assert run.fvu[:, -1].tolist() == pytest.approx(alone.fvu[:, -1].tolist(), rel=1e-5)
        assert run.fvu_pixels.tolist() == pytest.approx(alone.fvu_pixels.tolist(), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop"])
def test_which_others_train_beside_a_trial_changes_it_by_rounding_at_most(optimizer, small):
    trials = [trial(lr, f"torch.optim:{optimizer}", variant="linear") for lr in (1e-3, 1e-2, 3e-2)]
    together = train_together(trials, small, SEEDS)
    for one, run in zip(trials, together, strict=True):
        (alone,) = train_together([one], small, SEEDS)
        assert torch.allclose(run.fvu, alone.fvu, rtol=1e-5, atol=0)


def test_a_trial_that_diverges_stops_and_the_others_go_on_as_if_it_were_not_there(small):
    trials = [trial(lr, "torch.optim:SGD", variant="linear", steps=64) for lr in (1e6, 1e-2, 1e7, 2e-2)]
    lost, kept, lost_too, kept_too = train_together(trials, small, SEEDS)
    assert lost.steps[-1] < 64
    assert lost_too.steps[-1] < 64
    assert lost.diverged.all()
    for run, one in ((kept, trials[1]), (kept_too, trials[3])):
        assert run.steps[-1] == 64
        (alone,) = train_together([one], small, SEEDS)
        assert torch.allclose(run.fvu, alone.fvu, rtol=1e-5, atol=0)


def test_momentum_of_those_that_go_on_is_theirs(small):
    trials = [trial(lr, "torch.optim:SGD", variant="linear", steps=16, momentum=0.9) for lr in (1e7, 1e-2)]
    run = train_together(trials, small, SEEDS)[1]
    assert run.fvu[:, -1].tolist() == pytest.approx(
        train(trials[1], small, SEEDS).fvu[:, -1].tolist(), rel=1e-5
    )


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_stacked_matrices_take_the_steps_of_muon(shape, nesterov, monkeypatch):
    monkeypatch.setattr(
        torch.Tensor, "bfloat16", torch.Tensor.double
    )  # whose rounding would hide a wrong step
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, 2, *shape, generator=generator, dtype=torch.float64)
    stacked = torch.nn.Parameter(start.clone())
    alone = [torch.nn.Parameter(part.clone()) for part in start]
    settings = {"lr": 0.1, "weight_decay": 0.01, "nesterov": nesterov}
    one, other = StackedMuon([{"params": [stacked]}], **settings), torch.optim.Muon(alone, **settings)
    for gradient in gradients:
        stacked.grad = gradient
        for p, part in zip(alone, gradient, strict=True):
            p.grad = part.clone()
        one.step()
        other.step()
    assert torch.allclose(stacked, torch.stack(alone), rtol=0, atol=1e-12)
    assert not torch.allclose(stacked, start, atol=0.01)


def test_an_optimizer_that_is_not_known_to_train_in_groups_trains_each_alone(small):
    trials = [trial(lr, "torch.optim:AdamW") for lr in (1e-3, 1e-2)]
    for one, run in zip(trials, train_together(trials, small, [0]), strict=True):
        assert torch.equal(run.fvu, train(one, small, [0]).fvu)


@pytest.mark.parametrize(
    "trials", [[], [trial(1.0), trial(1.0, "torch.optim:SGD")], [trial(1.0), trial(1.0, variant="linear")]]
)
def test_trials_of_other_kinds_do_not_train_together(trials, small):
    with pytest.raises(InputError, match="differ in rate and schedule alone"):
        train_together(trials, small, SEEDS)


# Axes -----------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 8), min_size=1, max_size=3).map(lambda some: ",".join(map(str, some)))
WORDS = {
    "variant": ["plain-relu", "linear", "residual", "scaled-input"],
    "scaling": ["none", "unit", "whiten"],
    "optimizer": ["SGD", "SGD(momentum=0.9)", "Adam(betas=(0.9, 0.99))"],
}


@given(
    depth=COUNTS,
    width=COUNTS.map(lambda text: f"{text},49"),
    lr=st.tuples(st.floats(1e-6, 1), st.integers(1, 9)).map(lambda given: f"{given[0]}:10:{given[1]}"),
    **{
        name: st.lists(st.sampled_from(words), min_size=1, unique=True).map(",".join)
        for name, words in WORDS.items()
    },
)
def test_cells_are_counted_without_going_through_them(**texts):
    grid = Grid.of(texts, 49)
    cells = [cell for line in grid.lines(49) for cell in line]
    assert grid.count(49) == len(cells) == len({*cells})
    for cell in cells:
        trial_of(cell, SETTINGS)  # each is a network


def test_a_range_of_depths_has_both_ends_and_one_of_rates_is_even_on_a_log_axis():
    grid = Grid.of({"depth": "1:3,8", "lr": "1e-5:1e1:7"}, 49)
    assert grid.values["depth"] == (1, 2, 3, 8)
    assert grid.values["lr"] == (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)


def test_the_question_s_preset_has_1500_cells_and_more():
    count = sum(grid.count(49) for grid in grids("question", {}, 49))
    assert count >= 1500
    assert f"{count:,} cells of 16 networks" in (ROOT / "docs/how-to/atlas.md").read_text()
    assert {*PRESETS["question"][0]} <= {*AXES}


# Exploring, and what is kept ------------------------------------------------------------------------

SETTINGS = Settings("digits", 7, "", 4, 2, 0)
AXIS = {"variant": "linear,plain-relu", "depth": "1,2", "lr": "1e-3:1e3:3", "optimizer": "SGD"}


@pytest.fixture
def kept(tmp_path):
    return Atlas(tmp_path)


def explored(kept, pixels, **axes):
    plan = Plan([Grid.of(AXIS | axes, pixels.d)], replace(SETTINGS, side=round(pixels.d**0.5)))
    with crew(pixels, 1, 1) as workers:
        return sum(explore(plan, kept, workers, kept.keys()))


@pytest.fixture(scope="module")
def pixels():
    from identity_props.task.data import digits

    return digits(7, train=128, test=64)


def test_a_second_run_repeats_nothing_and_adds_what_is_new(kept, pixels):
    assert explored(kept, pixels) == 12
    assert explored(kept, pixels) == 0
    assert explored(kept, pixels, depth="1,2,3") == 6
    assert len([*kept.unique()]) == len(kept.keys()) == 18


def test_cells_of_two_grids_are_trained_once(kept, pixels):
    both = [Grid.of(AXIS, 49), Grid.of(AXIS | {"depth": "2,3"}, 49)]
    with crew(pixels, 1, 1) as workers:
        assert sum(explore(Plan(both, SETTINGS), kept, workers, kept.keys())) == 18


def test_many_files_are_merged_into_one_that_says_the_same(kept, pixels, monkeypatch):
    monkeypatch.setattr(store, "FEW", 2)
    explored(kept, pixels)
    before = [*kept.rows()]
    kept.add(before[:2])  # as a run that ended between merging and removing leaves them
    kept.tidied()
    assert len(kept.files()) == 1
    assert sorted(map(repr, kept.rows())) == sorted(map(repr, before))


def test_a_full_disk_ends_it_and_what_is_finished_is_kept(kept, pixels, monkeypatch):
    sync, written = os.fsync, []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; what is finished is kept"):
        explored(kept, pixels)
    monkeypatch.setattr(os, "fsync", sync)
    finished = len(kept.keys())
    assert 0 < finished < 12
    assert [file for file in kept.path.iterdir() if file.suffix != ".parquet" or file.name[0] == "."] == []
    assert explored(kept, pixels) == 12 - finished


@pytest.mark.parametrize("text", [b"", b"PAR1", b"not Parquet at all"])
def test_a_damaged_file_is_named(kept, text):
    (kept.path / "cells-1.parquet").write_bytes(text)
    with pytest.raises(InputError, match=r"cells-1.parquet: expected a file of an atlas, got a damaged one"):
        kept.keys()


def test_a_foreign_file_is_named(kept):
    table = store.arrow().table({"lr": [1.0]})
    store.arrow().parquet.write_table(table, kept.path / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet: expected a file of an atlas, .* got another"):
        kept.keys()


class Idle:
    """A crew whose tasks are done at once, and an atlas that keeps nothing."""

    def submit(self, task, cells, settings):
        future = Future()
        future.set_result([bytes(1000) for _ in cells])
        return future

    def room(self):
        return 4

    def alive(self):
        pass

    def add(self, rows):
        pass


def peak(batches):
    """Bytes of memory that the cells of so many sizes of batches take at most, and how many cells they are."""
    axes = {"lr": "1e-5:1e2:30", "depth": "1:4", "batch": f"1:{batches}"}
    plan = Plan([Grid.of(axes, 49)], SETTINGS)
    tracemalloc.start()
    try:
        count = sum(explore(plan, Idle(), Idle(), np.empty(0, np.uint64)))
        return tracemalloc.get_traced_memory()[1], count
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_cells():
    few, many = peak(2), peak(20)
    assert many[1] == 10 * few[1]
    assert many[0] <= few[0] + 250_000  # rows of the others alone would be 6 MB


def test_no_more_tasks_are_given_out_than_there_is_room_for(kept, pixels):
    class Counted:
        most = pending = 0

        def submit(self, task, *arguments):
            future = Future()
            future.set_result(task(pixels, *arguments))
            Counted.pending += 1
            Counted.most = max(Counted.most, Counted.pending)
            future.add_done_callback(lambda _: None)
            return future

        def room(self):
            return 3

        def alive(self):
            pass

    for _ in explore(Plan([Grid.of(AXIS, 49)], SETTINGS), kept, Counted(), kept.keys()):
        Counted.pending -= 1
    assert Counted.most <= 3


# The command ----------------------------------------------------------------------------------------

SMALL = [
    "--replicas",
    "2",
    "--steps",
    "4",
    "--jobs",
    "1",
    "--variant",
    "linear",
    "--depth",
    "1",
    "--optimizer",
    "SGD",
]


def test_the_command_keeps_cells_writes_a_page_and_says_what_decides(few_digits, tmp_path, capsys):
    command = ["atlas", *SMALL, "--lr", "1e-3:1e3:3", "--out", str(tmp_path / "map")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Of 3 cells")
    assert "3 cells of 2 networks: some 1 seconds" in err
    assert "3 of 3 cells" in err
    assert "3 cells trained" in err
    assert "near-identity" in (tmp_path / "map/report.html").read_text()
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "3 cells of 2 networks, 3 of them finished" in err
    assert "0 cells trained" in err
    assert json.loads(out)["cells"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "Nothing"], "torch.optim:Nothing: module 'torch.optim' has no 'Nothing'"),
        (["--optimizer", "SGD(speed=3)"], "unexpected keyword argument 'speed'"),
        (["--optimizer", "SGD(3"], "optimizer: expected such as SGD(momentum=0.9), got 'SGD(3'"),
        (["--variant", "cubic"], "variant: expected one of plain-relu"),
        (["--depth", "4:1"], "depth: expected counts such as 1:8 or 1,4, got '4:1'"),
        (["--depth", "9"], "depth: expected 1 to 8 layers, got 9"),
        (["--lr", "1:2"], "lr: expected rates such as 0.01,0.1 or 1e-5:1e1:24, got '1:2'"),
        (["--lr", "0"], "lr: expected rates"),
        (["--lr", ""], "lr: expected rates"),
        (["--lr", "1e-3:1:1000000000"], "lr: expected rates"),
        (["--width", "0"], "width: expected a count, got 0"),
        (["--scaling", "none,big"], "scaling: expected one of none"),
        (["--init", "zero"], "init: expected one of glorot, torch, got 'zero'"),
        (["--preset", "answer"], "preset: expected one of question, got 'answer'"),
        (["--variant", "residual", "--width", "7"], "axes: expected cells that are networks, got none"),
        (
            ["--steps", "4000", "--depth", "1:8", "--lr", "1e-5:1e2:99999", "--batch", "1:128"],
            "--yes starts it all the same",
        ),
        (["--scheduler", "tcp://127.0.0.1:9"], "scheduler tcp://127.0.0.1:9: expected one that answers"),
    ],
)
def test_bad_input_is_one_line_and_nothing_starts(
    arguments, message, few_digits, tmp_path, capsys, monkeypatch
):
    from identity_props.stack import cluster

    monkeypatch.setattr(cluster, "WAIT", 0.2)
    assert main(["atlas", *SMALL, "--out", str(tmp_path / "map"), *arguments]) in (2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert not [*Path(tmp_path).rglob("*.parquet")]


def test_axes_that_are_none_leave_no_folder(few_digits, tmp_path):
    assert main(["atlas", *SMALL, "--init", "zero", "--out", str(tmp_path / "map")]) == 2
    assert not (tmp_path / "map").exists()


def test_versions_are_not_mixed_unless_that_is_told(few_digits, tmp_path, capsys):
    command = ["atlas", *SMALL, "--lr", "0.1", "--out", str(tmp_path)]
    assert main(command) == 0
    (row,) = Atlas(tmp_path).unique()
    Atlas(tmp_path).add([row | {"torch": "1.0", "lr": 0.5}])
    capsys.readouterr()
    assert main(command) == 2
    assert "made by torch 1.0" in capsys.readouterr().err
    assert main([*command, "--mix"]) == 0


@pytest.mark.processes
def test_a_run_that_is_killed_has_lost_only_what_was_in_training_and_the_next_goes_on(tmp_path):
    axes = [
        "--variant",
        "plain-relu,linear",
        "--depth",
        "1:4",
        "--lr",
        "0.001,0.01",
        "--optimizer",
        "SGD,Adam",
    ]
    settings = ["--replicas", "2", "--steps", "20", "--jobs", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "identity_props", "atlas", *axes, *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not [*tmp_path.glob("cells-*.parquet")] and running.poll() is None:
            time.sleep(0.05)
        running.kill()
    before = len(Atlas(tmp_path).keys())
    again = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert f"{before} of them finished" in again
    assert f"{32 - before} cells trained" in again
    assert len([*Atlas(tmp_path).rows()]) == 32  # none twice


def test_every_axis_is_a_field_of_a_cell():
    assert [*AXES] == [*NAMES]


# What it says ---------------------------------------------------------------------------------------


def cell(variant="plain-relu", depth=1, lr=0.1, schedule="constant", fvu=0.5, learned=None, of=16):
    """A cell of which ``learned`` networks are near-identity, all or none by default."""
    learned = (of if fvu <= 1e-3 else 0) if learned is None else learned
    ends = sorted([1e-4] * learned + [max(fvu, 2e-3)] * (of - learned))
    place = Cell(variant, depth, 49, "none", "RMSprop", 32, "glorot", schedule, lr)
    return Seen(place, 1250, tuple(ends), (9,) * of)


def test_a_turn_counts_failed_cells_that_have_such_a_neighbour_and_those_that_it_breaks():
    cells = [cell(depth=depth) for depth in (1, 2, 3)]
    cells += [cell("residual", depth, fvu=fvu) for depth, fvu in ((1, 1e-4), (2, 1e-4), (3, 0.5))]
    cells += [cell("linear", 1, fvu=1e-4)]
    first, *_ = turns(cells)
    assert (first.axis, first.value, first.moved, first.failed) == ("variant", "residual", 2, 3)
    to_relu = next(turn for turn in turns(cells) if turn.value == "plain-relu")
    assert (to_relu.moved, to_relu.failed, to_relu.broken, to_relu.learned) == (0, 1, 3, 3)
    assert "variant residual: 2 of the 3 failed cells" in decides(cells)
    assert "moves of 4 failed cells: variant 2" in decides(cells)


def test_where_no_turn_helps_none_is_claimed():
    assert "No knob that is turned alone makes a failed cell near-identity" in decides(
        [cell(), cell(depth=2)]
    )


@pytest.mark.parametrize(
    ("fvu", "state"),
    [
        (1e-3, "near-identity"),
        (1.1e-3, "between"),
        (1e-2, "failed"),
        (1.0, "failed"),
        (100.0, "diverged"),
        (float("inf"), "diverged"),
    ],
)
def test_a_state_is_that_of_the_median_network(fvu, state):
    assert Seen(cell().cell, 1, (0.0, fvu, float("inf")), (-1,)).state == state


def test_no_number_is_the_worst_of_ends():
    row = {
        **dict.fromkeys(store.SETTINGS, 0),
        **vars(cell().cell),
        "fvu": [float("nan"), 0.5, 1e-4],
        "reached": [1, -1, 4],
    }
    (one,) = seen([row])
    assert one.fvu == (1e-4, 0.5, float("inf"))
    assert one.learned == 1


def test_advice_turns_the_fewest_knobs_and_then_goes_by_how_sure():
    cells = [
        cell(depth=4),
        cell("linear", 4, 0.1, "linear-decay", fvu=1e-4),
        cell("linear", 4, fvu=1e-4, learned=9),
        cell("residual", 4, fvu=1e-4),
        cell("residual", 4, lr=0.01, fvu=1e-4),
        cell(depth=4, lr=0.01, schedule="linear-decay", fvu=1e-4),
        cell(depth=4, lr=0.001, schedule="linear-decay", fvu=1e-4, learned=15),
    ]
    asked = {"variant": "plain-relu", "depth": 4, "schedule": "constant", "lr": 0.11}
    assert nearest(cells, asked) is cells[0]
    assert [str(way) for way in ways(cells, asked)] == [
        "variant residual",
        "variant linear",
        "variant linear, schedule linear-decay",
        "schedule linear-decay, lr 0.01",
    ]
    assert [way.to.sure for way in ways(cells, asked)[:2]] == pytest.approx(
        [0.829, 0.333], abs=1e-3
    )  # .05^(1/16)


def test_a_cell_that_learns_needs_no_turn():
    assert ways([cell(fvu=1e-4)], {"lr": 0.12})[0].turned == {}


def test_a_way_with_more_turns_is_told_beside_one_with_fewer_where_it_is_surer():
    cells = [
        cell(fvu=1e-4, learned=9),
        cell("residual", fvu=1e-4),
        cell("linear", lr=0.01, fvu=1e-4, learned=9),
    ]
    asked = {"variant": "plain-relu", "lr": 0.1}
    assert [str(way) for way in ways(cells, asked)] == ["", "variant residual"]


def test_what_was_not_asked_is_told_as_it_is_in_the_cell_and_all_cells_that_agree_are_counted():
    cells = [cell(), cell(lr=0.01), cell(lr=0.01, schedule="linear-decay"), cell("residual", fvu=1e-4)]
    found = advised(cells, {"variant": "plain-relu"})
    assert found.ends == {"near-identity": 0, "between": 0, "failed": 3, "diverged": 0}
    assert [way.beside for way in found.ways] == [{"schedule": "constant", "lr": 0.1}]
    assert "plain" not in f"{found.ways[0]}"
    assert "3 cells are so, 3 failed" in report.told(found)
    only = report.told(advised(cells, {"variant": "plain-relu", "schedule": "linear-decay"}))
    assert "one cell is so, lr 0.01: failed, median FVU 5.0e-01, 0 of 16 learn" in only
    other = report.told(advised(cells, {"variant": "plain-relu", "depth": 6, "lr": 0.03}))
    assert "no cell is so; the nearest has depth 1, lr 0.01, schedule constant: failed" in other


def test_of_rates_that_agree_the_nearest_is_meant():
    cells = [cell(lr=0.1), cell(lr=0.12, fvu=1e-4)]
    assert (
        advised(cells, {"lr": 0.11}).ends["near-identity"] + advised(cells, {"lr": 0.1}).ends["failed"] == 2
    )


def test_data_sets_and_budgets_are_not_mixed():
    cells = [cell(), replace(cell(fvu=1e-4), side=14), replace(cell(fvu=1e-4), steps=4000)]
    assert of_one(cells, {"side": 7, "steps": 1250}) == cells[:1]
    with pytest.raises(InputError, match="side: expected one of the atlas, 7, 14, got none"):
        of_one(cells, {})
    with pytest.raises(InputError, match="steps: expected one of the atlas, 1250, 4000, got none"):
        of_one(cells, {"side": 7})


def test_what_no_atlas_has_is_named():
    with pytest.raises(InputError, match="optimizer: expected one of the atlas, RMSprop, got Lion"):
        advised([cell()], {"optimizer": "Lion"})


ASKED = [
    "--depth",
    "4",
    "--optimizer",
    "RMSprop",
    "--lr",
    "1e-3",
    "--scaling",
    "none",
    "--variant",
    "plain-relu",
]


def test_advice_comes_of_the_atlas_of_the_question_and_without_torch(capsys):
    code = f"import sys; from identity_props.cli import main; code = main({['advise', *ASKED]})\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}assert 'torch' not in sys.modules; sys.exit(code)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("digits, 7 x 7 pixels, 1,250 steps: ")
    assert QUESTION.stat().st_size <= 2e6
    assert main(["advise", *ASKED, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["nearest"]["state"] == "failed"
    assert all(way["fvu"] <= 1e-3 for way in document["ways"])
    assert [len(way["turn"]) for way in document["ways"]] == sorted(
        len(way["turn"]) for way in document["ways"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "advise: expected knobs such as --depth 4"),
        (
            ["--depth", "4", "--atlas", "nothing"],
            "nothing: expected an atlas, a folder of .parquet files or one, got nothing",
        ),
        (["--variant", "cubic"], "variant: expected one of the atlas"),
        (["--lr", "0"], "Invalid value for '--lr'"),
        (["--lr", "inf"], "lr: expected a finite rate above 0, got inf"),
        (["--lr", "nan"], "lr: expected a finite rate above 0, got nan"),
        (["--depth", "4", "--data", "mnist"], "data: expected one of the atlas, digits, got mnist"),
        (["--depth", "4", "--side", "28"], "side: expected one of the atlas, 7, got 28"),
    ],
)
def test_bad_questions_are_one_line(arguments, message, capsys):
    assert main(["advise", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_explain_is_given_a_hint_of_a_cell_that_fails_and_none_of_one_that_learns(monkeypatch):
    cells = [cell(depth=4), cell("residual", 4, fvu=1e-4)]
    monkeypatch.setattr(advising, "opened", lambda: cells)
    assert advising.hint({"variant": "plain-relu", "depth": 4, "lr": 0.1}).endswith(
        "which is variant residual"
    )
    assert advising.hint({"variant": "residual", "depth": 4, "lr": 0.1}) == ""
    assert advising.hint({"variant": "cubic"}) == ""


@pytest.mark.parametrize(
    ("tried", "says"), [(True, "atlas of 1,250 steps in batches of 32: 16 of 16"), (False, "")]
)
def test_explain_ends_with_the_hint_where_it_tries(tried, says, pixels, monkeypatch, capsys):
    monkeypatch.setattr(advising, "opened", lambda: [cell(depth=4), cell("residual", 4, fvu=1e-4)])
    asked = Asked("plain-relu", 4, "none", None, None, None, (), 0.1, "constant", 5, tried, 0)
    say_hint(asked, pixels)
    assert capsys.readouterr().err.startswith(says)
    say_hint(replace(asked, optimizer="torch.optim:RMSprop"), pixels)  # whose arguments are not Keras'
    assert capsys.readouterr().err == ""
    say_hint(replace(asked, model="own:net", optimizer="torch.optim:SGD"), pixels)
    assert capsys.readouterr().err == ""
