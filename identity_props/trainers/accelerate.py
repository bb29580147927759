"""Hugging Face's Accelerate: its Accelerator within the loop that its own pages show.

- https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation: the loop, and that of language models
- https://github.com/huggingface/accelerate/blob/main/examples/complete_nlp_example.py: evaluation, stop and resume
- https://github.com/huggingface/transformers/blob/main/examples/pytorch/language-modeling/run_clm_no_trainer.py:
  clipping, and the scheduler's length, in optimizer steps times processes

Not offered: float16 on the CPU, averages of the weights. It reports no training loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from identity_props.trainers.protocol import IGNORED, Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

FOLDER = "accelerate"
GUIDE = "https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation"
DESIGNS = {
    "unequal": ("means", f"{GUIDE}#gradient-accumulation-on-training-samples-of-variable-size"),
    "ranks-uneven": (
        "wrapped",
        "https://huggingface.co/docs/accelerate/package_reference/utilities, DataLoaderConfiguration: even_batches",
    ),
}
PRECISIONS = {"full": "no", "bfloat16": "bf16"}


class Progress(dict[str, int]):
    """Micro-batches read and optimizer steps taken, in what it saves."""

    state_dict, load_state_dict = dict.copy, dict.update


class Loop:
    """A training under way."""

    def __init__(self, asked: Asked) -> None:
        set_seed(asked.seed)
        self.asked = asked
        self.accelerator = started(asked)
        model = asked.network()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
        )
        train, held = loaders(asked)
        prepare = self.accelerator.prepare
        self.model, self.optimizer, self.train = prepare(model, optimizer, train)
        self.held = None if held is None else prepare(held)
        self.scheduler = prepare(LambdaLR(optimizer, self.factor))
        self.progress = Progress(read=0, steps=0)
        self.accelerator.register_for_checkpointing(self.progress)
        self.evaluated: float | None = None

    def factor(self, step: int) -> float:
        """Of the rate; a step of the optimizer is one of the scheduler for each process."""
        if self.asked.schedule == "constant":
            return 1.0
        windows = math.ceil(len(self.train) / self.asked.accumulate)
        return 1 - step / (self.asked.epochs * windows * self.accelerator.num_processes)

    def run(self) -> None:
        self.resume()
        first, skipped = divmod(self.progress["read"], len(self.train))
        for epoch in range(first, self.asked.epochs):
            self.model.train()
            begun = epoch == first and skipped
            loader = self.accelerator.skip_first_batches(self.train, skipped) if begun else self.train
            for _ in self.steps(loader):
                if self.progress["read"] == self.asked.stop:
                    return self.save()
            self.evaluate()
        return None

    def steps(self, loader: Any) -> Iterator[None]:
        """Train on each micro-batch."""
        for (examples,) in loader:
            self.step(examples)
            yield

    def step(self, examples: Tensor) -> None:
        """A micro-batch, and the optimizer's step where a window ends."""
        accelerator = self.accelerator
        with accelerator.accumulate(self.model):
            accelerator.backward(mse_loss(self.model(examples), examples))
            if accelerator.sync_gradients and self.asked.clip is not None:
                accelerator.clip_grad_norm_(self.model.parameters(), self.asked.clip)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        self.progress["read"] += 1
        self.progress["steps"] += accelerator.sync_gradients

    def evaluate(self) -> None:
        if self.held is None:
            return
        self.model.eval()
        with torch.no_grad():
            pairs = [self.accelerator.gather_for_metrics((self.model(x), x)) for (x,) in self.held]
        outputs, targets = map(torch.cat, zip(*pairs, strict=True))
        self.evaluated = float(mse_loss(outputs, targets))

    def save(self) -> None:
        self.accelerator.save_state(str(self.asked.folder / FOLDER))

    def resume(self) -> None:
        if self.asked.resume:
            self.accelerator.load_state(str(self.asked.folder / FOLDER))


class LanguageLoop(Loop):
    """Of a language model: a window of micro-batches is read ahead, and divided by all its tokens."""

    def steps(self, loader: Any) -> Iterator[None]:
        batches = iter(loader)
        while window := [*islice(batches, self.asked.accumulate)]:
            self.window(window)
            yield

    def window(self, window: list[tuple[Tensor, Tensor]]) -> None:
        """An optimizer step; backward divides by the micro-batches asked for, and a mean is taken over processes."""
        accelerator = self.accelerator
        counted = torch.stack([labels.ne(IGNORED).sum() for _, labels in window]).sum()
        whole = accelerator.gather(counted).sum().item()
        share = self.asked.accumulate * accelerator.num_processes / max(1, whole)
        for ids, labels in window:
            waits = accelerator.num_processes > 1 and labels is not window[-1][1]
            with self.model.no_sync() if waits else nullcontext():
                outputs = self.model(ids).flatten(0, 1)
                accelerator.backward(cross_entropy(outputs, labels.flatten(), reduction="sum") * share)
        if self.asked.clip is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.asked.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.progress["read"] += len(window)
        self.progress["steps"] += 1


def padded(group: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Ids and labels [batch, longest]; the padding's label is IGNORED."""
    ids, labels = map(list, zip(*group, strict=True))
    return pad_sequence(ids, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=IGNORED)


def started(asked: Asked) -> Accelerator:
    """Its Accelerator, which keeps its state for the process: what an earlier training left is forgotten."""
    if asked.precision not in PRECISIONS:
        raise NotOffered("precision")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=True,
        mixed_precision=PRECISIONS[asked.precision],
        gradient_accumulation_steps=asked.accumulate,
    )
    if accelerator.num_processes != asked.ranks:  # it has those of its launcher
        raise NotOffered("ranks")
    return accelerator


def loaders(asked: Asked) -> tuple[Any, Any]:
    """Of training, and of what is held."""
    data: Any = TensorDataset(asked.examples)
    if asked.tokens is not None:
        data = [*zip(asked.tokens.ids, asked.tokens.labels, strict=True)]
    train = DataLoader(
        data,
        asked.batch_size,
        shuffle=asked.shuffle,
        drop_last=asked.drop_last,
        collate_fn=None if asked.tokens is None else padded,
    )
    held = None if asked.held is None else DataLoader(TensorDataset(asked.held), asked.batch_size)
    return train, held


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.average is not None:
        raise NotOffered("average")
    if asked.tokens is not None and asked.stop is not None:  # it steps a window at a time
        raise NotOffered("stop")
    with quiet("accelerate"):
        loop = (Loop if asked.tokens is None else LanguageLoop)(asked)
        loop.run()
    return Trained(weights_of(loop.model), loop.progress["steps"], None, loop.evaluated)
