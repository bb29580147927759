"""Trainers that each break a law, and some that follow another rule on purpose."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from identity_props.faults.trainer_data import EvaluationDraws
from identity_props.faults.trainer_twins import Carried
from identity_props.trainers.plain import Plain, trained
from identity_props.trainers.protocol import NotOffered, Trained, TrainedError, trained_by, weights_of
from tests.user_styles import endless, nesterov, ramped


def together(fit, asked):
    """Two ranks as one process would be, each with what is left: what their gradients are is a fit's own affair."""
    return [[left, left] for left in (trained_by(fit, one) for one in asked)]


def trained_as_one(loop, asked):
    """Data-parallel training of ranks that see each batch together, each its part."""
    return trained(loop, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))


class CountsTwice(Plain):
    def update(self):
        super().update()
        self.steps += 1


class Backwards(Plain):
    def order(self, epoch):
        return super().order(epoch)[::-1]


class FirstTwice(Plain):
    def order(self, epoch):
        first, _, *others = super().order(epoch)
        return [first, first, *others]


class OverSize(Plain):
    def divisor(self, window):
        return self.asked.batch_size * self.asked.accumulate


class DropsLast(Plain):
    def micro_batches(self, epoch):
        return [one for one in super().micro_batches(epoch) if len(one) == self.asked.batch_size]


class KeepsLast(Plain):
    def micro_batches(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, drop_last=self.asked.drop_last and False)
        try:
            return super().micro_batches(epoch)
        finally:
            self.asked = kept


class Summed(Plain):
    def divisor(self, window):
        return super().divisor(window) / len(window)


class LastOfWindow(Plain):
    def divisor(self, window):
        return len(window) * len(window[-1])


class Drops(Plain):
    def windows(self, epoch):
        return [one for one in super().windows(epoch) if len(one) == self.asked.accumulate]


class Thaws(Plain):
    def trainable(self):
        for p in self.network.parameters():
            p.requires_grad_()
        return super().trainable()


class LastLoss(Plain):
    def reported(self):
        sums, number = self.losses[-1]
        return sums / number


class MeanOfMeans(Plain):
    def evaluate(self):
        if self.asked.held is not None:
            losses = [
                (self.network(x) - x).square().mean().item()
                for x in self.asked.held.split(self.asked.batch_size)
            ]
            self.evaluated = sum(losses) / len(losses)


class ClipsEach(Plain):
    def backward(self, batch, window):
        kept = [p.grad for p in self.trainable()]
        self.optimizer.zero_grad()
        super().backward(batch, window)
        super().clip()
        for p, before in zip(self.trainable(), kept, strict=True):
            p.grad = p.grad if before is None else p.grad + before

    def clip(self):
        pass


class Late(Plain):
    def factor(self, step):
        return super().factor(max(0, step - 1))


class AtWindowsEnds(Plain):
    """The rate is that of a window's last micro-batch."""

    def factor(self, step):
        size = self.asked.accumulate
        return super().factor(step + (size - 1) / size)


class MicroBatchesEnds(Plain):
    """So, counted in micro-batches, up to the end of the schedule."""

    def factor(self, step):
        size = self.asked.accumulate
        return max(0, super().factor(size * step + size - 1))


class Undamped(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["momentum"] = asked.momentum**2


class Forgets(Plain):
    def update(self):
        super().update()
        if self.asked.momentum and self.asked.schedule == "linear":
            self.optimizer.state.clear()


class HalfDecay(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] /= 2


class AveragesEach(Plain):
    def backward(self, batch, window):
        super().backward(batch, window)
        self.average()


class Decays(Plain):
    """The decay falls with the rate, which multiplies it."""

    def factor(self, step):
        found = super().factor(step)
        self.optimizer.param_groups[0]["weight_decay"] = self.asked.decay * found
        return found


class StaysInEvaluation(Plain):
    def evaluate(self):
        super().evaluate()
        self.network.eval()


class InEvaluation(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.network.eval()

    def evaluate(self):
        super().evaluate()
        self.network.eval()


class InHalf(Plain):
    def update(self):
        super().update()
        if self.asked.precision != "full":
            with torch.no_grad():
                for p in self.trainable():
                    p.copy_(p.bfloat16())


class Draws(Plain):
    def order(self, epoch):
        found = super().order(epoch)
        return torch.randperm(len(found)).tolist() if self.asked.shuffle else found


class SameOrder(Plain):
    def order(self, epoch):
        return super().order(0)


class OneSeed(Plain):
    def order(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, seed=self.asked.seed * 0)
        try:
            return super().order(epoch)
        finally:
            self.asked = kept


class LosesVelocity(Plain):
    def load(self):
        super().load()
        self.optimizer.state.clear()


class Replays(Plain):
    def load(self):
        super().load()
        self.read -= self.read % len(self.micro_batches(0))


class LosesWindow(Plain):
    def load(self):
        super().load()
        self.optimizer.zero_grad()


class Learns(Plain):
    def evaluate(self):
        super().evaluate()
        if self.asked.held is not None:
            with torch.no_grad():
                for p in self.network.parameters():
                    p.mul_(0.99)


class CountsPadding(Plain):
    def counted(self, batch):
        if self.asked.tokens is None:
            return super().counted(batch)
        return self.padded(batch)[1].numel() if batch else 0


class LosesShort(Plain):
    """Of packed rows only whole ones are read."""

    def micro_batches(self, epoch):
        found = super().micro_batches(epoch)
        return [one[:1] for one in found] if self.asked.packing else found


class TokenMeans(Plain):
    def backward(self, batch, window):
        super().backward(batch, [batch] * len(window))


def differ(asked):
    """A rank goes its own way."""
    noise = torch.rand(()).item() if asked.ranks > 1 else 0
    return trained(
        Plain, replace(asked, ranks=1, lr=asked.lr * (1 + noise), batch_size=asked.batch_size * asked.ranks)
    )


def ranks_differ(fit, asked):
    return [[trained_by(fit, one), trained_by(fit, one)] for one in asked]


def a_little_short(asked):
    """Weights of ranks are a thousandth too small."""
    found = trained(Plain, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))
    return Trained([0.999 * one for one in found.weights]) if asked.ranks > 1 else found


BROKEN = {
    "steps": CountsTwice,
    "trajectory": Backwards,
    "every-example": FirstTwice,
    "last-batch": DropsLast,
    "drop-last": KeepsLast,
    "accumulation": Summed,
    "unequal": LastOfWindow,
    "window": Drops,
    "frozen": Thaws,
    "training-loss": LastLoss,
    "evaluation-loss": MeanOfMeans,
    "clip": ClipsEach,
    "schedule": Late,
    "velocity": Undamped,
    "momentum-rate": Forgets,
    "decay": HalfDecay,
    "decay-rate": Decays,
    "average": AveragesEach,
    "bfloat16": InHalf,
    "float16": InHalf,
    "repeat": Draws,
    "order": SameOrder,
    "resume-epoch": LosesVelocity,
    "resume-inside": Replays,
    "resume-window": LosesWindow,
    "evaluation": Learns,
    "modes": StaysInEvaluation,
    "tokens": CountsPadding,
    "tokens-steps": CountsPadding,
    "tokens-accumulated": TokenMeans,
    "tokens-packed": LosesShort,
    "ranks": a_little_short,
    "ranks-uneven": a_little_short,
    "ranks-order": partial(trained_as_one, SameOrder),
}


def unscheduled(loop, asked):
    """A loop that offers no schedule, so that no rate names a step."""
    if asked.schedule != "constant":
        raise NotOffered("schedule")
    return trained(loop, asked)


class ForgetsAverage(Plain):
    def left(self):
        found = super().left()
        return replace(found, averaged=None) if self.asked.resume else found


class Means(Plain):
    def backward(self, batch, window):
        super().backward(batch, [batch] * len(window))


class Fixed(Plain):
    def divisor(self, window):
        return self.asked.batch_size * self.asked.accumulate if len(window) > 1 else super().divisor(window)


class FixedWindow(Plain):
    def divisor(self, window):
        return super().divisor(window) * self.asked.accumulate / len(window)


class RateInside(Plain):
    def update(self):
        rate = self.optimizer.param_groups[0]["lr"]
        before = [p.detach().clone() for p in self.network.parameters()]
        velocity = getattr(self, "velocity", [0] * len(before))
        self.velocity = [
            self.asked.momentum * v - rate * p.grad
            for v, p in zip(velocity, self.network.parameters(), strict=True)
        ]
        super().update()
        with torch.no_grad():
            for p, w, v in zip(self.network.parameters(), before, self.velocity, strict=True):
                p.copy_(w + v)


class Decoupled(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0

    def update(self):
        rate = self.optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            for p in self.trainable():
                p.mul_(1 - rate * self.asked.decay)
        super().update()


class AveragesFromFirst(Plain):
    def average(self):
        if self.asked.average is not None and self.steps == 1:
            self.averaged = weights_of(self.network)
        else:
            super().average()


class Ramped(Plain):
    """Its average's decay rises from step to step, as ``ramp`` has it."""

    ramp = None

    def average(self):
        if self.asked.average is not None:
            beta = min(self.asked.average, type(self).ramp(self.steps))
            for mean, p in zip(self.averaged, self.network.parameters(), strict=True):
                mean.lerp_(p.detach(), 1 - beta)


class AsTensorFlow(Ramped):
    """(1 + n) / (10 + n), n the steps before."""

    ramp = staticmethod(lambda t: t / (9 + t))


class AsDiffusers(Ramped):
    """So, but the first is a copy."""

    ramp = staticmethod(lambda t: t / (9 + t) if t > 1 else 0)


class ByPower(Ramped):
    """1 - (1 + n)^(-2/3), n the steps before."""

    ramp = staticmethod(lambda t: 1 - t ** (-2 / 3))


class Corrected(Plain):
    """Averages from 0 on, and divides by 1 - beta^t, as one formula."""

    def average(self):
        if (beta := self.asked.average) is not None:
            for mean, p in zip(self.averaged, self.network.parameters(), strict=True):
                mean.lerp_(p.detach(), (1 - beta) / (1 - beta**self.steps))


class FinalLoss(Plain):
    def reported(self):
        with torch.no_grad():
            return nn.functional.mse_loss(self.network(self.asked.examples), self.asked.examples).item()


class ShufflesBatches(Plain):
    """Batches are cut in order, and shuffled as they are."""

    def micro_batches(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, shuffle=False)
        try:
            batches = super().micro_batches(epoch)
        finally:
            self.asked = kept
        order = torch.randperm(len(batches), generator=self.random(epoch)).tolist()
        return [batches[place] for place in order] if kept.shuffle else batches


def filled(asked, last):
    """A training on examples of which some come again at the end, to fill the last step to ``last``."""
    x = torch.cat([asked.examples, asked.examples[: -len(asked.examples) % last]])
    size = asked.batch_size * asked.ranks
    return trained(Plain, replace(asked, examples=x, batch_size=size, ranks=1))


def padded(asked):
    return filled(asked, asked.ranks)


def wrapped(asked):
    return filled(asked, asked.batch_size * asked.ranks)


def final(asked):
    """Ranks as one, the loss that of the final weights."""
    return trained(FinalLoss, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))


class EvaluatesTraining(Plain):
    """Evaluates by a mean over what is held, and switches nothing."""

    def evaluate(self):
        if self.asked.held is not None:
            with torch.no_grad():
                self.evaluated = nn.functional.mse_loss(self.network(self.asked.held), self.asked.held).item()


class Independent(Decoupled):
    def update(self):
        with torch.no_grad():
            for p in self.trainable():
                p.mul_(1 - self.asked.lr * self.asked.decay)
        Plain.update(self)


class TellsSkipped(Plain):
    """The steps that it reports are all that it tried."""

    tried = 0

    def step(self):
        self.tried += 1
        return super().step()

    def left(self):
        return replace(super().left(), steps=self.tried)


CONVENTIONS = [
    ("last-batch", "fixed", OverSize),
    ("unequal", "means", Means),
    ("unequal", "fixed", Fixed),
    ("window", "fixed", FixedWindow),
    ("window", "carried", Carried),
    ("window", "ended", endless),
    ("velocity", "nesterov", nesterov),
    ("momentum-rate", "keras", RateInside),
    ("decay", "decoupled", Decoupled),
    ("decay-rate", "independent", Independent),
    ("overflow", "told", TellsSkipped),
    ("modes", "unswitched", EvaluatesTraining),
    ("average", "first", AveragesFromFirst),
    ("average", "ramped", ramped),
    ("average", "corrected", Corrected),
    ("training-loss", "final", FinalLoss),
    ("accumulated-loss", "final", FinalLoss),
    ("order", "batches", ShufflesBatches),
    ("evaluation", "stream", EvaluationDraws),
    ("ranks-uneven", "padded", padded),
    ("ranks-uneven", "wrapped", wrapped),
    ("ranks-loss", "final", final),
]


def raises(asked):
    raise RuntimeError("no such\ndevice")


def exits(asked):
    raise SystemExit(3)


def given_back(asked):
    return list(asked.start)


def not_finite(asked):
    return asked.start[0] * math.nan


def flat(asked):
    return asked.start[0].flatten()


def refuses(asked):
    raise NotOffered("anything")


def misfit(asked):
    raise TrainedError("leaves no file {out}")
