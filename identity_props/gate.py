"""The gate: a run against a recorded baseline, end point and rate of every claim, on both sides.

Replicas are compared as two samples by a rank test, so that nothing is assumed of how FVU or steps
are distributed; a change also has to be larger than a stated effect. What cannot be compared fails.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

from identity_props.claims.verdict import HOLDS, Outcome
from identity_props.errors import InputError

SCHEMA = "identity-props/baseline/1"
FALSE_FAIL = 1e-4  # probability that a gate of unchanged claims names a change, all rows together
FOUND = 0.99  # probability with which the smallest change is found that a row states
# decades of steps and of FVU that a median has to move by
EFFECT = {"rate": math.log10(1.1), "end": math.log10(2)}
WORDS = {"rate": ("faster", "slower"), "end": ("better", "worse")}
LARGEST = 10 * 2**20  # bytes; a baseline of 22 claims and 64 replicas has 80 kB
SAME, CHANGED, BROKEN = "same", "changed", "broken"
CONTEXT = ("data", "stack", "seed", "jobs", "threads", "machine", "versions")
MUST_AGREE = ("data", "stack")  # what makes it another run; of the others a difference is noted

_VALUES = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 1}
_CLAIM = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["holds", "fails", "undecided"]},
        "successes": {"type": "integer", "minimum": 0},
        "budget": {"type": "integer", "minimum": 0},
        "rate": _VALUES,
        "end": _VALUES,
    },
    "required": ["verdict", "successes", "budget", "rate", "end"],
    "additionalProperties": False,
}
_SHAPE = {
    "type": "object",
    "properties": {
        "schema": {"const": SCHEMA},
        "claims": {"type": "object", "additionalProperties": _CLAIM, "minProperties": 1},
        "seed": {"type": "integer"},
        **{name: {"type": "object"} for name in ("data", "stack", "machine", "versions")},
    },
    "required": ["schema", "claims", *CONTEXT],
}


@dataclass(frozen=True)
class Change:
    """One comparison: of a claim's rate or end, in decades, or of what the two runs are.

    ``found`` is the factor of the smallest change that is seen with probability .99.
    """

    name: str
    verdict: str
    word: str = SAME
    factor: float = 1.0
    p: float = 1.0
    found: float = math.inf
    note: str = ""

    @property
    def alarming(self) -> bool:
        """Whether it fails the gate even where better is welcome."""
        return self.verdict == BROKEN or self.word in ("slower", "worse")


# The file -----------------------------------------------------------------------------------------


def record(outcomes: Sequence[Outcome], context: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline: log10 of steps to near-identity and of FVU, a value a replica, null for infinite."""
    claims = {outcome.claim.name: claim_record(outcome) for outcome in outcomes}
    ordered = dict(sorted(claims.items()))
    return {"schema": SCHEMA, **{name: context[name] for name in CONTEXT}, "claims": ordered}


def claim_record(outcome: Outcome) -> dict[str, Any]:
    """What a baseline holds of one claim."""
    return {
        "verdict": outcome.verdict,
        "successes": outcome.successes,
        "budget": outcome.budget_steps,
        "rate": [_decades(steps) for steps in outcome.crossing],
        "end": [_decades(fvu) for fvu in outcome.fvu],
    }


def _decades(value: float) -> float | None:
    """To six digits, so that a file reads well; 1e-300 stands for 0, null for what is not finite."""
    return round(math.log10(max(value, 1e-300)), 6) if math.isfinite(value) else None


def merged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of many, of one run; raises InputError where they are of several, or there is none."""
    if not records:
        raise InputError("gate: expected claims to compare, got none")
    first: Mapping[str, Any] = records[0]
    claims: dict[str, Any] = {}
    for one in records:
        differing = [name for name in CONTEXT if one[name] != first[name]]
        if differing:
            raise InputError(f"gate: expected claims of one run, got two kinds of {', '.join(differing)}")
        claims |= one["claims"]
    return {**first, "claims": claims}


def text(baseline: Mapping[str, Any]) -> str:
    """JSON with one line for each claim and each fact of the run."""

    def lines(values: Mapping[str, Any], indent: str) -> str:
        inner = [f"{indent} {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in values.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"

    head = {name: value for name, value in baseline.items() if name != "claims"}
    return lines(head, "")[:-2] + f',\n "claims": {lines(baseline["claims"], " ")}\n}}\n'


def read(path: Path) -> dict[str, Any]:
    """A baseline from its file; raises InputError for one that is absent, too large or not one."""
    check_place(path)
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"baseline {path}: expected {LARGEST // 2**20} MiB at most, got more")
        baseline = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError as error:
        raise InputError(f"baseline {path}: there is none; --update records one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"baseline {path}: expected JSON, got: {error}") from error
    return _validated(baseline, path)


def check_place(path: Path) -> None:
    """Raise InputError for a baseline that is a folder, or not in the working folder or below."""
    if not path.resolve().is_relative_to(Path.cwd()):
        raise InputError(f"baseline {path}: expected a file in the working folder, got one outside")
    if path.is_dir():
        raise InputError(f"baseline {path}: expected a file, got a folder")


def _refuse(constant: str) -> None:
    raise InputError(f"baseline: expected finite numbers and null, got {constant}")


def _validated(baseline: Any, path: Path) -> dict[str, Any]:
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(_SHAPE).iter_errors(baseline)), None)
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"baseline {path}: at {where}: {error.message[:200]}")
    return dict(baseline)


# The comparison -----------------------------------------------------------------------------------


def compare(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> list[Change]:
    """Every claim of either run in its rate and its end, and whether they are runs of one kind."""
    return [*_contexts(baseline, current), *compare_claims(baseline["claims"], current["claims"])]


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
        for metric in WORDS:
            yield _compared(f"{name}/{metric}", metric, before[name], after[name], FALSE_FAIL / rows)


def _compared(
    name: str, metric: str, before: Mapping[str, Any], after: Mapping[str, Any], level: float
) -> Change:
    a, b = (sorted(math.inf if v is None else v for v in claim[metric]) for claim in (before, after))
    n = min(len(a), len(b))
    if smallest_p(n) > level:
        note = f"{n} replicas cannot show a change at {level:.1g}"
        return Change(name, BROKEN, "too few", note=note)
    p, moved = rank_test(a, b), _difference(statistics.median_high(b), statistics.median_high(a))
    never = not any(map(math.isfinite, a))  # nothing to be slower than
    found = math.inf if never else _power(smallest_seen(n, level, _spread(a), EFFECT[metric]))
    if p > level or abs(moved) <= EFFECT[metric]:  # neither is NaN: infinities cancel
        return Change(name, SAME, SAME, _power(moved), p, found)
    return Change(name, CHANGED, WORDS[metric][moved > 0], _power(moved), p, found)


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else a - b


def _power(decades: float) -> float:
    return math.inf if decades > 300 else 10**decades


def _spread(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.stdev(finite) if len(finite) > 1 else 0.0


def rank_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of Mann and Whitney's test that a and b are draws of one distribution.

    Exact without ties, else by the normal law with its correction for them; infinity ranks last.
    """
    from scipy.stats import mannwhitneyu

    if sorted(a) == sorted(b):
        return 1.0
    ranks = {value: float(rank) for rank, value in enumerate(sorted({*a, *b}))}
    ties = len(ranks) < len(a) + len(b)
    one, other = ([ranks[value] for value in values] for values in (a, b))
    return float(mannwhitneyu(one, other, method="asymptotic" if ties else "exact").pvalue)


@cache
def smallest_p(n: int) -> float:
    """The p of two samples of n that do not overlap, ties or none: n that is too small shows nothing."""
    apart = rank_test(range(n), range(n, 2 * n)), rank_test([0] * n, [1] * n)
    return max(apart)


def smallest_seen(n: int, level: float, spread: float, effect: float) -> float:
    """Shift of normal samples of n, in the units of ``spread``, that is named with probability FOUND.

    The rank test has to find it, and the medians have to be further apart than ``effect``; their
    difference has a deviation of spread sqrt(pi / n). Each may miss half of what FOUND leaves.
    """
    beyond = NormalDist().inv_cdf((1 + FOUND) / 2) * spread * math.sqrt(math.pi / n)
    return max(detectable(n, level) * spread, effect + beyond)


@cache
def detectable(n: int, level: float) -> float:
    """Shift, in deviations of normal samples of n, that the rank test finds but for (1 - FOUND) / 2.

    By 4,000 drawn pairs of samples a bisection step, from a fixed seed: to 2% or so.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    draws = np.random.default_rng(0).normal(size=(2, 4000, n))
    low, high = 0.0, 16.0
    while high - low > 0.02:
        middle = (low + high) / 2
        p = mannwhitneyu(draws[0], draws[1] + middle, axis=1, method="exact").pvalue
        low, high = (low, middle) if (p <= level).mean() >= (1 + FOUND) / 2 else (middle, high)
    return high
