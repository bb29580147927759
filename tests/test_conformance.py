"""Conformance: real parts pass, broken ones fail by the right row, and nothing stops the other rows."""

import math
import time

import pytest
import torch
from torch import nn

from identity_props.claims.registry import budget
from identity_props.conformance import checking, following, learning
from identity_props.conformance.assertions import assert_conforms, assert_learns_identity, assert_like
from identity_props.conformance.checking import MOVES, check
from identity_props.conformance.learning import LEARNS, find_rate
from identity_props.conformance.likeness import same_layer, same_steps
from identity_props.conformance.rows import FAIL, HANGS, NOT_APPLICABLE, PASS, Reference
from identity_props.conformance.traits import traits
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.laws import LAWS
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant

SGD, Adam = torch.optim.SGD, torch.optim.Adam


@pytest.fixture(autouse=True)
def _one_family(request):
    if "every family" not in request.node.name:
        request.getfixturevalue("one_family")


@pytest.fixture
def short(monkeypatch):
    """Learning for as few steps as show where it goes, at rates of 10."""
    monkeypatch.setattr(learning, "budget", lambda d: 100)


def rows(stack, like=None, seed=0, guard=60):
    return {row.name: row for row in check(stack, like, seed, guard)}


def failed(found):
    return {name for name, row in found.items() if row.verdict == FAIL}


@pytest.mark.thorough
@pytest.mark.parametrize("families", ["one family", pytest.param("every family", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("optimizer", "lr"), [(SGD, 1.0), (Adam, 1 / 32), (torch.optim.RMSprop, 1 / 32)])
def test_torch_s_own_optimizers_conform_and_are_like_themselves(optimizer, lr, families):
    found = rows(Stack(optimizer=optimizer, lr=lr), Reference(optimizer=optimizer))
    assert failed(found) == set()
    assert set(found) == {MOVES, "like-optimizer", *LAWS, LEARNS}
    assert found["gd-trajectory"].verdict == (PASS if optimizer is SGD else NOT_APPLICABLE)


RATES = {name: LAWS[name] for name in ("gd-trajectory", "fvu-prediction")}  # what sees a rate


class Scaled(SGD):
    factor = 0.9

    def step(self, closure=None):
        loss = closure() if closure else None
        for p in self.param_groups[0]["params"]:
            p.grad = None if p.grad is None else p.grad * self.factor
        super().step()
        return loss


@pytest.mark.thorough
@pytest.mark.parametrize(("factor", "kind"), [(0.9, "too slow"), (1.1, "too fast"), (0.0, "flat")])
def test_a_wrong_rate_is_named_slow_fast_or_flat(factor, kind, short, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", RATES)

    class Wrong(Scaled):
        pass

    Wrong.factor = factor
    found = rows(Stack(optimizer=Wrong, lr=10.0), Reference(optimizer=SGD))
    assert {"like-optimizer", "gd-trajectory", "fvu-prediction"} <= failed(found)
    assert found["gd-trajectory"].kind == kind
    assert found[LEARNS].verdict == (FAIL if kind == "flat" else PASS)


def test_what_an_optimizer_is_not_does_not_count_against_it(short):
    found = rows(Stack(optimizer=Scaled, lr=10.0), Reference(novel=True))
    assert failed(found) == set()
    assert found["gd-trajectory"].note == "not gradient-descent"


class Breaks(SGD):
    """Raises at its third step."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps == 3:
            raise ArithmeticError("out of\npatience")
        return super().step(closure)


class ReturnsNan(SGD):
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.data.fill_(math.nan)


class WrongShape(nn.Linear):
    def forward(self, x):
        return super().forward(x)[..., :-1]


class Langevin(SGD):
    """Descent with noise, as stochastic gradient Langevin dynamics."""

    def __init__(self, params, lr, noise=0.1):
        super().__init__(params, lr)
        self.noise = noise

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(torch.randn_like(p), alpha=self.noise)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("noise", "verdict"), [(0.0, PASS), (0.01, NOT_APPLICABLE), (10.0, FAIL), (math.nan, FAIL)]
)
def test_a_floor_of_noise_in_steps_is_no_failure_to_learn_and_all_else_is(noise, verdict, short):
    stack = Stack(optimizer=Langevin, arguments={"noise": noise}, lr=10.0)
    assert learning.learns_row(stack, 0).verdict == verdict


def test_a_part_that_raises_fails_one_row_by_name_and_the_others_still_run(short):
    found = rows(Stack(optimizer=Breaks, lr=1.0), Reference(optimizer=SGD))
    assert found[MOVES].kind == "error"
    assert found[MOVES].note.endswith("ArithmeticError: out of patience")
    assert (found["gd-trajectory"].verdict, found["gd-trajectory"].note) == (
        NOT_APPLICABLE,
        "raises as moves",
    )
    assert found["representable"].verdict == PASS


class Hangs(SGD):
    def step(self, closure=None):
        while True:
            time.sleep(0.01)


def test_a_part_that_hangs_is_a_failure_that_says_so_and_the_others_still_run(monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {name: LAWS[name] for name in ("evaluate", "representable")})
    monkeypatch.setattr(following, "LEAST_GUARD", 0.1)
    stack = Stack(optimizer=Hangs, lr=1.0)
    found = rows(stack, guard=0.5)
    assert (found[MOVES].kind, found[MOVES].note) == (HANGS, f"{stack}: no step ended within 0.5 s")
    assert found["evaluate"].note == "no step ended within 0.1 s"
    assert found["representable"].verdict == PASS


class Halves(SGD):
    """Leaves its parameters in another dtype."""

    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.data = p.data.half()


class Shrinks(SGD):
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data = p.data[:1]


class Still(SGD):
    def step(self, closure=None):
        return None


@pytest.mark.parametrize(
    ("optimizer", "kind", "note"),
    [
        (Halves, "other dtype or shape", "layers.0.weight is torch.float16 [1, 9, 9] after step 1"),
        (Shrinks, "other dtype or shape", "layers.0.weight is torch.float32 [1, 1, 9] after step 1"),
        (Still, "flat", "0 of 81 weights changed in 16 steps"),
        (Breaks, "error", "ArithmeticError: out of patience"),
    ],
)
def test_an_optimizer_that_does_not_take_steps_is_named_for_it_first(optimizer, kind, note):
    row = next(check(Stack(optimizer=optimizer, lr=1.0)))
    named = f"optimizer {__name__}:{optimizer.__name__}"
    assert (row.name, row.verdict, row.kind, row.note) == (MOVES, FAIL, kind, f"{named}: {note}")


class AllFrozen(nn.Linear):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__(fan_in, fan_out, bias=bias)
        self.requires_grad_(False)


def test_a_layer_that_is_all_frozen_is_flat_and_nothing_more_is_said_of_it():
    (row,) = check(Stack(linear=AllFrozen))
    assert (row.verdict, row.kind) == (FAIL, "flat")
    assert row.note.endswith("no parameter of the layer requires a gradient")


def test_an_init_at_the_answer_moves_as_any_other():
    row = next(check(Stack(init=lambda layer: nn.init.eye_(layer.weight))))
    assert (row.name, row.verdict) == (MOVES, PASS)


def of_laws(stack, *names):
    """Rows of these laws alone."""
    chosen = [LAWS[name] for name in names]
    plan = following.followed(checking._plan(stack, Reference(), stack, 0, chosen), 60)
    return {row.name: row for row in plan if row.name != MOVES}


class Float32Alone(nn.Linear):
    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x)


def test_a_layer_of_one_dtype_is_judged_in_that_where_laws_speak_of_it():
    found = of_laws(Stack(linear=Float32Alone), "gd-trajectory", "critical-step")
    assert found["gd-trajectory"].verdict == PASS
    assert found["critical-step"].verdict == NOT_APPLICABLE
    assert found["critical-step"].note == "its parts take float32 alone"


class Classic(torch.autograd.Function):
    """Written before torch.func, which refuses it."""

    @staticmethod
    def forward(context, x, weight, bias):
        context.save_for_backward(x, weight)
        context.bias = bias is not None
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(context, gradient):
        x, weight = context.saved_tensors
        return gradient @ weight, gradient.mT @ x, gradient.sum(0) if context.bias else None


class ClassicLayer(nn.Linear):
    def forward(self, x):
        return Classic.apply(x, self.weight, self.bias)


def test_a_layer_that_cannot_be_stacked_is_judged_one_by_one():
    found = of_laws(Stack(linear=ClassicLayer), "born-dead", "distinct", "gd-trajectory", "gradients")
    assert {row.verdict for row in found.values()} == {PASS}


class Hooked(nn.Linear):
    """Doubles the gradient of its bias, by a hook."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__(fan_in, fan_out, bias=bias)
        if bias:
            self.bias.register_hook(lambda gradient: 2 * gradient)


def test_a_hook_of_a_parameter_counts():
    stack = Stack(linear=Hooked)
    assert checking.trains_alone(stack)
    assert set(failed(of_laws(stack, "gradients", "bias-trajectory", "gd-trajectory"))) == {
        "gradients",
        "bias-trajectory",
    }


class Dropping(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


class DroppingAlways(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2))


@pytest.mark.parametrize(("layer", "wrong"), [(Dropping, set()), (DroppingAlways, {"evaluate"})])
def test_a_layer_that_draws_is_judged_in_what_it_promises(layer, wrong):
    found = of_laws(Stack(linear=layer), "resume", "evaluate", "accumulate", "mean-in-training", "gradients")
    assert failed(found) == wrong
    assert found["accumulate"].note == "not repeatable in training"
    assert not wrong or found["evaluate"].kind == "not repeatable"


def test_noise_that_a_layer_draws_in_training_is_not_held_against_its_learning():
    assert learning.learns_row(Stack(linear=Dropping), 0).verdict == NOT_APPLICABLE


class PerRank(SGD):
    def step(self, closure=None):
        if torch.distributed.is_initialized():
            self.param_groups[0]["lr"] *= 1 + torch.distributed.get_rank() * 1e-3
        return super().step(closure)


@pytest.mark.processes
def test_ranks_that_drift_apart_are_named(short, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {"ranks-equal": LAWS["ranks-equal"]})
    found = rows(Stack(optimizer=PerRank, lr=1.0, ranks=2))
    assert {found[name].kind for name in ("ranks-equal", LEARNS)} == {"ranks differ"}
    assert found[LEARNS].note == "rank 1 ended with other layers.0.weight than rank 0"


def test_parts_that_another_process_cannot_import_are_refused_for_ranks(monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {"ranks-equal": LAWS["ranks-equal"]})

    class Local(SGD):
        pass

    found = rows(Stack(optimizer=Local, lr=1.0, ranks=2))
    assert found["ranks-equal"].note.startswith("InputError: ranks: expected parts that another process can")


def test_nan_passes_no_row_that_trains(short):
    found = rows(Stack(optimizer=ReturnsNan, lr=1.0), Reference(optimizer=SGD))
    assert {"like-optimizer", "gd-trajectory", "resume", "evaluate", LEARNS} <= failed(found)
    assert found[LEARNS].kind == "diverges"


def test_a_layer_of_the_wrong_shape_fails_and_says_so(short):
    found = rows(Stack(linear=WrongShape, lr=1.0), Reference(linear=nn.Linear))
    assert {"like-linear", "representable", LEARNS} <= failed(found)


# Likeness -------------------------------------------------------------------------------------------


class Rewritten(torch.optim.Optimizer):
    """Adam from its formula; ``fault`` breaks one line of it."""

    fault = None

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                self.move(p, group["lr"] if self.fault != "groups" else self.param_groups[0]["lr"], group)

    def move(self, p, lr, group):
        state = self.state[p]
        if not state:
            state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        g = p.grad if self.fault == "decay" else p.grad + group["weight_decay"] * p
        state["step"] += 1
        state["m"].lerp_(g, 0.1)
        if self.fault != "layout" or p.is_contiguous():
            state["v"].mul_(0.999).addcmul_(g, g, value=0.001)
        k = 1 if self.fault == "bias" else state["step"]
        root = (state["v"] / (1 - 0.999**k)).sqrt()
        p.sub_(lr * state["m"] / (1 - 0.9**k) / (root + 1e-8))

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}} if self.fault == "resume" else state_dict)


def test_a_rewrite_that_is_right_is_like_its_original():
    assert same_steps(Rewritten, Adam).holds


@pytest.mark.parametrize("fault", ["groups", "decay", "layout", "bias", "resume"])
def test_a_rewrite_that_is_wrong_in_one_line_is_not(fault):
    broken = type("Broken", (Rewritten,), {"fault": fault})
    assert not same_steps(broken, Adam).holds


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


class WrongBackward(nn.Linear):
    def forward(self, x):
        return Doubled.apply(super().forward(x))


class Transposed(nn.Linear):
    def forward(self, x):
        out = x @ self.weight.T
        return out if self.bias is None else out + self.bias


def test_a_layer_is_compared_forward_and_backward():
    assert same_layer(Transposed, nn.Linear).holds
    assert not same_layer(WrongBackward, nn.Linear).holds


# A user's own tests -----------------------------------------------------------------------------------


def test_the_assertions_pass_what_is_right_and_name_what_is_not(short, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", RATES)
    assert_learns_identity(Stack(optimizer=SGD, lr=10.0))
    half, flat = (type("Wrong", (Scaled,), {"factor": factor}) for factor in (0.5, 0.0))
    with pytest.raises(AssertionError, match=r"gd-trajectory fail: too slow: measured .*, allowed"):
        assert_conforms(Stack(optimizer=half, lr=10.0), Reference(optimizer=SGD))
    with pytest.raises(AssertionError, match=r"learns-identity fails: 0 of 8 .*at lr 10"):
        assert_learns_identity(Stack(optimizer=flat, lr=10.0))


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_a_rate_is_found_at_which_an_optimizer_learns(optimizer, small):
    stack = Stack(optimizer=optimizer)
    recipe = Recipe("torch.optim:SGD", find_rate(stack, small), schedule="linear-decay")
    run = train(Trial(Variant("scaled-input", 1, "whiten"), recipe, budget(small.d)), small, range(4), stack)
    assert (run.steps_to_identity <= budget(small.d)).all()


def test_replicas_that_train_one_by_one_are_said_to(short, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {})
    stack = Stack(optimizer=torch.optim.LBFGS, lr=1.0)
    assert "; one by one, which is slower: two replicas train differently" in rows(stack)[LEARNS].note


def test_nothing_to_compare_is_no_likeness():
    with pytest.raises(InputError, match="like: expected a part to compare with"):
        assert_like(Stack(), Reference())


def test_a_check_leaves_the_caller_s_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    traits(Stack(init=nn.Linear.reset_parameters))
    same_layer(Transposed, nn.Linear)
    assert torch.equal(torch.rand(3), expected)


def test_no_rate_and_no_seed_are_refused(small):
    with pytest.raises(InputError, match=r"lr: expected a finite FVU at one of 0.0001 to 100, got none"):
        find_rate(Stack(optimizer=ReturnsNan), small)
    with pytest.raises(InputError, match="seed: expected 0 or more"):
        list(check(Stack(), seed=-1))
    for guard in (math.nan, math.inf, -1.0):
        with pytest.raises(InputError, match=f"guard: expected seconds, or 0 for none, got {guard}"):
            list(check(Stack(), guard=guard))


def test_a_step_that_compiles_has_ten_minutes_unless_a_guard_is_given(monkeypatch):
    guards = []
    monkeypatch.setattr(checking, "followed", lambda plan, guard, done: guards.append(guard) or [])
    for mode, guard in (("eager", None), ("compiled", None), ("compiled", 5.0)):
        list(check(Stack(mode=mode), guard=guard))
    assert guards == [60.0, 600.0, 5.0]


class Averaged(SGD):
    """Evaluates an average of its weights, which it saves with its state, or not."""

    saved, training = True, True

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            kept = self.state[p] if self.saved else self.__dict__.setdefault("kept", {}).setdefault(p, {})
            kept.setdefault("mean", p.clone()).lerp_(p, 0.1)

    def eval(self):
        self._swap(False)

    def train(self):
        self._swap(True)

    @torch.no_grad()
    def _swap(self, training):
        before, self.training = self.training, training
        for p in [] if before == training else self.param_groups[0]["params"]:
            mean = (self.state[p] if self.saved else self.kept[p])["mean"]
            was = p.clone()
            p.copy_(mean)
            mean.copy_(was)


class AverageLost(Averaged):
    saved = False


@pytest.mark.parametrize(("optimizer", "holds"), [(Averaged, True), (AverageLost, False)])
def test_what_is_evaluated_is_resumed_as_well_as_what_is_trained(optimizer, holds):
    found = LAWS["resume"].measure(
        Stack(optimizer=optimizer, dtype=torch.float64), checking.FAMILIES[0].case(1)
    )
    assert found.holds == holds
