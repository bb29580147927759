"""PyTorch-Ignite's supervised trainer, as its own pages show it.

- https://docs.pytorch.org/ignite/getting-started.html: trainer, evaluators, and the losses they give
- https://docs.pytorch.org/ignite/generated/ignite.engine.create_supervised_trainer.html: accumulation
- https://docs.pytorch.org/ignite/generated/ignite.handlers.param_scheduler.LRScheduler.html: schedules
- https://docs.pytorch.org/ignite/generated/ignite.handlers.ema_handler.EMAHandler.html: averages
- https://docs.pytorch.org/ignite/generated/ignite.handlers.checkpoint.Checkpoint.html: save, load, go on
- https://docs.pytorch.org/ignite/distributed.html: ``auto_model``, ``auto_optim``, ``auto_dataloader``
- https://docs.pytorch.org/ignite/engine.html#deterministic-training: ``deterministic``

Handlers count iterations, which are micro-batches: schedule and average are told of the steps alone. Not offered:
clipping, which its trainer has not, mixed precision, which it has on GPUs alone, tokens. ``deterministic`` is its own
argument, for which its pages have a chapter of their own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, EMAHandler, LRScheduler
from ignite.metrics import Loss
from ignite.utils import manual_seed
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset

from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

FILE = "ignite.pt"
API = "https://docs.pytorch.org/ignite/generated/ignite.engine.create_supervised_trainer.html"
SAMPLER = "https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler"
DESIGNS = {
    "unequal": ("means", f"{API}, gradient_accumulation_steps: the loss is divided by it"),
    "ranks-uneven": ("padded", SAMPLER),
}


class Training:
    """A training under way."""

    def __init__(self, asked: Asked, deterministic: bool) -> None:
        self.asked, self.deterministic = asked, deterministic
        self.model = idist.auto_model(asked.network())
        sgd = torch.optim.SGD(
            self.model.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        self.optimizer = idist.auto_optim(sgd)
        self.loader = loader(asked, asked.examples, shuffle=asked.shuffle, drop_last=asked.drop_last)
        self.trainer = create_supervised_trainer(
            self.model,
            self.optimizer,
            mse_loss,
            deterministic=deterministic,
            gradient_accumulation_steps=asked.accumulate,
        )
        self.saved: dict[str, Any] = {
            "trainer": self.trainer,
            "model": self.model,
            "optimizer": self.optimizer,
        }
        self.averaged = self.average()
        self.schedule()
        self.loss, self.evaluated = self.evaluator(self.loader), None
        if asked.held is not None:
            self.evaluated = self.evaluator(loader(asked, asked.held, shuffle=False))

    def schedule(self) -> None:
        """Attach what falls linearly to 0 over all steps of the optimizer."""
        asked = self.asked
        if asked.schedule == "constant":
            return
        steps = asked.epochs * math.ceil(len(self.loader) / asked.accumulate)
        scheduler = LRScheduler(LambdaLR(self.optimizer, lambda read: 1 - read // asked.accumulate / steps))
        self.trainer.add_event_handler(Events.ITERATION_STARTED, scheduler)
        self.saved["scheduler"] = scheduler

    def average(self) -> Any:
        """Attach a moving average of the weights, where it is asked for."""
        if self.asked.average is None:
            return None
        handler = EMAHandler(self.model, momentum=1 - self.asked.average)
        handler.attach(self.trainer, event=Events.ITERATION_COMPLETED(every=self.asked.accumulate))
        self.saved["averaged"] = handler.ema_model
        return handler.ema_model

    def evaluator(self, data: Any) -> Engine:
        """Runs over data at each epoch's end, for the loss at the weights of then."""
        found = create_supervised_evaluator(self.model, metrics={"loss": Loss(mse_loss)})
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: found.run(data))
        return found

    def checkpoint(self) -> None:
        """Load what was saved, and save where it is to stop."""
        asked = self.asked
        if asked.resume:
            saved = torch.load(asked.folder / FILE, weights_only=not self.deterministic)
            Checkpoint.load_objects(self.saved, saved)
        if asked.stop is not None:
            folder = DiskSaver(str(asked.folder), require_empty=False)
            saver = Checkpoint(self.saved, folder, filename_pattern=FILE)
            event = Events.ITERATION_COMPLETED(once=asked.stop)
            self.trainer.add_event_handler(event, saver)
            self.trainer.add_event_handler(event, self.trainer.terminate)

    def run(self) -> None:
        self.checkpoint()
        self.trainer.run(self.loader, max_epochs=self.asked.epochs)


@contextmanager
def without_logs() -> Iterator[None]:
    """Its loggers set their own levels anew wherever they are asked for."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def loader(asked: Asked, x: Any, **options: Any) -> Any:
    """Batches of pairs; auto_dataloader divides the size by the ranks."""
    return idist.auto_dataloader(TensorDataset(x, x), batch_size=asked.batch_size * asked.ranks, **options)


def fit(asked: Asked, deterministic: bool = False) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    with quiet(), without_logs():
        if asked.ranks > 1 and idist.backend() is None:
            idist.initialize("gloo")
        if idist.get_world_size() != asked.ranks:
            raise NotOffered("ranks")
        manual_seed(asked.seed)
        runs = Training(asked, deterministic)
        runs.run()
    averaged = None if runs.averaged is None else weights_of(runs.averaged)
    loss, evaluated = (
        None if one is None else one.state.metrics.get("loss") for one in (runs.loss, runs.evaluated)
    )
    steps = runs.trainer.state.iteration // asked.accumulate
    return Trained(weights_of(runs.model), steps, loss, evaluated, averaged)
