"""Training: an ensemble is its replicas trained alone, to the step, and a bad one harms nobody."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from identity_props.engine import probe
from identity_props.engine.probe import reason_to_train_alone
from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Recipe, Run, Trial, measured_steps
from identity_props.errors import InputError
from identity_props.laws.strategies import recipes, seeds, variants
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant
from tests.drawing import drawn

CENTRED, ADAPTIVE = ("standardise", "whiten"), ("torch.optim:RMSprop", "torch.optim:Adam")
DOUBLE = Stack(dtype=torch.float64)
SGD = Recipe("torch.optim:SGD", 0.01, batch_size=None)
LINEAR = Variant("linear", 2)


def alone(trial, pixels, seed):
    """The plain loop that anyone would write: one network, one optimizer, one seed."""
    torch.manual_seed(seed)
    x = pixels.scaled(trial.variant.scaling).train
    model = trial.variant.build(pixels.d, init=trial.recipe.init).double()
    recipe, order = trial.recipe, []
    optimizer = getattr(torch.optim, recipe.optimizer.split(":")[1])(
        model.parameters(), lr=recipe.lr, **dict(recipe.arguments)
    )
    for step in range(trial.steps):
        if recipe.batch_size and not order:
            order = list(torch.randperm(len(x)).split(recipe.batch_size))
        batch = x[order.pop(0)] if recipe.batch_size else x
        if recipe.schedule == "linear-decay":
            optimizer.param_groups[0]["lr"] = recipe.lr * (1 - step / trial.steps)
        optimizer.zero_grad()
        nn.MSELoss()(model(batch), batch).backward()
        optimizer.step()
    return model.state_dict()


# Rounding differs between a batched and a plain product, by 1e-16 relative a step. Where a gradient is nothing
# but rounding, as of biases on all of centred data, an adaptive optimizer multiplies it by lr / eps, 1e5 a step:
# no two orders of a sum agree on that, so it is left out. A wrong seed or step leaves 1e-2, the rate.
@pytest.mark.parametrize("recorded", [False, True])
@given(variant=variants(), recipe=recipes(), seeds=st.lists(seeds, min_size=1, max_size=4), data=seeds)
def test_each_replica_of_an_ensemble_equals_the_network_trained_alone(recorded, variant, recipe, seeds, data):
    pixels, trial = drawn(d=5, train=40, test=8, seed=data), Trial(variant, recipe, 8)
    every = recipe.batch_size is None or recipe.batch_size >= len(pixels.train)
    assume(not (every and variant.scaling in CENTRED and recipe.optimizer in ADAPTIVE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "RECORDED_FROM", 0 if recorded else math.inf)
        run = train(trial, pixels, seeds, DOUBLE)
    for k, seed in enumerate(seeds):
        for name, expected in alone(trial, pixels, seed).items():
            assert torch.allclose(run.state[name][k], expected, rtol=1e-6, atol=1e-6)


# Compiled RMSprop keeps its scalars in float64 here, so 1e-9 holds.
@pytest.mark.parametrize("where", [{"mode": "compiled"}, {"ranks": 2}], ids=str)
@pytest.mark.processes
def test_compiled_or_on_ranks_a_network_trains_as_in_one_plain_process(where, small):
    # 64 examples: the last batch has one, and a rank none
    recipe = Recipe("torch.optim:RMSprop", 0.01, schedule="linear-decay", batch_size=21)
    trial = Trial(Variant("plain-relu", 2), recipe, 5)
    plain, run = (train(trial, small, range(2), replace(DOUBLE, **there)) for there in ({}, where))
    assert all(
        torch.allclose(run.state[name], plain.state[name], rtol=1e-9, atol=1e-9) for name in plain.state
    )
    assert torch.allclose(run.fvu, plain.fvu, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
def test_training_leaves_the_callers_random_numbers_alone(seed):
    torch.manual_seed(seed)
    expected = torch.rand(3)
    torch.manual_seed(seed)
    train(Trial(LINEAR, SGD, 1), drawn(), [1])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["plain-relu", "linear", "residual"])
def test_a_replica_full_of_nan_leaves_its_neighbours_bit_for_bit_alone(name):
    def poisoned(fan_in, fan_out, bias):
        layer = nn.Linear(fan_in, fan_out, bias=bias)
        if torch.initial_seed() == 13:
            nn.init.constant_(layer.weight, torch.nan)
        return layer

    trial = Trial(Variant(name, 2), Recipe("torch.optim:Adam", 0.01, init="torch"), 20)
    run = train(trial, drawn(), [1, 13, 2], Stack(linear=poisoned))
    healthy = train(trial, drawn(), [1, 13, 2])
    assert run.diverged.tolist() == [False, True, False]
    assert torch.equal(run.fvu[[0, 2]], healthy.fvu[[0, 2]])


def test_a_diverging_replica_is_recorded_and_never_near_identity():
    run = train(Trial(LINEAR, Recipe("torch.optim:SGD", 1e6), 40), drawn(), [0, 1])
    assert run.diverged.all()
    assert run.steps_to_identity.tolist() == [math.inf, math.inf]


def test_flushing_denormals_changes_no_bit_and_ends_with_its_block(small):
    tiny = torch.tensor(1e-40)
    trial = Trial(Variant("plain-relu", 2), Recipe("torch.optim:RMSprop", 0.05, (("alpha", 0.5),)), 300)
    plain = train(trial, small, range(8))
    with flushed_denormals():
        assert tiny * 1 == 0
        flushed = train(trial, small, range(8))
    assert tiny * 1 > 0
    assert torch.equal(plain.fvu, flushed.fvu)


@pytest.mark.parametrize("budget", [0, 1, 2, 17])
def test_a_budget_is_spent_to_the_step(budget):
    counted = []

    class Counted(torch.optim.SGD):
        def step(self):
            counted.append(self.param_groups[0]["lr"])
            super().step()

    heard, stack = [], Stack(optimizer=Counted)
    trial = Trial(LINEAR, Recipe("torch.optim:SGD", 0.5, schedule="linear-decay"), budget)
    assert reason_to_train_alone(stack, trial) is None  # asked now, for it takes steps of its own
    counted.clear()
    run = train(trial, drawn(), [0], stack, heard.append)
    assert counted == pytest.approx([0.5 * (1 - step / budget) for step in range(budget)])
    assert heard == list(range(budget))
    assert run.steps[-1] == budget
    assert run.fvu.shape == (1, len(run.steps))


def test_a_budget_of_zero_leaves_the_initial_weights():
    run = train(Trial(LINEAR, SGD, 0), drawn(), [4], DOUBLE)
    expected = alone(Trial(LINEAR, SGD, 0), drawn(), 4)
    assert all(torch.equal(run.state[name][0], expected[name]) for name in expected)


def test_the_stack_s_own_optimizer_and_arguments_replace_the_recipe_s(small):
    frozen = Stack(optimizer=torch.optim.SGD, arguments={"weight_decay": 2.0}, dtype=torch.float64)
    run = train(Trial(LINEAR, Recipe("torch.optim:Adam", 0.25, (("eps", 1.0),)), 3), small, [0], frozen)
    recipe = Recipe("torch.optim:SGD", 0.25, (("weight_decay", 2.0),))
    expected = alone(Trial(LINEAR, recipe, 3), small, 0)
    assert torch.allclose(run.state["layers.0.weight"][0], expected["layers.0.weight"])


def test_fvu_is_reported_in_the_space_trained_in_and_in_pixels(small):
    run = train(Trial(Variant("scaled-input", 1, "standardise"), SGD, 5), small, [0], DOUBLE)
    scaled = small.scaled("standardise")
    w, b = run.state["layers.0.weight"][0], run.state["layers.0.bias"][0]
    error = scaled.test @ w.T + b - scaled.test
    in_pixels = scaled.scaling.backward(scaled.test @ w.T + b) - small.test
    fvu = error.square().mean() / scaled.test.var(0, correction=0).mean()
    assert run.fvu[0, -1].item() == pytest.approx(fvu.item(), rel=1e-12)
    expected = in_pixels.square().mean() / small.test.var(0, correction=0).mean()
    assert run.fvu_pixels.item() == pytest.approx(expected.item(), rel=1e-9)


# One by one ---------------------------------------------------------------------------------------


class GlobalClip(torch.optim.SGD):
    """Clips by the norm over all it was given: stacked replicas would share one norm."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1e-3)
        return super().step(closure)


class MatricesOnly(torch.optim.SGD):
    """Refuses anything but matrices, as Muon does."""

    def __init__(self, params, lr):
        params = list(params)
        if any(p.ndim != 2 for p in params):
            raise ValueError("only 2-D parameters")
        super().__init__(params, lr)


class Branching(nn.Linear):
    """Looks at its data, which vmap refuses."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


UNBIASED = Variant("linear", 2, bias=False)
REASONS = {
    "a global norm": (Stack(optimizer=GlobalClip), "train differently together than alone"),
    "matrices": (Stack(optimizer=MatricesOnly), "ValueError: only 2-D parameters"),
    "a closure": (Stack(optimizer=torch.optim.LBFGS), "train differently together than alone"),
    "control flow": (Stack(linear=Branching), "RuntimeError: vmap"),
}


@pytest.mark.parametrize(("stack", "reason"), REASONS.values(), ids=REASONS)
def test_replicas_that_cannot_be_stacked_are_trained_one_by_one(stack, reason, small):
    trial, heard = Trial(UNBIASED, Recipe("torch.optim:SGD", 0.05, batch_size=None), 6), []
    assert reason in reason_to_train_alone(stack, trial)
    run = train(trial, small, [3, 5, 8], stack, heard.append)
    each = [train(trial, small, [seed], stack) for seed in (3, 5, 8)]
    assert torch.equal(run.fvu, torch.cat([one.fvu for one in each]))
    assert run.state["layers.0.weight"].shape == (3, 4, 4)
    assert heard == list(range(6))
    assert not run.diverged.any()


class TwoFaced(torch.optim.SGD):
    """Steps in train mode only, and shows other weights in eval mode, as schedule-free optimizers do."""

    mode = None

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"

    def step(self, closure=None):
        assert self.mode == "train"
        return super().step(closure)


def test_an_optimizer_with_two_modes_trains_in_one_and_is_measured_in_the_other(small):
    modes = []

    class Watched(nn.Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    run = train(Trial(LINEAR, SGD, 5), small, [0], Stack(optimizer=TwoFaced, linear=Watched))
    assert not run.diverged.any()
    assert set(modes) == {(True, True), (False, False)}


def test_an_optimizer_that_returns_nan_does_so_in_one_pass():
    class Nan(torch.optim.SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.data.fill_(torch.nan)

    assert reason_to_train_alone(Stack(optimizer=Nan), Trial(LINEAR, SGD, 3)) is None


def test_a_part_that_works_nowhere_raises_its_own_error(small):
    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise ArithmeticError("broken at step 1")

    with pytest.raises(ArithmeticError, match="broken at step 1"):
        train(Trial(LINEAR, SGD, 3), small, [0], Stack(optimizer=Broken))


@pytest.mark.parametrize(
    "optimizer", [torch.optim.NAdam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.Rprop]
)
def test_elementwise_optimizers_are_found_to_be_stackable(optimizer):
    assert reason_to_train_alone(Stack(optimizer=optimizer), Trial(LINEAR, SGD, 3)) is None


@settings(max_examples=200)
@given(budget=st.integers(0, 10**6))
def test_steps_are_measured_at_both_ends_at_a_quarter_and_three_to_an_octave(budget):
    steps = measured_steps(budget)
    assert list(steps) == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, budget)
    assert budget % 4 or budget // 4 in steps
    assert all(after <= 1.27 * before + 1 for before, after in pairwise(steps[1:]))


def finished(curve, steps):
    fvu = torch.tensor(curve, dtype=torch.float64)
    return Run(tuple(range(len(fvu))), steps, fvu, fvu[:, -1], {}, 0.0)


def test_steps_to_identity_is_the_first_measured_step_at_the_threshold_and_nan_never_is():
    run = finished([[1, 1e-3, 1], [1, 2e-3, 1.1e-3], [1, math.nan, math.nan], [0, 1, 1]], (0, 5, 10))
    assert run.steps_to_identity.tolist() == [5, math.inf, math.inf, 0]
    assert run.diverged.tolist() == [False, False, True, False]
    assert run.at(5)[0] == 1e-3
    with pytest.raises(InputError, match="expected one of the measured"):
        run.at(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train(Trial(LINEAR, SGD, 1), drawn(), []), "replicas: expected at least 1, got 0"),
        (lambda: Trial(LINEAR, SGD, -1), "budget: expected 0 or more steps, got -1"),
        (lambda: Recipe("torch.optim:SGD", 0), "lr: expected a finite rate above 0, got 0"),
        (lambda: Recipe("torch.optim:SGD", math.nan), "got nan"),
        (lambda: Recipe("torch.optim:SGD", 1, schedule="cosine"), "expected one of constant, linear-decay"),
        (lambda: Recipe("torch.optim:SGD", 1, batch_size=0), "batch size: expected at least 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
