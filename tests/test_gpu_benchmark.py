"""The benchmark of a GPU: what is measured is kept, what does not fit is said, and all of it runs, on a CPU too."""

import json
import time
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield import_module("gpu")


@pytest.fixture
def followed(gpu, tmp_path):
    """Lines that are kept of items, each with its seconds, what it does, and the seconds that are left."""
    kept = gpu.Kept(tmp_path / "gpu.jsonl")

    def of(*items, left=60.0):
        now = time.monotonic()
        setting = gpu.Setting("cpu", True, None, now + left)
        before = len(kept.lines())
        well = gpu.follow("stage", (gpu.Item(*item) for item in items), setting, now + left, kept)
        return well, kept.lines()[before:]

    return of


def test_a_measurement_that_raises_is_a_line_and_the_next_is_taken(followed):
    well, (first, second) = followed(("bad", lambda: 1 / 0), ("good", lambda: {"x": 1}))
    assert not well
    assert first["error"] == "ZeroDivisionError: division by zero"
    assert second["result"] == {"x": 1}


def test_what_no_longer_fits_is_left_out_and_said_and_what_fits_is_still_taken(followed):
    well, (long, short) = followed(("long", dict, 100.0), ("short", dict))
    assert well
    assert long["left_out"] == "100 s foreseen, 60 s left"
    assert short["result"] == {}


def test_nothing_is_begun_once_the_time_is_up(followed):
    _, (line,) = followed(("late", dict), left=0.0)
    assert "left_out" in line


def test_what_is_done_is_not_done_again_and_what_was_left_out_is(followed):
    followed(("one", lambda: {"x": 1}), ("two", dict, 100.0))
    _, lines = followed(("one", lambda: {"x": 2}), ("two", lambda: {"x": 3}))
    assert [(line["name"], line["result"]) for line in lines] == [("two", {"x": 3})]


def test_a_line_that_was_cut_short_is_measured_again(gpu, followed, tmp_path):
    (tmp_path / "gpu.jsonl").write_text('{"stage": "stage", "name": "one", "result": {"x"')
    _, lines = followed(("one", lambda: {"x": 2}))
    assert lines[-1]["result"] == {"x": 2}


def test_the_summary_says_where_the_published_figure_lies_and_counts_what_diverged(gpu):
    ends = [400.0, 500.0, 600.0, float("nan")]
    lines = [{"stage": "replicas, depth 4", "name": "seeds", "result": {"mse": ends}}]
    found = gpu.summary(lines)["depth 4"]
    assert (found["networks"], found["diverged"], found["median"]) == (4, 1, 500.0)
    assert found["share_below_published"] == 2 / 3


def test_layers_in_channels_last_are_linear_layers(gpu):
    import torch

    layer, x = import_module("gpu_stages").ChannelsLast(5, 7), torch.randn(6, 5)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)


@pytest.mark.processes
def test_every_stage_runs_on_a_cpu_with_the_smallest_numbers(gpu, tmp_path):
    assert gpu.main(["--tiny", "--device", "cpu", "--minutes", "30", "--out", str(tmp_path)]) == 0
    lines = gpu.Kept(tmp_path / "gpu.jsonl").lines()
    assert {line["stage"] for line in lines} == {"environment", *gpu.STAGES}
    assert all("result" in line for line in lines), [line for line in lines if "result" not in line]
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["depth 4"]["networks"] == found["depth 1"]["networks"] == 4
    assert not found["error"]
