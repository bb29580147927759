"""Likeness: what is written right is like its reference, and each way to be wrong is named with where it shows."""

import math
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

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
from tests.resembling import (
    BFLOAT16,
    Adapter,
    Averaged,
    BuiltRate,
    DecaysFrozen,
    FaultyAdam,
    Hidden,
    Ignores,
    Jumps,
    LastCounter,
    MovesAll,
    NoBiasGradient,
    Normed,
    OneCounter,
    OtherLion,
    PlainAdam,
    PlainLion,
    PlainSGD,
    Quantised,
    Raises,
    RateInside,
    RoundsAtRandom,
    RoundsToNearest,
    Swallows,
    Switched,
    broadcasts,
    by_parameter,
    clipping,
    exactly,
    exhausted,
    first_group,
    half_of_the_gradient,
    half_then_clipped,
    off,
    own_loss,
    same_each_epoch,
    shuffled_once,
    summed,
    without_guard,
)

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def rows(stack, like):
    return {row.name: row for row in check_laws(stack, declared(stack, like), like)}


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


@pytest.mark.parametrize(
    ("clean", "fault", "where"),
    [(RateInside, {"inside": True}, "step 2,"), (Averaged, {"broken": True}, "eval() after step 10,")],
)
def test_a_schedule_and_an_evaluation_are_part_of_the_way(clean, fault, where):
    assert same_steps(clean, clean).holds
    found = same_steps(type("Faulty", (clean,), fault), clean)
    assert not found.holds
    assert where in found.what


def test_what_is_wrong_in_one_dtype_alone_is_found_in_that_dtype():
    broken = type("InPlace", (Normed,), {"copy": False})
    assert same_steps(Normed, Normed, dtype=BFLOAT16).holds
    assert same_steps(broken, Normed, dtype=torch.float32).holds
    found = same_steps(broken, Normed, dtype=BFLOAT16)
    assert not found.holds
    assert "as it comes, in bfloat16" in found.what


def test_a_part_that_rounds_on_purpose_is_like_its_reference_to_the_tolerance_declared():
    assert not same_steps(Quantised, Adam).holds
    assert same_steps(Quantised, Adam, dtype=torch.float32, tolerance=1e-3).holds
    assert not same_steps(type("Shifted", (Quantised,), {"low": 1e-4}), Adam, tolerance=1e-3).holds


def test_a_part_that_raises_is_told_at_which_step(monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {})
    found = rows(Stack(optimizer=Raises), Reference(Adam))
    assert found["like-optimizer"].note == "WalkError: as it comes, step 3: ArithmeticError: out of patience"


# Layers ---------------------------------------------------------------------------------------------


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


def test_a_loss_is_compared_with_its_gradient_and_at_one_pixel_too():
    assert same_loss(own_loss, mse_loss).holds
    assert not same_loss(summed, mse_loss).holds
    found = same_loss(broadcasts, mse_loss)
    assert not found.holds
    assert "[n, d] = [6, 1]" in found.what


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


@pytest.mark.parametrize(("optimizer", "holds"), [(RoundsAtRandom, True), (RoundsToNearest, False)])
def test_how_a_part_rounds_is_its_own_whatever_it_is_declared_to_be(optimizer, holds):
    stack, like = Stack(optimizer=optimizer, dtype=torch.bfloat16), Reference(SGD)
    fits = traits_meant(stack, declared(stack, like))
    assert why_not(LAWS["dtype-floor"], stack, like, fits) == "not rounding to nearest"
    assert why_not(LAWS["stochastic-rounding"], stack, like, fits) == ""
    case = Family(d=9, n=20, rank=9).case(1)
    assert LAWS["stochastic-rounding"].measure(stack, case).holds == holds
