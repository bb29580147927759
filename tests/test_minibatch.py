"""The recursion of mini-batch gradient descent is what autograd and torch.optim.SGD do, in float64."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, linear

from identity_props.task.minibatch import Recursion, linear_rates, token_steps

D, STEPS = 5, 4
NEAR = {"rtol": 0, "atol": 1e-11}  # of weights near 1 after four steps, each a sum of at most 60 terms


@st.composite
def trainings(draw):
    """Examples, layers, a table of weights, rates, and what the optimizer is given."""
    seed, n, layers = draw(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 2)))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    start = list(0.4 * torch.randn(layers, D, D, generator=generator, dtype=torch.float64))
    table = torch.randint(0, 3, (STEPS, n), generator=generator).double()
    rates = draw(st.lists(st.floats(0, 0.5), min_size=STEPS, max_size=STEPS))
    frozen = draw(st.sampled_from([(), (0,), (layers - 1,)] if layers > 1 else [()]))
    options = {
        "momentum": draw(st.sampled_from([0.0, 0.5, 0.9])),
        "decay": draw(st.sampled_from([0.0, 0.1])),
        "clip": draw(st.sampled_from([None, 1e-2, 0.5, 100.0])),
    }
    return Recursion(x, draw(st.integers(1, 4)), rates, frozen=frozen, start=start, **options), table


def by_torch(recursion, table):
    """The layers that autograd and torch.optim.SGD leave, clipped by the exact norm."""
    layers = [one.clone().requires_grad_(k not in recursion.frozen) for k, one in enumerate(recursion.start)]
    training = [one for one in layers if one.requires_grad]
    optimizer = torch.optim.SGD(
        training, lr=1.0, momentum=recursion.momentum, weight_decay=recursion.decay, foreach=False
    )
    for rate, row in zip(recursion.rates, table, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (row * recursion_losses(layers, recursion.x)).sum().div(recursion.held).backward()
        if recursion.clip is not None:
            norm = torch.cat([one.grad.flatten() for one in training]).norm()
            for one in training:
                one.grad.mul_((recursion.clip / norm).clamp(max=1.0))
        optimizer.step()
    return [one.detach() for one in layers]


def recursion_losses(layers, x):
    out = x
    for layer in layers:
        out = linear(out, layer)
    return (out - x).square().mean(1)


@given(training=trainings())
def test_it_is_what_autograd_and_torch_sgd_do(training):
    recursion, table = training
    largest = max(float(layer.abs().max()) for state in recursion.states(table) for layer in state)
    assume(largest <= 4)  # a product of three weights rounds 64 times as far there, which NEAR has room for
    torch.testing.assert_close(recursion.end(table), by_torch(recursion, table), **NEAR)


@given(training=trainings())
def test_its_losses_are_those_that_it_descends(training):
    recursion, _ = training
    torch.testing.assert_close(
        recursion.losses(recursion.start), recursion_losses(recursion.start, recursion.x), **NEAR
    )


@given(training=trainings())
def test_it_begins_at_the_start_and_has_a_state_more_than_steps(training):
    recursion, table = training
    first, *rest = recursion.states(table)
    assert len(rest) == STEPS
    assert all(torch.equal(a, b) for a, b in zip(first, recursion.start, strict=True))


def small(**options):
    draw = torch.Generator().manual_seed(0)
    x, start = (torch.randn(k, D, generator=draw, dtype=torch.float64) for k in (3, D))
    return Recursion(x, 3, [0.3, 0.2, 0.1], start=[start], **options), torch.ones(3, 3, dtype=torch.float64)


def test_decoupled_decay_takes_its_share_from_the_weights_alone():
    recursion, table = small(decay=0.1, momentum=0.9, decoupled=True)
    w, v = recursion.start[0], 0.0
    for rate, row in zip(recursion.rates, table, strict=True):
        v = 0.9 * v + recursion.gradients([w], row)[0]
        w = (1 - rate * 0.1) * w - rate * v
    torch.testing.assert_close(recursion.end(table), [w], **NEAR)


def test_with_the_rate_inside_the_velocity_is_that_of_keras():
    recursion, table = small(momentum=0.9, rate_inside=True)
    w, v = recursion.start[0], 0.0
    for rate, row in zip(recursion.rates, table, strict=True):
        v = 0.9 * v - rate * recursion.gradients([w], row)[0]
        w = w + v
    torch.testing.assert_close(recursion.end(table), [w], **NEAR)


@given(rate=st.floats(0, 1), momentum=st.floats(0, 0.9))
def test_at_a_constant_rate_both_velocities_are_one(rate, momentum):
    draw = torch.Generator().manual_seed(0)
    x, start = (torch.randn(k, D, generator=draw, dtype=torch.float64) for k in (3, D))
    ends = [
        Recursion(x, 3, [rate] * 3, momentum, rate_inside=inside, start=[start]).end(torch.ones(3, 3))
        for inside in (False, True)
    ]
    torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-11)


def test_clipping_a_gradient_of_0_leaves_no_nan():
    recursion, table = small(clip=0.5)
    (end,) = recursion.end(0 * table)
    assert torch.equal(end, recursion.start[0])


@pytest.mark.parametrize(("lr", "steps", "rates"), [(1.0, 4, [1, 0.75, 0.5, 0.25]), (2.0, 1, [2.0])])
def test_linear_rates_fall_to_one_step_before_0(lr, steps, rates):
    assert linear_rates(lr, steps) == rates


@given(gains=st.lists(st.floats(0, 20), max_size=5), vocabulary=st.integers(2, 9), label=st.integers(0, 1))
def test_a_token_s_row_follows_autograd(gains, vocabulary, label):
    row = torch.zeros(vocabulary, dtype=torch.float64, requires_grad=True)
    for gain in gains:
        (slope,) = torch.autograd.grad(cross_entropy(row, torch.tensor(label)), row)
        row = (row - gain * slope).detach().requires_grad_()
    others = (row.sum() - row[label]) / (vocabulary - 1)
    assert float((row[label] - others).detach()) == pytest.approx(token_steps(gains, vocabulary), abs=1e-11)
    assert float(row.detach().sum()) == pytest.approx(0, abs=1e-11)
