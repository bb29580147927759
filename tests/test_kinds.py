"""Layers of other kinds: what theory says of them, what each finds, and what it may not pass for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from identity_props.claims.kinds import CLAIMS_OF_KINDS, at_the_floor, nears
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Run, Trial
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from identity_props.task.data import digits
from identity_props.task.kinds import KINDS, Kind, image_shape, tokens
from identity_props.task.metrics import pixel_variance
from identity_props.task.theory import (
    fourier_descent,
    fourier_fvu,
    fourier_power,
    kernel_moment,
    kernel_steps,
    low_rank_floor,
)

PLANS = {claim.name: claim.plan for claim in CLAIMS_OF_KINDS if not claim.slow}


@pytest.fixture(scope="module")
def pixels():
    return digits(7, train=512, test=256)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("d", [5, 9, 16])
def test_every_kind_keeps_the_shape_and_counts_what_it_holds(name, d):
    kind = Kind(name, 2, "none", 2)
    network = kind.build(d)
    assert network(torch.rand(3, d)).shape == (3, d)
    assert kind.numbers(d) == sum(p.numel() for p in network.parameters())


def test_another_kind_is_refused():
    with pytest.raises(InputError, match=r"kind: expected one of convolution, .*, got 'pooling'"):
        Kind("pooling")


# Theory -------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    depth=st.integers(1, 4),
    shape=st.sampled_from([(3, 3), (4, 4), (5, 5)]),
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(0.05, 0.5),
)
def test_the_fourier_modes_of_circular_convolutions_descend_as_the_networks_do(depth, shape, seed, factor):
    torch.manual_seed(seed)
    x, d = torch.rand(6, math.prod(shape), dtype=torch.float64), math.prod(shape)
    network = Kind("convolution", depth, "none", None).build(d).double()
    power = fourier_power(x, shape)
    lr, left = factor / float(power.max()) / depth**2, [-((n - 1) // 2) for n in shape]
    start = torch.stack([layer.weight.detach()[0, 0].roll(left, (0, 1)) for layer in network.layers])
    optimizer, measured = torch.optim.SGD(network.parameters(), lr=lr), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = mse_loss(network(x), x)
        loss.backward()
        optimizer.step()
        measured.append(loss.detach())
    predicted = fourier_fvu(fourier_descent(start, power, lr, 5), power, 1.0)
    torch.testing.assert_close(torch.stack(measured), predicted, rtol=1e-9, atol=1e-12)


def test_one_convolution_s_modes_shrink_by_the_closed_form():
    power = torch.rand(9, dtype=torch.float64)
    products = fourier_descent(torch.randn(1, 3, 3), power, 0.3, 7)
    expected = 1 + (products[0] - 1) * (1 - 2 * 0.3 * power) ** 7
    torch.testing.assert_close(products[7], expected)


@given(seed=st.integers(0, 2**32 - 1), kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]))
def test_the_moment_of_a_kernel_gives_its_mean_squared_error(seed, kernel):
    torch.manual_seed(seed)
    x = torch.rand(5, 20, dtype=torch.float64)
    layer = nn.Conv2d(1, 1, kernel, padding="same", padding_mode="circular", bias=False).double()
    images = x.reshape(-1, 1, 4, 5)
    delta = torch.zeros(kernel, dtype=torch.float64)
    delta[(kernel[0] - 1) // 2, (kernel[1] - 1) // 2] = 1
    off = (layer.weight.detach()[0, 0] - delta).flatten()
    moment = kernel_moment(fourier_power(x, (4, 5)), (4, 5), kernel)
    torch.testing.assert_close(off @ moment @ off, mse_loss(layer(images), images).detach())


def test_a_kernel_that_does_not_get_there_is_refused():
    with pytest.raises(InputError, match="spectrum: expected FVU 1e-3 within 10 steps"):
        kernel_steps(torch.eye(9).double(), torch.eye(9).double(), 1.0, 1e-6, most=10)


@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(0, 4))
def test_no_part_of_low_rank_comes_below_the_floor(seed, rank):
    torch.manual_seed(seed)
    x, frozen = torch.rand(12, 4, dtype=torch.float64), torch.randn(1, 4, 4, dtype=torch.float64)
    floor = float(low_rank_floor(frozen, x, x, rank)[0]) * pixel_variance(x)
    others = torch.randn(200, 4, rank, dtype=torch.float64) @ torch.randn(200, rank, 4, dtype=torch.float64)
    errors = (x @ (torch.eye(4) - frozen - others).mT).square().mean((-2, -1))
    assert floor <= float(errors.min()) * (1 + 1e-9)
    assert rank < 4 or floor < 1e-25


# What each finds ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(pixels):
    """Parameters that each claim's trial ends with, from seed 0."""
    trials = {name: plan(pixels)[0] for name, plan in PLANS.items() if name != "convolution-4"}
    runs = {name: train(trial, pixels, [0, 1]) for name, trial in trials.items()}
    return {name: run.state for name, run in runs.items()}


def test_a_convolution_finds_the_delta_kernel(found):
    delta = nn.init.dirac_(torch.zeros(1, 1, 3, 3))
    assert float((found["convolution-1"]["layers.0.weight"][0] - delta).abs().max()) < 0.05


def test_a_transposed_convolution_finds_the_inverse(found):
    apart, together = (found["transposed-1"][f"layers.{k}.weight"][0].squeeze() for k in (0, 1))
    torch.testing.assert_close(apart.T @ together, torch.eye(7), atol=0.05, rtol=0)


def test_an_embedding_finds_the_one_hot_rows_of_its_frequent_tokens(found, pixels):
    often = tokens(pixels).train.mean(0) > 0.02
    table = found["embedding-1"]["layer.weight"][0]
    assert int(often.sum()) > 5
    torch.testing.assert_close(table[often], torch.eye(pixels.d)[often], atol=0.1, rtol=0)


def test_a_norm_finds_the_scale_and_mean_of_each_pixel(found, pixels):
    scale, mean = found["norm-1"]["weight"][0], found["norm-1"]["bias"][0]
    torch.testing.assert_close(scale, pixels.train.std(0, correction=0), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(mean, pixels.train.mean(0), rtol=1e-2, atol=1e-2)


def test_an_adapter_leaves_the_frozen_layer_as_it_was(pixels):
    (trial,) = PLANS["adapter-1"](pixels)
    before, after = (
        train(Trial(trial.variant, trial.recipe, steps), pixels, [0, 1]).state for steps in (0, 310)
    )
    assert torch.equal(before["frozen.weight"], after["frozen.weight"])
    assert not torch.equal(before["up.weight"], after["up.weight"])


@pytest.mark.parametrize("depth", [1, 4])
def test_plain_relu_convolutions_could_be_the_identity(depth):
    network = Kind("relu-convolution", depth, "unit", 3).build(9)
    for layer in network.layers:
        nn.init.dirac_(layer.weight)
    x = torch.rand(4, 9)
    assert torch.equal(network(x), x)


def test_images_are_square_or_one_row():
    assert [image_shape(d) for d in (1, 2, 9, 10)] == [(1, 1), (1, 2), (3, 3), (1, 10)]


# Controls -----------------------------------------------------------------------------------------


def test_at_the_floor_means_neither_above_it_nor_below():
    fvu = torch.tensor([[2, 0.3], [2, 0.303], [2, 0.31], [2, 0.29], [2, math.nan], [0.3, 0.3]])
    run = Run(tuple(range(6)), (0, 9), fvu, fvu[:, -1], {}, 0.0, floor=torch.full((6,), 0.3))
    assert at_the_floor([run]).tolist() == [True, True, False, False, False, False]


def test_a_frozen_layer_that_trains_is_seen_by_the_floor(pixels):
    """As an optimizer that is handed all parameters in one row would train it."""

    class Thawed(Kind):
        def build(self, d, *arguments, **others):
            return super().build(d, *arguments, **others).requires_grad_(True)

    kind, recipe = Thawed("adapter", 1, "standardise", 12), Recipe("torch.optim:Adam", 0.01, batch_size=None)
    run = train(Trial(kind, recipe, 200), pixels, [0, 1], Stack())
    assert not at_the_floor([run]).any()
    assert bool((run.fvu[:, -1] < run.floor / 2).all())


def test_nearing_means_from_far_off_to_below_what_counts_as_failed():
    fvu = torch.tensor([[2, 1e-3], [2, 0.011], [2, math.nan], [0.3, 1e-3], [2, 2]])
    run = Run(tuple(range(5)), (0, 9), fvu, fvu[:, -1], {}, 0.0)
    assert nears([run]).tolist() == [True, False, False, False, False]
