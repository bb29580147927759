"""The clean reference: a training loop of this package's own that offers all that can be asked.

One method for each thing that a loop does, so that a fault is one method written otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from identity_props.trainers.language import packed
from identity_props.trainers.protocol import IGNORED, Asked, Trained, weights_of

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FILE = "plain-{}.pt"  # of a rank: each has its own losses, and its own gradients of an open window
Places = list[int]  # of examples, or of sequences


class Plain:
    """A training under way."""

    def __init__(self, asked: Asked) -> None:
        if asked.tokens is not None and asked.packing is not None:
            asked = replace(asked, tokens=packed(asked.tokens, asked.packing))
        self.asked = asked
        self.network = asked.network()
        self.data = asked.examples if asked.tokens is None else asked.tokens.ids
        self.optimizer = torch.optim.SGD(
            self.trainable(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        self.scheduler = LambdaLR(self.optimizer, self.factor)
        self.scaler = torch.amp.GradScaler("cpu", enabled=asked.precision == "float16")
        self.averaged = weights_of(self.network)
        self.read = self.steps = 0  # micro-batches, optimizer steps
        self.losses: list[tuple[float, int]] = []  # of the epoch's micro-batches: sum, and number of examples
        self.evaluated: float | None = None

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]

    # What is read, and when ---------------------------------------------------------------------

    def order(self, epoch: int) -> Places:
        """Places of the examples in the order of an epoch."""
        if not self.asked.shuffle:
            return [*range(len(self.data))]
        return torch.randperm(len(self.data), generator=self.random(epoch)).tolist()

    def random(self, epoch: int) -> torch.Generator:
        """What shuffles an epoch."""
        return torch.Generator().manual_seed(self.asked.seed * 1_000_003 + epoch)

    def micro_batches(self, epoch: int) -> list[Places]:
        """The epoch's micro-batches, those of all ranks together."""
        order, size = self.order(epoch), self.asked.batch_size * self.asked.ranks
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        return [one for one in batches if len(one) == size] if self.asked.drop_last else batches

    def windows(self, epoch: int) -> list[list[Places]]:
        """The epoch's micro-batches in windows of ``accumulate``, each an optimizer step; the last may hold fewer."""
        batches, size = self.micro_batches(epoch), self.asked.accumulate
        return [batches[at : at + size] for at in range(0, len(batches), size)]

    def share(self, batch: Places) -> Places:
        """The part of a micro-batch that is this rank's."""
        return batch[_rank(self.asked) :: self.asked.ranks]

    @property
    def total_steps(self) -> int:
        return self.asked.epochs * len(self.windows(0))

    # A step -------------------------------------------------------------------------------------

    def factor(self, step: float) -> float:
        """Of the rate, at an optimizer step counted from 0."""
        return 1 - step / max(1, self.total_steps) if self.asked.schedule == "linear" else 1.0

    def target(self, batch: Places) -> Tensor:
        return self.asked.examples[batch]

    def loss(self, batch: Places) -> Tensor:
        """The sum over examples, or tokens that are not masked."""
        if self.asked.tokens is not None:
            return self.token_loss(batch)
        output = self.network(self.asked.examples[batch])
        return (output - self.target(batch)).square().mean(-1).sum()

    def token_loss(self, batch: Places) -> Tensor:
        ids, labels = self.padded(batch)
        return cross_entropy(self.network(ids).flatten(0, 1), labels.flatten(), reduction="sum")

    def nothing(self) -> Tensor:
        """The loss of a rank that has no example of a micro-batch: 0, with a gradient of 0."""
        return torch.stack([(p * 0).sum() for p in self.trainable()]).sum()

    def padded(self, batch: Places) -> tuple[Tensor, Tensor]:
        """Ids and labels [batch, length]; the padding's label is IGNORED."""
        tokens = self.asked.tokens
        assert tokens is not None
        ids, labels = ([group[place] for place in batch] for group in (tokens.ids, tokens.labels))
        pad = nn.utils.rnn.pad_sequence
        return pad(ids, batch_first=True), pad(labels, batch_first=True, padding_value=IGNORED)

    def counted(self, batch: Places) -> int:
        """What the loss of a micro-batch is a sum of: examples, or tokens that are not masked."""
        tokens = self.asked.tokens
        if tokens is None:
            return len(batch)
        return sum(int((tokens.labels[place] != IGNORED).sum()) for place in batch)

    def divisor(self, window: list[Places]) -> float:
        """What the sum of a window's losses is divided by: all that it holds."""
        return max(1, sum(map(self.counted, window)))

    def cast(self) -> AbstractContextManager[Any]:
        half = HALF.get(self.asked.precision)
        return nullcontext() if half is None else torch.autocast("cpu", half)

    def backward(self, batch: Places, window: list[Places]) -> None:
        """Add a micro-batch's part to the gradient."""
        mine = self.share(batch)
        with self.cast():
            loss = self.loss(mine) if mine else self.nothing()
        self.scaler.scale(loss / self.divisor(window)).backward()
        self.losses.append((loss.item(), self.counted(mine)))

    def clip(self) -> None:
        if self.asked.clip is not None:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.trainable(), self.asked.clip)

    def reduce(self) -> None:
        """Sum the ranks' gradients; each is divided by what all ranks hold."""
        if self.asked.ranks > 1:
            for p in self.trainable():
                distributed.all_reduce(p.grad)  # type: ignore[arg-type]

    def update(self) -> None:
        """An optimizer step on the gradient of a whole window."""
        self.reduce()
        self.clip()
        taken = self.step()
        self.zero()
        if taken:
            self.count()

    def step(self) -> bool:
        """Move the weights; whether it did: a gradient that overflowed under the loss scale is skipped."""
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale  # lower only after an overflow

    def zero(self) -> None:
        self.optimizer.zero_grad()

    def count(self) -> None:
        """What goes by optimizer steps: a skipped one is none."""
        self.steps += 1
        self.scheduler.step()
        self.average()

    def average(self) -> None:
        """Move the average towards the weights."""
        if self.asked.average is not None:
            for mean, p in zip(self.averaged, self.network.parameters(), strict=True):
                mean.lerp_(p.detach(), 1 - self.asked.average)

    # A training ---------------------------------------------------------------------------------

    def steps_of(self) -> Iterator[tuple[int, Places, list[Places], bool]]:
        """All micro-batches of all epochs: epoch, itself, its window, whether it ends the window."""
        for epoch in range(self.asked.epochs):
            for window in self.windows(epoch):
                for batch in window:
                    yield epoch, batch, window, batch is window[-1]

    def train(self) -> Trained:
        """From the start, or from where it stopped, to the end, or to where it is to stop."""
        if self.asked.resume:
            self.load()
        current = -1
        for number, (epoch, batch, window, ends) in enumerate(self.steps_of()):
            if number < self.read:
                current = epoch
                continue
            if epoch != current:
                self.begin(epoch)
                current = epoch
            self.backward(batch, window)
            self.read += 1
            if ends:
                self.update()
            if self.asked.stop is not None and self.read >= self.asked.stop:
                self.save()
                break
        self.evaluate()
        return self.left()

    def begin(self, epoch: int) -> None:
        """What happens before an epoch: the last one is evaluated, and its losses are forgotten."""
        if epoch:
            self.evaluate()
        self.losses.clear()

    def evaluate(self) -> None:
        """The mean over the held examples of the loss, in batches."""
        held = self.asked.held
        if held is None:
            return
        self.network.eval()
        with torch.no_grad():
            sums = [(self.network(x) - x).square().mean(-1).sum() for x in held.split(self.asked.batch_size)]
        self.network.train()
        self.evaluated = float(sum(sums) / len(held))

    def reported(self) -> float:
        """The mean over the last epoch's examples, those of all ranks; NaN where it had none."""
        sums = torch.tensor(self.losses, dtype=torch.float64).reshape(-1, 2).sum(0)
        if self.asked.ranks > 1:
            distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    def left(self) -> Trained:
        averaged = None if self.asked.average is None else self.averaged
        return Trained(weights_of(self.network), self.steps, self.reported(), self.evaluated, averaged)

    # Stop and resume ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a training goes on from, gradients of an open window too."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged,
            "gradients": [p.grad for p in self.trainable()],
            "counts": (self.read, self.steps),
            "losses": self.losses,
        }

    def file(self) -> Path:
        return self.asked.folder / FILE.format(_rank(self.asked))

    def save(self) -> None:
        torch.save(self.state(), self.file())

    def load(self) -> None:
        self.restore(torch.load(self.file()))

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what ``state`` said."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.scaler.load_state_dict(saved["scaler"])
        self.averaged, self.losses = saved["averaged"], saved["losses"]
        self.read, self.steps = saved["counts"]
        for p, gradient in zip(self.trainable(), saved["gradients"], strict=True):
            p.grad = gradient


def _rank(asked: Asked) -> int:
    return distributed.get_rank() if asked.ranks > 1 else 0


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    return trained(Plain, asked)


def trained(loop: type[Plain], asked: Asked) -> Trained:
    """What a loop makes of it, under a launcher's process group where there are ranks."""
    if asked.ranks > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return loop(asked).train()
