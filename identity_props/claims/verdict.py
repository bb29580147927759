"""Verdicts: claims judged over seeds by exact binomial tests, with more replicas while undecided.

A claim says that at least a required share of all seeds does what is expected. Too many replicas
do it for that share: the claim holds; too few: it fails; else it is undecided and the replicas are
doubled, up to ``LOOKS`` looks. What is still undecided then counts as failed, by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from identity_props.claims.registry import Claim
from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Run, Trial
from identity_props.errors import InputError
from identity_props.explanation.explain import Explanation
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
LOOKS = 4  # 8, 16, 32, 64 replicas by default
FALSE_HOLD = 0.01  # probability of "holds" where the true share is only the required one, all looks

Curves = tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]  # steps [E], FVU [K][E]
Trainer = Callable[[Sequence[Trial], Sequence[int]], list[Run]]


@dataclass(frozen=True)
class Outcome:
    """A claim, judged: lists hold one value a replica, of the claim's first trial.

    ``curves`` are the measured steps and the FVU of each replica at them. ``explanation`` is that of the
    first replica, where it was asked for. ``passes`` is the number of groups that replicas trained in, 1 unless memory, cache or stack want more.
    """

    claim: Claim
    verdict: str
    successes: int
    fvu: tuple[float, ...]
    fvu_pixels: tuple[float, ...]
    steps_to_identity: tuple[float, ...]
    budget_steps: int
    seconds: float
    crossing: tuple[float, ...] = ()
    passes: int = 1
    curves: Curves | None = field(default=None, repr=False)
    explanation: Explanation | None = field(default=None, repr=False, compare=False)

    @property
    def replicas(self) -> int:
        """Networks trained, over all looks."""
        return len(self.fvu)

    @property
    def holds(self) -> bool:
        """Whether the verdict is "holds"."""
        return self.verdict == HOLDS

    def __str__(self) -> str:
        low, high = min(self.fvu), max(self.fvu)
        return (
            f"{self.claim.name} {self.verdict}: {self.successes} of {self.replicas} replicas"
            f" (required share {self.claim.share:g}), FVU {low:.2g} to {high:.2g}"
            f" after {self.budget_steps} steps; claimed: {self.claim.statement}"
        )


def decide(successes: int, replicas: int, share: float, look: int) -> str:
    """Exact one-sided binomial tests of ``share`` in both directions at level 0.01 / 2^(look + 1).

    holds: P(X >= successes | share) <= level; fails: P(X <= successes | share) <= level. The levels
    of all looks sum to less than 0.01, so a claim whose true share is at most the required one is
    caught with probability at least .99.
    """
    from scipy.special import bdtr, bdtrc  # binomial, and a second less to import than scipy.stats

    level = FALSE_HOLD / 2 ** (look + 1)
    if bdtrc(successes - 1, replicas, share) <= level:
        return HOLDS
    return FAILS if bdtr(successes, replicas, share) <= level else UNDECIDED


def looks(replicas: int) -> list[int]:
    """Replicas seen in all at each look, the first ``replicas``, then twice as many each time."""
    return [replicas * 2**look for look in range(LOOKS)]


def probability_of_holding(true_share: float, share: float, replicas: int) -> float:
    """P(verdict is "holds") if a replica succeeds with probability ``true_share``, all looks counted."""
    import numpy as np

    holding, alive, seen = 0.0, np.ones(1), 0  # alive[s]: undecided so far, with s successes
    for look, total in enumerate(looks(replicas)):
        added = _binomial(total - seen, true_share)
        alive, seen = np.convolve(alive, added), total
        verdicts = [decide(s, total, share, look) for s in range(total + 1)]
        holding += alive[[v == HOLDS for v in verdicts]].sum()
        alive = np.where([v == UNDECIDED for v in verdicts], alive, 0)
    return float(holding)


def _binomial(n: int, share: float) -> list[float]:
    """P(k of n), k = 0 .. n, n up to 1,000; scipy.stats takes a second to import."""
    return [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]


@cache
def share_found(share: float, replicas: int = 8, missed: float = 1e-6) -> float:
    """Smallest true share whose claim, of a required ``share``, is not said to hold with probability
    ``missed`` at most; 1 where only certainty will do."""
    low, high = share, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        found = 1 - probability_of_holding(middle, share, replicas) <= missed
        low, high = (low, middle) if found else (middle, high)
    return high


def judge(claim: Claim, pixels: Pixels, train: Trainer, replicas: int = 8, seed: int = 0) -> Outcome:
    """Train, look, decide; while undecided, double the replicas. Seeds are seed, seed + 1, ...

    Raises InputError for fewer than 1 replica or a claim that says nothing of these pixels.
    """
    if replicas < 1:
        raise InputError(f"replicas: expected at least 1, got {replicas}")
    if not claim.applies(pixels):
        raise InputError(f"{claim.name}: says nothing of {pixels.name} with {pixels.d} pixels")
    trials, successes, first, seconds, seen, passes = claim.plan(pixels), 0, [], 0.0, 0, 1
    for look, total in enumerate(looks(replicas)):
        runs = train(trials, range(seed + seen, seed + total))
        successes, seen = successes + int(claim.succeeded(runs).sum()), total
        first.append(runs[0])
        seconds += sum(run.seconds for run in runs)
        passes = max(passes, *(run.passes for run in runs))
        verdict = decide(successes, total, claim.share, look)
        if verdict != UNDECIDED:
            break
    return Outcome(
        claim,
        verdict,
        successes,
        fvu=tuple(v for run in first for v in run.fvu[:, -1].tolist()),
        fvu_pixels=tuple(v for run in first for v in run.fvu_pixels.tolist()),
        steps_to_identity=tuple(v for run in first for v in run.steps_to_identity.tolist()),
        crossing=tuple(v for run in first for v in run.crossing.tolist()),
        budget_steps=trials[0].steps,
        seconds=seconds,
        passes=passes,
        curves=(first[0].steps, tuple(tuple(curve) for run in first for curve in run.fvu.tolist())),
    )


def trainer(pixels: Pixels, stack: Stack | None = None) -> Trainer:
    """Trains trials one after the other in this process, each with the same seeds only once."""
    done: dict[tuple[Trial, tuple[int, ...]], Run] = {}

    def train_once(trial: Trial, seeds: tuple[int, ...]) -> Run:
        if (trial, seeds) not in done:
            with flushed_denormals():
                done[trial, seeds] = replace(train(trial, pixels, seeds, stack), state={})
        return done[trial, seeds]

    return lambda trials, seeds: [train_once(trial, tuple(seeds)) for trial in trials]
