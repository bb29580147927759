"""Memory: replicas train in as many passes as fit, which changes nothing, and a process does not grow."""

import gc
import math

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.engine import memory, probe, training
from identity_props.engine.memory import bytes_each, cached, free_bytes, passes
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Trial
from identity_props.task.models import Variant
from tests.drawing import drawn

TRIAL = Trial(Variant("plain-relu", 2), Recipe("torch.optim:RMSprop", 1e-3, batch_size=16), 5)


@given(
    count=st.integers(1, 300),
    each=st.integers(1, 10**6),
    free=st.integers(0, 10**9),
    most=st.integers(1, 400) | st.just(math.inf),
)
def test_passes_hold_every_seed_once_in_order_and_no_more_than_fit(count, each, free, most):
    groups = passes(range(count), each, free, most)
    assert [seed for group in groups for seed in group] == list(range(count))
    fitting = min(max(1, int(memory.SHARE * free / each)), most)
    assert max(map(len, groups)) <= fitting
    assert len(groups) == -(-count // min(fitting, -(-count // len(groups))))


def test_a_replica_needs_more_with_depth_width_and_examples():
    small = bytes_each(TRIAL, 49, 100, torch.float32)
    assert bytes_each(TRIAL, 196, 100, torch.float32) > small
    assert bytes_each(Trial(Variant("plain-relu", 4), TRIAL.recipe, 5), 49, 100, torch.float32) > small
    full = Trial(TRIAL.variant, Recipe("torch.optim:SGD", 1e-3, batch_size=None), 5)
    assert bytes_each(full, 49, 60_000, torch.float32) > bytes_each(full, 49, 10_000, torch.float32)
    assert bytes_each(TRIAL, 49, 100, torch.float64) == 2 * small


def test_a_pass_holds_what_the_cache_does_on_a_cpu_and_never_fewer_than_eight():
    assert cached(TRIAL, 49, "cpu") * TRIAL.variant.numbers(49) <= memory.CACHED
    assert cached(TRIAL, 784, "cpu") == 8
    assert cached(TRIAL, 784, "cuda") == math.inf


def test_free_memory_is_that_of_the_machine():
    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total


def test_passes_train_as_one_does_and_say_how_many_they_were(small, monkeypatch):
    one = train(TRIAL, small, range(5), on_step=(first := []).append)
    monkeypatch.setattr(training, "free_bytes", lambda device: 8.5 * bytes_each(TRIAL, 4, 64, torch.float32))
    several = train(TRIAL, small, range(5), on_step=(heard := []).append)
    assert (one.passes, several.passes) == (1, 3)
    assert several.seeds == one.seeds
    assert torch.allclose(several.fvu, one.fvu, rtol=1e-4)  # in other sizes sums round otherwise
    assert heard == first


def test_a_replica_s_need_is_an_upper_bound_on_what_it_takes():
    seeds, d = range(64), 49
    pixels_bytes = 64 * bytes_each(TRIAL, d, 512, torch.float32)
    process = psutil.Process()
    data = drawn(d, 512, 64)
    train(TRIAL, data, range(2))
    gc.collect()
    before = process.memory_info().rss
    run = train(TRIAL, data, seeds)
    assert process.memory_info().rss - before <= pixels_bytes
    assert len(run.seeds) == 64


@pytest.mark.thorough
@pytest.mark.parametrize("recorded", [False, True])
def test_a_process_does_not_grow_over_a_hundred_runs(recorded, small, monkeypatch):
    monkeypatch.setattr(probe, "RECORDED_FROM", 0 if recorded else math.inf)
    process = psutil.Process()
    for _ in range(20):
        train(TRIAL, small, range(8))
    gc.collect()
    before = process.memory_info().rss
    for _ in range(100):
        train(TRIAL, small, range(8))
    gc.collect()
    # a run holds 8 x 2 x 20 parameters and its curve, some 10 kB: keeping them all would take 1 MB,
    # keeping their graphs 20 MB
    assert process.memory_info().rss - before < 4 * 2**20
