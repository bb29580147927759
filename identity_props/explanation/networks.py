"""Trained networks to explain: one that is trained here, or a user's own with its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import SCHEDULES, Run, Trial
from identity_props.errors import InputError
from identity_props.explanation import checkpoints, from_keras, keras_weights
from identity_props.explanation.answers import WANTED
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


class OnRows(nn.Module):
    """A network of examples of another shape, or that gives such, as one of rows: [n, d] to [n, d]."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x.reshape(-1, *self.shape))
        return y.flatten(1) if isinstance(y, Tensor) else y  # what it is else is told where it is refused


def on_rows(model: nn.Module, pixels: Pixels) -> nn.Module:
    """The model, or where it does not map rows to rows, one that hands it rows or pictures and flattens what it gives.

    Pictures are [n, 1, h, w] or [n, h, w]. Raises InputError for a model that gives no tensor, or convolves and refuses pictures.
    """
    shape = pixels.shape
    tried = [model, OnRows(model, (pixels.d,))]
    tried += [] if shape is None else [OnRows(model, (1, *shape)), OnRows(model, shape)]
    problems = {}
    for one in tried:
        try:
            if outputs(one, pixels.test[:2]).shape == pixels.test[:2].shape:
                return one
        except InputError as error:
            problems[one] = str(error)
    for problem in problems.values():
        if WANTED in problem:
            raise InputError(problem)
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
    if convolves and shape is not None and len(problems) == len(tried):
        pictures = f"pictures [n, 1, {shape[0]}, {shape[1]}]"
        raise InputError(problems[tried[2]].replace(f"[n, {pixels.d}]", pictures))
    return model


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
        (keras_weights if keras_weights.of_keras(weights) else checkpoints).read_into(model, name, weights)
    return (
        from_keras.followed(model, name) if from_keras.is_keras(model) else checkpoints.unwrapped(model).cpu()
    )


def _made(factory: Any) -> Any:
    """What a factory builds; one that is a model itself is left as it is, so that weights are read into a copy."""
    if from_keras.is_keras(factory):
        return factory  # of which `followed` copies the weights
    return copy.deepcopy(factory) if isinstance(factory, nn.Module) else factory()
