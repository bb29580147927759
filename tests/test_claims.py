"""The registry: every claim is whole, and each is broken by a stack that breaks it."""

import math

import pytest
import torch

from identity_props.claims import registry
from identity_props.claims.registry import (
    CLAIMS,
    PREDICTED,
    budget,
    diverges,
    ends_between,
    fails,
    fails_throughout,
    learns,
    matching,
    rate,
    same_curve,
    sooner,
)
from identity_props.claims.verdict import FAILS, judge, trainer
from identity_props.engine.trial import Run
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from tests.drawing import drawn

TRAINED = [claim for claim in CLAIMS.values() if not claim.slow]


@pytest.mark.parametrize("claim", list(CLAIMS.values()), ids=list(CLAIMS))
def test_every_claim_says_what_from_where_how_measured_and_for_what_share(claim):
    assert all((claim.name, claim.expects, claim.statement, claim.source, claim.evidence))
    assert "\n" not in claim.statement
    assert 0 < claim.share < 1


def test_names_are_unique_and_patterns_pick_by_name():
    assert len(CLAIMS) == 22 + 6 + 2
    assert [claim.name for claim in matching("linear-*, residual-4")] == [
        "linear-1",
        "linear-4",
        "residual-4",
    ]
    with pytest.raises(InputError, match="'lineer' matches none of linear-1, linear-4"):
        matching("linear-1,lineer")


def test_the_rate_is_the_asker_s_at_784_pixels_and_the_budget_follows_it():
    assert rate(784) == 1e-3
    assert [budget(side**2) for side in (7, 14, 28)] == [1250, 3536, 10000]


# Controls: stacks that break claims ---------------------------------------------------------------


class Broken(torch.optim.Optimizer):
    """An optimizer in name: takes any arguments, and leaves the parameters to ``put``."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, {"lr": lr, **arguments})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.put(p)


class Dead(Broken):
    def put(self, p):
        pass


class Nan(Broken):
    def put(self, p):
        p.fill_(torch.nan)


class Oracle(Broken):
    """Sets every weight to I and every bias to 0: the perfect solution of a plain ReLU stack."""

    def put(self, p):
        weight = p.ndim > 1 and p.shape[-1] == p.shape[-2]
        p.copy_(torch.eye(p.shape[-1]) if weight else torch.zeros_like(p))


class OneWay(Broken):
    """Moves like SGD whatever the recipe says, and so feels the scale of its input."""

    def put(self, p):
        p -= self.param_groups[0]["lr"] * p.grad


CONTROLS = {
    Dead: TRAINED,  # off the answer at the start, so standing still is no way to learn or to fail
    Nan: [claim for claim in TRAINED if claim.expects != "diverges"],
    Oracle: [claim for claim in TRAINED if claim.expects in ("fails", "diverges")],
    OneWay: [claim for claim in TRAINED if claim.expects == "same"],
}


@pytest.fixture(scope="module")
def judged():
    smallest = drawn(d=2)
    trainers = {optimizer: trainer(smallest, Stack(optimizer=optimizer)) for optimizer in CONTROLS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "budget", lambda d: 12)  # what these do, they do from the first step on
        # 32 replicas settle a share of 1/4 at the first look
        yield lambda optimizer, claim: judge(claim, smallest, trainers[optimizer], replicas=32)


@pytest.mark.parametrize(
    ("optimizer", "claim"),
    [
        pytest.param(optimizer, claim, id=f"{optimizer.__name__}-{claim.name}")
        for optimizer, broken in CONTROLS.items()
        for claim in broken
    ],
)
def test_a_stack_that_breaks_a_claim_is_caught(optimizer, claim, judged):
    assert judged(optimizer, claim).verdict == FAILS


# Expectations, curve by curve ---------------------------------------------------------------------

STEPS = (0, 25, 50, 100)


def run(*curves, pixels=None):
    fvu = torch.tensor(curves, dtype=torch.float64)
    at_end = fvu[:, -1] if pixels is None else torch.tensor(pixels, dtype=torch.float64)
    return Run(tuple(range(len(fvu))), STEPS, fvu, at_end, {}, 0.0)


NAN, INF = math.nan, math.inf
GOOD, POOR, LOST = (4, 1, 1e-2, 1e-4), (4, 1, 0.1, 0.05), (4, 1, NAN, NAN)


def test_learning_means_from_far_off_to_near_in_both_spaces():
    curves = [GOOD, POOR, LOST, (0.1, 1e-4, 1e-4, 1e-4), GOOD, GOOD, (4, 1, 1, 1.01e-3)]
    done = learns([run(*curves, pixels=[1e-4, 0.05, NAN, 1e-4, 2e-3, NAN, 1e-4])])
    assert done.tolist() == [True, False, False, False, False, False, False]


def test_failing_means_better_than_the_mean_and_above_the_threshold_at_every_budget():
    curves = [POOR, GOOD, LOST, (4, 4, 4, 4), (4, 1, 1, 0.0099), (4, 1, 1, INF)]
    assert fails([run(*curves)]).tolist() == [True, False, False, False, False, False]
    assert fails([run(POOR, POOR), run(POOR, GOOD)]).tolist() == [True, False]


def test_failing_throughout_looks_at_a_quarter_of_the_run_too():
    curves = [
        (4, 0.5, 0.1, 0.05),
        (4, 5e-3, 0.1, 0.05),
        (4, 0.5, 0.1, 5e-3),
        (4, NAN, 0.1, 0.05),
        (4, 4, 1, 0.5),
    ]
    assert fails_throughout([run(*curves)]).tolist() == [True, False, False, False, False]


def test_diverging_means_from_finite_to_not():
    curves = [LOST, (4, 1, INF, INF), (NAN, NAN, NAN, NAN), GOOD]
    assert diverges([run(*curves)]).tolist() == [True, True, False, False]


def test_sooner_means_learned_in_a_quarter_of_the_steps():
    quick, slow, late = (4, 1e-4, 1e-4, 1e-4), (4, 1, 1, 1e-4), (4, 1, 1e-4, 1e-4)
    assert sooner([run(quick, quick, late, LOST), run(slow, late, slow, slow)]).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_the_same_curve_is_one_that_falls_and_agrees_at_every_step():
    other = tuple(1.03 * value for value in GOOD)
    flat = (4, 4, 4, 4)
    first = run(GOOD, GOOD, flat, LOST)
    assert same_curve([first, run(GOOD, other, flat, LOST)]).tolist() == [True, False, False, False]


def test_ending_between_is_in_grey_levels():
    done = ends_between([run(*[(4, 1, 1, mse / 4383.2364) for mse in (99, 101, 324, 326, NAN)])], 100, 325)
    assert done.tolist() == [False, True, True, False, False]


def test_the_scaled_claims_allow_no_more_than_their_margin_over_the_prediction(small):
    (trial,) = CLAIMS["scaled-whiten"].plan(small)
    assert trial.steps <= PREDICTED * 2
