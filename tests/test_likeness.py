"""Likeness: what is written right is like its reference, and each way to be wrong is named with where it shows."""

import math
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from identity_props.conformance import checking
from identity_props.conformance.assertions import assert_like
from identity_props.conformance.checking import check_laws
from identity_props.conformance.likeness import same_layer, same_steps
from identity_props.conformance.meant import like_plan, traits_meant, why_not
from identity_props.conformance.promises import (
    clips_at,
    plain_below,
    same_batches,
    same_clipping,
    same_loss,
    same_updates,
)
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Reference, declared, reference_of
from identity_props.conformance.traits import traits
from identity_props.conformance.walks import SHAPES
from identity_props.errors import InputError
from identity_props.laws import LAWS
from identity_props.laws.families import Family
from identity_props.stack.loop import shuffled, take_step
from identity_props.stack.stack import Stack, takes, without_eps

SGD, Adam = torch.optim.SGD, torch.optim.Adam
BFLOAT16 = torch.bfloat16


def rows(stack, like):
    return {row.name: row for row in check_laws(stack, declared(stack, like), like)}


class Each(torch.optim.Optimizer):
    """Moves parameter by parameter, those with a gradient; its defaults are all that it takes."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, p.grad, self.state[p], group)


def adam(p, g, state, lr, t=None):
    m, v = (state.setdefault(name, torch.zeros_like(p)) for name in "mv")
    state["t"] = t or state.get("t", 0) + 1
    m.mul_(0.9).add_(g, alpha=0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    root = (v / (1 - 0.999 ** state["t"])).sqrt()
    p.sub_(lr * m / (1 - 0.9 ** state["t"]) / (root + 1e-8))


class PlainAdam(Each):
    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"])


class PlainSGD(Each):
    def move(self, p, g, state, group):
        p.sub_(group["lr"] * g)


class PlainLion(Each):
    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        p.sub_(group["lr"] * (0.9 * m + 0.1 * g).sign())
        m.mul_(0.99).add_(g, alpha=0.01)


class OtherLion(PlainLion):
    """The same in other operations."""

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        p.add_(torch.lerp(g, m, 0.9).sign_(), alpha=-group["lr"])
        state["m"] = torch.lerp(m, g, 0.01)


# of torch.optim, foreach beside a loop; the others beside themselves
FOREACH = [
    "Adam",
    "SGD",
    "RMSprop",
    "Adafactor",
    "AdamW",
    "Adagrad",
    "Adadelta",
    "NAdam",
    "RAdam",
    "Adamax",
    "Rprop",
]
THEMSELVES = ["Muon", "ASGD"]  # ASGD's foreach keeps its rate in float32, 1e-8 of a weight
QUICK = ("Adam", "SGD", "RMSprop", "Adafactor", "Muon")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FOREACH + THEMSELVES],
)
def test_torch_s_own_optimizers_are_like_themselves_to_rounding(name):
    own = getattr(torch.optim, name)
    ways = ({"foreach": True}, {"foreach": False}) if name in FOREACH else ({}, {})
    ours, theirs = (partial(own, **way) for way in ways)
    shapes = SHAPES[:-1] if name == "Muon" else SHAPES
    found = same_steps(ours, theirs, shapes=shapes, dtype=BFLOAT16)
    assert found.holds, found


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PlainAdam, Adam),
        (PlainSGD, SGD),
        (PlainLion, PlainLion),
        (PlainLion, OtherLion),
        (OtherLion, PlainLion),
    ],
)
def test_a_plain_optimizer_is_like_its_reference_without_switches(ours, theirs, dtype):
    found = same_steps(ours, theirs, dtype=dtype)
    assert found.holds, found
    if theirs is SGD:
        assert "not offered: weight_decay, momentum, nesterov, dampening, maximize, foreach, fused" in str(
            found
        )


@pytest.mark.parametrize(
    ("law", "ours", "theirs", "said"),
    [
        ("momentum", PlainSGD, SGD, "not offered: momentum"),
        ("weight-decay", PlainSGD, SGD, "not offered: weight_decay"),
        ("scale-adaptive", PlainAdam, Adam, "not offered: eps"),
        ("implementations", PlainAdam, Adam, "not offered: foreach"),
        ("scale-adaptive", PlainLion, PlainLion, ""),
        ("momentum", SGD, SGD, ""),
        ("gd-trajectory", PlainSGD, SGD, ""),
        ("gd-trajectory", PlainAdam, Adam, "not gradient-descent"),
    ],
)
def test_a_law_that_wants_a_switch_says_nothing_of_a_part_that_does_not_offer_it(law, ours, theirs, said):
    stack, like = Stack(optimizer=ours), Reference(theirs)
    assert why_not(LAWS[law], stack, like, traits(declared(stack, like))) == said


# Switches -------------------------------------------------------------------------------------------


class Switched(Each):
    """SGD with momentum and decay; ``fault`` breaks one line of it."""

    fault = ""

    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0):
        torch.optim.Optimizer.__init__(
            self, params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    def move(self, p, g, state, group):
        decay = (self.param_groups[0] if self.fault == "first group" else group)["weight_decay"]
        g = g + decay * p
        if group["momentum"]:
            state["m"] = g = group["momentum"] * state["m"] + g if state else g.clone()
        p.sub_(group["lr"] * g)


class Ignores(Switched):
    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, momentum, weight_decay)


class Swallows(Switched):
    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, **others):
        super().__init__(params, lr, momentum, weight_decay)


class Hidden(PlainAdam):
    """Takes eps, which its signature does not tell."""

    def __init__(self, params, **given):
        torch.optim.Optimizer.__init__(self, params, {"eps": 1e-8, **given})


class DecaysFrozen(Switched):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and not p.requires_grad:
                    p.mul_(1 - group["lr"] * group["weight_decay"])


def test_a_switch_is_offered_where_it_is_named_or_shown_or_felt_and_not_where_it_is_swallowed():
    assert takes(Ignores, "nesterov", True)
    assert takes(Hidden, "eps", 1e-3)
    assert without_eps(Hidden)
    assert not takes(Swallows, "nesterov", True)
    assert not takes(Switched, "nesterov", True)
    assert not takes(PlainAdam, "eps", 1e-3)
    assert takes(lambda params, **given: Switched(params, given["lr"], given.get("m", 0.0)), "m", 0.9)


@pytest.mark.parametrize("part", [Switched, Swallows])
def test_a_part_with_some_of_the_switches_is_like_its_reference(part):
    assert same_steps(part, SGD).holds


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (Ignores, "with momentum=0.9, weight_decay=0.1, nesterov=True, step 1,"),
        (DecaysFrozen, "with weight_decay=0.1, step 1, parameter 7 [3, 6] frozen:"),
        (
            type("FirstGroup", (Switched,), {"fault": "first group"}),
            "with weight_decay=0.1, step 1, parameter",
        ),
    ],
)
def test_a_switch_that_goes_wrong_is_named_with_step_and_parameter(part, where):
    found = same_steps(part, SGD)
    assert not found.holds
    assert where in found.what


# On the way -----------------------------------------------------------------------------------------


class FaultyAdam(PlainAdam):
    """Adam whose rate is a percent off, or whose counts are wrong, where ``off`` says so."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr)
        self.built, self.calls = lr, 0

    @torch.no_grad()
    def step(self, closure=None):
        self.active = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in self.active:
            self.state[p]["n"] = self.state[p].get("n", 0) + 1
        super().step()

    def move(self, p, g, state, group):
        self.calls += 1
        adam(p, g, state, group["lr"] * (1.01 if self.off(p, state, group) else 1))

    def off(self, p, state, group):
        return False


def off(condition):
    return type("Off", (FaultyAdam,), {"off": lambda self, *at: condition(*at)})


class OneCounter(FaultyAdam):
    def move(self, p, g, state, group):
        self.calls += 1
        adam(p, g, state, group["lr"], self.calls)


class LastCounter(FaultyAdam):
    """The count of the last parameter with a gradient serves all."""

    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"], self.state[self.active[-1]]["n"])


class BuiltRate(FaultyAdam):
    def move(self, p, g, state, group):
        adam(p, g, state, self.built)


class Jumps(FaultyAdam):
    """Goes on after a load with the rate that it was built with."""

    def load_state_dict(self, state_dict):
        rates = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


class MovesAll(FaultyAdam):
    """Takes a gradient that is missing for one of 0."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.move(p, torch.zeros_like(p) if p.grad is None else p.grad, self.state[p], group)


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (off(lambda p, state, group: len(group["params"]) > 4), "as it comes, step 1, parameter"),
        (off(lambda p, state, group: p.numel() > 2**16), "as it comes, step 1, parameter 0 [257, 256]"),
        (off(lambda p, state, group: state["n"] > 30), "as it comes, step 31, parameter"),
        (off(lambda p, state, group: p.ndim == 1), "parameter 11 [17]"),
        (OneCounter, "as it comes, step 1, parameter"),
        (LastCounter, "as it comes, step"),
        (BuiltRate, "as it comes, step 1, parameter"),
        (Jumps, "as it comes, step 51, parameter"),
        (MovesAll, "as it comes, step 2, parameter"),
    ],
)
def test_what_goes_wrong_on_the_way_is_named_with_step_and_parameter(part, where):
    assert same_steps(FaultyAdam, Adam).holds
    found = same_steps(part, Adam)
    assert not found.holds
    assert where in found.what


class RateInside(Each):
    """A mean of updates, of which the rate is to be no part."""

    inside = False

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        inner, outer = (group["lr"], 1.0) if self.inside else (1.0, group["lr"])
        p.sub_(outer * m.lerp_(inner * g, 0.1))


class Averaged(PlainSGD):
    """Shows the mean of its weights where it evaluates; ``shows`` the last ones, if it is broken."""

    broken = False

    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        state["k"] = state.get("k", 0) + 1
        state.setdefault("mean", p.clone()).lerp_(p, 1 / state["k"])

    def train(self):
        self.swap("last")

    def eval(self):
        for p, state in self.state.items():
            state["last"] = p.detach().clone()
        self.swap("last" if self.broken else "mean")

    def swap(self, name):
        for p, state in self.state.items():
            p.data.copy_(state.get(name, p))


@pytest.mark.parametrize(
    ("clean", "fault", "where"),
    [(RateInside, {"inside": True}, "step 2,"), (Averaged, {"broken": True}, "eval() after step 10,")],
)
def test_a_schedule_and_an_evaluation_are_part_of_the_way(clean, fault, where):
    assert same_steps(clean, clean).holds
    found = same_steps(type("Faulty", (clean,), fault), clean)
    assert not found.holds
    assert where in found.what


class Normed(Each):
    """Momentum, normalised in bfloat16 for each step, in a copy unless it is broken."""

    copy = True

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p)).lerp_(g, 0.1)
        x = m.to(BFLOAT16, copy=self.copy)
        p.sub_(group["lr"] * x.div_(x.norm().clamp_min(1e-7)).to(p.dtype))


def test_what_is_wrong_in_one_dtype_alone_is_found_in_that_dtype():
    broken = type("InPlace", (Normed,), {"copy": False})
    assert same_steps(Normed, Normed, dtype=BFLOAT16).holds
    assert same_steps(broken, Normed, dtype=torch.float32).holds
    found = same_steps(broken, Normed, dtype=BFLOAT16)
    assert not found.holds
    assert "as it comes, in bfloat16" in found.what


class Quantised(Each):
    """Adam that keeps its momentum in 8 bits."""

    low = 0.0

    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"])
        scale = state["m"].abs().max().clamp_min(1e-30) / 127
        state["m"] = (state["m"] / scale).round() * scale + self.low


def test_a_part_that_rounds_on_purpose_is_like_its_reference_to_the_tolerance_declared():
    assert not same_steps(Quantised, Adam).holds
    assert same_steps(Quantised, Adam, dtype=torch.float32, tolerance=1e-3).holds
    assert not same_steps(type("Shifted", (Quantised,), {"low": 1e-4}), Adam, tolerance=1e-3).holds


class Raises(PlainAdam):
    def move(self, p, g, state, group):
        if state.get("t") == 2:
            raise ArithmeticError("out of patience")
        super().move(p, g, state, group)


def test_a_part_that_raises_is_told_at_which_step(monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {})
    found = rows(Stack(optimizer=Raises), Reference(Adam))
    assert found["like-optimizer"].note == "WalkError: as it comes, step 3: ArithmeticError: out of patience"


# Layers ---------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """A frozen layer and an adapter whose units are dropped in training."""

    scaled = 1.0

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out, bias=bias).requires_grad_(False)
        self.a, self.b = nn.Linear(fan_in, 3, bias=False), nn.Linear(3, fan_out, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        h = nn.functional.dropout(self.a(x), 0.2, self.training)
        return self.base(x) + self.b(h if self.training else self.scaled * h)


class NoBiasGradient(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight, None if self.bias is None else self.bias.detach())


def test_a_parameter_that_is_frozen_in_both_layers_is_no_difference():
    assert same_layer(Adapter, Adapter).holds


@pytest.mark.parametrize(
    ("ours", "theirs", "where"),
    [
        (NoBiasGradient, nn.Linear, "backward, no gradient for bias, evaluating, with bias"),
        (nn.Linear, NoBiasGradient, "backward, a gradient for bias, where the reference has none"),
        (type("Scaled", (Adapter,), {"scaled": 0.8}), Adapter, "forward, the output, evaluating"),
    ],
)
def test_a_layer_that_differs_is_told_what_of_it_and_which_way(ours, theirs, where):
    found = same_layer(ours, theirs)
    assert not found.holds
    assert where in found.what


# Loss, step and batches ---------------------------------------------------------------------------------


def own_loss(prediction, target):
    return (prediction - target).square().mean()


def broadcasts(prediction, target):
    return (prediction - target.squeeze(-1)).square().mean()


def summed(prediction, target):
    return (prediction - target).square().sum()


def test_a_loss_is_compared_with_its_gradient_and_at_one_pixel_too():
    assert same_loss(own_loss, mse_loss).holds
    assert not same_loss(summed, mse_loss).holds
    found = same_loss(broadcasts, mse_loss)
    assert not found.holds
    assert "[n, d] = [6, 1]" in found.what


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def clipping(clip, norm=torch.nn.utils.clip_grad_norm_, of=parameters_of):
    def step(optimizer, loss):
        optimizer.zero_grad()
        loss().backward()
        norm(of(optimizer), clip)
        optimizer.step()

    return step


def by_parameter(parameters, clip):
    for p in parameters:
        nn.utils.clip_grad_norm_([p], clip)


def exactly(parameters, clip):
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    for p in parameters:
        p.grad.mul_(min(1.0, clip / float(norm)) if norm > 0 else 1.0)


def without_guard(parameters, clip):
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    for p in parameters:
        p.grad.mul_((clip / norm).clamp_max(1)).mul_(0 / norm + 1)


def first_group(optimizer):
    return [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]


@pytest.mark.parametrize("clip", [1e-3, 0.05, 10.0])
@pytest.mark.parametrize("norm", [nn.utils.clip_grad_norm_, exactly])
def test_a_step_that_clips_at_what_it_promises_passes(norm, clip):
    found = same_clipping(clipping(clip, norm), clip)
    assert found.holds, found


@pytest.mark.parametrize(
    "step",
    [
        take_step,
        clipping(0.1),
        clipping(0.05, by_parameter),
        clipping(0.05, nn.utils.clip_grad_value_),
        clipping(0.05, without_guard),
        clipping(0.05, of=first_group),
    ],
    ids=["nothing", "elsewhere", "each", "values", "no guard", "first group"],
)
def test_a_step_that_clips_otherwise_fails(step):
    assert not same_clipping(step, 0.05).holds


def test_a_step_that_clips_is_held_to_laws_only_where_it_does_not(one_family, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {name: LAWS[name] for name in ("gd-trajectory", "resume")})
    found = {}
    for clip in (1e-2, 1e6):
        found[clip] = rows(Stack(step=clipping(clip)), Reference(clip=clip))
        assert found[clip]["like-clip"].verdict == found[clip]["resume"].verdict == PASS
    assert found[1e-2]["gd-trajectory"].note.startswith(
        "clips at 0.01, which --clip judges, or --like-step: a gradient"
    )
    assert found[1e6]["gd-trajectory"].verdict == PASS


@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_, by_parameter])
def test_a_step_that_is_found_to_clip_is_not_accused_of_it(clip, one_family, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {"gd-trajectory": LAWS["gd-trajectory"]})
    for size, verdict in ((1e-2, NOT_APPLICABLE), (1e4, PASS)):
        found = rows(Stack(step=clipping(size, clip)), Reference())
        assert found["gd-trajectory"].verdict == verdict


@pytest.mark.parametrize("size", [1e-3, 0.3, 5.0])
def test_a_gradient_of_one_entry_below_what_is_found_is_not_clipped(size):
    below = plain_below(clipping(size, nn.utils.clip_grad_value_))
    assert size / 64 < below < size


def half_of_the_gradient(optimizer, loss):
    take_step(optimizer, lambda: loss() / 2)


def half_then_clipped(optimizer, loss):
    clipping(1e-2, nn.utils.clip_grad_value_)(optimizer, lambda: loss() / 2)


@pytest.mark.parametrize(
    "step", [take_step, half_of_the_gradient, half_then_clipped, clipping(1e-2, of=first_group)]
)
def test_a_step_that_is_wrong_below_what_it_clips_or_clips_some_parameters_alone_is_judged(step):
    assert plain_below(step) is None


@pytest.mark.parametrize(
    "step",
    [
        take_step,
        half_of_the_gradient,
        clipping(0.05, by_parameter),
        clipping(0.05, nn.utils.clip_grad_value_),
    ],
    ids=["nothing", "half", "each", "values"],
)
def test_no_other_step_is_taken_for_one_that_clips(step):
    assert clips_at(step) is None


def exhausted(optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    parameters = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    sum(p.grad.norm() for p in parameters)
    clip_grad_norm_(parameters, 0.05)
    optimizer.step()


@pytest.mark.filterwarnings("ignore:.parameters. is an empty generator")
@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (exhausted, FAIL),
        (clipping(0.05), PASS),
        (clipping(0.05, by_parameter), PASS),
        (clipping(0.05, of=first_group), PASS),
        (clipping(0.05, exactly), NOT_APPLICABLE),
        (clipping(0.05, nn.utils.clip_grad_value_), NOT_APPLICABLE),
    ],
    ids=["exhausted", "all", "each", "first group", "by hand", "values"],
)
def test_a_step_that_gives_nothing_to_what_clips_needs_no_declaration(step, verdict):
    before = sys.getprofile()
    (row,) = (measure() for _, measure in like_plan(Stack(step=step), Reference(), 0))
    assert (row.name, row.verdict) == ("like-clip", verdict)
    assert (row.measured == 2) == (verdict == FAIL)
    assert sys.getprofile() is before


def test_a_step_is_compared_by_what_it_leaves():
    assert same_updates(clipping(1e-2), clipping(1e-2)).holds
    assert not same_updates(clipping(1e-2), take_step).holds
    assert not same_updates(take_step, clipping(1e-2)).holds


def test_laws_of_plain_steps_say_nothing_of_a_step_that_is_declared_to_be_another():
    stack, law = Stack(step=clipping(1e-2)), LAWS["gd-trajectory"]
    said = why_not(law, stack, Reference(step=clipping(1e-2)), law.needs)
    assert said == "the step that is declared is not a plain one"
    assert why_not(law, stack, Reference(step=take_step), law.needs) == ""
    assert why_not(LAWS["resume"], stack, Reference(step=clipping(1e-2)), LAWS["resume"].needs) == ""


def test_a_loss_or_batches_that_are_declared_to_be_others_are_judged_by_what_is_declared():
    fits = frozenset({"squared error"})
    loss, batches = Reference(loss=lambda a, b: (a - b).square().sum()), Reference(batches=shuffled_once)
    assert why_not(LAWS["mean-squared-error"], Stack(), loss, fits) == "the loss that is declared is another"
    assert why_not(LAWS["mean-squared-error"], Stack(), loss, fits | {"mean squared error"}) == ""
    assert why_not(LAWS["mean-squared-error"], Stack(), Reference(), fits) == ""
    assert "like-batches" in why_not(LAWS["epoch"], Stack(), batches, fits)
    assert why_not(LAWS["epoch"], Stack(), Reference(), fits) == ""


def same_each_epoch(data, size, generators):
    first = [*shuffled_once(data, size, generators)]
    while True:
        yield from first


def shuffled_once(data, size, generators):
    order = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
    yield from (data[index] for index in (order.split(size, dim=1) if size else [order]))


def test_batches_are_compared_over_epochs_from_equal_seeds():
    assert same_batches(shuffled, shuffled).holds
    found = same_batches(same_each_epoch, shuffled)
    assert not found.holds
    assert "the first of them batch" in found.what


def test_each_part_that_is_declared_is_asserted():
    like = Reference(loss=mse_loss, step=take_step, batches=shuffled)
    assert_like(Stack(loss=own_loss), like)
    with pytest.raises(AssertionError, match=r"like-loss fail: wrong loss: measured .*, allowed"):
        assert_like(Stack(loss=broadcasts), like)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"clip": 0.0}, "clip: expected a finite norm above 0, got 0.0"),
        ({"clip": math.nan}, "clip: expected a finite norm above 0, got nan"),
        ({"tolerance": -1.0}, "like tolerance: expected 0 or more and below 1, got -1.0"),
        ({"tolerance": math.nan}, "like tolerance: expected 0 or more and below 1, got nan"),
    ],
)
def test_a_clip_or_a_tolerance_that_is_none_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        Reference(**given)


def test_a_clip_without_a_step_that_clips_is_refused():
    with pytest.raises(InputError, match=r"clip: expected a step that clips at 0\.5, got none"):
        reference_of(Stack(), clip=0.5)


class RoundsAtRandom(PlainSGD):
    """Steps in bfloat16 are rounded up or down at random, and to nearest in the end where it is faulty."""

    faulty = False

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                value = p.double() - group["lr"] * p.grad.double()
                if p.dtype is torch.bfloat16:
                    bits = value.float().view(torch.int32)
                    drawn = (bits + torch.randint_like(bits, 1 << 16)).bitwise_and_(-65536)
                    value = value if self.faulty else drawn.view(torch.float32)
                p.copy_(value)


class RoundsToNearest(RoundsAtRandom):
    faulty = True


@pytest.mark.parametrize(("optimizer", "holds"), [(RoundsAtRandom, True), (RoundsToNearest, False)])
def test_how_a_part_rounds_is_its_own_whatever_it_is_declared_to_be(optimizer, holds):
    stack, like = Stack(optimizer=optimizer, dtype=torch.bfloat16), Reference(SGD)
    fits = traits_meant(stack, declared(stack, like))
    assert why_not(LAWS["dtype-floor"], stack, like, fits) == "not rounding to nearest"
    assert why_not(LAWS["stochastic-rounding"], stack, like, fits) == ""
    case = Family(d=9, n=20, rank=9).case(1)
    assert LAWS["stochastic-rounding"].measure(stack, case).holds == holds
