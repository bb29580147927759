"""skorch's NeuralNet, as its own pages show it.

- https://skorch.readthedocs.io/en/stable/user/neuralnet.html: a net of a module, with arguments by prefix
- https://skorch.readthedocs.io/en/stable/user/FAQ.html#how-can-i-perform-gradient-accumulation-with-skorch: the class
- https://skorch.readthedocs.io/en/stable/user/callbacks.html: clipping, schedules and freezing
- https://skorch.readthedocs.io/en/stable/user/save_load.html: TrainEndCheckpoint and LoadInitState

A training that is to stop within an epoch is interrupted from the keyboard. Not offered: mixed precision, averages,
ranks, tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    Freezer,
    GradientNormClipping,
    LoadInitState,
    LRScheduler,
    TrainEndCheckpoint,
)
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from skorch.history import History
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

FAQ = "https://skorch.readthedocs.io/en/stable/user/FAQ.html#how-can-i-perform-gradient-accumulation-with-skorch"
DESIGNS = {"unequal": ("means", FAQ)}


class Net(NeuralNet):
    """A net that counts its steps."""

    steps = 0

    def train_step(self, batch: Any, **arguments: Any) -> Any:
        self.steps += 1
        return super().train_step(batch, **arguments)


class Accumulating(NeuralNet):
    """The net of the FAQ: each micro-batch's loss is divided by their number, the optimizer steps every so many."""

    steps = 0

    def __init__(self, *arguments: Any, accumulate: int = 2, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.accumulate = accumulate

    def get_loss(self, *arguments: Any, **named: Any) -> Any:
        return super().get_loss(*arguments, **named) / self.accumulate

    def train_step(self, batch: Any, **arguments: Any) -> Any:
        read = len(self.history[-1, "batches"])  # of this epoch, this one too
        step = self.train_step_single(batch, **arguments)
        if read % self.accumulate == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
            self.steps += 1
        return step


class Stop(Callback):
    """Interrupts after so many batches of training, at an epoch's end once that is recorded."""

    def __init__(self, stop: int, batches: int) -> None:
        self.stop, self.batches = stop, batches

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.left = self.stop

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        self.left -= training
        if training and not self.left and self.stop % self.batches:
            raise KeyboardInterrupt

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        if self.left <= 0:
            raise KeyboardInterrupt


def batches(asked: Asked) -> int:
    """Of an epoch."""
    share = len(asked.examples) / asked.batch_size
    return math.floor(share) if asked.drop_last else math.ceil(share)


def factor(asked: Asked) -> Any:
    """Of the rate, after so many batches, as the scheduler counts."""
    windows = math.ceil(batches(asked) / asked.accumulate)
    return lambda read: 1 - read // asked.accumulate / (asked.epochs * windows)


def callbacks(asked: Asked) -> list[Any]:
    """What is asked beside plain descent; what was saved is loaded first."""
    saved = TrainEndCheckpoint(dirname=str(asked.folder))
    found: list[Any] = [saved, LoadInitState(saved)] if asked.resume else []
    if asked.frozen:
        found.append(Freezer([f"{place}.*" for place in asked.frozen]))
    if asked.clip is not None:
        found.append(GradientNormClipping(asked.clip))
    if asked.schedule != "constant":
        found.append(LRScheduler(LambdaLR, lr_lambda=factor(asked), step_every="batch"))
    if asked.stop is not None:
        found += [*([] if asked.resume else [saved]), Stop(asked.stop, batches(asked))]
    return found


def net_of(asked: Asked) -> Any:
    """The net, not yet trained."""
    accumulating = {"accumulate": asked.accumulate} if asked.accumulate > 1 else {}
    held = None if asked.held is None else predefined_split(Dataset(asked.held, asked.held))
    return (Accumulating if accumulating else Net)(
        asked.network(),
        criterion=nn.MSELoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=asked.momentum,
        optimizer__weight_decay=asked.decay,
        lr=asked.lr,
        batch_size=asked.batch_size,
        iterator_train__shuffle=asked.shuffle,
        iterator_train__drop_last=asked.drop_last,
        train_split=held,
        callbacks=callbacks(asked),
        verbose=0,
        **accumulating,
    )


def epochs_left(asked: Asked) -> int:
    """Epochs that what was saved has not finished."""
    if not asked.resume:
        return asked.epochs
    history = History.from_file(str(asked.folder / "train_end_history.json"))
    return asked.epochs - sum("train_loss" in epoch for epoch in history)


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    with quiet("skorch"):
        torch.manual_seed(asked.seed)
        net = net_of(asked)
        net.fit(asked.examples, asked.examples, epochs=epochs_left(asked))
    loss, evaluated = (net.history[-1].get(name) for name in ("train_loss", "valid_loss"))
    return Trained(weights_of(net.module_), net.steps, loss, evaluated)
