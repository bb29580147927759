"""``identity-props explain``: a network trained or given, its advice done, its weights read safely."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from identity_props.claims.registry import RECIPES
from identity_props.claims.running import cores
from identity_props.cli import main
from identity_props.cli.waiting import wait_briefly
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.explanation.advice import advised, described, tried
from identity_props.explanation.changes import CHANGES
from identity_props.explanation.explain import explain
from identity_props.explanation.networks import trained
from identity_props.explanation.parts import ORDER
from identity_props.task.data import digits
from identity_props.task.models import Variant

QUICK = ("explain", "--steps", "50", "--depth", "2")


def test_explain_prints_parts_and_advice_and_writes_them(tmp_path, capsys):
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "Why is plain-relu, depth 2 not the identity?" in out
    assert "not tried" in out
    assert "explanation.json" in err
    document = json.loads((tmp_path / "explanation.json").read_text())
    assert sum(part["fvu"] for part in document["parts"]) == pytest.approx(document["fvu"])
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "threads"), [("7", 1), ("28", cores())])
def test_it_trains_on_as_many_threads_as_a_run_and_gives_the_others_back(
    side, threads, monkeypatch, few_digits
):
    seen, before = [], torch.get_num_threads()

    def explained(asked, pixels):
        seen.append(torch.get_num_threads())
        raise InputError("seen")

    monkeypatch.setattr("identity_props.cli.asked.Asked.explained", explained)
    assert main(["explain", "--side", side]) == 2
    assert (seen, torch.get_num_threads()) == ([threads], before)


def test_try_does_what_it_advises(capsys):
    assert main([*QUICK, "--try", "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert advice[-1]["name"] == "all of these"
    assert all(one["after"] is not None for one in advice)
    assert min(one["after"] for one in advice) < advice[0]["before"]


def test_what_is_advised_answers_the_parts_that_matter():
    pixels = digits(7, train=512, test=256)
    trial = Trial(Variant("plain-relu", 1), RECIPES["seed"](49), 300)
    found = explain(trained(trial, pixels), pixels.scaled("unit"), trial.recipe)
    expected = [change.expected(found) for change in advised(found, trial, pixels)]
    assert min(expected) >= 0.05
    assert expected == sorted(expected, reverse=True)
    assert {name for change in CHANGES for name in change.answers} <= {*ORDER}


def test_the_rate_from_the_spectrum_repairs_a_rate_that_is_too_small():
    pixels = digits(7, train=512, test=256)
    recipe = Recipe("torch.optim:SGD", 1e-4, batch_size=None)
    trial = Trial(Variant("scaled-input", 1, "whiten"), recipe, 20)
    found = explain(trained(trial, pixels), pixels.scaled("whiten"), recipe)
    (rate,) = [one for one in tried(found, trial, pixels, 0) if one.name == "rate from the spectrum"]
    assert rate.after < 1e-3 < rate.before


def test_a_network_that_is_near_identity_gets_no_advice():
    pixels = digits(7, train=512, test=256)
    layer = nn.Linear(49, 49)
    nn.init.eye_(layer.weight), nn.init.zeros_(layer.bias)
    found = explain(layer, pixels)
    assert advised(found, described(found, None, "none", 1), pixels) == ()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module network.py with a factory, in the working folder."""
    (tmp_path / "network_here.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Linear(49, 49)\n\n\ndef broken():\n    raise ValueError('no')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "network_here:build"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_model_of_ones_own_is_explained_with_its_weights(module, tmp_path, suffix, capsys):
    state = {"weight": torch.eye(49), "bias": torch.zeros(49)}
    file = tmp_path / f"weights.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    assert main(["explain", "--model", module, "--weights", str(file)]) == 0
    assert "it is near-identity" in capsys.readouterr().out


class Harmful:
    def __reduce__(self):
        return (print, ("it ran",))


def written(tmp_path, kind):
    file = tmp_path / f"{kind}.{'safetensors' if kind == 'safe-cut' else 'pt'}"
    whole = {"weight": torch.eye(49), "bias": torch.zeros(49)}
    if kind == "safe-cut":
        save_file(whole, file)
    elif kind == "pickle":
        file.write_bytes(pickle.dumps(Harmful()))
    else:
        torch.save(
            {"other": whole["bias"]}
            if kind == "other"
            else {"weight": torch.eye(5), "bias": torch.zeros(5)}
            if kind == "shape"
            else [1, 2]
            if kind == "list"
            else whole,
            file,
        )
    if kind.endswith("cut"):
        file.write_bytes(file.read_bytes()[:-3000])
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("safe-cut", "expected a whole safetensors file"),
        ("cut", "expected a whole file of torch.save, got a damaged one"),
        ("pickle", "a pickle can run code, so it is not opened"),
        ("other", "expected those of network_here:build, got others"),
        ("shape", "size mismatch for weight"),
        ("list", "expected tensors by name"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_with_the_reason(module, tmp_path, kind, message, capsys):
    assert main(["explain", "--model", module, "--weights", str(written(tmp_path, kind))]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "it ran" not in out + err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--weights", "w.pt"], 2, "--weights: expected --model"),
        (["--model", "torch.nn:Identity", "--try"], 2, "--try: of a --model expected --optimizer, --lr and"),
        (["--model", "torch.nn:Identity", "--lr", "1"], 2, "expected --optimizer and --lr together"),
        (["--model", "torch.nn:Identity", "--weights", "absent.pt"], 3, "expected a file, there is none"),
        (["--model", "no_such:Net"], 3, "no module 'no_such' to import"),
        (["--model", "math:sqrt"], 2, "calling it raised TypeError"),
        (["--model", "builtins:dict"], 2, "expected a torch.nn.Module, got dict"),
        (["--variant", "conv"], 2, "variant: expected one of plain-relu"),
        (["--depth", "9"], 2, "depth: expected 1 to 8 layers, got 9"),
        (["--optimizer-arg", "eps=1"], 2, "expected an --optimizer that takes them"),
        (["--lr", "nan"], 2, "lr: expected a finite rate above 0, got nan"),
        (["--variant", "linear", "--optimizer", "torch.optim:SGD", "--lr", "1e9"], 2, "this one diverged"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_its_exit_code(arguments, code, message, capsys):
    assert main(["explain", *arguments]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_briefly_unless_the_user_has_said_how(given, left):
    wait_briefly(given)
    assert given == left


@pytest.mark.thorough
def test_how_threads_wait_is_said_before_torch_is_imported():
    code = (
        "import sys, os; from identity_props.cli import main, explain\n"
        "asked = explain.wait_briefly\n"
        "def early():\n    asked()\n    print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])\n"
        "explain.wait_briefly = early\n"
        "main('explain --variant nothing'.split())"
    )
    unsaid = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=unsaid)
    assert done.stdout.split() == ["False", "10000"]
