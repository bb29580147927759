"""Keras models on torch are explained as torch's own are, from their own files."""

import copy
import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from identity_props.cli import main
from identity_props.errors import InputError, MissingError
from identity_props.explanation import from_keras, keras_weights, networks
from identity_props.explanation.explain import explain
from identity_props.task.data import digits

NETS = """
import keras
from keras import Input, Sequential, layers


def relu(widths=(9, 9), activation="relu"):
    keras.utils.set_random_seed(0)
    dense = [layers.Dense(width, activation=activation) for width in widths]
    return Sequential([Input((9,)), *dense])


def tanh():
    return relu(activation="tanh")


def deeper():
    return relu((9, 9, 9))


def wider():
    return relu((12, 9))


def unbuilt():
    return Sequential([layers.Dense(9)])


def rich():
    keras.utils.set_random_seed(0)
    entering = Input((9,))
    x = layers.Dense(8)(entering)
    x = layers.PReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(8, activation=layers.LeakyReLU())(x)
    x = layers.Dropout(0.2)(x)
    x = layers.LayerNormalization()(x + layers.Dense(8, activation="tanh")(x))
    inner = Sequential([Input((8,)), layers.Dense(9, activation="sigmoid")])
    return keras.Model(entering, inner(x))


def pictures():
    keras.utils.set_random_seed(0)
    inner = [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.BatchNormalization()]
    return Sequential([Input((3, 3, 1)), *inner, layers.Conv2D(1, 3, padding="same", activation="sigmoid")])


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner, self.noise, self.outer = layers.Dense(5, "gelu"), layers.GaussianNoise(0.1), layers.Dense(9)

    def call(self, x):
        return x + self.outer(self.noise(self.inner(x)))


def own():
    keras.utils.set_random_seed(0)
    model = Own()
    model(keras.ops.zeros((1, 9)))
    return model


at_hand = relu()
"""
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of Keras, on numpy 2
KINDS = ("relu", "rich", "pictures", "own")


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The factories by name, in a folder that their files can be written to."""
    from_keras.prepare()
    keras = pytest.importorskip("keras")
    if keras.config.backend() != "torch":
        pytest.skip("Keras is on another backend in this process")
    (tmp_path / "keras_nets_here.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("keras_nets_here", None)
    return importlib.import_module("keras_nets_here")


@pytest.fixture
def pixels(nets):
    """Examples of nine columns, and a file of them."""
    np.save("nine.npy", np.random.default_rng(0).random((200, 9)).astype("float32"))
    return SimpleNamespace(file="nine.npy")


def x(n=16):
    return torch.randn(n, 9, generator=torch.Generator().manual_seed(1))


def explained(*arguments, capsys):
    assert main(["explain", "--data", "nine.npy", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refused(*arguments, capsys):
    code = main(["explain", "--data", "nine.npy", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1), lines
    return lines[0]


# Following ------------------------------------------------------------------------------------------


@pytest.mark.trainers
@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_the_model_gives_and_trains_without_touching_it(kind, nets):
    model = getattr(nets, kind)()
    before = [weight.numpy().copy() for weight in model.weights]
    module = from_keras.followed(model, kind)
    copied = copy.deepcopy(module)
    optimizer = torch.optim.SGD([p for p in copied.parameters() if p.requires_grad], 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append((copied(x()) - x()).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    shape = (16, 3, 3, 1) if kind == "pictures" else (16, 9)
    wanted = model(x().reshape(shape), training=False).flatten(1)
    torch.testing.assert_close(module.eval()(x()), wanted, rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.trainers
def test_training_mode_is_that_of_the_module(nets):
    module = from_keras.followed(nets.own(), "own")
    assert torch.equal(module.eval()(x()), module(x()))
    assert not torch.equal(module.train()(x()), module(x()))


@pytest.mark.trainers
def test_batch_statistics_move_in_training_as_those_of_keras(nets):
    model = nets.pictures()
    module = from_keras.followed(model, "pictures")
    module.train()(x())
    model(x().reshape(16, 3, 3, 1), training=True)
    (kept,) = [one for one in module.modules() if isinstance(one, nn.BatchNorm1d)]
    theirs = model.layers[1].moving_mean.value.detach()
    torch.testing.assert_close(kept.running_mean, theirs)


@pytest.mark.trainers
def test_its_parts_are_those_of_the_same_network_in_torch(nets):
    pixels = digits(7, train=512, test=256)
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(49, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((49,)), *layers])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    train = pixels.scaled("unit").train.numpy()
    model.fit(train, train, epochs=5, verbose=0)
    twin = nn.Sequential(nn.Linear(49, 49), nn.ReLU(), nn.Linear(49, 49), nn.ReLU())
    with torch.no_grad():
        for mine, theirs in zip((twin[0], twin[2]), layers, strict=True):
            mine.weight.copy_(theirs.kernel.value.T)  # [in, out] there, [out, in] here
            mine.bias.copy_(theirs.bias.value)
    found, wanted = (
        explain(one, pixels.scaled("unit")) for one in (from_keras.followed(model, "keras"), twin)
    )
    assert [part.name for part in found.parts] == [part.name for part in wanted.parts]
    assert [part.fvu for part in found.parts] == pytest.approx([part.fvu for part in wanted.parts], abs=1e-5)
    shares = {part.name: part.fvu / found.fvu for part in found.parts}
    assert shares["dead outputs"] + shares["stuck at 0"] > 0.1  # a ReLU within a Dense is seen


@pytest.mark.trainers
def test_what_cannot_be_followed_is_refused(nets, monkeypatch):
    import keras

    with pytest.raises(InputError, match="is built; a Sequential"):
        from_keras.followed(nets.unbuilt(), "unbuilt")
    two = keras.Input((9,)), keras.Input((9,))
    with pytest.raises(InputError, match="one input, one output"):
        from_keras.followed(keras.Model(two, two[0] + two[1]), "two")
    monkeypatch.setattr(from_keras, "_linear", lambda layer: nn.Linear(9, 9))
    with pytest.raises(InputError, match="give what the model gives"):
        from_keras.followed(nets.relu(), "relu")


# Files ----------------------------------------------------------------------------------------------


@pytest.mark.trainers
@pytest.mark.parametrize("file", ["net.keras", "net.weights.h5"])
@pytest.mark.parametrize("kind", ["relu", "rich"])
def test_a_trained_model_is_explained_from_the_files_of_keras(kind, file, nets, pixels, capsys):
    model = getattr(nets, kind)()
    model.compile("adam", "mse")
    examples = np.load(pixels.file)
    model.fit(examples, examples, epochs=2, verbose=0)
    (model.save if file.endswith(".keras") else model.save_weights)(file)
    name = f"keras_nets_here:{kind}"
    drawn, read = networks.loaded(name, None), networks.loaded(name, Path(file))
    torch.testing.assert_close(read.eval()(x()), from_keras.followed(model, kind).eval()(x()))
    assert not torch.allclose(read(x()), drawn.eval()(x()))
    document = explained("--model", name, "--weights", file, capsys=capsys)
    assert sum(part["fvu"] for part in document["parts"]) == pytest.approx(document["fvu"])
    assert document["fvu"] != pytest.approx(explained("--model", name, capsys=capsys)["fvu"])


@pytest.mark.trainers
def test_a_model_at_hand_is_as_it_was_drawn_where_it_was_read_before_its_weights(nets):
    drawn = networks.loaded("keras_nets_here:at_hand", None)
    y = drawn(x())
    nets.at_hand.set_weights([weight + 1 for weight in nets.at_hand.get_weights()])
    nets.at_hand.save_weights("net.weights.h5")
    read = networks.loaded("keras_nets_here:at_hand", Path("net.weights.h5"))
    assert torch.equal(drawn(x()), y)
    assert not torch.equal(read(x()), y)


@pytest.mark.trainers
@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ("tanh", "Dense with tanh, not Dense with relu"),
        ("deeper", "Dense with relu, not none"),
        ("wider", "layers/dense/vars/0 [9, 12], not layers/dense/vars/0 [9, 9]"),
    ],
)
def test_a_file_of_another_architecture_is_refused(saved, said, nets, pixels, capsys):
    getattr(nets, saved)().save("other.keras")
    line = refused("--model", "keras_nets_here:relu", "--weights", "other.keras", capsys=capsys)
    assert said in line
    getattr(nets, saved)().save_weights("other.weights.h5")
    given = ("--model", "keras_nets_here:relu", "--weights", "other.weights.h5")
    if saved == "tanh":  # of which such a file knows nothing
        explained(*given, capsys=capsys)
    else:
        assert "another architecture's: layers/" in refused(*given, capsys=capsys)


@pytest.mark.trainers
@pytest.mark.parametrize("file", ["net.keras", "net.weights.h5"])
def test_a_damaged_file_is_refused(file, nets, pixels, tmp_path, capsys):
    (tmp_path / file).write_bytes(b"PK\x03\x04 no archive")
    line = refused("--model", "keras_nets_here:relu", "--weights", file, capsys=capsys)
    assert "expected a whole file of Keras" in line
    line = refused("--model", "torch.nn:Identity", "--weights", file, capsys=capsys)
    assert "expected --model to build a model of Keras, got Identity" in line


@pytest.mark.trainers
def test_another_backend_is_refused(nets, monkeypatch):
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError, match="expected Keras on KERAS_BACKEND=torch, got it on jax"):
        networks.loaded("keras_nets_here:relu", None)


def test_without_keras_its_files_are_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "net.keras").touch()
    monkeypatch.setattr(keras_weights, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'identity-props\[keras-torch\]'"):
        networks.loaded("torch.nn:Identity", tmp_path / "net.keras")
    with pytest.raises(MissingError, match="expected a file, there is none"):
        networks.loaded("torch.nn:Identity", tmp_path / "other.keras")


@pytest.mark.parametrize(("before", "after"), [(None, "torch"), ("jax", "jax")])
def test_keras_takes_torch_unless_the_environment_says_otherwise(before, after, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("KERAS_TORCH_DEVICE", "cpu")
    monkeypatch.delenv("KERAS_BACKEND")
    if before:
        monkeypatch.setenv("KERAS_BACKEND", before)
    from_keras.prepare()
    assert os.environ["KERAS_BACKEND"] == after


def test_a_model_that_a_name_is_of_is_copied_before_weights_are_read_into_it(tmp_path, monkeypatch):
    (tmp_path / "model_at_hand.py").write_text("from torch import nn\nmodel = nn.Linear(3, 3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    drawn = networks.loaded("model_at_hand:model", None)
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "other.pt")
    read = networks.loaded("model_at_hand:model", tmp_path / "other.pt")
    assert not torch.equal(drawn.weight, read.weight)
    assert torch.equal(drawn.weight, networks.loaded("model_at_hand:model", None).weight)
