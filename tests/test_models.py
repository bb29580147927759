"""Variants: what each computes, how it is drawn, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from identity_props.errors import InputError
from identity_props.task.models import DEPTHS, INITS, VARIANTS, Variant

SCALING = {"scaled-input": "standardise"}


def built(name, depth=1, d=5, **arguments):
    return Variant(name, depth, SCALING.get(name, "unit"), **arguments).build(d)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_its_depth_in_layers_and_keeps_the_shape(name, depth):
    model = built(name, depth)
    assert sum(isinstance(module, nn.Linear) for module in model.modules()) == depth
    assert model(torch.rand(3, 5)).shape == (3, 5)


@given(width=st.integers(1, 9), depth=st.integers(2, 8))
def test_hidden_layers_have_the_width_asked_for(width, depth):
    model = built("plain-relu", depth, width=width)
    shapes = [tuple(layer.weight.shape) for layer in model.layers]
    assert shapes == [(width, 5), *[(width, width)] * (depth - 2), (5, width)]


X = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def weighted(name, weight, bias):
    model = built(name, 2, d=2)
    for layer in model.layers:
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return model


def test_plain_relu_cuts_off_after_every_layer():
    model = weighted("plain-relu", [[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0])
    assert torch.equal(model(X), torch.tensor([[4.0, 0.0], [2.0, 1.0]]))


def test_linear_composes_its_layers():
    model = weighted("linear", [[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0])
    assert torch.equal(model(X), torch.tensor([[4.0, -4.0], [2.0, 1.0]]))


def test_residual_adds_a_rectified_layer_to_its_input():
    model = weighted("residual", [[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0])
    assert torch.equal(model(X), torch.tensor([[9.0, -2.0], [4.5, 9.0]]))


def test_residual_with_zero_weights_is_the_identity_bit_for_bit():
    assert torch.equal(weighted("residual", [[0.0, 0.0]] * 2, [0.0, 0.0])(X), X)


def test_glorot_is_uniform_on_its_bound_with_zero_bias():
    torch.manual_seed(0)
    layer = Variant("plain-relu", 2, width=300).build(200).layers[0]
    bound = (6 / 500) ** 0.5
    # 60,000 draws come within 0.1% of the bound, but for a chance of (1 - 0.001)^60000 < 1e-26
    assert 0.999 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)  # five standard errors are 2%
    assert not layer.bias.any()


@pytest.mark.parametrize("init", INITS)
def test_a_network_drawn_anew_is_one_built_anew_and_leaves_the_generator_alike(init):
    variant, ends = Variant("plain-relu", 3, width=5), []
    network = variant.build(4, init=init)
    for make in (lambda: variant.build(4, init=init), lambda: variant.redraw(network, init) or network):
        torch.manual_seed(8)
        ends.append((make().state_dict(), torch.rand(1)))
    (built, after), (redrawn, then) = ends
    assert built.keys() == redrawn.keys()
    assert all(torch.equal(built[name], redrawn[name]) for name in built)
    assert after == then


@pytest.mark.parametrize(
    "variant", [Variant("linear"), Variant("plain-relu", 3, width=5, bias=False)], ids=str
)
def test_a_variant_counts_its_weights_and_biases(variant):
    assert variant.numbers(4) == sum(p.numel() for p in variant.build(4).parameters())


def test_torch_init_is_what_the_layer_drew_itself():
    torch.manual_seed(3)
    (layer,) = Variant("linear").build(6, init="torch").layers
    torch.manual_seed(3)
    assert torch.equal(layer.weight, nn.Linear(6, 6).weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("mlp",),
            "variant: expected one of plain-relu, linear-output, linear, residual, scaled-input, got 'mlp'",
        ),
        (("linear", 0), "depth: expected 1 to 8 layers, got 0"),
        (("linear", 9), "depth: expected 1 to 8 layers, got 9"),
        (("linear", 1, "log"), "scaling: expected one of none, unit, standardise, whiten, got 'log'"),
        (("scaled-input", 1, "none"), "expected standardise or whiten, got 'none'"),
        (("linear", 2, "unit", 0), "width: expected at least 1"),
        (("residual", 2, "unit", 7), "None for residual, got 7"),
    ],
)
def test_a_variant_that_does_not_exist_is_refused_with_what_does(arguments, message):
    with pytest.raises(InputError, match=message):
        Variant(*arguments)


def test_an_init_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="init: expected one of glorot, torch, got 'zeros'"):
        Variant("linear").build(2, init="zeros")


def test_glorot_leaves_a_layer_that_makes_its_weight_of_others_as_it_was_drawn():
    (layer,) = Variant("linear").build(3, lambda i, o, bias: weight_norm(nn.Linear(i, o, bias))).layers
    assert 0 < layer.weight.abs().max() <= 3**-0.5
    assert not layer.bias.any()


def test_a_network_takes_another_activation_and_init():
    network = Variant("plain-relu").build(
        2, init=lambda layer: nn.init.eye_(layer.weight), activation=torch.tanh
    )
    assert torch.equal(network.layers[0].weight, torch.eye(2))
    x = torch.randn(3, 2)
    assert torch.equal(network(x), torch.tanh(network.layers[0](x)))
