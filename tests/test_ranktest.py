"""The gate's rank test: exact where it counts, close where it does not, and never long."""

import math
import statistics
import time
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from identity_props.claims.registry import CLAIMS
from identity_props.gate import EFFECT, FALSE_FAIL, compare, rank_test, smallest_seen
from identity_props.gate.ranktest import EXACTLY, SADDLEPOINT, _counted, _exact, _ranks, _saddlepoint, judged
from tests.test_gate import baseline, outcome

VALUES = st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, math.inf]), min_size=1, max_size=6)


@given(VALUES, VALUES)
def test_p_is_twice_the_share_of_all_deals_that_are_as_far_off_ties_or_none(a, b):
    ranks = _ranks([*a, *b])
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(len(ranks)), len(a))])
    own = ranks[: len(a)].sum()
    tail = (sums <= own).mean() if own <= sums.mean() else (sums >= own).mean()
    assert rank_test(a, b) == pytest.approx(min(1, 2 * tail), rel=1e-12)
    assert rank_test(b, a) == pytest.approx(rank_test(a, b), rel=1e-12)


@pytest.mark.parametrize(("m", "n"), [(3, 5), (16, 16), (13, 16), (32, 32), (16, 200)])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_without_ties_it_is_mann_and_whitney_s(m, n, shift):
    drawn = np.random.default_rng(m * n)
    a, b = drawn.normal(size=m), drawn.normal(size=n) + shift
    assert judged(a, b) == (pytest.approx(mannwhitneyu(a, b, method="exact").pvalue, rel=1e-9), EXACTLY)


# Sums at p near 1e-2 and 2.5e-6. Measured: 0.97 to 1.04 times the count; the normal law is 0.63 to 1.7
# times it at 64, which the margin would tell.
@pytest.mark.parametrize(
    "pattern",
    {
        "no ties": lambda n: np.arange(n),
        "a quarter infinite": lambda n: np.minimum(np.arange(n), n - n // 4),
        "half infinite": lambda n: np.minimum(np.arange(n), n - n // 2),
        "pairs": lambda n: np.arange(n) // 2,
        "16 values": lambda n: np.arange(n) % 16,
    }.values(),
)
@pytest.mark.parametrize(("m", "n"), [(64, 64), (32, 128)])
def test_the_saddlepoint_is_within_5_per_cent_of_the_count(pattern, m, n):
    ranks = _ranks(pattern(m + n))
    deviation = ranks.std() * math.sqrt(m * n / (m + n - 1))
    for far in (2.57, 4.7):
        total = round(m * ranks.mean() - far * deviation)
        unit = np.gcd.reduce(ranks - ranks.min())
        total -= (total - m * ranks.min()) % unit  # a sum that there is
        count = _exact(*_counted(ranks, m, total))
        assert _saddlepoint(ranks, m, total) == pytest.approx(count, rel=0.05)


# scipy's exact test took 14 minutes at 520 and gave NaN. Ten seconds are for a busy machine: 0.4 were
# measured, 2.4 at 48.
@pytest.mark.thorough
@pytest.mark.parametrize("replicas", [16, 48, 520, 2000])
def test_a_gate_of_all_claims_compares_in_seconds_ties_or_none(replicas):
    def run(seed):
        made = [
            outcome(seed=100 * seed + k, replicas=replicas, claim=c) for k, c in enumerate(CLAIMS.values())
        ]
        without = [k * replicas // 44 for k in range(len(made))]  # from none to half
        some = zip(made, without, strict=True)
        return baseline(*(replace(o, crossing=(math.inf,) * w + o.crossing[w:]) for o, w in some))

    before, after = run(1), run(2)
    start = time.process_time()
    changes = compare(before, after)
    assert time.process_time() - start < 10
    assert all(0 < change.p <= 1 and change.word == "same" for change in changes)
    assert {change.method for change in changes} <= {EXACTLY, SADDLEPOINT}


def test_samples_that_do_not_overlap_have_the_smallest_p_at_any_size():
    for n in (16, 64, 520, 2000):
        p = rank_test(range(n), range(n, 2 * n))
        assert 0 <= p <= 1e-8
        assert not math.isnan(p)


# With infinities a shift of what a row says it sees is named with probability .99 as well: of 400, 386
# or more but for 1e-4. At a spread of 0.03 decades the effect decides too, at 0.3 the test.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("n", "infinite", "spread"), [(33, 1, 0.3), (64, 4, 0.03), (128, 16, 0.3), (520, 200, 0.03)]
)
@pytest.mark.parametrize("way", [1, -1])
def test_the_smallest_change_that_a_row_states_is_named_with_infinities(n, infinite, spread, way):
    level, effect = FALSE_FAIL / 44, EFFECT["rate"]
    shift = smallest_seen(n, level, spread, effect, infinite / n)
    assert shift < math.inf
    assert sum(named(a, b, way, level, effect) for a, b in pairs(n, infinite / n, spread, way * shift)) >= 386


# The control: half that shift is far from it.
def test_half_the_smallest_change_is_named_too_rarely():
    level, effect = FALSE_FAIL / 44, 0.0
    shift = smallest_seen(64, level, 1.0, effect, 8 / 64) / 2
    assert sum(named(a, b, 1, level, effect) for a, b in pairs(64, 8 / 64, 1.0, shift)) < 300


@pytest.mark.parametrize(("n", "infinite"), [(16, 1), (16, 8), (64, 31), (520, 259), (520, 520)])
def test_with_too_many_infinities_nothing_is_said_to_be_seen(n, infinite):
    assert smallest_seen(n, FALSE_FAIL / 44, 0.1, EFFECT["rate"], infinite / n) == math.inf


def pairs(n, share, spread, shift):
    drawn = np.random.default_rng(0)
    for _ in range(400):
        pair = spread * drawn.normal(size=(2, n))
        pair[1] += shift
        pair[drawn.random(pair.shape) < share] = math.inf
        yield pair.tolist()


def named(a, b, way, level, effect):
    if judged(a, b)[0] > level:
        return False
    return way * (statistics.median_high(b) - statistics.median_high(a)) > effect
