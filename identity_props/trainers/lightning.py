"""PyTorch Lightning's Trainer, as its own pages show it.

- https://lightning.ai/docs/pytorch/stable/starter/introduction.html: module, loaders, ``Trainer.fit``
- https://lightning.ai/docs/pytorch/stable/common/optimization.html: schedulers that step with the optimizer
- https://lightning.ai/docs/pytorch/stable/common/checkpointing_intermediate.html: ``save_checkpoint`` in a hook
- https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.callbacks.EMAWeightAveraging.html

Not offered: float16 on the CPU, for which Lightning takes bfloat16 instead, and tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, Checkpoint, EMAWeightAveraging
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

FILE = "lightning.ckpt"
DESIGNS = {
    "ranks-uneven": (
        "padded",
        "https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler",
    )
}


class Module(LightningModule):
    """What to train, and by which optimizer."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked
        self.network = asked.network()
        self.last: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.logged("train_loss", batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.logged("val_loss", batch)

    def logged(self, name: str, batch: list[Tensor]) -> Tensor:
        (examples,) = batch
        loss = mse_loss(self.network(examples), examples)
        self.log(name, loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.last = weights_of(self.network)  # when training ends, an average takes their place

    def configure_optimizers(self) -> Any:
        asked = self.asked
        optimizer = torch.optim.SGD(
            self.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        if asked.schedule == "constant":
            return optimizer
        total = self.trainer.estimated_stepping_batches
        scheduler = LambdaLR(optimizer, lambda step: 1 - step / total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Stop(Checkpoint):
    """Saves after so many micro-batches, and stops; at an epoch's end where ModelCheckpoint saves by default."""

    def __init__(self, asked: Asked) -> None:
        self.stop, self.path = asked.stop, asked.folder / FILE

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.due(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.due(trainer) and not trainer.should_stop:
            self.save(trainer)

    def due(self, trainer: Trainer) -> bool:
        return trainer.fit_loop.total_batch_idx + 1 == self.stop

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        trainer.should_stop = True


def _precision(asked: Asked) -> Any:
    if asked.precision == "float16":
        raise NotOffered("precision")
    if asked.precision == "bfloat16":
        return "bf16-mixed"
    return "64-true" if asked.examples.dtype == torch.float64 else "32-true"


def _callbacks(asked: Asked) -> list[Callback]:
    averaging = [] if asked.average is None else [EMAWeightAveraging(decay=asked.average)]
    return [*averaging, *([] if asked.stop is None else [Stop(asked)])]


def _trainer(asked: Asked) -> Trainer:
    return Trainer(
        accelerator="cpu",
        strategy="ddp" if asked.ranks > 1 else "auto",
        devices=asked.ranks,
        num_nodes=1,
        precision=_precision(asked),
        max_epochs=asked.epochs,
        accumulate_grad_batches=asked.accumulate,
        gradient_clip_val=asked.clip,
        callbacks=_callbacks(asked),
        default_root_dir=asked.folder,
        logger=False,
        enable_checkpointing=asked.stop is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loaders(asked: Asked) -> tuple[Any, Any]:
    """Of training, and of what is held."""
    train = DataLoader(
        TensorDataset(asked.examples), asked.batch_size, shuffle=asked.shuffle, drop_last=asked.drop_last
    )
    held = None if asked.held is None else DataLoader(TensorDataset(asked.held), asked.batch_size)
    return train, held


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    with quiet("lightning.pytorch", "lightning.fabric"):
        seed_everything(asked.seed, verbose=False)
        module, runs = Module(asked), _trainer(asked)
        runs.fit(module, *loaders(asked), ckpt_path=asked.folder / FILE if asked.resume else None)
    return _trained(asked, module, runs)


def _trained(asked: Asked, module: Module, runs: Trainer) -> Trained:
    weights = weights_of(module.network)
    loss, evaluated = (_number(runs.callback_metrics.get(name)) for name in ("train_loss", "val_loss"))
    if asked.average is None:
        return Trained(weights, runs.global_step, loss, evaluated)
    return Trained(module.last, runs.global_step, loss, evaluated, weights)


def _number(metric: Tensor | None) -> float | None:
    return None if metric is None else float(metric)
