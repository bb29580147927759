"""What people build: each part on a network built to have exactly that fault, and on one that has not."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from identity_props.engine.trial import Recipe
from identity_props.explanation.advice import advised, described
from identity_props.explanation.explain import explain
from identity_props.explanation.limits import as_drawn, by_rank
from identity_props.explanation.readout import Regression, affine, bypassed, gram, parametrised
from identity_props.explanation.settling import noisy
from identity_props.explanation.slopes import reach
from identity_props.explanation.undecayed import decay_of, without_decay
from identity_props.explanation.where import by_frequency, by_pixel
from identity_props.task.data import Pixels, digits
from tests.test_explain import PIXELS, D, bottleneck, perfect, positive, shares

MIDDLE = PIXELS.train.mean(0)


def layer(w, b):
    made = nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(w)
        made.bias.copy_(b)
    return made


def with_best_output(*layers):
    """The layers, and after them the output layer with least squares."""
    hidden = nn.Sequential(*layers).double()
    with torch.no_grad():
        best = affine(hidden(PIXELS.train), PIXELS.train)
    return nn.Sequential(*hidden, layer(best[:-1].T, best[-1]))


class Squashed(nn.Module):
    """An activation that no list of names has."""

    def forward(self, x):
        return 3 * x / (1 + x.abs())


def flat_hidden(activation):
    """Units that are only ever on the far sides of their activation, in nine of the twelve units."""
    w, b = torch.eye(D, dtype=torch.float64) / 5e4, torch.zeros(D, dtype=torch.float64)
    b[:9] = -60.0
    return lambda: with_best_output(layer(w, b), activation())


def clipped_hidden():
    """Units that are off for half of the data, which no slope calls flat."""
    return with_best_output(layer(torch.eye(D, dtype=torch.float64), -MIDDLE), nn.ReLU())


def flat_output():
    b = torch.zeros(D)
    b[[2, 5]] = 1e5
    return nn.Sequential(*perfect(b=b), nn.Hardtanh(0, 1000))


def short_output():
    return nn.Sequential(*perfect(), nn.Hardtanh(0, float(PIXELS.test.quantile(0.7))))


def dropped():
    """What is best under dropout of the input, which is not what is best without."""
    generator = torch.Generator().manual_seed(0)
    x = PIXELS.train.repeat(256, 1)
    kept = torch.rand(x.shape, generator=generator, dtype=torch.float64) < 0.5
    best = affine(2 * x * kept, x)
    return nn.Sequential(nn.Dropout(0.5), layer(best[:-1].T, best[-1]))


def normalised(shift=1.0):
    """Batch normalisation, and a layer that undoes it; its running averages are off by a factor."""
    norm, var = nn.BatchNorm1d(D, dtype=torch.float64), PIXELS.train.var(0)
    norm.running_mean.copy_(shift * MIDDLE)
    norm.running_var.copy_(var)
    return nn.Sequential(norm, layer(torch.diag((var + norm.eps).sqrt()), MIDDLE))


def poor_output():
    """A hidden layer that has everything, and an output layer that takes half of the fastest direction."""
    v = torch.linalg.eigh(PIXELS.train.T @ PIXELS.train)[1][:, -1:]
    eye, zero = torch.eye(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    return nn.Sequential(layer(eye, zero), nn.ReLU(), layer(eye - v @ v.T / 2, zero))


FAULTS = {
    "too narrow": bottleneck,
    "saturated hidden units": flat_hidden(nn.Tanh),
    "lost in hidden layers": clipped_hidden,
    "range": short_output,
    "saturated outputs": flat_output,
    "noise in training": dropped,
    "shifted statistics": lambda: normalised(1.5),
    "output layer": poor_output,
}


@pytest.mark.parametrize("part", FAULTS)
def test_a_network_with_one_fault_has_its_error_in_that_part(part):
    found = explain(FAULTS[part](), PIXELS)
    assert shares(found)[part] > 0.95, shares(found)
    assert sum(one.fvu for one in found.parts) == pytest.approx(found.fvu, abs=1e-6)


@pytest.mark.parametrize(
    "activation", [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.GELU, nn.SiLU, nn.Softsign, Squashed]
)
def test_flat_units_are_told_by_their_slope_whatever_the_activation(activation):
    assert shares(explain(flat_hidden(activation)(), PIXELS))["saturated hidden units"] > 0.7


def test_an_activation_that_works_in_place_is_seen_as_any_other():
    def shares_of(inplace):
        w, b = torch.eye(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
        b[:4] = -1e4
        return shares(explain(with_best_output(layer(w, b), nn.ReLU(inplace)), PIXELS))

    assert shares_of(True) == pytest.approx(shares_of(False))
    assert shares_of(True)["saturated hidden units"] > 0.5


@pytest.mark.parametrize("activation", [nn.Identity, nn.Softplus, nn.LeakyReLU])
def test_a_healthy_hidden_layer_has_no_saturated_units(activation):
    w = torch.eye(D, dtype=torch.float64) / 255
    found = explain(with_best_output(layer(w, torch.zeros(D)), activation()), PIXELS)
    assert found.near_identity or shares(found)["saturated hidden units"] == 0


@pytest.mark.parametrize("output", [nn.Sigmoid, nn.Tanh, nn.Softsign, nn.ReLU, nn.ReLU6])
def test_a_target_beyond_any_output_is_a_matter_of_range(output):
    scale = {nn.ReLU: -1.0}.get(output, 1.0)
    pixels = Pixels("drawn", scale * PIXELS.train - 60, scale * PIXELS.test - 60)
    found = explain(nn.Sequential(layer(torch.eye(D), torch.zeros(D)), output()), pixels)
    assert shares(found)["range"] > 0.8


@pytest.mark.parametrize("tail", [nn.Identity, nn.LeakyReLU, nn.Softplus])
def test_an_output_that_reaches_its_target_has_no_range(tail):
    model = nn.Sequential(layer(torch.eye(D) * 0.8, torch.zeros(D)), tail())
    assert shares(explain(model, PIXELS))["range"] == 0


@pytest.mark.parametrize("width", [47, 48, 49, 50, 53])
def test_a_sigmoid_of_any_width_has_its_range(width):
    """Vectorised code leaves the last bits of some units to other code, which is no way round."""
    model, x = nn.Sequential(nn.Linear(width, width), nn.Sigmoid()), torch.randn(64, width)
    low, high = reach(model, model[0], x)
    assert (float(low.max()), float(high.min())) == (0, 1)
    assert not bypassed(model, model[0], x)


def test_what_goes_round_the_last_layer_has_no_range_of_its_own():
    class Round(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(D, D, dtype=torch.float64)

        def forward(self, x):
            return x + torch.tanh(self.layer(x))

    assert shares(explain(Round(), PIXELS))["range"] == 0


@pytest.mark.parametrize("calm", [lambda: nn.Sequential(nn.Dropout(0.5), *perfect(b=torch.full((D,), 9.0)))])
def test_dropout_is_not_blamed_for_what_it_did_not_do(calm):
    found = shares(explain(calm(), PIXELS))
    assert found["noise in training"] < 0.05
    assert found["bias"] > 0.9


def test_averages_that_are_right_are_not_shifted():
    found = explain(normalised(), PIXELS)
    assert found.near_identity


def test_taking_averages_anew_leaves_the_network_as_it_is():
    model = normalised(1.5).train()
    before = copy.deepcopy(model.state_dict())
    explain(model, PIXELS, Recipe("torch.optim:SGD", 1e-9))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_steps_without_noise_are_taken_where_training_is_noisy():
    torch.manual_seed(0)
    pixels = positive(n=2048)
    pixels = Pixels("drawn", pixels.train / 255, pixels.test / 255)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(D, D, dtype=torch.float64))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(1000):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(pixels.train), pixels.train).backward()
        optimizer.step()
    heard = []
    found = explain(model, pixels, Recipe("torch.optim:Adam", 1e-2), on_step=heard.append)
    assert len(heard) == 3 * 80
    assert shares(found)["noise in training"] > 0.7


@pytest.mark.parametrize(
    ("layers", "is_noisy"),
    [
        (lambda: [nn.Linear(D, D), nn.Dropout(0.1)], True),
        (lambda: [nn.Linear(D, D), nn.BatchNorm1d(D)], True),
        (lambda: [nn.Linear(D, D), nn.LayerNorm(D)], False),
        (lambda: [spectral_norm(nn.Linear(D, D))], False),
    ],
)
@pytest.mark.parametrize("examples", [2, 3, 500])
def test_noise_is_what_draws_or_the_rest_of_a_batch_make_of_an_example(layers, is_noisy, examples):
    torch.manual_seed(0)
    model = nn.Sequential(*layers()).double()
    assert noisy(model, Pixels("few", PIXELS.train[:examples], PIXELS.test)) == is_noisy


def test_a_layer_whose_weight_is_made_of_others_is_one_layer():
    def build():
        torch.manual_seed(0)
        first, last = nn.Linear(D, D, bias=False).double(), nn.Linear(D, D, bias=False).double()
        return nn.Sequential(weight_norm(first), nn.Tanh(), weight_norm(last))

    made, plain = build(), build()
    for one in (plain[0], plain[2]):
        remove_parametrizations(one, "weight")
    assert [*parametrised(made)] == [made[0], made[2]]
    found, wanted = explain(made, PIXELS), explain(plain, PIXELS)
    assert (found.widths, found.reach) == (wanted.widths, wanted.reach)
    for one, other in zip(found.parts, wanted.parts, strict=True):
        assert (one.name, one.fvu) == (other.name, pytest.approx(other.fvu, rel=1e-9, abs=1e-12))


# Not trained yet ------------------------------------------------------------------------------------


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x):
        return self.net(x.reshape(-1, 1, 7, 7)).flatten(1)


def glorot(model):
    for p in model.parameters():
        nn.init.xavier_normal_(p) if p.ndim > 1 else nn.init.zeros_(p)
    return model


def orthogonal(model):
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.orthogonal_(p)
    return model


DRAWN = {
    "linear": lambda: nn.Linear(49, 49),
    "deep": lambda: nn.Sequential(
        nn.Linear(49, 80), nn.GELU(), nn.Linear(80, 80), nn.Tanh(), nn.Linear(80, 49)
    ),
    "glorot": lambda: glorot(nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 49))),
    "orthogonal": lambda: orthogonal(nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 49))),
    "norm": lambda: nn.Sequential(nn.Linear(49, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 49)),
    "maps": Maps,
    "sigmoid": lambda: nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 49), nn.Sigmoid()),
}


@pytest.fixture(scope="module")
def pixels():
    return digits(7, train=1024, test=256).scaled("unit")


@pytest.mark.parametrize("name", DRAWN)
def test_a_network_as_it_was_drawn_is_not_trained_yet_and_nothing_else_is_said_of_it(name, pixels):
    """One drawn network in twenty beats 19 others; the seed is fixed."""
    torch.manual_seed(1)
    found = explain(DRAWN[name](), pixels)
    assert shares(found)["not trained yet"] > 0.95, shares(found)
    assert sum(one.fvu for one in found.parts) == pytest.approx(found.fvu, abs=1e-6)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("steps", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_a_network_that_was_trained_is_never_called_untrained(name, steps, pixels):
    torch.manual_seed(0)
    model = DRAWN[name]()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(pixels.train), pixels.train).backward()
        optimizer.step()
    assert shares(explain(model, pixels))["not trained yet"] == 0


def test_a_curve_speaks_for_and_against(pixels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 49))
    given = (model, pixels.train, pixels.train.double())
    assert as_drawn(*given)
    assert as_drawn(*given, curve=[1.0, 0.99])
    assert not as_drawn(*given, curve=[1.0, 0.4])
    with torch.no_grad():
        model[0].weight[0, 0] = 9.0  # which no draw gives
    assert not as_drawn(*given)
    assert as_drawn(*given, curve=[1.0, 0.99])


# Width ----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(1, D))
def test_the_best_map_of_a_rank_is_that_of_the_principal_components(seed, rank):
    """Eckart and Young: on the data that it is fitted on, what the smaller eigenvalues of the covariance hold."""
    x = positive(seed).train
    spectrum = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    left = by_rank(x, x, x, x)
    assert float(left[rank]) == pytest.approx(float(spectrum[rank:].sum() / spectrum.sum()), abs=1e-6)
    assert float(left[0]) == pytest.approx(1)


def test_no_map_of_that_rank_does_better():
    x = PIXELS.train
    goal = x @ torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = float(by_rank(x, goal, x, goal)[3])
    for seed in range(20):
        into = torch.randn(D, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        made = affine(x @ into, goal)
        error = x @ into @ made[:-1] + made[-1] - goal
        assert float(error.square().mean() / goal.var(0, correction=0).mean()) > best


def test_a_bottleneck_says_how_far_it_is_from_the_best_on_either_side():
    (part,) = [one for one in explain(bottleneck(), PIXELS).parts if one.name == "too narrow"]
    assert "through 3 units, the narrowest layer, leaves FVU" in part.what
    assert "leaves 1.01 times that there" in part.what


def test_a_layer_that_something_goes_round_is_not_too_narrow():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(D, 2), nn.Linear(2, D)).double()

        def forward(self, x):
            return 0.9 * x + 0.1 * self.inner(x)

    found = explain(Skip(), PIXELS)
    assert found.narrowest is None
    assert shares(found)["too narrow"] == 0


# Targets --------------------------------------------------------------------------------------------


def known_map(noise=0.0):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(D, D, dtype=torch.float64, generator=generator)

    def goal(x):
        return x @ w.T + noise * torch.randn(x.shape, dtype=torch.float64, generator=generator)

    return w, Pixels("mapped", PIXELS.train, PIXELS.test, targets=(goal(PIXELS.train), goal(PIXELS.test)))


def test_a_known_linear_map_is_explained_as_the_identity_is():
    w, pixels = known_map()
    assert explain(perfect(w=w), pixels).near_identity
    found = explain(perfect(w=w, b=torch.full((D,), 20.0)), pixels)
    assert shares(found)["bias"] > 0.99
    assert found.deviation.abs().max() < 0.05  # along its smallest eigenvector the data hardly says


def test_what_the_input_does_not_say_of_the_target_is_named():
    w, pixels = known_map(noise=50.0)
    found = explain(perfect(w=w), pixels)
    assert shares(found)["not in the input"] > 0.9
    assert "never seen" not in shares(found)


def test_a_short_run_trains_towards_the_target():
    w, pixels = known_map()
    near = w + 0.01 * torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = explain(perfect(w=near), pixels, Recipe("torch.optim:Adam", 1e-3, batch_size=None))
    assert shares(found)["too few steps"] + shares(found)["step-size floor"] > 0.3


# Pictures -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), high=st.integers(1, 9), wide=st.integers(2, 9))
def test_errors_by_pixel_and_by_frequency_sum_to_the_error(seed, high, wide):
    error = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, high * wide)))
    mse = float(error.square().mean())
    assert float(by_pixel(error).mean()) == pytest.approx(mse)
    power = by_frequency(error, error, (high, wide))
    assert float(power[:, 0].sum()) == pytest.approx(mse)
    assert float(power[0, 1]) <= float(power[0, 0])  # its mean is taken away


@pytest.mark.parametrize("cycles", [0, 1, 3])
def test_a_wave_has_its_power_at_its_frequency(cycles):
    across = torch.cos(2 * torch.pi * cycles * torch.arange(8, dtype=torch.float64) / 8)
    power = by_frequency(across.repeat(8)[None], across.repeat(8)[None], (8, 8))[:, 0]
    assert int(power.argmax()) == cycles
    assert float(power[cycles]) == pytest.approx(float(power.sum()))


def test_a_picture_says_where_its_error_is(pixels):
    model = nn.Linear(49, 49)
    with torch.no_grad():
        model.weight.copy_(torch.eye(49))
        model.bias.zero_()
        model.bias[10] = 0.5
    found = explain(model, pixels)
    assert int(found.by_pixel.argmax()) == 10
    assert float(found.by_pixel.mean()) == pytest.approx(found.mse)


@pytest.mark.thorough
def test_wide_maps_are_read_by_the_best_convolution():
    """A last layer of 8 maps of 28 x 28, too wide to be read unit by unit, off its optimum by a factor."""
    pixels = digits(28, train=256, test=64).scaled("unit")

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 8, 3, padding=1)
            self.last = nn.Conv2d(8, 1, 3, padding=1)
            with torch.no_grad():
                for p in self.parameters():
                    p.zero_()
                self.first.weight[:, 0, 1, 1] = 1
                self.last.weight[0, :, 1, 1] = 0.9 / 8

        def forward(self, x):
            return self.last(torch.relu(self.first(x.reshape(-1, 1, 28, 28)))).flatten(1)

    found = explain(Wide(), pixels)
    assert found.fvu > 0.01
    assert shares(found)["output layer"] + shares(found)["slow directions"] + shares(found)["bias"] > 0.95


# Draws in evaluation --------------------------------------------------------------------------------


class Drawing(nn.Module):
    """The identity, with noise of a spread that is drawn by ``noise(y)`` in training and evaluation alike."""

    def __init__(self, noise, bias=0.0):
        super().__init__()
        self.layer, self.noise = perfect(b=torch.full((D,), bias))[0], noise

    def forward(self, x):
        return self.noise(self.layer(x))


DRAWS = {
    "randn_like": lambda y: y + 20 * torch.randn_like(y),
    "randn": lambda y: y + 20 * torch.randn(y.shape, dtype=y.dtype),
    "sample": lambda y: torch.distributions.Normal(y, 20.0).rsample(),
    "normal_": lambda y: y + torch.empty_like(y).normal_(0, 20),
    "rand": lambda y: y * 2 * torch.rand_like(y),
    "dropout": lambda y: nn.functional.dropout(y, 0.2),
    "bernoulli": lambda y: 2 * y * torch.bernoulli(torch.full_like(y, 0.5)),
}


@pytest.mark.parametrize("noise", DRAWS)
def test_draws_in_evaluation_are_told_from_what_is_wrong_besides(noise):
    found = explain(Drawing(DRAWS[noise]), PIXELS)
    assert shares(found)["noise in evaluation"] > 0.999
    biased = explain(Drawing(DRAWS[noise], 9.0), PIXELS)
    assert 0 < shares(biased)["noise in evaluation"] < 1
    assert shares(biased)["bias"] + shares(biased)["noise in evaluation"] > 0.99
    for one in (found, biased):
        assert sum(part.fvu for part in one.parts) == pytest.approx(one.fvu, rel=1e-6)
        assert one.fvu == pytest.approx(one.fvu_pixels, rel=1e-6)
        assert float(one.by_pixel.mean()) == pytest.approx(one.mse)


def test_draws_of_no_known_mean_are_held_at_one():
    """An exponential draw, of which nothing is said but that all parts are of one draw."""
    found = explain(Drawing(lambda y: y + 20 * torch.empty_like(y).exponential_()), PIXELS)
    assert shares(found)["noise in evaluation"] == 0
    assert sum(part.fvu for part in found.parts) == pytest.approx(found.fvu, rel=1e-6)


def test_a_network_without_draws_has_no_noise_in_evaluation():
    found = explain(nn.Sequential(nn.Dropout(0.5), *perfect(b=torch.full((D,), 9.0))), PIXELS)
    assert shares(found)["noise in evaluation"] == 0


# Bottlenecks that no module shows -------------------------------------------------------------------


class Tied(nn.Module):
    """Principal components, and back by the same weights: no module of its own has them."""

    def __init__(self, k, activation=lambda z: z, bias=0.0):
        super().__init__()
        v = torch.linalg.eigh(torch.cov(PIXELS.train.T))[1][:, -k:]
        self.w, self.middle = nn.Parameter(v.T.contiguous()), nn.Parameter(MIDDLE.clone())
        self.activation, self.bias = activation, bias

    def forward(self, x):
        return self.activation((x - self.middle) @ self.w.T) @ self.w + self.middle + self.bias


@pytest.mark.parametrize("k", [1, 2, 3])
def test_tied_weights_are_as_narrow_as_what_they_give(k):
    found = explain(Tied(k), PIXELS)
    assert found.narrowest == k
    assert shares(found)["too narrow"] > 0.99
    assert explain(Tied(k, bias=50.0), PIXELS).narrowest == k


@pytest.mark.parametrize("model", [Tied(D), perfect(b=torch.full((D,), 9.0)), perfect(w=torch.eye(D) * 0.5)])
def test_what_gives_all_directions_is_not_narrow(model):
    assert explain(model, PIXELS).narrowest is None


def test_dead_and_constant_outputs_are_no_bottleneck():
    w = torch.eye(D)
    w[:4] = 0
    assert explain(perfect(w=w), PIXELS).narrowest is None
    assert explain(nn.Sequential(*perfect(w=w), nn.ReLU()), PIXELS).narrowest is None


# Weight decay ---------------------------------------------------------------------------------------


def halved_by_decay():
    """White data, and W = I / 2, where a decay of 2 / d holds gradient descent: 2 / d (W - I) + 2 / d W = 0."""
    x = torch.randn(512, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x))).T
    model = nn.Linear(D, D, bias=False, dtype=torch.float64)
    nn.init.eye_(model.weight).data.mul_(0.5)
    return model, Pixels("white", x[:384], x[384:])


def recipe(decay, optimizer="torch.optim:SGD", lr=0.05 * D):
    return Recipe(optimizer, lr, (("weight_decay", decay),) if decay is not None else (), batch_size=None)


def test_a_network_that_its_weight_decay_holds_back_is_told_so():
    model, pixels = halved_by_decay()
    found = explain(model, pixels, recipe(2 / D))
    assert shares(found)["weight decay"] > 0.95, shares(found)
    assert sum(one.fvu for one in found.parts) == pytest.approx(found.fvu, rel=1e-6)
    trial = described(found, recipe(2 / D), "none", 100)
    (first, *_) = advised(found, trial, pixels, model=True)
    assert first.name == "no weight decay"
    assert dict(first.made(trial, pixels).recipe.arguments) == {"weight_decay": 0.0}


@pytest.mark.parametrize(
    "other", [recipe(None), recipe(0.0), recipe(1e-3), recipe(None, "torch.optim:AdamW", 1e-2), None]
)
def test_weight_decay_is_not_blamed_for_what_steps_with_it_repair(other):
    model, pixels = halved_by_decay()
    assert shares(explain(model, pixels, other))["weight decay"] < 0.05


@pytest.mark.parametrize(
    ("given", "decay"),
    [
        (recipe(None, "torch.optim:AdamW"), 0.01),
        (recipe(None), 0.0),
        (recipe(0.3), 0.3),
        (recipe(None, "builtins:dict"), 0.0),
    ],
)
def test_weight_decay_is_what_the_recipe_says_or_the_optimizers_default(given, decay):
    assert decay_of(given) == decay
    assert decay_of(without_decay(given)) == 0


# Readouts -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), dead=st.integers(0, D), still=st.integers(0, D))
def test_a_readout_is_least_squares_whatever_is_constant(seed, dead, still):
    """Slope 0 from a feature that is constant and to a target that is; else the residual is orthogonal to all."""
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(8 * D, D, generator=draw, dtype=torch.float64) for _ in range(2))
    x[:, :dead], y[:, :still] = 3, 2
    best = affine(x, y)
    assert best[:dead].abs().sum() + best[:-1, :still].abs().sum() < 1e-9
    assert torch.allclose(best[-1, :still], torch.full((still,), 2.0, dtype=torch.float64))
    left = y - x @ best[:-1] - best[-1]
    assert float((x.T @ left).abs().max()) < 1e-5
    assert float(left.sum(0).abs().max()) < 1e-9


def test_of_the_first_features_alone_a_readout_is_that_of_those():
    x = torch.randn(8 * D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = 0
    both, first = Regression(x).first(3).to(x), affine(x[:, :3], x)
    assert torch.allclose(both, first, atol=1e-7)


@pytest.mark.parametrize("p", [0, 1, 5, 8])
def test_a_gram_matrix_is_that_of_all_columns(p):
    x = torch.randn(20, p, generator=torch.Generator().manual_seed(p), dtype=torch.float64)
    assert torch.allclose(gram(x), x.T @ x)
