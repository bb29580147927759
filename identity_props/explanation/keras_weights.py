"""Weights that Keras saved, read into a Keras model through Keras: arrays alone, and nothing is unpickled."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from identity_props.errors import InputError, MissingError
from identity_props.explanation.from_keras import is_keras

WHOLE, ALONE = ".keras", ".weights.h5"
INSTALL = "expected Keras to read it with, got none: pip install 'identity-props[keras-torch]'"

Shapes = dict[str, tuple[int, ...]]


def of_keras(path: Path) -> bool:
    """Whether a file is one that Keras saves, by its name."""
    return path.name.endswith((WHOLE, ALONE))


def read_into(model: Any, name: str, path: Path) -> None:
    """Give a Keras model the weights of a .keras or .weights.h5 file.

    Raises MissingError where there is no file or no Keras, InputError for a damaged file, or one of a model of other
    layers, shapes or activations; of a .weights.h5 activations are not known.
    """
    if not os.path.isfile(path):
        raise MissingError(f"--weights {path}: expected a file, there is none")
    if find_spec("keras") is None:
        raise MissingError(f"--weights {path}: {INSTALL}")
    if not is_keras(model):
        given = type(model).__name__
        raise InputError(f"--weights {path}: expected --model to build a model of Keras, got {given}")
    if not model.built:
        raise InputError(f"--model {name}: expected a Keras model that is built; begin it with an Input")
    try:
        layers, shapes = _saved(path)
    except Exception as error:  # of zipfile, json and h5py
        raise InputError(f"--weights {path}: expected a whole file of Keras, got a damaged one") from error
    _check(path, name, (layers, shapes), _own(model, layers is not None))
    try:
        model.load_weights(path)
    except Exception as error:
        problem = " ".join(str(error).split())
        raise InputError(f"--weights {path}: expected those of {name}, got others: {problem}") from error


def _check(
    path: Path, name: str, saved: tuple[list[str] | None, Shapes], own: tuple[list[str] | None, Shapes]
) -> None:
    for there, here in zip(saved, own, strict=True):
        if there != here:
            wanted, got = _first_difference(here, there)
            raise InputError(
                f"--weights {path}: expected those of {name}, got another architecture's: {got}, not {wanted}"
            )


def _first_difference(here: Any, there: Any) -> tuple[str, str]:
    pairs = [
        [f"{key} {list(shape)}" for key, shape in one.items()] if isinstance(one, dict) else one
        for one in (here, there)
    ]
    most = max(map(len, pairs))
    ours, theirs = (one + ["none"] * (most - len(one)) for one in pairs)
    return next((a, b) for a, b in zip(ours, theirs, strict=True) if a != b)


def _saved(path: Path) -> tuple[list[str] | None, Shapes]:
    """Layers that a file was saved with, None where it does not say, and its arrays."""
    if path.name.endswith(ALONE):
        return None, _arrays(path)
    with zipfile.ZipFile(path) as archive:
        layers = _layers(json.loads(archive.read("config.json")))
        with archive.open("model.weights.h5") as file:
            return layers, _arrays(file)


def _own(model: Any, with_layers: bool) -> tuple[list[str] | None, Shapes]:
    """What Keras would save of a model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"own{ALONE}"
        model.save_weights(file)
        return _layers(json.loads(model.to_json())) if with_layers else None, _arrays(file)


def _layers(saved: dict[str, Any]) -> list[str]:
    """Kinds and activations of the layers of a saved architecture, in order."""
    config = saved.get("config")
    inner = config.get("layers") if isinstance(config, dict) else None
    if inner is None:
        activation = config.get("activation") if isinstance(config, dict) else None
        kind = str(saved.get("class_name"))
        return [kind if activation is None else f"{kind} with {_word(activation)}"]
    return [one for layer in inner if layer.get("class_name") != "InputLayer" for one in _layers(layer)]


def _word(activation: Any) -> str:
    return activation if isinstance(activation, str) else str(activation.get("config", activation))


def _arrays(file: Path | IO[bytes]) -> Shapes:
    """Shapes of the arrays by their place, less those of an optimizer and of what else a compiled model has."""
    import h5py

    found: Shapes = {}

    def note(name: str, value: Any) -> None:
        if isinstance(value, h5py.Dataset) and not name.startswith(("optimizer/", "_")):
            found[name] = value.shape

    with h5py.File(file, "r") as opened:
        opened.visititems(note)
    return found
