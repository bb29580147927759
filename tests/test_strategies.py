"""Strategies reach their corners, and families are what they say."""

import pytest
import torch
from hypothesis import HealthCheck, find, given, settings

from identity_props.laws.families import Family
from identity_props.laws.strategies import families, recipes, variants
from identity_props.task.theory import second_moment

CORNERS = {
    "two pixels": lambda f: f.d == 2,
    "32 pixels": lambda f: f.d == 32,
    "an odd width": lambda f: f.d % 2 and f.d > 8,
    "one example": lambda f: f.n == 1,
    "rank 1": lambda f: f.rank == 1 and f.d > 1,
    "full rank": lambda f: f.rank == f.d and f.n >= f.d > 2,
    "condition 1e6": lambda f: f.decades > 5.9,
    "condition 1": lambda f: f.decades < 0.1,
    "non-negative": lambda f: f.sign == "non-negative",
    "sparse": lambda f: f.sparsity == 0.9,
    "dead pixels": lambda f: f.dead > 1,
    "all but one dead": lambda f: f.dead == f.d - 1 > 1,
    "equal pixels": lambda f: f.equal > 2,
    "scale 1e-3": lambda f: f.log_scale < -2.9,
    "scale 1e3": lambda f: f.log_scale > 2.9,
    "near the critical rate": lambda f: f.factor > 0.9,
}
SEARCH = settings(
    max_examples=2000, derandomize=True, database=None, suppress_health_check=list(HealthCheck), deadline=None
)


@pytest.mark.parametrize("corner", CORNERS)
def test_families_reach(corner):
    assert CORNERS[corner](find(families(), CORNERS[corner], settings=SEARCH))


@pytest.mark.parametrize("name", ["plain-relu", "linear", "residual", "scaled-input"])
def test_variants_reach_every_name_at_full_depth(name):
    found = find(variants(), lambda v: v.name == name and v.depth == 4 and not v.bias, settings=SEARCH)
    assert (found.name, found.depth, found.bias) == (name, 4, False)


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "Adam"])
def test_recipes_reach_every_optimizer_with_decaying_rate_and_single_examples(optimizer):
    def wanted(recipe):
        return (
            recipe.optimizer.endswith(optimizer)
            and recipe.schedule == "linear-decay"
            and recipe.batch_size == 1
        )

    assert wanted(find(recipes(), wanted, settings=SEARCH))


@given(family=families())
def test_a_family_has_its_dead_and_equal_pixels_its_sign_and_its_scale(family):
    x = family.data(3)
    assert x.shape == (3, family.n, family.d)
    assert not x[:, :, : family.dead].any()
    assert (x[:, :, family.d - family.equal :] == x[:, :, -1:]).all()
    assert family.sign == "signed" or (x >= 0).all()
    largest = torch.linalg.eigvalsh(second_moment(x))[:, -1]
    assert torch.allclose(largest, torch.full_like(largest, 10 ** (2 * family.log_scale)))


@given(family=families())
def test_a_family_that_is_not_bent_has_the_spectrum_it_was_given(family):
    plain = Family(d=family.d, n=family.n, rank=family.rank, decades=family.decades, seed=family.seed)
    eigenvalues = torch.linalg.eigvalsh(second_moment(plain.data(2))).flip(1)
    rank = min(plain.rank, plain.n, plain.d)
    expected = torch.logspace(0, -plain.decades, rank, dtype=torch.float64)
    assert torch.allclose(eigenvalues[:, :rank], expected.expand(2, -1), rtol=1e-6)
    assert (eigenvalues[:, rank:].abs() <= 1e-12).all()


@given(family=families())
def test_one_family_is_the_same_data_each_time(family):
    assert torch.equal(family.data(2), family.data(2))
