"""FVU's parts: the variance of a pixel and the squared error."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.task.metrics import pixel_variance, squared_error


@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 3000))
def test_squared_error_is_the_mean_over_examples_and_pixels_whatever_the_chunks(seed, m):
    generator = torch.Generator().manual_seed(seed)
    x, factors = torch.rand(m, 3, generator=generator), torch.tensor([0.0, 1.0, 3.0])
    error = squared_error(lambda chunk: factors[:, None, None] * chunk, x)
    mean = (x.double() ** 2).mean().item()
    assert error.tolist() == pytest.approx([mean, 0, 4 * mean], rel=1e-5)


def test_errors_are_carried_back_through_the_inverse():
    error = squared_error(
        lambda x: (x + 1)[None], torch.zeros(2, 2), back=torch.diag(torch.tensor([2.0, 4.0]))
    )
    assert error.tolist() == [(4 + 16) / 2]


def test_the_variance_of_pixels_is_averaged_in_double():
    x = torch.tensor([[0.0, 1e4], [2.0, 1e4 + 1]])
    assert pixel_variance(x) == np.mean([1.0, 0.25])


def test_nan_in_one_replica_stays_there():
    error = squared_error(lambda x: torch.stack([x, x * torch.nan]), torch.ones(3, 2))
    assert error[0] == 0
    assert error[1].isnan()
