"""Traits: an optimizer is what it does."""

import pytest
import torch

from identity_props.laws import LAWS
from identity_props.stack import Stack
from identity_props.traits import TRAITS, traits

SGD, Adam = torch.optim.SGD, torch.optim.Adam
GIVEN = {"stepping on given gradients", "for any shape"}


class Renamed(SGD):
    """Gradient descent under another name, with arguments of its own."""

    def __init__(self, params, lr, verbose=True):
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ("stack", "fits"),
    [
        (Stack(optimizer=SGD), "gradient-descent, momentum, decay, still, elementwise, implementations"),
        (
            Stack(optimizer=SGD, arguments={"momentum": 0.5}),
            "momentum, decay, still, elementwise, implementations",
        ),
        (
            Stack(optimizer=SGD, arguments={"nesterov": True, "momentum": 0.5}),
            "still, elementwise, implementations",
        ),
        (Stack(optimizer=Renamed), "gradient-descent, still, elementwise"),
        (Stack(optimizer=Adam), "adam, scale-free, still, elementwise, implementations"),
        (Stack(optimizer=torch.optim.AdamW), "scale-free, elementwise, implementations"),
        (Stack(optimizer=torch.optim.RMSprop), "rmsprop, scale-free, still, elementwise"),
        (Stack(optimizer=torch.optim.Adafactor), "still"),
    ],
    ids=lambda value: value.describe()["optimizer"] if isinstance(value, Stack) else "",
)
def test_an_optimizer_has_the_traits_that_it_shows(stack, fits):
    assert traits(stack) == GIVEN | set(fits.split(", "))


def test_an_optimizer_of_matrices_says_so():
    assert traits(Stack(optimizer=torch.optim.Muon)) == {"scale-free", "stepping on given gradients"}


def test_an_optimizer_that_wants_a_closure_has_no_traits():
    assert traits(Stack(optimizer=torch.optim.LBFGS)) == frozenset()


def test_a_stack_without_an_optimizer_of_its_own_meets_every_law():
    assert traits(Stack()) == frozenset(TRAITS)
    assert set().union(*(law.needs for law in LAWS.values())) <= set(TRAITS)
