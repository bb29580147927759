"""Closed forms of gradient descent, against networks that were really trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels, digits, pooled
from identity_props.task.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.task.models import Variant
from identity_props.task.theory import (
    adam_first_step,
    bottleneck_floor,
    critical_rate,
    expected_fvu,
    expected_steps,
    gd_weights,
    modes,
    momentum_edge,
    momentum_weights,
    off_span_limit,
    probability_alive,
    relu_floor,
    rmsprop_floor,
    saxe_mode,
    second_moment,
)
from tests.drawing import drawn

spectra = st.lists(st.floats(0.1, 100), min_size=1, max_size=8)


def trained(pixels, lr, steps, replicas=1):
    trial = Trial(
        Variant("linear", 1, "none", bias=False), Recipe("torch.optim:SGD", lr, batch_size=None), steps
    )
    return train(trial, pixels, range(replicas), Stack(dtype=torch.float64))


def test_modes_are_the_spectrum_of_the_second_moment_and_the_power_of_the_test_on_it():
    pixels = drawn(d=3)
    eigenvalues, power = modes(pixels.train, pixels.test)
    x = pixels.train.numpy()
    assert np.allclose(eigenvalues, np.linalg.eigvalsh(x.T @ x / len(x))[::-1])
    assert power.sum() == pytest.approx(pixels.test.square().sum(1).mean().item())
    assert np.allclose(modes(pixels.train)[1], eigenvalues)


# Null: the mean FVU over seeds is the formula's. 400 seeds, 7 steps, a band of 5 standard errors:
# falsely fails once in 200,000; the standard error is 1 to 4%, so a factor of 1.3 is found.
def test_eigenvectors_are_taken_on_one_thread_and_the_caller_has_as_many_as_before(monkeypatch):
    counts, plain, before = [], torch.linalg.eigh, torch.get_num_threads()
    monkeypatch.setattr(torch.linalg, "eigh", lambda x: counts.append(torch.get_num_threads()) or plain(x))
    torch.set_num_threads(2)
    try:
        modes(digits(7, train=64, test=2).train)
        assert (counts, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_fvu_over_seeds_is_what_the_spectrum_expects():
    pixels = drawn(d=4, high=1.0)
    eigenvalues, power = modes(pixels.train, pixels.test)
    lr = 0.5 * critical_rate(eigenvalues)
    run = trained(pixels, lr, 64, replicas=400)
    expected = expected_fvu(eigenvalues, power, pixel_variance(pixels.test), lr, run.steps)
    mean = run.fvu.mean(0).numpy()
    error = run.fvu.std(0).numpy() / 20
    assert (np.abs(mean - expected) <= 5 * error).all()


@pytest.mark.parametrize(("factor", "grows"), [(0.99, False), (1.01, True)])
def test_gradient_descent_diverges_just_above_the_critical_rate(factor, grows):
    pixels = drawn(d=4)
    run = trained(pixels, factor * critical_rate(modes(pixels.train)[0]), 2000)
    assert bool(run.fvu[0, -1] > run.fvu[0, 0]) == grows


@given(spectrum=spectra, factor=st.floats(0.05, 0.95))
def test_expected_steps_are_the_first_at_near_identity(spectrum, factor):
    lr = factor * critical_rate(spectrum)
    steps = expected_steps(spectrum, spectrum, 1.0, lr)
    before, at = expected_fvu(spectrum, spectrum, 1.0, lr, [max(steps - 1, 0), steps])
    assert at <= NEAR_IDENTITY
    assert steps == 0 or before > NEAR_IDENTITY


def test_rates_and_spectra_without_an_end_are_refused():
    with pytest.raises(InputError, match="lr: expected above 0 and below 2, got 2"):
        expected_steps([1.0, 0.5], [1.0, 0.5], 1.0, 2.0)
    with pytest.raises(InputError, match="within 100 steps, got a slower one"):
        expected_steps([1.0, 0.0], [1.0, 1.0], 1.0, 1.0, most=100)


# Closed forms against the recursions that they solve ---------------------------------------------------


@pytest.fixture
def layer():
    """A start and a second moment, [4, 4], of which one direction has no data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    x[:, 3] = x[:, 2]
    return torch.randn(4, 4, generator=generator, dtype=torch.float64), second_moment(x)


def stepped(start, moment, lr, steps, decay=0.0, momentum=0.0):
    w, velocity = start, torch.zeros_like(start)
    for _ in range(steps):
        velocity = momentum * velocity + 2 / len(w) * (w - torch.eye(len(w))) @ moment + decay * w
        w = w - lr * velocity
    return w


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_gd_weights_solve_gradient_descent(layer, steps, decay):
    assert torch.allclose(gd_weights(*layer, 0.1, steps, decay), stepped(*layer, 0.1, steps, decay))


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_momentum_weights_solve_the_heavy_ball(layer, steps):
    assert torch.allclose(
        momentum_weights(*layer, 0.1, 0.9, steps), stepped(*layer, 0.1, steps, momentum=0.9)
    )


def test_long_descent_ends_at_the_off_span_limit_and_decay_at_its_fixed_point(layer):
    start, moment = layer
    limit = off_span_limit(start, moment)
    assert torch.allclose(stepped(start, moment, 0.3, 5000), limit)
    assert not torch.allclose(limit, torch.eye(4, dtype=torch.float64))
    fixed = moment @ torch.linalg.inv(moment + 4 * 0.3 / 2 * torch.eye(4))
    assert torch.allclose(gd_weights(start, moment, 0.3, 5000, 0.3), fixed)


def test_adam_s_first_step_is_torch_s():
    p = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    p.grad = torch.tensor([3.0, -1e-3, 1e-8, 0.0, -1e5], dtype=torch.float64)
    torch.optim.Adam([p], lr=0.1).step()
    assert torch.allclose(p.detach(), adam_first_step(p.grad, 0.1), rtol=1e-9, atol=0)


def test_the_bottleneck_floor_is_what_the_singular_values_leave():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    left = x - u[:, :2] * s[:2] @ v[:2]
    floor = bottleneck_floor(torch.linalg.eigvalsh(second_moment(x)), 2)
    assert torch.allclose(left.square().mean(), floor)
    assert bottleneck_floor(torch.ones(3, 6), 6).tolist() == [0, 0, 0]


def test_the_relu_floor_is_half_the_power_of_symmetric_data():
    x = torch.tensor([[1.0, -2.0], [-1.0, 2.0]], dtype=torch.float64)
    assert relu_floor(x) == x.square().mean() / 2
    assert relu_floor(x.abs()) == 0


def test_saxe_s_curve_solves_its_equation_from_its_start_to_its_goal():
    time = np.linspace(0, 3, 3001)
    u = saxe_mode(time, 0.1, goal=2.0)
    slope = np.gradient(u, time)[1:-1]
    assert u[0] == pytest.approx(0.1)
    assert np.allclose(slope, (2 * u * (2 - u))[1:-1], atol=1e-4)
    assert saxe_mode(20, 0.1, goal=2.0) == pytest.approx(2.0)


def test_a_point_passes_no_layers_alive_and_narrow_ones_half_the_time():
    assert probability_alive(5, 0) == 1
    assert probability_alive(1, 3) == 1 / 8
    assert momentum_edge([2.0, 1.0], 0.5) == 1.5 * critical_rate([2.0, 1.0])
    assert rmsprop_floor(0.1, 0.75) == 0.2


# The spectrum predicts the whole curve ------------------------------------------------------------------


def predicted_curve(run, pixels, start, lr):
    """Test FVU [len(steps)] of one replica: tr(E T E^T) / (d variance), E = W_k - I, T the test moment."""
    moments, variance = [second_moment(x) for x in (pixels.train, pixels.test)], pixel_variance(pixels.test)
    errors = (gd_weights(start, moments[0], lr, k) - torch.eye(pixels.d) for k in run.steps)
    return torch.stack([(e @ moments[1] * e).sum() / (pixels.d * variance) for e in errors])


def on_digits(side, request):
    return digits(side, 2048, 512)


def on_mnist(side, request):
    real = request.getfixturevalue("mnist_28")
    train, test = (pooled(x.reshape(-1, 28, 28), side) for x in (real.train[:2048], real.test[:2048]))
    return Pixels("mnist", train, test)


@pytest.mark.parametrize(
    ("load", "side"),
    [
        (on_digits, 7),
        pytest.param(on_mnist, 7, marks=pytest.mark.mnist),
        pytest.param(on_mnist, 14, marks=pytest.mark.mnist),
    ],
)
def test_the_spectrum_predicts_fvu_within_one_percent_at_every_measured_step(load, side, request):
    pixels = load(side, request)
    lr = 0.5 * critical_rate(modes(pixels.train)[0])
    run = trained(pixels, lr, 64)
    start = trained(pixels, lr, 0).state["layers.0.weight"][0]
    expected = predicted_curve(run, pixels, start, lr)
    assert torch.allclose(run.fvu[0], expected, rtol=0.01)
