"""The gate: a run against a recorded baseline, end point and rate of every claim, on both sides.

Replicas are compared as two samples by a rank test, so that nothing is assumed of how FVU or steps
are distributed; a change also has to be larger than a stated effect. Where half of all values or more
are infinite, the shares of them are compared in place of the medians, by the same test, and any clear
difference counts. What cannot be compared fails.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from identity_props.claims.verdict import HOLDS
from identity_props.errors import InputError
from identity_props.gate.baseline import CONTEXT
from identity_props.gate.ranktest import EXACTLY, judged, smallest_p, smallest_seen

FALSE_FAIL = 1e-4  # probability that a gate of unchanged claims names a change, all rows together
# decades of steps and of FVU that a median has to move by
EFFECT = {"rate": math.log10(1.1), "end": math.log10(2)}
WORDS = {"rate": ("faster", "slower"), "end": ("better", "worse")}
INFINITE = {"rate": "never near-identity", "end": "not finite"}
SAME, CHANGED, BROKEN = "same", "changed", "broken"
MUST_AGREE = ("data", "stack")  # what makes it another run; of the others a difference is noted


@dataclass(frozen=True)
class Change:
    """One comparison: of a claim's rate or end, in decades, or of what the two runs are.

    ``found`` is the factor of the smallest change that is seen with probability .99, infinite where none
    is. ``method`` is what p is from: "exact" or "saddlepoint".
    """

    name: str
    verdict: str
    word: str = SAME
    factor: float = 1.0
    p: float = 1.0
    found: float = math.inf
    note: str = ""
    method: str = ""

    @property
    def alarming(self) -> bool:
        """Whether it fails the gate even where better is welcome."""
        return self.verdict == BROKEN or self.word in ("slower", "worse")


def compare(
    baseline: Mapping[str, Any], current: Mapping[str, Any], asked: Collection[str] | None = None
) -> list[Change]:
    """Every claim of either run in its rate and its end, and whether they are runs of one kind.

    Of the baseline those alone that are ``asked`` for, by name, if they are given; jobs follow from how many
    these are, and are not compared then. Raises InputError where the baseline has none of them.
    """
    if asked is None:
        return [*_contexts(baseline, current), *compare_claims(baseline["claims"], current["claims"])]
    part = {name: claim for name, claim in baseline["claims"].items() if name in asked}
    if not part:
        raise InputError(
            f"claims: expected some of the baseline's, {', '.join(baseline['claims'])}, got {', '.join(asked)}"
        )
    contexts = [change for change in _contexts(baseline, current) if change.name != "jobs"]
    return [*contexts, *compare_claims(part, current["claims"])]


def left_out(baseline: Mapping[str, Any], asked: Collection[str] | None) -> list[str]:
    """Claims of the baseline that were not asked for."""
    return [] if asked is None else [name for name in baseline["claims"] if name not in asked]


def passes(changes: Sequence[Change], strict: bool = False) -> bool:
    """No row alarms and there is one that compares; strictly, none differs at all."""
    compared = any(change.verdict != BROKEN and "/" in change.name for change in changes)
    return compared and not any(change.alarming or (strict and change.verdict != SAME) for change in changes)


def _contexts(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Change]:
    for name in CONTEXT:
        if baseline[name] != current[name]:
            note = f"{_brief(baseline[name], current[name])}, now {_brief(current[name], baseline[name])}"
            yield Change(name, BROKEN if name in MUST_AGREE else CHANGED, "differs", note=note)


def _brief(value: Any, other: Any) -> str:
    """What is not in the other, where there are parts."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        parts = [f"{k} {v}" for k, v in value.items() if other.get(k) != v]
        return ", ".join(parts) or "nothing of it"
    return str(value)


def compare_claims(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Every claim of either record, as ``claim_record`` makes them, in its rate and its end."""
    rows = 2 * len(before.keys() | after.keys())
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            where = "this run" if name in before else "the baseline"
            yield Change(name, BROKEN, "missing", note=f"not in {where}")
            continue
        if after[name]["verdict"] != HOLDS:
            yield Change(name, BROKEN, after[name]["verdict"], note="the claim itself does not hold")
        budgets = before[name]["budget"], after[name]["budget"]
        if budgets[0] != budgets[1]:  # another claim: its end says nothing of this one's
            yield Change(name, BROKEN, "differs", note="budget {} steps, now {}".format(*budgets))
            continue
        for metric in WORDS:
            yield _compared(f"{name}/{metric}", metric, before[name], after[name], FALSE_FAIL / rows)


def _compared(
    name: str, metric: str, before: Mapping[str, Any], after: Mapping[str, Any], level: float
) -> Change:
    a, b = ([math.inf if v is None else v for v in claim[metric]] for claim in (before, after))
    n, infinite = min(len(a), len(b)), a.count(math.inf) / len(a)
    if any(map(math.isnan, a + b)):
        return Change(name, BROKEN, "NaN", note="NaN never compares")
    if smallest_p(len(a), len(b)) > level:
        return Change(name, BROKEN, "too few", note=f"{n} replicas cannot show a change at {level:.1g}")
    shares = statistics.median_high(a + b) == math.inf  # however the pooled values are dealt
    x, y = ([float(v == math.inf) for v in values] if shares else values for values in (a, b))
    (p, how), moved = judged(x, y), _share_moved(x, y) if shares else _median_moved(x, y)
    seen = math.inf if shares else smallest_seen(n, level, _spread(a), EFFECT[metric], infinite)
    same = p > level or abs(moved) <= EFFECT[metric]  # neither is NaN: infinities cancel
    verdict, word = (SAME, SAME) if same else (CHANGED, WORDS[metric][moved > 0])
    return Change(name, verdict, word, _power(moved), p, _power(seen), _note(a, b, metric, how), how)


def _note(a: Sequence[float], b: Sequence[float], metric: str, how: str) -> str:
    """What of the replicas has no number, on either side, and how p was got where it was not counted."""
    without, now = a.count(math.inf), b.count(math.inf)
    told = f"{without} of {len(a)} {INFINITE[metric]}, now {now} of {len(b)}"
    sizes = f"{len(a)} replicas, now {len(b)}"
    parts = (told if without or now else sizes if len(a) != len(b) else "", f"p by a {how}")
    return "; ".join(part for part in parts[: 1 + (how != EXACTLY)] if part)


def _median_moved(a: Sequence[float], b: Sequence[float]) -> float:
    return _difference(statistics.median_high(b), statistics.median_high(a))


def _share_moved(a: Sequence[float], b: Sequence[float]) -> float:
    """Infinite where the shares of infinite values differ: a value that is lost has moved that far."""
    more = statistics.fmean(b) - statistics.fmean(a)
    return math.copysign(math.inf, more) if more else 0.0


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else a - b


def _power(decades: float) -> float:
    return math.inf if decades > 300 else 10**decades


def _spread(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.stdev(finite) if len(finite) > 1 else 0.0
