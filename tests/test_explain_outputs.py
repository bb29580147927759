"""Last layers of other kinds: outputs that depend on each other, convolutions, indices, half precision, swinging steps."""

import pytest
import torch
from torch import nn

from identity_props.engine.trial import Recipe
from identity_props.explanation.changed import without_output
from identity_props.explanation.convolved import convolved
from identity_props.explanation.explain import explain
from identity_props.explanation.reachable import depend, unreached
from identity_props.explanation.readout import outputs
from identity_props.task.data import Pixels, digits
from tests.test_explain import PIXELS, D, perfect, shares

PICTURES = digits(7, train=256, test=64).scaled("unit")


class Unit(nn.Module):
    """Outputs of one length, whatever the input's."""

    def forward(self, x):
        return 300 * nn.functional.normalize(x, dim=1)


def affine_norm():
    made = nn.LayerNorm(D, dtype=torch.float64)
    nn.init.constant_(made.weight, float(PIXELS.train.std()))
    nn.init.constant_(made.bias, float(PIXELS.train.mean()))
    return made


DEPENDENT = {"softmax": lambda: nn.Softmax(1), "layer norm": affine_norm, "length": Unit}


@pytest.mark.parametrize("name", DEPENDENT)
def test_outputs_that_depend_on_each_other_are_a_matter_of_range(name):
    model = nn.Sequential(*perfect(), DEPENDENT[name]())
    assert depend(model, PIXELS.test)
    found = explain(model, PIXELS)
    assert shares(found)["range"] > 0.8, shares(found)
    assert sum(one.fvu for one in found.parts) == pytest.approx(found.fvu, rel=1e-6)
    assert all(p.grad is None for p in model.parameters())
    assert explain(without_output(model, PIXELS.train), PIXELS).near_identity


@pytest.mark.parametrize("tail", [nn.Sigmoid, nn.ReLU, nn.Identity, nn.Softplus, lambda: nn.BatchNorm1d(D)])
def test_outputs_taken_one_by_one_do_not_depend(tail):
    model = nn.Sequential(nn.Linear(D, D), tail())
    assert not depend(model, PIXELS.test)
    assert unreached(model, PIXELS) == 0


def test_what_a_layer_norm_can_give_is_reached():
    """A target of mean 0 and variance 1, which the norm leaves alone: its error is not one of range."""
    x = nn.functional.layer_norm(PIXELS.train, (D,))
    pixels = Pixels("normed", x, nn.functional.layer_norm(PIXELS.test, (D,)))
    model = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D)).double()
    assert unreached(model, pixels) < 1e-3


LAST = {
    "3x3": lambda: nn.Conv2d(3, 1, 3, padding=1),
    "same": lambda: nn.Conv2d(3, 1, (5, 3), padding="same"),
    "valid": lambda: nn.Conv2d(3, 1, 1, padding="valid"),
    "transposed": lambda: nn.ConvTranspose2d(3, 1, 3, padding=1),
    "doubling": lambda: nn.ConvTranspose2d(3, 1, 3, stride=2, padding=1),
    "uneven": lambda: nn.ConvTranspose2d(3, 1, 2, stride=2, padding=1, output_padding=1),
}


class Maps(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), last

    def forward(self, x):
        z = torch.tanh(self.first(x.reshape(-1, 1, 7, 7)))
        return self.last(z[..., ::2, ::2] if self.last.stride != (1, 1) else z).flatten(1)


@pytest.mark.parametrize("name", LAST)
def test_the_best_convolution_to_what_a_last_layer_gives_is_that_layer(name):
    """So what no layer of its kind could do is not put down to the one that is there."""
    torch.manual_seed(0)
    model = Maps(LAST[name]()).double()
    y = outputs(model, PICTURES.train)
    best = convolved(model, model.last, PICTURES, y)
    assert best is not None
    assert torch.allclose(best.apply(PICTURES.train), y, atol=1e-4 * float(y.std()))


@pytest.mark.parametrize("last", [nn.Conv2d(3, 1, 3, stride=2, padding=1), nn.Linear(49, 49)])
def test_other_last_layers_are_read_by_no_convolution(last):
    given = nn.Sequential(nn.Unflatten(1, (1, 7, 7)), nn.Conv2d(1, 3, 3, padding=1), last)
    model = given if isinstance(last, nn.Conv2d) else nn.Sequential(last)
    assert convolved(model, last, PICTURES, PICTURES.train) is None


class Quantised(nn.Module):
    """The nearest of 8 codes, whose index an embedding is given, where gradients pass as if it were not there."""

    def __init__(self):
        super().__init__()
        self.into, self.codes, self.out = nn.Linear(49, 6), nn.Embedding(8, 6), nn.Linear(6, 49)

    def forward(self, x):
        z = self.into(x)
        nearest = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        return self.out(z + (nearest - z).detach())


def test_indices_are_no_hidden_layer():
    found = explain(Quantised(), PICTURES)
    assert found.widths == (6,)
    assert found.narrowest == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tail", [nn.Identity, nn.Sigmoid])
def test_networks_in_half_precision_are_explained(dtype, tail):
    model = nn.Sequential(nn.Linear(49, 9), nn.Tanh(), nn.Linear(9, 49), tail()).to(dtype)
    found = explain(model, PICTURES, Recipe("torch.optim:SGD", 0.1))
    assert found.bounded == (tail is nn.Sigmoid)
    assert sum(one.fvu for one in found.parts) == pytest.approx(found.fvu, rel=1e-6)


def test_steps_that_are_so_long_that_the_error_swings_are_a_matter_of_their_size():
    """Ended low by luck: 64 steps leave it worse, at the rate as it is and while it decays."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(512, D, dtype=torch.float64, generator=draw)
    model = nn.Linear(D, D, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.eye(D) + 0.03 * torch.randn(D, D, generator=draw))
        model.bias.zero_()
    found = explain(model, Pixels("white", x[:384], x[384:]), Recipe("torch.optim:Adam", 0.3, batch_size=8))
    assert shares(found)["step-size floor"] > 0.9, shares(found)
