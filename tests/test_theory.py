"""Closed forms of gradient descent, against networks that were really trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.errors import InputError
from identity_props.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.models import Variant
from identity_props.stack import Stack
from identity_props.theory import critical_rate, expected_fvu, expected_steps, modes
from identity_props.training import Recipe, Trial, train
from tests.conftest import drawn

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
