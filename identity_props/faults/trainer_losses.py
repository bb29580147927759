"""Faults of trainers in the loss that they tell, and in the loss over tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from identity_props.faults.base import TrainerFault
from identity_props.trainers.plain import Places, Plain
from identity_props.trainers.protocol import IGNORED, Asked, Tokens

# Telling -------------------------------------------------------------------------------------------


class ToldByBatch(Plain):
    """The loss of an epoch is the mean of its batches' means."""

    def reported(self) -> float:
        self.losses = [(total / max(1, count), 1) for total, count in self.losses]
        return super().reported()


class ToldLast(Plain):
    """The loss of an epoch is that of its last batch."""

    def reported(self) -> float:
        self.losses = self.losses[-1:]
        return super().reported()


class ToldOfRank(Plain):
    """The loss that is told is that of the first rank's examples."""

    def reported(self) -> float:
        return sum(total for total, _ in self.losses) / sum(count for _, count in self.losses)


class ToldSummed(Plain):
    """The loss that is told is the sum over a window's micro-batches."""

    def reported(self) -> float:
        return super().reported() * self.asked.accumulate


class ToldSinceStart(Plain):
    """The loss of an epoch is the mean since training began."""

    def begin(self, epoch: int) -> None:
        before = [*self.losses]
        super().begin(epoch)
        self.losses += before


# Tokens --------------------------------------------------------------------------------------------


class MeansOfTokens(Plain):
    """The loss over tokens is the mean of the micro-batches' means."""

    def token_loss(self, batch: Places) -> Tensor:
        mean = super().token_loss(batch) / max(1, self.counted(batch))
        return mean * self.divisor(self.window) / len(self.window)

    def backward(self, batch: Places, window: list[Places]) -> None:
        self.window = window
        super().backward(batch, window)


class PaddingCounted(Plain):
    """The loss over tokens is divided by all places of the padded batch."""

    def divisor(self, window: list[Places]) -> float:
        if self.asked.tokens is None:
            return super().divisor(window)
        return sum(self.padded(batch)[0].numel() for batch in window)


class FirstsCounted(Plain):
    """The first token of each sequence, which nothing tells, counts in the divisor."""

    def counted(self, batch: Places) -> int:
        return super().counted(batch) + (len(batch) if self.asked.tokens is not None else 0)


class PackedCut(Plain):
    """A sequence that does not fit into the rest of a row is cut off there."""

    def __init__(self, asked: Asked) -> None:
        if asked.tokens is not None and asked.packing is not None:
            asked = replace(asked, tokens=_cut(asked.tokens, asked.packing))
        super().__init__(asked)


def _cut(tokens: Tokens, places: int) -> Tokens:
    parts, free = [], places
    for ids, labels in zip(tokens.ids, tokens.labels, strict=True):
        parts.append((ids[:free], labels[:free]))
        free = free - len(parts[-1][0]) or places
    return Tokens(*zip(*parts, strict=True))


class PaddingTrained(Plain):
    """The label of the padding is token 0, and not masked."""

    def padded(self, batch: Places) -> tuple[Tensor, Tensor]:
        tokens = self.asked.tokens
        assert tokens is not None
        ids, _ = super().padded(batch)
        return ids, nn.utils.rnn.pad_sequence([tokens.labels[place] for place in batch], batch_first=True)


class _Labelled(Plain):
    def __init__(self, asked: Asked) -> None:
        if (tokens := asked.tokens) is not None:
            pairs = zip(tokens.ids, tokens.labels, strict=True)
            asked = replace(asked, tokens=Tokens(tokens.ids, tuple(self.label(*pair) for pair in pairs)))
        super().__init__(asked)

    def label(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Labels of a sequence."""
        raise NotImplementedError


class MaskIgnored(_Labelled):
    """Masked tokens are trained on, to tell themselves."""

    def label(self, ids: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels == IGNORED, ids, labels)


class ShiftedTwice(_Labelled):
    """Labels, which are due to their tokens, are shifted by a place once more."""

    def label(self, ids: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([labels[1:], labels.new_full((1,), IGNORED)])


FAULTS = (
    TrainerFault("told-by-batch", ToldByBatch, "catalyst#799, pytorch-lightning#2924"),
    TrainerFault("told-last", ToldLast, "med-seg-diff-pytorch#17, numalogic#53"),
    TrainerFault("told-of-rank", ToldOfRank, "transformers#12220, ArcticTraining#62"),
    TrainerFault("told-summed", ToldSummed, "transformers#35204, physicsnemo#412"),
    TrainerFault("told-since-start", ToldSinceStart, "musubi-tuner#79"),
    TrainerFault("token-means", MeansOfTokens, "transformers#24725, torchtune#1875"),
    TrainerFault("padding-counted", PaddingCounted, "pytorch-seq2seq#125"),
    TrainerFault("firsts-counted", FirstsCounted, "transformers#46204"),
    TrainerFault("packed-cut", PackedCut, "trl#4554"),
    TrainerFault("padding-trained", PaddingTrained, "gpt-neo#45, BERT-NER#3"),
    TrainerFault("mask-ignored", MaskIgnored, "nanochat#582"),
    TrainerFault("labels-shifted", ShiftedTwice, "transformers#44642, InternLM#318"),
)
