"""Faults of trainers in what makes a step: accumulation, clipping, the rate, momentum and decay, averages."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import distributed
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LambdaLR

from identity_props.faults.base import DEEPCRIME, TrainerFault
from identity_props.trainers.plain import Places, Plain
from identity_props.trainers.protocol import Asked

# Accumulation --------------------------------------------------------------------------------------


class Undivided(Plain):
    """The losses of a window's micro-batches are added, not averaged: k micro-batches count k times."""

    def divisor(self, window: list[Places]) -> float:
        return super().divisor(window) / len(window)


class Leaking(Plain):
    """An incomplete window is not stepped on, and its gradient is left for the first window of the next epoch."""

    def steps_of(self) -> Iterator[tuple[int, Places, list[Places], bool]]:
        for epoch, batch, window, ends in super().steps_of():
            yield epoch, batch, window, ends and len(window) == self.asked.accumulate


class WindowDropped(Plain):
    """An incomplete window at the end of an epoch is not trained on."""

    def windows(self, epoch: int) -> list[list[Places]]:
        return [window for window in super().windows(epoch) if len(window) == self.asked.accumulate]


class ZeroedEach(Plain):
    """Gradients are set to zero before each micro-batch: a step sees the last one alone."""

    def backward(self, batch: Places, window: list[Places]) -> None:
        self.zero()
        super().backward(batch, window)


class NeverZeroed(Plain):
    """Gradients are never set to zero."""

    def zero(self) -> None:
        pass


# Clipping ------------------------------------------------------------------------------------------


class ClippedEach(Plain):
    """What has been accumulated is clipped after each micro-batch."""

    def backward(self, batch: Places, window: list[Places]) -> None:
        super().backward(batch, window)
        if self.asked.clip is not None:
            clip_grad_norm_(self.trainable(), self.asked.clip)


class ClippedScaled(Plain):
    """Gradients are clipped while they are multiplied by the loss scale."""

    def clip(self) -> None:
        if self.asked.clip is not None:
            clip_grad_norm_(self.trainable(), self.asked.clip)


class ClippedApart(Plain):
    """Each layer is clipped by its own norm."""

    def clip(self) -> None:
        if self.asked.clip is not None:
            self.scaler.unscale_(self.optimizer)
            for p in self.trainable():
                clip_grad_norm_([p], self.asked.clip)


class ClippedByValue(Plain):
    """Each entry of the gradient is cut at the norm that was asked for."""

    def clip(self) -> None:
        if self.asked.clip is not None:
            self.scaler.unscale_(self.optimizer)
            clip_grad_value_(self.trainable(), self.asked.clip)


class Unclipped(Plain):
    """Nothing is clipped."""

    def clip(self) -> None:
        _ = self.asked.clip  # is taken, and forgotten


class ClippedByRank(Plain):
    """Each rank clips the gradient of its own examples, before they are added."""

    def reduce(self) -> None:
        super().clip()
        super().reduce()

    def clip(self) -> None:
        pass


class ClippedOnFirst(Plain):
    """The first rank alone clips."""

    def clip(self) -> None:
        if self.asked.clip is not None and (self.asked.ranks == 1 or distributed.get_rank() == 0):
            super().clip()


# The rate ------------------------------------------------------------------------------------------


class _Rated(Plain):
    def at(self, step: float) -> float:
        """Step of the schedule that a step has the rate of."""
        return step

    def factor(self, step: float) -> float:
        return max(0.0, super().factor(self.at(step)))


class RateByMicroBatch(_Rated):
    """The schedule goes on with each micro-batch, so that it ends too early."""

    def at(self, step: float) -> float:
        return step * self.asked.accumulate


class RateByRank(_Rated):
    """The schedule goes on once a step for each rank, so that it ends too early."""

    def at(self, step: float) -> float:
        return step * self.asked.ranks


class RateByEpoch(_Rated):
    """The schedule, which counts steps, goes on once an epoch."""

    def at(self, step: float) -> float:
        return step // len(self.windows(0))


class RateEarly(_Rated):
    """The schedule goes on before the optimizer does: its first value is never used."""

    def at(self, step: float) -> float:
        return step + 1


class RateShort(_Rated):
    """The schedule is a step an epoch too short, so that the last steps have no rate."""

    def at(self, step: float) -> float:
        total = self.total_steps
        return step * total / max(1, total - self.asked.epochs)


class RateConstant(_Rated):
    """The schedule is made and never stepped."""

    def at(self, step: float) -> float:
        return 0


# Momentum and decay --------------------------------------------------------------------------------


class NoMomentum(Plain):
    """The momentum that was asked for does not reach the optimizer."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.optimizer.param_groups[0]["momentum"] = 0.0


class NoDecay(Plain):
    """The weight decay that was asked for does not reach the optimizer."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0


# Averages ------------------------------------------------------------------------------------------


class AveragedEach(Plain):
    """The average moves with each micro-batch."""

    def backward(self, batch: Places, window: list[Places]) -> None:
        super().backward(batch, window)
        if batch is not window[-1]:
            self.average()


class AveragedFromZero(Plain):
    """The average starts from 0, and is not corrected for it."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.averaged = [torch.zeros_like(mean) for mean in self.averaged]


class AveragedBefore(Plain):
    """The average moves before the weights do: it is a step late."""

    def step(self) -> bool:
        super().average()
        return super().step()

    def average(self) -> None:
        pass


class AverageKept(Plain):
    """The average is written into the weights to be evaluated, and training goes on from it."""

    def evaluate(self) -> None:
        if self.asked.held is not None and self.asked.average is not None:
            with torch.no_grad():
                for p, mean in zip(self.network.parameters(), self.averaged, strict=True):
                    p.copy_(mean)
        super().evaluate()


class RateOfLastGroup(Plain):
    """The schedule sets the rate of the last group of parameters alone."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        groups = [{"params": [p]} for p in self.trainable()]
        self.optimizer = torch.optim.SGD(
            groups, lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        self.scheduler = LambdaLR(self.optimizer, self.factor)

    def count(self) -> None:
        super().count()
        for group in self.optimizer.param_groups[:-1]:
            group["lr"] = self.asked.lr


class HalfUnaccumulated(Plain):
    """In mixed precision each micro-batch is a step of its own."""

    def windows(self, epoch: int) -> list[list[Places]]:
        found = super().windows(epoch)
        return found if self.asked.precision == "full" else [[one] for window in found for one in window]


FAULTS = (
    TrainerFault("losses-added", Undivided, "nanoGPT#168, transformers#35207"),
    TrainerFault("window-leaks", Leaking, "torchtune#2745"),
    TrainerFault("window-dropped", WindowDropped, "burn#5695, Automodel#2257"),
    TrainerFault("zeroed-each", ZeroedEach, "RAE#67, torchtitan#3575"),
    TrainerFault("never-zeroed", NeverZeroed, "wekws#73, nwm#16"),
    TrainerFault("half-unaccumulated", HalfUnaccumulated, "entrenar#123"),
    TrainerFault("clipped-each", ClippedEach, "transformers#986, lingua#59"),
    TrainerFault("clipped-while-scaled", ClippedScaled, "catalyst#1319, pytorch-lightning#9694"),
    TrainerFault("clipped-by-layer", ClippedApart, "transformers#581"),
    TrainerFault("clipped-by-value", ClippedByValue, "rlevo#432"),
    TrainerFault("unclipped", Unclipped, "SpeeQ#50"),
    TrainerFault("clipped-by-rank", ClippedByRank, "SpecForge#663, AReaL#312"),
    TrainerFault("clipped-on-first-rank", ClippedOnFirst, "DeepSpeed#1801"),
    TrainerFault("rate-by-micro-batch", RateByMicroBatch, "pytorch-lightning#1476, burn#5695"),
    TrainerFault("rate-by-rank", RateByRank, "LTX-Video-Trainer#67, transformers#24088"),
    TrainerFault("rate-by-epoch", RateByEpoch, "OpenSTL#113, CodefyUI#297"),
    TrainerFault("rate-early", RateEarly, "GaNDLF#107"),
    TrainerFault("rate-short", RateShort, "FARM#46"),
    TrainerFault("rate-of-last-group", RateOfLastGroup, "LLMs-from-scratch#692"),
    TrainerFault("rate-constant", RateConstant, DEEPCRIME),
    TrainerFault("no-momentum", NoMomentum, DEEPCRIME),
    TrainerFault("no-decay", NoDecay, "Next-Token-Failures#5"),
    TrainerFault("averaged-each", AveragedEach, "F5-TTS#631"),
    TrainerFault("averaged-from-zero", AveragedFromZero, "Paddle#17677"),
    TrainerFault("averaged-before", AveragedBefore, "d2go#494"),
    TrainerFault("average-kept", AverageKept, "waifu-diffusion#31, Open-Sora-Plan#186"),
)
