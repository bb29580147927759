"""What a stack's own parts have to do by themselves: learn at a rate of their own, be what they are like."""

import pytest

from identity_props.conformance.assertions import assert_learns_identity, assert_like
from identity_props.conformance.meant import recognised_plan
from identity_props.conformance.rows import FAIL, PASS

pytestmark = pytest.mark.identity


def test_an_optimizer_of_its_own_learns_the_identity(identity_stack):
    if identity_stack.optimizer is None:
        pytest.skip("the claims train with their own optimizers")
    assert_learns_identity(identity_stack)


def test_an_optimizer_is_the_algorithm_that_it_is_recognised_as(identity_stack, identity_like):
    for _, measure in recognised_plan(identity_stack, identity_like, 0):
        row = measure()
        assert row.verdict != FAIL, str(row)
        if row.verdict == PASS:
            return
        pytest.skip(row.note)
    pytest.skip("no optimizer to recognise, or one that is declared to be like another")


def test_parts_are_what_they_are_declared_to_be_like(identity_stack, identity_like):
    if not identity_like.parts and identity_like.clip is None:
        pytest.skip("no part is declared to be like another")
    assert_like(identity_stack, identity_like)
