"""Changes of a network from outside, what is advised for what people build, and training with a function of their own."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from identity_props import InputError
from identity_props.cli import main
from identity_props.engine.trial import Recipe
from identity_props.explanation.advice import advised, described, planned, told, tried
from identity_props.explanation.changed import best_rate, gone_round, without_dropout, without_output
from identity_props.explanation.changes import CHANGES
from identity_props.explanation.explain import Advice, explain
from identity_props.explanation.networks import retrained
from identity_props.report import page
from identity_props.report.explain import tables
from identity_props.task.data import digits
from tests.test_explain import PIXELS, D, bottleneck
from tests.test_explain_parts import FAULTS, flat_output, normalised, short_output
from tests.test_fitting import shown

SGD = Recipe("torch.optim:SGD", 1e-7)
X = PIXELS.train


def model(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def test_an_output_activation_is_taken_away_and_the_network_left_as_it_is():
    whole = model(nn.Linear(D, 8), nn.ReLU(inplace=True), nn.Linear(8, D), nn.Hardtanh(inplace=True))
    before = copy.deepcopy(whole.state_dict())
    bare = without_output(whole, X)
    assert torch.equal(bare(X), whole[:3](X))
    bare(X).sum().backward()
    assert all(p.grad is not None for p in bare.parameters())
    assert torch.equal(copy.deepcopy(bare)(X), bare(X))
    assert not any(m._forward_hooks for m in whole.modules())
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_dropout_is_turned_off_in_a_copy_and_where_there_is_none_nothing_is():
    dropping = model(nn.Linear(D, 8), nn.Dropout(0.5), nn.Linear(8, D)).train()
    calm = without_dropout(dropping, X)
    assert torch.equal(calm(X), calm(X))
    assert dropping[1].p == 0.5
    assert without_dropout(model(nn.Linear(D, D)), X) is None


def test_the_input_goes_round_the_whole_network():
    whole = model(nn.Linear(D, D), nn.Sigmoid())
    assert torch.equal(gone_round(whole, X)(X), X + whole[0](X))


@pytest.mark.parametrize(("best", "given"), [(1e-2, 1e-4), (1e-3, 1e-2), (1.0, 1.0)])
def test_the_best_rate_is_that_which_leaves_least(best, given):
    from identity_props.engine.trial import Trial
    from identity_props.task.models import Variant

    trial = Trial(Variant("linear"), Recipe("torch.optim:SGD", given), 500)

    def left(asked):
        assert asked.steps in (64, 125)
        away = abs(torch.tensor(asked.recipe.lr / best).log10().item())
        return float("nan") if asked.recipe.lr > 10 * best else away

    assert best_rate(trial, left) == pytest.approx(best)


def test_a_rate_that_is_faster_at_first_and_ends_higher_is_not_taken():
    from identity_props.engine.trial import Trial
    from identity_props.task.models import Variant

    asked = []

    def left(trial):
        asked.append((trial.steps, round(trial.recipe.lr, 12)))
        return 1.0 if trial.recipe.lr < 1e-2 else 0.5 if trial.steps == 64 else 2.0

    trial = Trial(Variant("linear"), Recipe("torch.optim:SGD", 1e-3), 800)
    assert best_rate(trial, left) == 1e-3
    assert asked[-2:] == [(200, 1e-3), (200, 1e-2)]
    assert best_rate(replace(trial, steps=256), left) == pytest.approx(1e-2)


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [30, 300])
def test_a_plan_says_how_many_steps_trying_it_takes_at_most(steps):
    recipe = Recipe("torch.optim:Adam", 1e-3)
    found = explain(bottleneck(), PIXELS, recipe)
    parts = tuple(replace(one, fvu=found.fvu * (one.name == "too few steps")) for one in found.parts)
    found = replace(found, parts=parts)
    asked, heard = (described(found, recipe, "none", steps), PIXELS), []
    plans = planned(found, *asked, bottleneck())
    assert "another rate" in {one.name for one in plans}
    list(tried(found, *asked, 0, heard.append, bottleneck()))
    most = sum(one.steps for one in plans)
    assert most - (steps // 4 * 2 if steps > 256 else 0) <= len(heard) <= most


class Drawing(nn.Module):
    """A code with noise of a given scale, which training on the squared error alone shrinks."""

    def __init__(self, scale):
        super().__init__()
        self.code, self.scale = nn.Linear(D, D), nn.Parameter(torch.tensor(scale))
        with torch.no_grad():
            self.code.weight.copy_(torch.eye(D))
            self.code.bias.zero_()
        self.double()

    def forward(self, x):
        z = self.code(x)
        return z + self.scale * torch.randn_like(z)


def test_a_network_that_draws_is_told_to_train_on_the_squared_error_alone_and_its_own_function_cannot():
    net = Drawing(50.0)
    found = explain(net, PIXELS, SGD)
    trial = described(found, SGD, "none", 100)
    assert found.draws
    assert "squared error alone" in [one.name for one in told(found, trial, PIXELS, True, net)]
    by_hand = {one.name: one.by_hand for one in planned(found, trial, PIXELS, net, fit=lambda *_: None)}
    assert by_hand["squared error alone"]
    assert "squared error alone" not in names(bottleneck(), SGD)[0]


@pytest.mark.parametrize("drop", [nn.functional.dropout, nn.functional.alpha_dropout])
def test_a_network_that_drops_in_evaluation_has_no_draws_that_another_loss_keeps_up(drop):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(D, D).double()

        def forward(self, x):
            return drop(self.layer(x), 0.5, training=True)

    asked, found = names(Dropping(), SGD)
    assert (found.draws, found.noisy) == (False, True)
    assert "squared error alone" not in asked


def names(net, recipe=None):
    found = explain(net, PIXELS, recipe)
    trial = described(found, recipe, "none", 100)
    return [one.name for one in told(found, trial, PIXELS, recipe is not None, net)], found


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ("too narrow", "widen to 4"),
        ("range", "linear output"),
        ("saturated outputs", "linear output"),
        ("noise in training", "no dropout"),
        ("shifted statistics", "averages anew"),
        ("saturated hidden units", "residual blocks"),
        ("lost in hidden layers", "residual blocks"),
    ],
)
def test_what_is_advised_first_answers_the_part(part, first):
    assert names(FAULTS[part]())[0][0] == first


@pytest.mark.parametrize(
    ("steps", "floor", "advised_"), [(0.0, 0.5, True), (0.3, 0.5, True), (0.5, 0.1, False)]
)
def test_a_decay_is_advised_where_the_rate_hovers_and_not_where_the_error_still_falls(steps, floor, advised_):
    (decay,) = [change for change in CHANGES if change.name == "decay the rate"]
    found = explain(bottleneck(), PIXELS)
    given = {"too few steps": steps, "step-size floor": floor}
    parts = tuple(replace(one, fvu=given.get(one.name, one.fvu)) for one in found.parts)
    assert decay.fits(replace(found, parts=parts)) == advised_


def test_a_width_is_the_least_whose_best_map_leaves_what_is_wanted():
    found = explain(bottleneck(), PIXELS)
    for wanted in (1e-1, 1e-2, 1e-3, 1e-6):
        width, left = found.width_for(wanted)
        assert left <= wanted < float(found.by_rank[width - 1])
    assert found.width_for(1e-300)[0] == D


def test_scaling_into_range_is_advised_where_the_output_reaches_what_is_scaled():
    net = nn.Sequential(nn.Linear(D, D), nn.Sigmoid()).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(D))
    assert "scale into range" in names(net)[0]
    assert "scale into range" not in names(flat_output())[0]


def test_a_network_that_input_goes_round_is_not_told_to_let_it():
    found = explain(gone_round(bottleneck(), X), PIXELS)
    trial = described(found, None, "none", 100)
    assert "residual blocks" not in {one.name for one in advised(found, trial, PIXELS, False, True)}


def test_averages_anew_are_tried_without_training():
    net = normalised(1.5)
    found = explain(net, PIXELS)
    trial = described(found, SGD, "none", 100)
    (one,) = [
        one
        for one in tried(found, trial, PIXELS, 0, model=copy.deepcopy(net), trained=net)
        if one.name == "averages anew"
    ]
    assert one.after < 1e-3 < one.before


def test_what_cannot_be_changed_from_outside_is_by_hand():
    found = explain(bottleneck(), PIXELS)
    plans = planned(found, described(found, SGD, "none", 10), PIXELS, bottleneck())
    assert [plan.by_hand for plan in plans if plan.name == "widen to 4"] == [True]


@pytest.mark.parametrize(
    ("after", "said"), [((0.4, 0.9), True), ((0.2, 0.9), False), ((None, None), False), ((math.nan,), True)]
)
def test_that_nothing_helped_is_said(after, said):
    found = replace(explain(bottleneck(), PIXELS), advice=tuple(Advice("a", "b", 0.5, one) for one in after))
    told = "none of those tried halves the error"
    assert (told in " ".join(shown(tables(found), 100).split())) == said
    assert (told in page.of_explanation(found, {})) == said


FITS = """
import torch
from torch import nn

def fit(model, x, target):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), target).backward()
        optimizer.step()

def broken(model, x, target):
    raise ValueError("no")

def sigmoid():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(49, 49), nn.Sigmoid())

class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(x)

def saved():
    model = sigmoid()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(49)); model[0].bias.fill_(-1.0)
    return model
"""


@pytest.fixture
def fits(tmp_path, monkeypatch, few_digits):
    (tmp_path / "fits_here.py").write_text(FITS)
    monkeypatch.chdir(tmp_path)
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("fits_here", None)
    import fits_here

    torch.save(fits_here.saved().state_dict(), "saved.pt")


ASKED = ["explain", "--model", "fits_here:sigmoid", "--weights", "saved.pt", "--try", "--json"]


def test_a_function_of_ones_own_trains_what_is_changed(fits, capsys):
    assert main([*ASKED, "--train", "fits_here:fit", "--scaling", "standardise"]) == 0
    document = json.loads(capsys.readouterr().out)
    advice = {one["name"]: one for one in document["advice"]}
    assert advice["linear output"]["after"] < advice["linear output"]["before"] / 2


def test_a_function_that_fails_is_refused_in_one_line(fits, capsys):
    assert main([*ASKED, "--train", "fits_here:broken", "--scaling", "standardise"]) == 2
    err = capsys.readouterr().err
    assert "--train: calling it raised ValueError: no" in err


def test_a_network_of_pictures_is_handed_pictures(fits, capsys):
    assert main(["explain", "--model", "fits_here:Maps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"][1]["name"] == "not trained yet"


@pytest.mark.parametrize(
    ("curve", "share"), [("loss\n2.0\n1.99\n", 1), ("epoch,loss\n0,2.0\n1,0.5\n", 0), (None, 1)]
)
def test_a_curve_says_whether_a_network_was_trained(curve, share, fits, tmp_path, capsys):
    given = []
    if curve is not None:
        (tmp_path / "curve.csv").write_text(curve)
        given = ["--curve", "curve.csv"]
    assert main(["explain", "--model", "fits_here:sigmoid", *given, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (drawn,) = [one["fvu"] / document["fvu"] for one in document["parts"] if one["name"] == "not trained yet"]
    assert (drawn > 0.5) == bool(share)


@pytest.mark.parametrize(
    ("name", "text", "code"), [("c.csv", "1\n", 2), ("c.txt", "1\n2\n", 2), ("absent.csv", None, 3)]
)
def test_a_curve_that_cannot_be_read_is_refused(name, text, code, fits, tmp_path, capsys):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["explain", "--model", "fits_here:sigmoid", "--curve", name]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_function_wants_a_model_and_a_try(capsys):
    assert main(["explain", "--train", "math:sqrt"]) == 2
    assert "--train: expected --model and --try" in capsys.readouterr().err


def test_a_target_wants_a_model(tmp_path, capsys):
    import numpy as np

    np.save(tmp_path / "x.npy", X.numpy())
    files = ["--data", str(tmp_path / "x.npy"), "--target", str(tmp_path / "x.npy")]
    assert main(["explain", *files]) == 2
    assert "--target: expected a --model" in capsys.readouterr().err


def test_trying_with_a_function_leaves_the_model_as_it_is():
    pixels = digits(7, train=256, test=64)
    net = nn.Linear(49, 49)
    before = net.weight.clone()
    found = explain(net, pixels.scaled("unit"))
    trial = described(found, None, "unit", 1)

    def fit(model, x, goal):
        with torch.no_grad():
            model.weight.copy_(torch.eye(49))
            model.bias.zero_()

    assert retrained(net, trial, pixels, fit=fit) < 1e-9
    assert torch.equal(net.weight, before)
    with pytest.raises(InputError, match="--train: calling it raised"):
        retrained(net, trial, pixels, fit=lambda model, x, goal: 1 / 0)


def test_short_outputs_are_repaired_by_a_linear_one():
    found = explain(short_output(), PIXELS)
    (part,) = [one for one in found.parts if one.name == "range"]
    assert "the output reaches from 0 to" in part.what
