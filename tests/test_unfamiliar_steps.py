"""Sound optimizers that laws once accused, each beside a faulty one that they see."""

import pytest
import torch

from identity_props.conformance.checking import planned
from identity_props.conformance.facts import norms_kept
from identity_props.conformance.learning import learning_trial
from identity_props.conformance.rows import FAIL, Reference
from identity_props.engine.training import train
from identity_props.stack.stack import Stack
from identity_props.task.data import digits
from tests.unfamiliar_steps import FAULTY, SOUND, KeepsRows, TowardsOrthogonal

SGD = torch.optim.SGD


def rows(optimizer, *names):
    return {name: row() for name, row in planned(Stack(optimizer=optimizer), Reference(), 0) if name in names}


@pytest.mark.parametrize(("make", "names"), SOUND.items())
def test_a_sound_one_is_not_accused(make, names):
    found = rows(make, *names)
    assert found.keys() == {*names}
    assert [str(row) for row in found.values() if row.verdict == FAIL] == []


@pytest.mark.parametrize(("make", "name"), FAULTY.items())
def test_a_faulty_one_is_seen(make, name):
    assert rows(make, name)[name].verdict == FAIL


@pytest.mark.parametrize(
    ("make", "said"), [(KeepsRows, "each row"), (SGD, ""), (TowardsOrthogonal, ""), (torch.optim.Adam, "")]
)
def test_norms_that_steps_keep_are_named(make, said):
    assert norms_kept(Stack(optimizer=make)) == said


def test_one_that_stands_still_keeps_no_norms():
    class Still(SGD):
        def step(self, closure=None):
            pass

    assert norms_kept(Stack(optimizer=Still)) == ""


# Rates that are too high ----------------------------------------------------------------------------------


def trained(make, lr, seeds=range(1)):
    return train(learning_trial(lr, 64), digits(7, train=64, test=64), seeds, Stack(optimizer=make))


def test_one_that_raises_at_weights_that_diverge_has_diverged():
    assert trained(TowardsOrthogonal, 1e3).fvu[:, -1].isnan().all()


def test_one_that_raises_at_finite_weights_raises():
    class Raises(SGD):
        def step(self, closure=None):
            super().step()
            raise ArithmeticError("no more")

    with pytest.raises(ArithmeticError, match="no more"):
        trained(Raises, 1e-3)
