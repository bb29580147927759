"""Hints: what shows a trait at its first step alone is told how to ask whether it is that; and nobody else."""

import pytest
import torch
from torch.optim import SGD, Adam

from identity_props.conformance import hints
from identity_props.conformance.checking import check_laws
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, Reference, Row
from identity_props.conformance.traits import TRAITS
from identity_props.report.tables import check_table
from identity_props.stack.stack import Stack
from tests.test_fitting import shown


class Uncorrected(Adam):
    """Adam whose bias correction ends after its first step."""

    def step(self, closure=None):
        for state in self.state.values():
            if state.get("step", 0) >= 1:
                state["step"].fill_(1e6)
        return super().step(closure)


class Heavy(SGD):
    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, momentum=0.9)


@pytest.mark.parametrize(
    ("optimizer", "trait", "says"),
    [
        (Uncorrected, "adam throughout", "its first step is Adam's, later ones are not: if that is meant, try --like torch.optim:Adam"),
        (Heavy, "gradient-descent", "its first step is gradient descent's"),
        (torch.optim.Rprop, "gradient-descent", ""),
        (torch.optim.LBFGS, "gradient-descent", ""),
        (torch.optim.Muon, "adam throughout", ""),
    ],
)  # fmt: skip
def test_a_trait_that_holds_of_the_first_step_gives_a_hint(optimizer, trait, says):
    assert hints.hint(Stack(optimizer=optimizer), [trait]).startswith(says)
    assert bool(hints.hint(Stack(optimizer=optimizer), [trait])) == bool(says)


@pytest.mark.thorough
def test_a_row_that_does_not_apply_says_it_unless_the_part_is_declared(one_family):
    stack = Stack(optimizer=Uncorrected)
    row = {row.name: row for row in check_laws(stack, stack, Reference())}["adam-steps"]
    assert row.verdict == NOT_APPLICABLE
    assert row.note.endswith("try --like torch.optim:Adam")
    like = Reference(optimizer=Adam)
    rows = {row.name: row for row in check_laws(stack, Stack(optimizer=Adam), like)}
    assert rows["adam-steps"].verdict == FAIL
    assert not any(hints.TRY in row.note for row in rows.values())


def test_the_table_ends_with_what_to_try():
    note = "not adam throughout; its first step is Adam's, later ones are not: if that is meant, try --like torch.optim:Adam"
    rows = [Row(name, NOT_APPLICABLE, note=note) for name in ("adam-steps", "other")]
    out = shown(check_table(rows, Stack()), 120)
    assert out.count("Its first step is Adam's") == 1
    assert out.rstrip().endswith("try --like torch.optim:Adam.")


def test_hints_are_of_traits_and_a_trait_that_holds_throughout_holds_of_the_first_step():
    assert hints.PARTLY.keys() <= TRAITS.keys()
    assert hints.hint(Stack(optimizer=SGD), ["gradient-descent"])
    assert hints.hint(Stack(optimizer=Adam), ["adam throughout"])
    assert hints.hint(Stack(), ["adam throughout"]) == ""
