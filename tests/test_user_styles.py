"""Trainers in the styles of today: correct ones are not accused, subtle faults are seen by the law that they break."""

import pytest

from identity_props.conformance.rows import DESIGN, FAIL, PASS
from identity_props.conformance.training import TRAINS, check_trainer, row_of
from identity_props.trainers import TRAINER_LAWS, Bench
from tests import styles_of_epochs, user_styles
from tests.user_styles import batches_shuffled, loop

CLEAN = (*user_styles.CLEAN, *styles_of_epochs.CLEAN)
FAULTY = {**user_styles.FAULTY, **styles_of_epochs.FAULTY}

pytestmark = pytest.mark.thorough


def named(fit):
    """The name of a function, or of what a partial one is given."""
    given = [value for value in getattr(fit, "keywords", {}).values() if callable(value)]
    return getattr(fit, "__name__", "") or "-".join(
        getattr(one, "__name__", "") for one in [*given, fit.func][:1]
    )


@pytest.mark.parametrize("fit", [*CLEAN, loop], ids=named)
def test_a_correct_trainer_is_not_accused(fit):
    rows = [*check_trainer(Bench(fit))]
    assert [str(one) for one in rows if one.verdict == FAIL] == []
    assert {TRAINS, "trajectory", "every-example"} <= {one.name for one in rows if one.verdict == PASS}


@pytest.mark.parametrize(("fit", "law"), FAULTY.items(), ids=map(named, FAULTY))
def test_a_subtle_fault_is_seen(fit, law):
    found = row_of(TRAINER_LAWS[law], Bench(fit))
    assert found.verdict == FAIL, str(found)


def test_batches_that_are_shuffled_whole_are_named():
    found = row_of(TRAINER_LAWS["order"], Bench(batches_shuffled))
    assert (found.verdict, found.kind) == (DESIGN, "batches")
