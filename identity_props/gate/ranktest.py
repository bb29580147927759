"""The rank test of the gate, ties and all: its p, its critical values and the smallest shift it finds.

Mann and Whitney's test given the ties: of all ways to deal the pooled ranks [N] to two samples, the
share in which one sample's sum is as far off. Where that takes more than EXACT additions, a saddlepoint
stands for the count. Neither of two others would do at p = 2e-6. The normal law says 10 times the p at
16 replicas and 1.7 times at 64, but 1/200 of it for 16 of 144 that are mostly infinite. Drawn ways to
deal take 5e7 for an error of 10%.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

EXACT = 10**7  # additions, 20 ms: 46 replicas a side without ties
FOUND = 0.99  # probability with which the smallest change is found that a row states
MISSED = (1 - FOUND) / 2
DRAWN = 32  # replicas up to which power is drawn; above it U is close to normal
EXACTLY, SADDLEPOINT = "exact", "saddlepoint"
_Array = np.ndarray[Any, Any]


def rank_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p that a and b are draws of one distribution: twice the tail; infinity ranks last."""
    return judged(a, b)[0]


def judged(a: Sequence[float], b: Sequence[float]) -> tuple[float, str]:
    """The p of ``rank_test``, and what it is by: EXACTLY or SADDLEPOINT."""
    few, many = sorted((a, b), key=len)
    ranks = _ranks([*few, *many])
    if ranks[: len(few)].mean() > ranks.mean():
        ranks = ranks.max() + ranks.min() - ranks  # few's are the low ones
    return _two_sided(ranks, len(few), int(ranks[: len(few)].sum()))


def smallest_p(m: int, n: int | None = None) -> float:
    """The p of samples of m and n, or of m each, that do not overlap, ties or none: 2 / C(m + n, m)."""
    return min(1.0, 2 / math.comb(m + (n or m), m))


def _ranks(values: Sequence[float]) -> _Array:
    """Twice the midranks [N], whole numbers."""
    _, which, sizes = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    return (2 * sizes.cumsum() - sizes + 1)[which]


def _two_sided(ranks: _Array, m: int, total: int) -> tuple[float, str]:
    """Twice P(sum of m of the ranks <= total), and what it is by."""
    counted = _counted(ranks, m, total)
    exact = _additions(*counted[:2]) <= EXACT
    tail = _exact(*counted) if exact else _saddlepoint(ranks, m, total)
    return min(1.0, 2 * tail), EXACTLY if exact else SADDLEPOINT


# Counted ------------------------------------------------------------------------------------------


def _counted(ranks: _Array, m: int, total: int) -> tuple[_Array, _Array, int, int]:
    """What there is to count: all but the largest group of ties, and how far sums of j of them may go.

    Their scores from 0 [F] in their own units, the room of j of them [0 .. min(m, F)], the size of the
    group, m.
    """
    values, sizes = np.unique(ranks, return_counts=True)
    group = values[sizes.argmax()]
    others = ranks[ranks != group]
    lowest = others.min(initial=ranks.max())
    unit = max(1, np.gcd.reduce(others - lowest))
    j = np.arange(min(m, len(others)) + 1)
    rooms = (total - j * lowest - (m - j) * group) // unit
    rooms[m - j > sizes.max()] = -1  # the group has not so many to add
    return (others - lowest) // unit, rooms, int(sizes.max()), m


def _additions(scores: _Array, rooms: _Array) -> int:
    return len(scores) * len(rooms) * (_width(scores, rooms) + 1)


def _width(scores: _Array, rooms: _Array) -> int:
    """The largest sum worth counting."""
    most = np.sort(scores)[len(scores) - len(rooms) + 1 :].sum()
    return int(max(0, min(most, rooms.max())))


def _exact(scores: _Array, rooms: _Array, tied: int, m: int) -> float:
    """P(sum <= room): subsets of each size and sum by the shift algorithm (Streitberg, Röhmel 1986).

    In place of their numbers, which leave the floats at 1,030 values, their probabilities where each
    value is drawn with m / N; m drawn in all then leave none of that.
    """
    from scipy.stats import binom

    width, of = _width(scores, rooms), tied + len(scores)
    f, few = m / of, scores[scores <= width]
    drawn = np.zeros((len(rooms), width + 1))  # [j, sum]
    drawn[0, 0] = (1 - f) ** (len(scores) - len(few))
    for score in few:
        more = f * drawn[:-1, : width + 1 - score]
        drawn *= 1 - f
        drawn[1:, score:] += more
    j = np.arange(len(rooms))
    below = np.where(rooms < 0, 0, drawn.cumsum(1)[j, np.clip(rooms, 0, width)])
    return float(below @ binom.pmf(m - j, tied, f) / binom.pmf(m, of, f))


# By a saddlepoint ---------------------------------------------------------------------------------


def _saddlepoint(ranks: _Array, m: int, total: int) -> float:
    """P(sum of m ranks <= total): Bernoulli(m / N) draws of each, given that m were drawn.

    Skovgaard's double saddlepoint (1987) with half a unit of continuity and Barndorff-Nielsen's r*. It
    was 0.97 to 1.04 times the count at p of 1e-2 and 2e-6, for 16 to 64 against 64 to 1,000, up to three
    quarters infinite or tied in pairs or eights.
    """
    from scipy.special import ndtr

    f, unit, sd = m / len(ranks), np.gcd.reduce(ranks - ranks.min()), ranks.std()
    target = (m * ranks.mean() - total - unit / 2) / sd if sd else 0.0  # of the upper tail
    if target <= 0:
        return 0.5
    design = np.stack([np.ones(len(ranks)), (ranks.mean() - ranks) / sd])  # [2, N]
    theta, information = _tilted(design, f, np.array([m, target]))
    drop = theta @ [m, target] - np.logaddexp(math.log1p(-f), math.log(f) + theta @ design).sum()
    r, half = math.sqrt(2 * max(drop, 0.0)), unit / sd / 2
    if r < 0.1:
        return float(ndtr(-r))  # r* is 0 / 0 there
    u = math.sinh(theta[1] * half) / half * math.sqrt(np.linalg.det(information) / (len(ranks) * f * (1 - f)))
    return float(ndtr(-r - math.log(u / r) / r))


def _tilted(design: _Array, f: float, target: _Array) -> tuple[_Array, _Array]:
    """Newton's way to the theta [2] at which the tilted draws have the target as mean, and their
    information [2, 2]; no log-odds moves by more than 1 at once, and at 200 p is 0 in any float."""
    from scipy.special import expit, logit

    theta = np.zeros(2)
    for _ in range(200):
        p = expit(logit(f) + theta @ design)
        information = (design * p * (1 - p)) @ design.T
        step = np.linalg.solve(information, target - design @ p)
        largest = np.abs(step @ design).max()
        if largest < 1e-9:
            break
        theta = theta + step / max(1.0, largest)
    return theta, information


# Power --------------------------------------------------------------------------------------------


def smallest_seen(n: int, level: float, spread: float, effect: float, infinite: float = 0.0) -> float:
    """Shift of normal samples of n, in the units of ``spread``, that is named with probability FOUND.

    ``infinite`` is the share of values, on either side, that are infinite instead, shifted or not. The
    rank test has to find the shift, and the medians have to be further apart than ``effect``; each may
    miss half of what FOUND leaves. Infinity where no shift is found so often.
    """
    count = math.ceil(round(infinite * n, 6))
    found = detectable(n, level, count)
    return max(found * spread, effect + _between_medians(n, count) * spread) if found < math.inf else found


@cache
def _between_medians(n: int, infinite: int) -> float:
    """Deviations by which two medians come closer than their expectations, but for MISSED.

    Without infinities their difference has a deviation of sqrt(pi / n); else the quantiles of a median
    are those of Beta(k, n - k + 1) of the values' law, k = n // 2 + 1.
    """
    from scipy.special import ndtri
    from scipy.stats import beta

    if not infinite:
        return NormalDist().inv_cdf(1 - MISSED) * math.sqrt(math.pi / n)
    k = n // 2 + 1
    u = beta.ppf([MISSED, 0.5, 1 - MISSED], k, n - k + 1) / (1 - infinite / n)
    low, middle, high = ndtri(np.minimum(u, 1))
    return math.hypot(high - middle, middle - low)


@cache
def detectable(n: int, level: float, infinite: int = 0) -> float:
    """Shift, in deviations of normal samples of n, that the rank test finds but for (1 - FOUND) / 2.

    Each value is infinite, on either side, with probability infinite / n, shifted or not.
    """
    found = _drawn(n, level, infinite) if n <= DRAWN else _projected(n, level, infinite)
    low, high = 0.0, 16.0
    if not found(high):
        return math.inf
    while high - low > 0.02:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _drawn(n: int, level: float, infinite: int) -> Callable[[float], bool]:
    """Whether a shift is found, by 4,000 drawn pairs of samples, from a fixed seed: to 2% or so."""
    from scipy.stats import rankdata

    generator = np.random.default_rng(0)
    draws = generator.normal(size=(2, 4000, n))
    draws[generator.random(draws.shape) < infinite / n] = math.inf
    ties = np.isinf(draws).sum((0, 2))
    critical = np.array([_critical(n, count, level) for count in range(ties.max() + 1)])[ties]

    def found(shift: float) -> bool:
        low = 2 * rankdata(np.hstack([draws[0], draws[1] + shift]), axis=1)[:, :n].sum(1)
        return bool((low <= critical).mean() >= 1 - MISSED)

    return found


def _projected(n: int, level: float, infinite: int) -> Callable[[float], bool]:
    """Whether a shift is found, by the normal law of Hajek's projection of U / n^2, P(a < b) of pairs.

    It is not normal enough far out: the shift that it would miss with MISSED / 5 was missed, in 20,000
    drawn pairs of 33 to 520, with 0.0003 to 0.005.
    """
    from scipy.special import ndtr, ndtri

    q, z, grid = infinite / n, ndtri(1 - MISSED / 5), ndtri((np.arange(200) + 0.5) / 200)
    needed = 1.5 + 0.5 / n - _critical(n, 2 * infinite, level) / (2 * n * n)

    def moments(finite: _Array, infinity: float) -> tuple[float, float]:
        mean = (1 - q) * finite.mean() + q * infinity
        return mean, (1 - q) * ((finite - mean) ** 2).mean() + q * (infinity - mean) ** 2

    def found(shift: float) -> bool:
        mean, of_a = moments((1 - q) * ndtr(shift - grid) + q, q / 2)
        _, of_b = moments((1 - q) * ndtr(shift + grid), 1 - q / 2)
        return bool(mean - z * math.sqrt((of_a + of_b) / n) >= needed)

    return found


@cache
def _critical(n: int, ties: int, level: float) -> int:
    """Largest doubled rank sum of n among 2n values, ``ties`` of them infinite, that is named; or less."""
    ranks = _ranks([*range(2 * n - ties)] + [math.inf] * ties)
    sums = range(n * (n + 1) - 1, n * (2 * n + 1))  # from below the least to the mean
    return sums[bisect_right(sums, level, key=lambda total: _two_sided(ranks, n, total)[0]) - 1]
