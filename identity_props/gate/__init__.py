"""The gate: a run against a recorded baseline, end point and rate of every claim, on both sides."""

from identity_props.gate.baseline import (
    CONTEXT,
    check_place,
    claim_record,
    merged,
    read,
    record,
    text,
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
    passes,
)
from identity_props.gate.ranktest import rank_test, smallest_p, smallest_seen

__all__ = [
    "BROKEN",
    "CHANGED",
    "CONTEXT",
    "EFFECT",
    "FALSE_FAIL",
    "SAME",
    "Change",
    "check_place",
    "claim_record",
    "compare",
    "compare_claims",
    "merged",
    "passes",
    "rank_test",
    "read",
    "record",
    "smallest_p",
    "smallest_seen",
    "text",
]
