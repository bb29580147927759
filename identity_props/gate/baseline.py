"""The file of a baseline: what a run is recorded as, and what a file has to be to be one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import Outcome
from identity_props.errors import InputError
from identity_props.gate.own import OWN
from identity_props.stack.stack import Stack

SCHEMA = "identity-props/baseline/1"
CONTEXT = ("data", "stack", "seed", "jobs", "threads", "machine", "versions")
LARGEST = 10 * 2**20  # bytes; a baseline of 30 claims and 64 replicas has 110 kB
MOST = 2**14  # replicas of a claim: 30 claims of so many have 9 MB

_VALUES = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST,  # before each of them is looked at
    "items": {"type": ["number", "null"], "minimum": -300, "maximum": 309},  # log10 of any float
}
_CLAIM = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["holds", "fails", "undecided"]},
        "successes": {"type": "integer", "minimum": 0, "maximum": MOST},
        "budget": {"type": "integer", "minimum": 0, "maximum": 2**53},
        "rate": _VALUES,
        "end": _VALUES,
        "lr": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e30},  # of claims of a stack's own
    },
    "required": ["verdict", "successes", "budget", "rate", "end"],
    "additionalProperties": False,
}
SHAPE = {
    "type": "object",
    "properties": {
        "schema": {"const": SCHEMA},
        "claims": {"type": "object", "additionalProperties": _CLAIM, "minProperties": 1},
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1},
        **{name: {"type": "integer", "minimum": 1, "maximum": 2**20} for name in ("jobs", "threads")},
        **{name: {"type": "object"} for name in ("data", "stack", "machine", "versions")},
    },
    "required": ["schema", "claims", *CONTEXT],
}


def record(outcomes: Sequence[Outcome], context: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline: log10 of steps to near-identity and of FVU, a value a replica, null for infinite."""
    claims = {outcome.claim.name: claim_record(outcome) for outcome in outcomes}
    ordered = dict(sorted(claims.items()))
    return {"schema": SCHEMA, **{name: context[name] for name in CONTEXT}, "claims": ordered}


def stack_of_record(stack: Stack) -> dict[str, Any]:
    """What a record says of a stack: its parts by name, and its optimizer's arguments where it has some."""
    arguments = {name: repr(value) for name, value in sorted(stack.arguments.items())}
    return stack.describe() | ({"arguments": arguments} if arguments else {})


def claim_record(outcome: Outcome) -> dict[str, Any]:
    """What a baseline holds of one claim."""
    return {
        "verdict": outcome.verdict,
        "successes": outcome.successes,
        "budget": outcome.budget_steps,
        "rate": [_decades(steps) for steps in outcome.crossing],
        "end": [_decades(fvu) for fvu in outcome.fvu],
        **({} if outcome.claim.lr is None else {"lr": outcome.claim.lr}),
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


def with_kept(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], forget: bool = False
) -> dict[str, Any]:
    """A record with those claims of one before that it has not itself, as far as there are such claims still.

    Raises InputError where the two are of other data, stacks, seeds, versions, machines or threads: jobs alone
    follow from which claims are asked for. With ``forget`` those claims are lost instead.
    """
    claims = before["claims"] if before else {}
    kept = {name: claims[name] for name in claims.keys() - after["claims"].keys() if name in CLAIMS | OWN}
    if not before or not kept:
        return dict(after)
    differing = [name for name in CONTEXT if name != "jobs" and before[name] != after[name]]
    if differing and forget:
        return dict(after)
    if differing:
        raise InputError(
            f"--update: expected a run like that of the {len(kept)} other claims in the baseline, got one of"
            f" another {', '.join(differing)}; record them all, or --force forgets them"
        )
    return {**after, "jobs": before["jobs"], "claims": dict(sorted((after["claims"] | kept).items()))}


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

    error = next(iter(Draft202012Validator(SHAPE).iter_errors(baseline)), None)
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"baseline {path}: at {_line(where)}: {_line(error.message)}")
    for name, claim in baseline["claims"].items():
        rate, end, successes = len(claim["rate"]), len(claim["end"]), claim["successes"]
        if rate != end or successes > end:
            expected = "expected a rate and an end of each replica, and successes among them"
            got = f"got {rate}, {end} and {successes}"
            raise InputError(f"baseline {path}: at claims/{_line(name)}: {expected}, {got}")
    return dict(baseline)


def _line(text: str, most: int = 200) -> str:
    """On one line; of a long one both ends, as what was expected stands last."""
    line = text.encode("unicode_escape").decode()
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"
