"""Networks of one's own: what is not measured says so, and advice fits the model and can be tried."""

import json

import pytest
import torch

from identity_props.cli import main
from identity_props.cli.explain import explain as command
from identity_props.engine.trial import Recipe
from identity_props.explanation.advice import advised, described, told
from identity_props.explanation.changes import CHANGES
from identity_props.explanation.explain import explain
from identity_props.report import page
from identity_props.report.explain import tables
from identity_props.task.data import digits
from tests.test_fitting import shown

NETS = """
import torch
from torch import nn


def seeded(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*(make() for make in layers))


def linear():
    return seeded(lambda: nn.Linear(49, 49))


def relu():
    return seeded(lambda: nn.Linear(49, 49), nn.ReLU)


def narrow():
    return seeded(lambda: nn.Linear(49, 16), nn.ReLU, lambda: nn.Linear(16, 49))


def deep():
    return seeded(lambda: nn.Linear(49, 49), nn.ReLU, lambda: nn.Linear(49, 49))
"""
ADAM = Recipe("torch.optim:Adam", 1e-2)
SGD = Recipe("torch.optim:SGD", 1e-3)


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """Factories of networks in the working folder, by name."""
    (tmp_path / "nets_here.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(NETS, names)
    return names


@pytest.fixture(scope="module")
def pixels():
    return digits(7, train=512, test=256)


def a_little_trained(net, pixels, lr=1e-2, steps=30):
    """A network that is no longer as it was drawn."""
    model, scaled = net(), pixels.scaled("unit")
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(scaled.train), scaled.train).backward()
        optimizer.step()
    return model


def names(net, recipe, pixels):
    found = explain(a_little_trained(net, pixels), pixels.scaled("unit"), recipe)
    trial = described(found, recipe, "unit", 100)
    return {one.name for one in advised(found, trial, pixels, recipe is not None)}, found, trial


def part(found, name):
    (one,) = [one for one in found.parts if one.name == name]
    return one


def test_what_is_not_known_is_not_measured_and_no_zero(nets, pixels):
    _, found, _ = names(nets["linear"], None, pixels)
    unknown = {one.name for one in found.parts if not one.measured}
    assert unknown == {"too few steps", "step-size floor"}
    assert {part(found, name).fvu for name in unknown} == {0.0}
    lines = [line.split() for line in shown(tables(found), 100).splitlines()]
    (steps,) = [line for line in lines if line[:3] == ["too", "few", "steps"]]
    assert steps[3:7] == ["-", "-", "not", "measured:"]
    assert "not measured: give --optimizer and --lr" in page.of_explanation(found, {})


def test_a_rate_that_has_decayed_leaves_too_few_steps_unmeasured(nets, pixels):
    decayed = Recipe("torch.optim:Adam", 1e-2, schedule="linear-decay")
    found = explain(a_little_trained(nets["linear"], pixels), pixels.scaled("unit"), decayed)
    assert not part(found, "too few steps").measured
    assert part(found, "step-size floor").measured


def test_training_longer_is_advised_where_too_few_steps_lead(nets, pixels):
    advice, found, _ = names(nets["linear"], ADAM, pixels)
    assert part(found, "too few steps").fvu == max(part.fvu for part in found.parts)
    assert "train longer" in advice
    assert "train longer" not in names(nets["linear"], SGD, pixels)[0]  # its rate is too small, first


@pytest.mark.parametrize(
    ("net", "recipe", "never"),
    [
        ("relu", ADAM, {"standardise", "rate from the spectrum"}),
        ("relu", None, {"standardise", "train longer", "decay the rate", "rate from the spectrum"}),
        ("narrow", ADAM, {"residual blocks", "rate from the spectrum", "linear output"}),
        ("deep", ADAM, {"rate from the spectrum", "linear output"}),
        ("deep", SGD, {"rate from the spectrum"}),
        ("linear", None, {"rate from the spectrum", "decay the rate"}),
    ],
)
def test_advice_never_names_what_does_not_fit(net, recipe, never, nets, pixels):
    advice, *_ = names(nets[net], recipe, pixels)
    assert never <= {change.name for change in CHANGES}
    assert not advice & never


def test_changes_of_a_model_that_can_be_made_from_outside_are_not_by_hand(nets, pixels):
    _, found, trial = names(nets["relu"], None, pixels)
    by_hand = {one.name: one.by_hand for one in told(found, trial, pixels, known=False, model=nets["relu"]())}
    assert {name: by_hand[name] for name in ("linear output", "residual blocks")} == {
        "linear output": False,
        "residual blocks": False,
    }


def test_a_model_is_tried_with_what_it_trained_with(nets, capsys):
    asked = ["explain", "--model", "nets_here:deep", "--optimizer", "torch.optim:Adam", "--lr", "0.01"]
    assert main([*asked, "--steps", "30", "--try", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (one,) = document["advice"]
    assert one["name"] == "train it"
    assert one["after"] < document["fvu_pixels"] / 2
    assert document["stack"]["activation"] == "the model's own"
    assert main([*asked, "--try"]) == 2


def test_what_is_not_tried_says_how(nets, capsys):
    assert main(["explain", "--model", "nets_here:linear"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--try trains each, with --optimizer, --lr and --steps" in out
    assert "are these its --weights, and is --scaling that of its training?" in out


def test_a_network_without_an_activation_has_none(few_digits, capsys):
    assert main(["explain", "--variant", "linear", "--steps", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stack"]["activation"] == "none"


def test_the_help_names_the_scalings():
    text = next(option.help for option in command.params if option.name == "scaling")
    assert all(name in text for name in ("none", "unit", "standardise", "whiten"))


def test_trying_leaves_the_model_as_it_is(nets, pixels):
    from identity_props.explanation.networks import retrained

    model = nets["linear"]()
    before = model[0].weight.clone()
    found = explain(model, pixels.scaled("unit"), ADAM)
    assert retrained(model, described(found, ADAM, "unit", 20), pixels) < found.fvu_pixels
    assert torch.equal(model[0].weight, before)
