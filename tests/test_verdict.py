"""Verdicts: exact levels, more replicas while undecided, and nothing that passes by being absent."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import (
    FAILS,
    FALSE_HOLD,
    HOLDS,
    LOOKS,
    UNDECIDED,
    decide,
    judge,
    looks,
    probability_of_holding,
    share_found,
    trainer,
)
from identity_props.engine.trial import Run
from identity_props.errors import InputError

SHARES = (1 / 4, 1 / 2, 3 / 4)
LEARNS = CLAIMS["linear-1"]


@given(n=st.integers(1, 64), share=st.sampled_from(SHARES), look=st.integers(0, LOOKS - 1))
def test_each_verdict_is_wrong_no_more_often_than_its_level(n, share, look):
    verdicts = [decide(successes, n, share, look) for successes in range(n + 1)]
    level = FALSE_HOLD / 2 ** (look + 1)
    for verdict in (HOLDS, FAILS):
        assert sum(binom.pmf(s, n, share) for s in range(n + 1) if verdicts[s] == verdict) <= level
    assert sorted(verdicts, key=[FAILS, UNDECIDED, HOLDS].index) == verdicts


@pytest.mark.parametrize("replicas", [1, 5, 8, 20])
@pytest.mark.parametrize("share", SHARES)
def test_a_claim_true_of_only_the_required_share_holds_at_most_once_in_a_hundred(share, replicas):
    assert probability_of_holding(share, share, replicas) <= FALSE_HOLD


def test_the_probability_of_holding_is_that_of_every_sequence_of_eight():
    def holds(outcome):
        for look, total in enumerate(looks(1)):
            verdict = decide(sum(outcome[:total]), total, 1 / 4, look)
            if verdict != UNDECIDED:
                return verdict == HOLDS
        return False

    exact = sum(
        math.prod(0.8 if success else 0.2 for success in outcome)
        for outcome in itertools.product((0, 1), repeat=8)
        if holds(outcome)
    )
    assert probability_of_holding(0.8, 1 / 4, 1) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("claim", list(CLAIMS.values()), ids=list(CLAIMS))
def test_every_claim_that_is_true_of_all_but_a_few_seeds_is_found(claim):
    assert share_found(claim.share) <= 0.92


def fake(*successful):
    """A trainer whose replica k ends near-identity if successful says so, NaN if None."""
    calls = []

    def train(trials, seeds):
        calls.append(tuple(seeds))
        end = [{True: 1e-6, False: 1.0, None: math.nan}[successful[k % len(successful)]] for k in seeds]
        fvu = torch.tensor([[1.0] * len(end), end], dtype=torch.float64).T
        return [Run(tuple(seeds), (0, trial.steps), fvu, fvu[:, -1], {}, 1.0) for trial in trials]

    return train, calls


def test_clear_cases_are_judged_at_the_first_look(small):
    for success, verdict in ((True, HOLDS), (False, FAILS), (None, FAILS)):
        train, calls = fake(success)
        assert judge(LEARNS, small, train).verdict == verdict
        assert calls == [tuple(range(8))]


def test_an_undecided_claim_gets_twice_the_replicas_each_time_and_then_does_not_hold(small):
    train, calls = fake(True, False)
    outcome = judge(LEARNS, small, train, seed=100)
    assert outcome.verdict == UNDECIDED
    assert not outcome.holds
    assert (outcome.successes, outcome.replicas) == (32, 64)
    assert calls == [tuple(range(100 + a, 100 + b)) for a, b in ((0, 8), (8, 16), (16, 32), (32, 64))]


def test_nan_in_too_many_replicas_fails_by_name(small):
    train, _ = fake(None, None, None, True)
    outcome = judge(LEARNS, small, train)
    assert not outcome.holds
    assert str(outcome).startswith("linear-1 fails: ")


def test_what_cannot_be_judged_is_refused(small):
    train, calls = fake(True)
    with pytest.raises(InputError, match="replicas: expected at least 1, got 0"):
        judge(LEARNS, small, train, replicas=0)
    with pytest.raises(InputError, match="seed-network-4: says nothing of drawn with 4 pixels"):
        judge(CLAIMS["seed-network-4"], small, train)
    assert calls == []


def test_a_trial_that_two_claims_share_is_trained_once(small, monkeypatch):
    trained = []
    fake_train, _ = fake(True)

    def counted(trial, pixels, seeds, stack):
        trained.append(trial)
        return fake_train([trial], seeds)[0]

    monkeypatch.setattr("identity_props.claims.verdict.train", counted)
    train = trainer(small)
    for name in ("linear-4", "residual-4", "residual-4-sooner"):
        judge(CLAIMS[name], small, train)
    assert len(trained) == 2
