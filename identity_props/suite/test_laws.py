"""The laws, each over families of data sets, widths, rates and seeds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given

from identity_props.conformance.checking import for_laws, trains_alone
from identity_props.conformance.meant import unclipped, why_not
from identity_props.conformance.promises import ClipsError
from identity_props.laws import LAWS
from identity_props.laws.families import Family
from identity_props.laws.strategies import families
from identity_props.laws.walking import NotOfferedError

DTYPES = {"float64": torch.float64, "float32": torch.float32}
# corners that every law meets in every run; what the nightly profile finds is added here
EXPLICIT = (
    Family(d=2, n=1, rank=1),
    Family(d=7, n=5, rank=7, decades=6, factor=0.95, log_scale=3, steps=12),
    Family(d=32, n=48, rank=32, decades=6, sign="non-negative", dead=5, equal=3, log_scale=-3, factor=0.05),
    Family(d=9, n=20, rank=9, sign="non-negative", sparsity=0.9, dead=7, equal=2),
    # gradients of mere rounding, 1e-22, that an eps of 1e-30 was not negligible to
    Family(24, 7, 11, 0.0, "non-negative", 0.5, dead=18, log_scale=-3.0, factor=0.05, steps=5, seed=2026),
    # a last pixel that is 0 in all examples
    Family(
        2, 2, 1, 4.175111766322363, sparsity=0.5, log_scale=0.6967812592240306, factor=0.05, steps=5, seed=1
    ),
)


def explicit(test):
    for family in EXPLICIT:
        test = example(family=family)(test)
    return test


pytestmark = pytest.mark.identity


@pytest.fixture(autouse=True)
def _law_applies(request, identity_traits, identity_stack, identity_like):
    reason = why_not(request.node.callspec.params["law"], identity_stack, identity_like, identity_traits)
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("law", "dtype"),
    [
        pytest.param(law, DTYPES[dtype], id=f"{name}-{dtype}")
        for name, law in LAWS.items()
        for dtype in DTYPES
        if dtype == "float64" or dtype in law.axes
    ],
)
@explicit
@given(family=families())
def test_law_holds(law, dtype, family, identity_stack, identity_like, identity_traits):
    stack = replace(for_laws(identity_stack, identity_traits), dtype=dtype)
    case = family.case(1) if trains_alone(identity_stack) else family.case()  # asked once, and cached
    try:
        discrepancy = law.measure(unclipped(law, stack, identity_like), case)
    except (ClipsError, NotOfferedError):  # the law says nothing of it
        return
    assert discrepancy.holds, f"{law.name}: {discrepancy}; {law.statement}"
