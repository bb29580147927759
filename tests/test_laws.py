"""The registry of laws: each is broken by a stack that breaks it, and together they cover the grid."""

import math

import pytest
import torch
from torch import nn

from identity_props.errors import InputError
from identity_props.laws import AXES, LAWS, Case, Discrepancy, scaled_alike
from identity_props.laws.base import law, rounding, worst
from identity_props.laws.families import Family
from identity_props.laws.walking import NotOfferedError
from identity_props.stack.loop import scheduled
from identity_props.stack.stack import Stack
from tests.breaking import (
    CLEAN,
    CONTROLS,
    SGD,
    WHERE,
    Adapter,
    AtOnceByNothing,
    ByNothing,
    Counted,
    CountedInNumpy,
    Cut,
    DirectionsAlone,
    Dropping,
    Hooked,
    PerRankLayer,
    Resting,
    ReturnsNan,
    Rounding,
    Scaled,
    Unfused,
    Wrapper,
    WrongInEval,
    broadcast,
    by_place,
    drawn_elsewhere,
    half,
    same_batches,
)


def test_every_law_says_what_from_where_and_how_its_tolerance_follows():
    for name, one in LAWS.items():
        assert one.name == name
        assert all((one.statement, one.source, one.derivation))


def test_every_axis_of_the_grid_is_exercised_by_a_law():
    assert set().union(*(one.axes for one in LAWS.values())) == set(AXES)


def test_nan_never_holds():
    assert not Discrepancy(math.nan, math.inf, "x").holds
    assert Discrepancy(0, 0, "x").holds


def test_rounding_grows_with_steps_and_the_root_of_terms():
    eps = torch.finfo(torch.float32).eps
    assert rounding(torch.float32, 0, 16) == 32 * eps
    assert rounding(torch.float32, 9, 16, 4) == 8 * 10 * 6 * eps


def test_data_sets_that_no_rate_fits_are_refused():
    with pytest.raises(InputError, match=r"expected finite float64 \[K, n, d\]"):
        Case(torch.ones(3, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="one largest eigenvalue"):
        Case(torch.stack([torch.eye(2), 2 * torch.eye(2)]).double())
    with pytest.raises(InputError, match="above 0"):
        Case(torch.zeros(1, 2, 2, dtype=torch.float64))
    unequal = torch.stack([torch.eye(2), 2 * torch.eye(2)])
    assert Case(scaled_alike(unequal)).critical_rate == pytest.approx(2)


def test_a_law_needs_a_new_name_known_axes_and_a_derivation():
    for name, axes in (("gd-trajectory", "sgd"), ("new", "sgd warp")):
        with pytest.raises(InputError, match="expected a new name"):
            law(name, "", "", axes)(lambda stack, case: None)


# Controls: one stack for each law that breaks it -----------------------------------------------------


def marked(names):
    """Laws by name, those that start processes or a compiler with their marker."""
    return [pytest.param(name, marks=[pytest.mark.processes] * (name in WHERE)) for name in names]


CASE = Family(d=9, n=20, rank=9, seed=1)


def test_what_wraps_an_optimizer_is_scheduled_as_that():
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    wrapped, plain = Wrapper([one], lr=0.5), SGD([other], lr=0.5)
    schedules = [scheduled(each, lambda step: 1 / (1 + step)) for each in (wrapped, plain)]
    for _ in range(3):
        assert wrapped.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
        plain.step()  # torch warns of a schedule that goes ahead
        for schedule in schedules:
            schedule.step()


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("resume", Wrapper),
        ("freeze", Resting),
        ("resume", CountedInNumpy),
        ("implementations", Unfused),
        ("scale-adaptive", ByNothing),
    ],
)
def test_a_law_accuses_no_optimizer_for_what_it_is_free_to_do(name, optimizer):
    assert LAWS[name].measure(Stack(optimizer=optimizer, lr=1 / 128), CASE.case(2)).holds


def test_steps_that_next_to_nothing_divides_from_the_first_on_are_not_compared_and_do_not_pass():
    with pytest.raises(NotOfferedError, match="steps without eps"):
        LAWS["scale-adaptive"].measure(Stack(optimizer=AtOnceByNothing, lr=1 / 128), CASE.case(2))


def test_rates_by_the_place_of_a_parameter_are_no_fault_of_its_neighbours():
    with pytest.raises(NotOfferedError, match="one rate for all"):
        LAWS["neighbours"].measure(Stack(optimizer=by_place, dtype=torch.float64), CASE.case(1))


def test_every_law_has_a_control():
    assert set(CONTROLS) == set(LAWS)


@pytest.mark.parametrize("name", marked(LAWS))
def test_a_stack_that_breaks_a_law_is_seen_by_it(name):
    case, where = CASE.case(4), WHERE.get(name, {})
    clean = Stack(dtype=torch.float64, **where, **CLEAN.get(name, {}))
    assert LAWS[name].measure(clean, case).holds
    seen = LAWS[name].measure(Stack(dtype=torch.float64, **where, **CONTROLS[name]), case)
    assert not seen.holds
    assert not math.isnan(seen.measured)


# these train nothing
STEPLESS = {
    "representable",
    "reflection",
    "born-dead",
    "distinct",
    "epoch",
    "parity-gradients",
    "autocast-floor",
    "tf32-floor",
    "gradients",
    "eval-output",
    "mean-in-training",
    "mean-squared-error",
    "units",
}
FEW_STEPS = {"adam-first-step", "dtype-floor", "stochastic-rounding"}  # and these fewer than three steps
ELSEWHERE = {"dead-columns", "dead-stays-dead"}  # and these look at other entries
UNNAMED = {
    "maximize",
    "differentiable",
    "decay-counts",
    "capturable",
}  # and these ask for what it does not name


@pytest.mark.parametrize("name", marked(sorted(set(LAWS) - STEPLESS - FEW_STEPS - ELSEWHERE - UNNAMED)))
def test_nan_in_one_entry_passes_no_law_that_looks_at_it(name):
    stack = Stack(optimizer=ReturnsNan, dtype=torch.float64, **WHERE.get(name, {}))
    assert not LAWS[name].measure(stack, CASE.case(4)).holds


def test_the_worst_of_some_values_is_nan_wherever_nan_stands():
    assert all(math.isnan(worst(values)) for values in ([math.nan, 1], [1, math.nan], [1, math.nan, 2]))
    assert worst([1, 3, 2]) == 3


# Further ways in which a part breaks a law -------------------------------------------------------------


@pytest.mark.parametrize("fault", ["detached", "doubled", "late"])
def test_what_is_wrong_behind_a_weight_that_starts_at_0_is_seen(fault):
    broken = type("Broken", (Adapter,), {"fault": fault})
    right, wrong = (Stack(linear=one, dtype=torch.float64) for one in (Adapter, broken))
    assert LAWS["gradients"].measure(right, CASE.case(1)).holds
    found = LAWS["gradients"].measure(wrong, CASE.case(1))
    assert not found.holds
    assert ("base.weight is frozen" if fault == "late" else "along a") in found.what


@pytest.mark.parametrize(
    ("layer", "right"), [(Hooked, False), (Rounding, True), (DirectionsAlone, True), (Dropping, True)]
)
def test_gradients_that_differ_on_purpose_where_no_difference_is_exact_are_left_alone(layer, right):
    assert LAWS["gradients"].measure(Stack(linear=layer, dtype=torch.float64), CASE.case(1)).holds == right


def test_a_gradient_is_missed_at_an_activation_too():
    def cut(x):
        return torch.relu(x.detach())

    assert not LAWS["gradients"].measure(Stack(activation=cut, dtype=torch.float64), CASE.case(1)).holds


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (half, "half the mean squared error"),
        (lambda a, b: (a - b).square().sum(-1).mean(), "summed over pixels"),
        (lambda a, b: (a - b).square().sum(), "summed over examples and pixels"),
        (lambda a, b: (a - b).square().mean() / 3, "0.333 times that"),
        (broadcast, "the mean squared error, and another at [6, 1]"),
    ],
)
def test_a_loss_that_is_a_multiple_of_squared_errors_is_named(loss, said):
    found = LAWS["mean-squared-error"].measure(Stack(loss=loss), CASE.case(1))
    assert not found.holds
    assert found.what.endswith(f"it is {said}")


@pytest.mark.parametrize("batches", [same_batches, drawn_elsewhere])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batches_that_come_again_or_are_drawn_elsewhere_are_seen_with_every_seed(batches, seed):
    case = Family(d=9, n=20, rank=9, seed=seed).case(1)
    assert LAWS["epoch"].measure(Stack(), case).holds
    assert not LAWS["epoch"].measure(Stack(batches=batches), case).holds


def test_a_count_that_parameters_share_is_seen_where_one_has_no_gradient():
    assert not LAWS["neighbours"].measure(Stack(optimizer=Counted, dtype=torch.float64), CASE.case(1)).holds


def test_an_evaluation_before_the_first_step_counts():
    stack = Stack(linear=WrongInEval, dtype=torch.float64)
    assert not LAWS["evaluate"].measure(stack, CASE.case(1)).holds


# Where a stack runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [{"mode": "compiled"}, {"ranks": 2}], ids=str)
@pytest.mark.parametrize("name", ["gd-trajectory", "parity-steps", "resume"])
@pytest.mark.processes
def test_compiled_code_and_two_ranks_meet_the_laws(name, where):
    assert LAWS[name].measure(Stack(dtype=torch.float64, **where), CASE.case(4)).holds


@pytest.mark.processes
def test_a_rank_that_keeps_its_examples_to_itself_is_seen():
    right, wrong = (Stack(dtype=torch.float64, ranks=2, linear=one) for one in (nn.Linear, PerRankLayer))
    assert LAWS["parity-gradients"].measure(right, CASE.case(4)).holds
    assert not LAWS["parity-gradients"].measure(wrong, CASE.case(4)).holds


@pytest.mark.processes
def test_gradients_that_are_missing_on_both_sides_are_not_equal():
    stack = Stack(dtype=torch.float64, ranks=2, linear=Cut)
    assert not LAWS["parity-gradients"].measure(stack, CASE.case(4)).holds


# Laws that predict a trajectory to rounding see a rate fault far too small for any loss curve.
@pytest.mark.parametrize("name", ["gd-trajectory", "fvu-prediction", "momentum", "weight-decay"])
@pytest.mark.parametrize("factor", [0.9999, 1.0001])
def test_a_rate_that_is_off_by_a_hundredth_of_a_percent_is_seen_on_either_side(name, factor):
    class Slightly(Scaled):
        pass

    Slightly.factor = factor
    assert not LAWS[name].measure(Stack(optimizer=Slightly, dtype=torch.float64), CASE.case(4)).holds
