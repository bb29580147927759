"""The process of the caller: whatever is checked or trained in it, it is afterwards as it was."""

import logging
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from identity_props.claims.registry import CLAIMS
from identity_props.claims.running import judge_all
from identity_props.cli import main
from identity_props.conformance import checking, learning
from identity_props.conformance.assertions import assert_conforms, assert_learns_identity, assert_like
from identity_props.conformance.checking import check
from identity_props.conformance.rows import Reference
from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Recipe, Trial
from identity_props.laws import LAWS
from identity_props.stack.guard import time_limit
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant

SEEN = []  # threads during a step


class Meddles(torch.optim.SGD):
    """Draws from every global generator, and takes other threads for itself."""

    def step(self, closure=None):
        SEEN.append(torch.get_num_threads())
        torch.rand(3), random.random(), np.random.rand()
        torch.set_num_threads(3)
        return super().step(closure)


def flushing():
    """Whether a thread of any kind counts denormals as 0."""
    return bool((torch.full((2**20,), 1e-40) * 1 == 0).any())


def state():
    dynamo = sys.modules.get("torch._dynamo.config")
    trace, root = logging.getLogger("torch.__trace"), logging.getLogger()
    return {
        "threads": torch.get_num_threads(),
        "flushing": flushing(),
        "dynamo": dynamo and dynamo.fail_on_recompile_limit_hit,
        "torch's generator": torch.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "numpy's generator": np.random.get_state()[1].tolist(),
        "signals": {name: signal.getsignal(name) for name in signal.valid_signals()},
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "path": [*sys.path],
        "logging": (trace.level, trace.propagate, [*trace.handlers], root.level, [*root.handlers]),
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    torch.optim.SGD([torch.zeros(1)], lr=1)  # which imports much of torch, and that sets variables
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.zeros(2**20).add_(1)
    monkeypatch.setattr(checking, "LAWS", {"resume": LAWS["resume"]})
    monkeypatch.setattr(learning, "budget", lambda d: 100)
    yield
    torch.set_num_threads(before)


TRIAL = Trial(Variant("linear", 1, "unit"), Recipe("torch.optim:SGD", 0.1, batch_size=16), 3)
LONG = Trial(Variant("linear", 1, "unit"), Recipe("torch.optim:SGD", 0.1, batch_size=16), 300)


@pytest.mark.parametrize(
    "call",
    [
        lambda stack, pixels: train(TRIAL, pixels, range(2), stack),
        lambda stack, pixels: train(LONG, pixels, range(2), stack),
        lambda stack, pixels: next(check(stack)),
        lambda stack, pixels: list(judge_all([CLAIMS["scaled-whiten"]], pixels, stack, 2, jobs=1)),
        lambda stack, pixels: next(judge_all([CLAIMS["scaled-whiten"]], pixels, stack, 2, jobs=1)),
        lambda stack, pixels: assert_conforms(stack),
        lambda stack, pixels: assert_learns_identity(stack),
        lambda stack, pixels: assert_like(stack, Reference(optimizer=torch.optim.SGD)),
    ],
    ids=["train", "recorded", "first-row", "judge_all", "first-outcome", "conforms", "learns", "like"],
)
def test_nothing_of_the_process_is_left_changed(call, small):
    before = state()
    call(Stack(optimizer=Meddles, lr=10.0), small)
    assert state() == before


def test_a_check_takes_one_thread_while_it_runs():
    SEEN.clear()
    assert_learns_identity(Stack(optimizer=Meddles, lr=8.0))
    assert SEEN[0] == 1


@pytest.mark.processes
def test_helper_threads_that_start_while_denormals_are_flushed_do_not_flush_for_good():
    code = (
        "import torch\nfrom tests.test_unchanged import flushing\n"
        "from identity_props.engine.training import flushed_denormals\ntorch.set_num_threads(2)\n"
        "with flushed_denormals(): torch.zeros(2**20).add_(1)\nassert not flushing()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_denormals_are_flushed_within_their_block():
    with flushed_denormals():
        assert flushing()
    assert not flushing()


def test_a_timer_of_the_caller_goes_on():
    rang, before = [], signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60, 7)
        with time_limit(30):
            pass
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 50 < left < 60
        assert interval == 7
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "command",
    [
        ["check", "--optimizer", "no.such:thing"],
        ["explain", "--model", "torch.nn:Identity"],
        ["explain", "--model", "no.such:thing"],
    ],
    ids=" ".join,
)
def test_a_command_leaves_the_process_as_it_was_too(command, few_digits, capsys):
    main(command)  # imports, some of which draw as they are made
    before = state()
    main(command)
    assert state() == before


@pytest.mark.processes
def test_compiled_training_leaves_dynamo_s_configuration(small):
    import torch._dynamo.config

    before = torch._dynamo.config.get_config_copy()
    train(TRIAL, small, range(2), Stack(mode="compiled"))
    assert torch._dynamo.config.get_config_copy() == before


@pytest.fixture
def failing(tmp_path):
    """A test of a user's own that fails; what pytest prints of it, in a process of its own."""

    def run(body):
        file = tmp_path / "test_own.py"
        file.write_text(body)
        alone = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
        return subprocess.run([*alone, file.name], cwd=tmp_path, capture_output=True, text=True).stdout

    return run


@pytest.mark.processes
def test_a_failing_test_prints_no_trace_of_torch_s(failing):
    out = failing(
        "import torch\nfrom identity_props import Recipe, Trial, Variant, digits, train\n"
        "def test_own():\n    recipe = Recipe('torch.optim:SGD', 0.1)\n"
        "    train(Trial(Variant('linear', 1, 'unit'), recipe, 300), digits(7, 64, 64), range(2))\n"
        "    assert False\n"
    )
    assert "1 failed" in out
    assert "torch.__trace" not in out
