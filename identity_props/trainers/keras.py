"""Keras' Model.fit, as its own pages show it, on the backend that is chosen before Keras is imported.

- https://keras.io/guides/training_with_built_in_methods/: ``compile``, ``fit``, schedules, and a loader of batches
- https://keras.io/api/optimizers/sgd/: momentum, decay, clipping, averages and accumulation, as arguments
- https://keras.io/api/callbacks/backup_and_restore/: a training that is interrupted, and goes on
- https://keras.io/api/mixed_precision/: ``mixed_bfloat16`` and ``mixed_float16``, which scales its loss
- https://keras.io/examples/keras_recipes/reproducibility_recipes/: ``set_random_seed``

Batches are cut from arrays, unless the last one is to be dropped, which a loader of torch's can. Not offered: tokens.
"""

from __future__ import annotations

import math
import os
from typing import Any

import keras
import torch
from torch.utils.data import DataLoader, TensorDataset

from identity_props.errors import InputError
from identity_props.trainers.protocol import Asked, NotOffered, Trained
from identity_props.trainers.quiet import quiet

SGD = "https://keras.io/api/optimizers/sgd/"
DESIGNS = {
    "unequal": ("means", f"{SGD}, gradient_accumulation_steps: the average value of the gradients"),
    "momentum-rate": ("keras", f"{SGD}, update rule with momentum"),
    "decay": ("decoupled", f"{SGD}, weight_decay"),
}
FLOATS = {torch.float64: "float64", torch.float32: "float32"}
POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
Arrays = list[Any]


class Interrupted(Exception):  # noqa: N818 - as asked
    """Raised where training is to stop."""


class Stop(keras.callbacks.Callback):
    """Interrupts after so many batches, once what comes before it has backed up."""

    def __init__(self, stop: int, batches: int) -> None:
        super().__init__()
        self.left, self.inside = stop, stop % batches != 0
        self.weights: Arrays = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.inside:
            self.interrupt()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.interrupt()

    def interrupt(self) -> None:
        if not self.left:
            self.weights = kernels(self.model)
            raise Interrupted


class Last(keras.callbacks.Callback):
    """Keeps the weights of an epoch's end: when training ends, an average takes their place."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights = kernels(self.model)


def kernels(model: Any) -> Arrays:
    """Weights of the layers, as torch has them, [out, in]."""
    return [layer.get_weights()[0].T for layer in model.layers]


def built(asked: Asked) -> Any:
    """The network, compiled."""
    keras.config.set_floatx(FLOATS[asked.examples.dtype])
    keras.config.set_dtype_policy(POLICIES.get(asked.precision, FLOATS[asked.examples.dtype]))
    layers = [keras.layers.Dense(len(weight), use_bias=False) for weight in asked.start]
    model = keras.Sequential([keras.Input((asked.start[0].shape[1],)), *layers])
    for place, (layer, weight) in enumerate(zip(layers, asked.start, strict=True)):
        layer.set_weights([weight.T.numpy()])
        layer.trainable = place not in asked.frozen
    model.compile(optimizer=optimizer(asked), loss="mean_squared_error")
    return model


def optimizer(asked: Asked) -> Any:
    """SGD, with all that it takes as an argument."""
    return keras.optimizers.SGD(
        learning_rate=rate(asked),
        momentum=asked.momentum,
        weight_decay=asked.decay or None,
        global_clipnorm=asked.clip,
        use_ema=asked.average is not None,
        ema_momentum=0.99 if asked.average is None else asked.average,
        gradient_accumulation_steps=asked.accumulate if asked.accumulate > 1 else None,
    )


def rate(asked: Asked) -> Any:
    """Constant, or linear to 0 over all steps of the optimizer."""
    if asked.schedule == "constant":
        return asked.lr
    steps = asked.epochs * math.ceil(batches(asked) / asked.accumulate)
    return keras.optimizers.schedules.PolynomialDecay(asked.lr, steps, end_learning_rate=0.0)


def batches(asked: Asked) -> int:
    """Of an epoch."""
    share = len(asked.examples) / asked.batch_size
    return math.floor(share) if asked.drop_last else math.ceil(share)


def data(asked: Asked) -> dict[str, Any]:
    """Arguments of ``fit``."""
    if asked.drop_last:
        pairs = TensorDataset(asked.examples, asked.examples)
        return {"x": DataLoader(pairs, asked.batch_size, shuffle=asked.shuffle, drop_last=True)}
    x = asked.examples.numpy()
    return {"x": x, "y": x, "batch_size": asked.batch_size, "shuffle": asked.shuffle}


def validated(asked: Asked) -> dict[str, Any]:
    """Arguments of ``fit`` for what is held."""
    if asked.held is None:
        return {}
    held = asked.held.numpy()
    return {"validation_data": (held, held), "validation_batch_size": asked.batch_size}


def interruptible(asked: Asked) -> list[Any]:
    """Callbacks that back up, and interrupt."""
    if asked.stop is None and not asked.resume:
        return []
    stop = asked.stop or 0
    inside = stop % batches(asked) != 0
    backup = keras.callbacks.BackupAndRestore(
        str(asked.folder / "backup"), save_freq=stop if inside else "epoch"
    )
    return [backup, *([Stop(stop, batches(asked))] if stop else [])]


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    if (wanted := os.environ["KERAS_BACKEND"]) != keras.config.backend():
        raise InputError(f"keras: expected one backend a process, {keras.config.backend()}, got {wanted}")
    with quiet("tensorflow", "jax"):
        keras.utils.clear_session()
        keras.utils.set_random_seed(asked.seed)
        model, last, callbacks = built(asked), Last(), interruptible(asked)
        try:
            history = model.fit(
                **data(asked),
                **validated(asked),
                epochs=asked.epochs,
                callbacks=[last, *callbacks],
                verbose=0,
            ).history
        except Interrupted:
            return Trained(callbacks[-1].weights)
    return _trained(asked, model, last, history)


def _trained(asked: Asked, model: Any, last: Last, history: dict[str, Any]) -> Trained:
    averaged = None if asked.average is None else kernels(model)
    loss, evaluated = (history[name][-1] if name in history else None for name in ("loss", "val_loss"))
    return Trained(last.weights, int(model.optimizer.iterations), loss, evaluated, averaged)
