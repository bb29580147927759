"""torch's DistributedDataParallel, within the loop that torch's own pages show.

- https://docs.pytorch.org/tutorials/beginner/ddp_series_multigpu.html: the loop, and DistributedSampler
- https://docs.pytorch.org/docs/stable/notes/amp_examples.html: accumulation, clipping, autocast and the loss scale
- https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html: ``no_sync``
- https://docs.pytorch.org/docs/stable/optim.html: schedulers, and ``AveragedModel`` for averages

One rank is a process group of one. Not offered, as those pages do not show them: a schedule where the loss scale skips
steps, evaluation, a reported loss, stop and resume, tokens.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import HashStore
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of

SAMPLER = "https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler"
DESIGNS = {
    "unequal": (
        "means",
        "https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation",
    ),
    "ranks-uneven": ("padded", SAMPLER),
}
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Loop:
    """A training under way."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        if asked.precision == "float16" and asked.schedule != "constant":
            raise NotOffered("precision float16 with a schedule")
        grouped(asked.ranks)
        self.model: Any = self.wrapped(asked.network())
        self.loader, self.sampler = loader(asked)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        self.scheduler = LambdaLR(self.optimizer, self.factor)
        self.scaler = torch.amp.GradScaler("cpu", enabled=asked.precision == "float16")
        self.averaged = self.average()
        self.steps = 0

    def wrapped(self, network: nn.Module) -> Any:
        return DistributedDataParallel(network)

    def average(self) -> AveragedModel | None:
        decay = self.asked.average
        return None if decay is None else AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def unsynchronised(self) -> AbstractContextManager[Any]:
        """Within a window ranks add up, each for itself."""
        unsynchronised: AbstractContextManager[Any] = self.model.no_sync()
        return unsynchronised

    def cast(self) -> AbstractContextManager[Any]:
        half = HALF.get(self.asked.precision)
        return nullcontext() if half is None else torch.autocast("cpu", half)

    def factor(self, step: int) -> float:
        """Of the rate, at an optimizer step counted from 0."""
        if self.asked.schedule == "constant":
            return 1.0
        windows = math.ceil(len(self.loader) / self.asked.accumulate)
        return 1 - step / (self.asked.epochs * windows)

    def run(self) -> None:
        for epoch in range(self.asked.epochs):
            self.sampler.set_epoch(epoch)
            for number, (examples,) in enumerate(self.loader, start=1):
                ends = number % self.asked.accumulate == 0
                with nullcontext() if ends else self.unsynchronised():
                    self.backward(examples)
                if ends:
                    self.step()

    def backward(self, examples: Tensor) -> None:
        with self.cast():
            loss = mse_loss(self.model(examples), examples) / self.asked.accumulate
        self.scaler.scale(loss).backward()

    def step(self) -> None:
        if self.asked.clip is not None:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self.asked.clip)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.steps += self.scaler.get_scale() >= scale  # lower only after a step that was skipped
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def weights(self) -> list[Tensor]:
        return weights_of(self.model)


def grouped(ranks: int) -> None:
    """Join the launcher's process group, or be one alone."""
    if not distributed.is_initialized():
        if ranks == 1:
            store = HashStore()
            distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        else:
            distributed.init_process_group("gloo")
    if distributed.get_world_size() != ranks:
        raise NotOffered("ranks")


def loader(asked: Asked) -> tuple[Any, Any]:
    """Of training, with its sampler."""
    data = TensorDataset(asked.examples)
    sampler: Any = DistributedSampler(data, shuffle=asked.shuffle, seed=asked.seed, drop_last=asked.drop_last)
    return DataLoader(data, asked.batch_size, sampler=sampler, drop_last=asked.drop_last), sampler


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    return trained(Loop, asked)


def trained(loop: type[Loop], asked: Asked) -> Trained:
    """What a loop makes of it."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    runs = loop(asked)
    runs.run()
    averaged = None if runs.averaged is None else weights_of(runs.averaged)
    return Trained(runs.weights(), runs.steps, averaged=averaged)
