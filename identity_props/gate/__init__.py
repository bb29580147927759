"""The gate: a run against a recorded baseline, end point and rate of every claim, on both sides."""

from identity_props.gate.baseline import (
    CONTEXT,
    check_place,
    claim_record,
    merged,
    read,
    record,
    stack_of_record,
    text,
    with_kept,
)
from identity_props.gate.comparison import (
    BROKEN,
    CHANGED,
    EFFECT,
    FALSE_FAIL,
    SAME,
    Change,
    compare,
    compare_claims,
    left_out,
    passes,
)
from identity_props.gate.own import OWN, named, own_claims, rates_of
from identity_props.gate.ranktest import rank_test, smallest_p, smallest_seen

__all__ = [
    "BROKEN",
    "CHANGED",
    "CONTEXT",
    "EFFECT",
    "FALSE_FAIL",
    "OWN",
    "SAME",
    "Change",
    "check_place",
    "claim_record",
    "compare",
    "compare_claims",
    "left_out",
    "merged",
    "named",
    "own_claims",
    "passes",
    "rank_test",
    "rates_of",
    "read",
    "record",
    "smallest_p",
    "smallest_seen",
    "stack_of_record",
    "text",
    "with_kept",
]
