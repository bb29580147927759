"""The claims, each judged on the data and stack that the --identity options name."""

import pytest

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import judge
from identity_props.gate import OWN

pytestmark = pytest.mark.identity


def marked(claim):
    return pytest.param(
        claim, id=claim.name, marks=(pytest.mark.slow, pytest.mark.mnist) if claim.slow else ()
    )


# the longest come last in the registry, and first here, so that no worker is left alone with one at the end
@pytest.mark.parametrize("claim", [marked(claim) for claim in reversed(CLAIMS.values())])
def test_claim_holds(
    claim, identity_pixels, identity_stack, identity_train, identity_replicas, identity_record, pytestconfig
):
    if not claim.applies(identity_pixels):
        pytest.skip(f"says nothing of {identity_pixels.name} with {identity_pixels.d} pixels")
    if identity_stack.dtype not in claim.dtypes:
        pytest.skip(f"says nothing of {identity_stack.dtype}")
    if identity_stack.optimizer is not None:
        pytest.skip("its rate is for another optimizer; see below, and test_parts")
    seed = pytestconfig.getoption("identity_seed")
    outcome = judge(claim, identity_pixels, identity_train, identity_replicas, seed)
    identity_record(outcome)
    assert outcome.holds, str(outcome)


@pytest.mark.parametrize("name", OWN)
def test_claim_of_an_optimizer_of_its_own_holds(
    name, identity_own, identity_pixels, identity_train, identity_replicas, identity_record, pytestconfig
):
    claim = identity_own(name)
    outcome = judge(
        claim, identity_pixels, identity_train, identity_replicas, pytestconfig.getoption("identity_seed")
    )
    if pytestconfig.getoption("identity_update") and not outcome.holds:
        pytest.skip(f"not recorded: {outcome}")
    identity_record(outcome)
    assert outcome.holds, str(outcome)
