"""Published: an optimizer that does not learn is not accused where its algorithm does not either."""

import math
from functools import partial

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, RMSprop

from identity_props.conformance import learning
from identity_props.conformance.learning import learning_trial, learns_row
from identity_props.conformance.published import as_published, ends_alike
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS
from identity_props.engine.training import train
from identity_props.stack.stack import Stack
from identity_props.task.data import digits

pytestmark = pytest.mark.thorough

PIXELS = digits(7, train=512, test=512)


class Stops(SGD):
    """Takes a hundred steps, which is more than any walk has."""

    def step(self, closure=None):
        self.taken = getattr(self, "taken", 0) + 1
        return super().step(closure) if self.taken <= 100 else None


@pytest.mark.parametrize("optimizer", [SGD, Adam, RMSprop, partial(Adagrad, eps=1e-6)])
def test_an_algorithm_in_place_of_its_implementation_trains_the_same_networks(optimizer):
    title, published = as_published(Stack(optimizer=optimizer))
    ends = [
        train(learning_trial(0.1, 40), PIXELS, range(2), stack).fvu[:, -1]
        for stack in (Stack(optimizer=optimizer), published)
    ]
    assert title
    assert torch.allclose(*ends, rtol=1e-3)


@pytest.fixture
def slow(monkeypatch):
    """One rate, at which gradient descent is not near-identity after 200 steps."""
    monkeypatch.setattr(learning, "budget", lambda d: 200)
    searched = partial(train, learning_trial(0.5, 50), PIXELS, range(2))
    monkeypatch.setattr(learning, "_searched", lambda stack, pixels: (0.5, searched(stack)))


@pytest.mark.usefixtures("slow")
def test_what_its_algorithm_does_not_learn_does_not_accuse_it():
    row = learns_row(Stack(optimizer=SGD), 0)
    assert row.verdict == NOT_APPLICABLE
    assert row.note.startswith("nor does SGD, which it is on a walk, FVU 0.0")


@pytest.mark.usefixtures("slow")
def test_what_ends_elsewhere_than_its_algorithm_fails_and_says_where_that_ends():
    row = learns_row(Stack(optimizer=Stops), 0)
    assert row.verdict == FAIL
    assert "; unlike SGD, which it is on a walk, FVU 0.0" in row.note


@pytest.mark.usefixtures("slow")
def test_a_layer_of_somebody_is_not_excused_by_the_optimizer_beside_it():
    class Lazy(torch.nn.Linear):
        pass

    assert learns_row(Stack(optimizer=SGD, linear=Lazy), 0).verdict == FAIL
    assert as_published(Stack(optimizer=Adam, loss=torch.nn.functional.l1_loss)) is None


def test_one_of_no_algorithm_has_none_in_its_place():
    class Signs(SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.grad = p.grad.sin()
            return super().step(closure)

    assert as_published(Stack(optimizer=Signs)) is None


def test_ends_are_alike_within_a_factor_of_two_and_where_both_diverge():
    assert ends_alike((1.0, math.nan), (1.9, math.inf))
    assert ends_alike((1.0,), (1.9, 100.0))
    assert not ends_alike((1.0,), (2.1,))
    assert not ends_alike((1.0,), (math.nan,))


def test_what_learns_is_compared_with_nothing(monkeypatch):
    monkeypatch.setattr(learning, "as_published", None)
    assert learns_row(Stack(optimizer=Adam), 0).verdict == PASS
