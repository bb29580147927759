"""Trained networks to explain: one that is trained here, or a user's own with its weights."""

from __future__ import annotations

import copy
import math
import os
import pickle
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import SCHEDULES, Run, Trial
from identity_props.errors import InputError, MissingError
from identity_props.explanation import from_keras, keras_weights
from identity_props.explanation.readout import dtype_of, outputs
from identity_props.explanation.settling import loss_of, pairs, set_rate
from identity_props.stack.loop import take_step
from identity_props.stack.stack import resolve
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance


def trained(
    trial: Trial, pixels: Pixels, seed: int = 0, on_step: Callable[[int], None] | None = None
) -> nn.Module:
    """The network of a trial, trained on unscaled pixels with one seed."""
    with flushed_denormals():
        run = train(trial, pixels, [seed], on_step=on_step)
    if bool(run.diverged[0]):
        raise InputError(
            f"{trial.variant.name}: expected a network that trains, this one diverged at lr"
            f" {trial.recipe.lr:g}; a smaller --lr may do"
        )
    return network_of(trial, pixels.d, run)


Fit = Callable[[nn.Module, Tensor, Tensor], object]


def retrained(
    model: nn.Module,
    trial: Trial,
    pixels: Pixels,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
    fit: Fit | None = None,
) -> float:
    """FVU in grey levels, on test, of a copy of ``model`` once it is trained as the trial says; NaN if it diverges.

    On unscaled pixels, of which the trial's scaling is made. ``fit(model, x, goal)`` trains it in place of the
    trial's recipe, on x [n, d] and what it is mapped to [n, d], and may return another module.
    """
    model = copy.deepcopy(model).train()
    scaled = pixels.scaled(trial.variant.scaling)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)  # of dropout
        if fit is None:
            descend(model, trial, scaled, seed, on_step)
        else:
            model = _fitted(fit, model, scaled)
    return measured(model, scaled)


def descend(
    model: nn.Module, trial: Trial, scaled: Pixels, seed: int, on_step: Callable[[int], None] | None
) -> None:
    """Train a module in place by a trial's recipe, for its steps, on scaled pixels."""
    recipe, moved = trial.recipe, [p for p in model.parameters() if p.requires_grad]
    optimizer = resolve(recipe.optimizer)(moved, lr=recipe.lr, **dict(recipe.arguments))
    batches = pairs(scaled, recipe.batch_size, dtype_of(model), seed)
    for step, pair in enumerate(islice(batches, trial.steps)):
        set_rate(optimizer, recipe.lr * SCHEDULES[recipe.schedule](step, trial.steps))
        take_step(optimizer, loss_of(model, *pair))
        if on_step:
            on_step(step)


def _fitted(fit: Fit, model: nn.Module, scaled: Pixels) -> nn.Module:
    x, goal = (half.to(dtype_of(model)) for half in (scaled.train, scaled.goal[0]))
    try:
        made = fit(model, x, goal)
    except Exception as error:  # a user's function may raise anything
        raise InputError(f"--train: calling it raised {type(error).__name__}: {error}") from error
    return made if isinstance(made, nn.Module) else model


def measured(model: nn.Module, scaled: Pixels) -> float:
    """FVU on test, in grey levels, of a module on scaled pixels; NaN where it is not finite."""
    back = scaled.scaling.backward if scaled.scaling else lambda z: z
    try:
        y = outputs(model, scaled.test)
    except InputError:
        return math.nan
    goal = back(scaled.goal[1])
    return float((back(y) - goal).square().mean()) / pixel_variance(goal)


class Pictured(nn.Module):
    """A network of pictures [n, 1, h, w] as one of rows: [n, d] to [n, d]."""

    def __init__(self, model: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x.reshape(-1, 1, *self.shape)).flatten(1)
        return y


def on_rows(model: nn.Module, pixels: Pixels) -> nn.Module:
    """The model, or where it refuses rows, or gives no rows, and takes pictures of the data's shape, one that hands it them."""
    if pixels.shape is None or _takes(model, pixels):
        return model
    pictured = Pictured(model, pixels.shape)
    return pictured if _takes(pictured, pixels) else model


def _takes(model: nn.Module, pixels: Pixels) -> bool:
    try:
        return outputs(model, pixels.test[:2]).shape == pixels.test[:2].shape
    except InputError:
        return False


def network_of(trial: Trial, d: int, run: Run, k: int = 0) -> nn.Module:
    """Replica k of a run, of torch's own layers and in its dtype."""
    model = trial.variant.build(d)
    model.load_state_dict({name: p[k] for name, p in run.state.items()}, assign=True)
    return model


def loaded(name: str, weights: Path | None) -> nn.Module:
    """What the factory ``pkg.mod:name`` builds, with weights from a file, or its own where there is none.

    A Keras model on torch is followed, and its own files are read through Keras. Raises InputError for a factory that
    fails, weights that do not fit it, or what ``read_weights`` refuses.
    """
    from_keras.prepare()
    factory = resolve(name)
    try:
        model = _made(factory)
    except Exception as error:  # a user's factory may raise anything
        raise InputError(f"--model {name}: calling it raised {type(error).__name__}: {error}") from error
    if from_keras.is_keras(model):
        from_keras.check_backend(name)
    elif not isinstance(model, nn.Module):
        raise InputError(f"--model {name}: expected a torch.nn.Module, got {type(model).__name__}")
    if weights is not None:
        (keras_weights.read_into if keras_weights.of_keras(weights) else _read_into)(model, name, weights)
    return from_keras.followed(model, name) if from_keras.is_keras(model) else model


def _made(factory: Any) -> Any:
    """What a factory builds; one that is a model itself is left as it is, so that weights are read into a copy."""
    if from_keras.is_keras(factory):
        return factory  # of which `followed` copies the weights
    return copy.deepcopy(factory) if isinstance(factory, nn.Module) else factory()


def _read_into(model: nn.Module, name: str, path: Path) -> None:
    state = read_weights(path)
    try:
        model.load_state_dict(state)
    except Exception as error:  # of other names, shapes or kinds
        problem = " ".join(str(error).split()).removeprefix("Error(s) in loading state_dict for ")
        raise InputError(f"--weights {path}: expected those of {name}, got others: {problem}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors file, or of one that torch.save wrote; nothing is unpickled.

    Raises MissingError for a file that is not there, InputError for one that is damaged or holds anything
    but tensors.
    """
    if not os.path.isfile(path):
        raise MissingError(f"--weights {path}: expected a file, there is none")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_checkpoint
    found = read(path)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise InputError(f"--weights {path}: expected tensors by name, as state_dict() gives them")
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # its own, or torch's of what it read
        raise InputError(f"--weights {path}: expected a whole safetensors file, got: {error}") from error


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol, before it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        advice = "a pickle can run code, so it is not opened: save state_dict() alone, or safetensors"
        raise InputError(f"--weights {path}: expected tensors alone; {advice}") from error
    except Exception as error:  # what torch.load makes of other bytes, of a dozen kinds
        raise InputError(
            f"--weights {path}: expected a whole file of torch.save, got a damaged one"
        ) from error
