"""Traits: an optimizer is what it does."""

import pytest
import torch
from torch import nn

from identity_props.conformance.traits import FACTS, TRAITS, traits
from identity_props.laws import LAWS
from identity_props.stack.stack import Stack

SGD, Adam = torch.optim.SGD, torch.optim.Adam
PLAIN = {"affine layer", "relu", "symmetric init", "mean squared error", "one rank", "torch's own network"}
GIVEN = {"stepping on given gradients", "for any shape"} | PLAIN


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
        (Stack(optimizer=Adam), "adam, adam throughout, scale-free, still, elementwise, implementations"),
        (Stack(optimizer=torch.optim.AdamW), "scale-free, elementwise, implementations"),
        (Stack(optimizer=torch.optim.RMSprop), "rmsprop, scale-free, still, elementwise, implementations"),
        (Stack(optimizer=torch.optim.Adafactor), "still, implementations"),
    ],
    ids=lambda value: value.describe()["optimizer"] if isinstance(value, Stack) else "",
)
def test_an_optimizer_has_the_traits_that_it_shows(stack, fits):
    assert traits(stack) == GIVEN | set(fits.split(", "))


def test_an_optimizer_of_matrices_says_so():
    assert traits(Stack(optimizer=torch.optim.Muon)) - PLAIN == {"scale-free", "stepping on given gradients"}


def test_an_optimizer_that_wants_a_closure_has_no_traits():
    assert traits(Stack(optimizer=torch.optim.LBFGS)) == PLAIN


def test_a_stack_without_an_optimizer_of_its_own_has_every_trait_of_optimizers():
    assert traits(Stack()) == set(TRAITS) | PLAIN


def test_laws_need_what_can_be_found():
    assert set().union(*(law.needs for law in LAWS.values())) <= {*TRAITS, *FACTS}


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Factored(nn.Module):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.randn(n, 2)) for n in (fan_out, fan_in))

    def forward(self, x):
        return x @ self.v @ self.u.T


@pytest.mark.parametrize(
    ("part", "lost", "found"),
    [
        ({"linear": Doubled}, {"affine layer"}, set()),
        ({"linear": Factored}, {"affine layer"}, set()),
        ({"activation": torch.tanh}, {"relu"}, set()),
        ({"activation": nn.functional.relu}, set(), set()),
        ({"init": lambda layer: nn.init.eye_(layer.weight)}, {"symmetric init"}, set()),
        ({"loss": nn.functional.l1_loss}, {"mean squared error"}, set()),
        ({"mode": "compiled"}, set(), {"another device or mode or ranks"}),
        ({"ranks": 2}, {"one rank"}, {"several ranks", "another device or mode or ranks"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_stack_s_other_parts_have_the_traits_that_they_show(part, lost, found):
    own = set() if "init" in part else {"torch's own network"}
    assert traits(Stack(**part)) == (set(TRAITS) | PLAIN) - lost - own | found
