"""fastai's Learner, as its own pages show it.

- https://docs.fast.ai/learner.html: ``Learner``, ``fit``, ``save`` and ``load`` with the optimizer's state
- https://docs.fast.ai/optimizer.html: ``SGD``, with momentum and either decay
- https://docs.fast.ai/callback.training.html: GradientAccumulation, in examples, and GradientClip
- https://docs.fast.ai/callback.schedule.html: ParamScheduler, and SchedLin
- https://docs.fast.ai/callback.tracker.html: SaveModelCallback, every epoch, and ``start_epoch`` to go on

It saves at an epoch's end; a training that stops within one goes on from the last. Not offered: mixed precision on a
CPU, averages, ranks, tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

ACCUMULATION = "https://docs.fast.ai/callback.training.html#gradientaccumulation"
DESIGNS = {
    "unequal": ("waits", f"{ACCUMULATION}: n_acc, a number of examples"),
    "schedule": (
        "window-end",
        "https://docs.fast.ai/callback.schedule.html#paramscheduler: by the part that is read",
    ),
    "decay": ("decoupled", "https://docs.fast.ai/optimizer.html#sgd: decouple_wd"),
}


class Steps(Callback):
    """Counts the optimizer's."""

    def before_fit(self) -> None:
        self.taken = 0

    def after_step(self) -> None:
        self.taken += 1


class Stop(Callback):
    """Stops after so many micro-batches; at an epoch's end once that is saved."""

    order = SaveModelCallback.order + 1

    def __init__(self, stop: int) -> None:
        self.left = stop

    def after_batch(self) -> None:
        self.left -= self.training
        if not self.left and self.iter + 1 < self.n_iter:
            raise CancelFitException

    def after_epoch(self) -> None:
        if self.left <= 0:
            raise CancelFitException


def callbacks(asked: Asked) -> list[Any]:
    """What is asked beside plain descent."""
    found: list[Any] = []
    if asked.accumulate > 1:
        found.append(GradientAccumulation(asked.batch_size * asked.accumulate))
    if asked.clip is not None:
        found.append(GradientClip(asked.clip))
    if asked.schedule != "constant":
        found.append(ParamScheduler({"lr": SchedLin(asked.lr, 0.0)}))
    if asked.stop is not None:
        found += [SaveModelCallback(every_epoch=True, with_opt=True), Stop(asked.stop)]
    return found


def loaders(asked: Asked) -> Any:
    """Of training, and of what is held; a Learner has both."""
    x = asked.examples
    held = x[:0] if asked.held is None else asked.held
    train = DataLoader(
        TensorDataset(x, x), asked.batch_size, shuffle=asked.shuffle, drop_last=asked.drop_last
    )
    return DataLoaders(train, DataLoader(TensorDataset(held, held), asked.batch_size))


def learner(asked: Asked) -> Any:
    """Untrained."""
    sgd = partial(SGD, mom=asked.momentum)
    return Learner(
        loaders(asked), asked.network(), mse_loss, opt_func=sgd, path=asked.folder, model_dir="models"
    )


def resumed(asked: Asked, learn: Any) -> int:
    """The epoch to go on from, once what the last one saved is loaded."""
    saved = len([*(asked.folder / "models").glob("model_*.pth")]) if asked.resume else 0
    if saved:
        learn.load(f"model_{saved - 1}", with_opt=True)
    return saved


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    with quiet():
        set_seed(asked.seed)
        learn, steps = learner(asked), Steps()
        with learn.no_bar(), learn.no_logging():
            start = resumed(asked, learn)
            cbs = [steps, *callbacks(asked)]
            learn.fit(asked.epochs, asked.lr, wd=asked.decay, cbs=cbs, start_epoch=start)
    loss, evaluated = (*learn.recorder.values[-1], None, None)[:2] if learn.recorder.values else (None, None)
    return Trained(weights_of(learn.model), steps.taken, loss, evaluated if asked.held is not None else None)
