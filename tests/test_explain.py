"""Where a network's error comes from: each part on networks that have exactly that fault."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from identity_props.claims.registry import CLAIMS, RECIPES
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.explanation.explain import explain, spectrum, steps_left
from identity_props.explanation.networks import trained
from identity_props.explanation.readout import affine, evaluating
from identity_props.explanation.views import view
from identity_props.task.data import Pixels, digits
from identity_props.task.models import Variant

D = 12


def positive(seed=0, rank=D, n=512):
    """Correlated pixels [n, d] in 0 to 255 or so, of condition number some thousand."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(rank, D, generator=generator, dtype=torch.float64) * 0.5 ** torch.arange(rank)[:, None]
    x = 255 * torch.rand(n, rank, generator=generator, dtype=torch.float64) @ mix
    return Pixels("drawn", x[: n // 2], x[n // 2 :])


PIXELS = positive()


def perfect(relu=False, w=None, b=None):
    """One layer W x + b, [n, d] to [n, d], which is the identity unless W or b is given."""
    layer = nn.Linear(D, D, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(D) if w is None else w)
        layer.bias.copy_(torch.zeros(D) if b is None else b)
    return nn.Sequential(layer, nn.ReLU()) if relu else nn.Sequential(layer)


def dead():
    b = torch.zeros(D)
    b[[2, 5]] = -1e6
    return perfect(True, b=b)


def stuck():
    """Units that fire only where the pixel is above its median."""
    b = torch.zeros(D)
    b[[1, 4]] = -PIXELS.train.median(0).values[[1, 4]].float()
    return perfect(True, b=b)


def bottleneck():
    """Three features, and the best that can be made of them."""
    first, second = nn.Linear(D, 3, dtype=torch.float64), nn.Linear(3, D, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(spectrum(PIXELS.train)[1][:, :3].T)
        first.bias.zero_()
        readout = affine(first(PIXELS.train), PIXELS.train)
        second.weight.copy_(readout[:-1].T)
        second.bias.copy_(readout[-1])
    return nn.Sequential(first, second)


def shifted():
    return perfect(b=torch.full((D,), 20.0))


def slow():
    """W - I lies along the two smallest eigenvectors."""
    _, v = spectrum(PIXELS.train)
    return perfect(w=torch.eye(D, dtype=torch.float64) + 3 * v[:, -2:] @ v[:, -2:].T)


class Rounded(nn.Module):
    """The identity, rounded to multiples of 50 grey levels: neither affine nor dead."""

    def forward(self, x):
        return 50 * (x / 50).round()


FAULTS = {
    "dead outputs": dead,
    "too narrow": bottleneck,
    "bias": shifted,
    "slow directions": slow,
    "other": Rounded,
}


def shares(found):
    return {part.name: part.fvu / found.fvu for part in found.parts}


@pytest.mark.parametrize("part", FAULTS)
def test_a_network_with_one_fault_has_its_error_in_that_part(part):
    assert shares(explain(FAULTS[part](), PIXELS))[part] > 0.99


def test_units_that_are_stuck_where_the_pixel_is_not_are_named_with_what_their_shift_costs_elsewhere():
    found = shares(explain(stuck(), PIXELS))
    assert found["stuck at 0"] > 0.3
    alive = ("bias", "slow directions", "output layer", "other")
    assert found["stuck at 0"] + sum(found[name] for name in alive) > 0.999


def test_test_images_outside_the_span_of_training_are_named():
    x = PIXELS.test.clone()
    basis = torch.linalg.qr(
        torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    inside = PIXELS.train @ basis[:, :8] @ basis[:, :8].T
    layer = perfect(w=basis[:, :8] @ basis[:, :8].T)
    assert shares(explain(layer, Pixels("drawn", inside, x)))["never seen"] > 0.99


def test_noise_of_a_constant_rate_is_the_step_size_floor():
    recipe = Recipe("torch.optim:Adam", 0.05, batch_size=32)
    pixels = positive(n=2048)
    model = perfect(w=torch.eye(D) + 0.05 * torch.randn(D, D, generator=torch.Generator().manual_seed(0)))
    found = explain(model, replace(pixels, train=pixels.train / 255, test=pixels.test / 255), recipe)
    assert shares(found)["too few steps"] + shares(found)["step-size floor"] > 0.5


@pytest.mark.parametrize("name", list(FAULTS))
def test_without_a_recipe_nothing_is_trained_and_no_rate_is_known(name):
    found = explain(FAULTS[name](), PIXELS)
    assert {part.fvu for part in found.parts if part.name in ("too few steps", "step-size floor")} == {0}
    assert found.steps_left.isnan().all()


@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 3), relu=st.booleans())
def test_parts_are_never_negative_and_sum_to_the_fvu(seed, depth, relu):
    torch.manual_seed(seed)
    layers = [m for _ in range(depth) for m in ([nn.Linear(D, D), nn.ReLU()] if relu else [nn.Linear(D, D)])]
    found = explain(nn.Sequential(*layers), PIXELS)
    assert sum(part.fvu for part in found.parts) == pytest.approx(found.fvu, rel=1e-9)
    assert min(part.fvu for part in found.parts) >= 0
    assert float(found.residual.sum()) == pytest.approx(found.fvu, rel=1e-9)


PLANS = {name: claim for name, claim in CLAIMS.items() if not claim.slow and claim.expects != "diverges"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_parts_sum_to_the_fvu_within_1e_6_on_every_network_of_a_claim(name):
    pixels = digits(7)
    for trial in PLANS[name].plan(pixels):
        model = trained(trial, pixels)
        found = explain(model, pixels.scaled(trial.variant.scaling), trial.recipe)
        assert abs(sum(part.fvu for part in found.parts) - found.fvu) <= 1e-6


def test_the_four_layer_relu_network_is_explained_to_95_percent_by_named_parts():
    pixels = digits(7, train=1024, test=512)
    trial = Trial(Variant("plain-relu", 4), RECIPES["seed"](49), 400)
    found = explain(trained(trial, pixels), pixels.scaled("unit"), trial.recipe)
    assert shares(found)["other"] < 0.05


def test_a_network_that_is_near_identity_says_so():
    found = explain(perfect(), PIXELS)
    assert found.near_identity
    assert found.fvu == 0


def test_a_constant_network_is_explained():
    found = explain(perfect(w=torch.zeros(D, D)), PIXELS)
    assert found.fvu > 1
    assert sum(part.fvu for part in found.parts) == pytest.approx(found.fvu)


def test_explaining_leaves_the_network_and_its_modes_as_they_are():
    model = nn.Sequential(nn.Linear(D, D), nn.Dropout(), nn.Linear(D, D)).train()
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    explain(model, PIXELS, Recipe("torch.optim:SGD", 1e-6))
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_the_mean_jacobian_of_a_linear_layer_is_its_weights():
    w = torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviation = explain(perfect(w=w), PIXELS).deviation
    assert torch.allclose(deviation, w - torch.eye(D, dtype=torch.float64))


@given(lr=st.floats(1e-3, 0.9), steps=st.integers(1, 50))
def test_steps_left_are_those_that_gradient_descent_still_takes(lr, steps):
    eigenvalues = torch.tensor([1.0, 0.1], dtype=torch.float64)
    shrink = (1 - lr * eigenvalues) ** (2 * steps)
    left = steps_left(eigenvalues, 1e-3 / shrink, lr)
    assert torch.allclose(left, torch.full_like(left, steps), rtol=1e-6)
    assert steps_left(eigenvalues, torch.ones(2), 2.5)[0] == math.inf


class Wide(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], 1)


def not_finite():
    return perfect(b=torch.full((D,), math.nan))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Wide(), r"expected outputs \[2, 12\], as its inputs, got \[2, 24\]"),
        (nn.Linear(5, 5), r"expected to take \[n, 12\], it raised RuntimeError"),
        (not_finite(), "expected finite weights, got NaN or infinity in 0.bias"),
        (nn.Linear(D, D, device="meta"), "expected weight on cpu, where the data is, got it on meta"),
    ],
    ids=["width", "input", "nan", "device"],
)
def test_a_network_that_cannot_be_explained_is_refused_in_one_line(model, message):
    with pytest.raises(InputError, match=message):
        explain(model, PIXELS)


def test_hidden_layers_are_those_between_input_and_output():
    model = nn.Sequential(nn.Linear(D, 7), nn.ReLU(), nn.Linear(7, 3), nn.ReLU(), nn.Linear(3, D))
    assert len(view(model, PIXELS, torch.zeros(D, 0, dtype=torch.float64)).readouts) == 2


def test_a_hidden_layer_that_equals_the_input_on_one_half_alone_is_a_hidden_layer_of_both():
    model = Variant("residual", 2, "none").build(D).double()
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.eye(D))
        model.layers[0].bias.fill_(-float(PIXELS.train.max()))  # dead on train
    pixels = replace(PIXELS, test=2 * PIXELS.test)
    assert len(explain(model, pixels).readouts) == 1


def test_eval_mode_is_left_as_it_was_found():
    model = nn.Dropout().train()
    with evaluating(model):
        assert not model.training
    assert model.training
