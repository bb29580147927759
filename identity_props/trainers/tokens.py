"""Laws of language-model trainers: the weight of each token of a table of logits, under cross-entropy.

A table [V, V] from 0, each input token used once: its row moves by lr w (onehot(label) - 1/V) / N in the first
step, N the tokens of the step that are not masked, and stays on that line. So a row is an account of its token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from identity_props.task.minibatch import token_steps
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench, Reading
from identity_props.trainers.ledger import ranges
from identity_props.trainers.protocol import IGNORED, Asked, Left, Tokens

LENGTHS = (5, 2, 7, 3, 4, 1, 6, 2)  # tokens of each sequence
MASKED = (0, 6, 7, 9, 20)  # places of tokens, of all, whose label is masked
V = sum(LENGTHS) + 3
RATE = 2.0


def drawn(seed: int) -> Tokens:
    """Sequences of unequal length, each id once, labels drawn, some masked."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randperm(V, generator=draw)[: sum(LENGTHS)]
    labels = torch.randint(V, (len(ids),), generator=draw)
    labels[list(MASKED)] = IGNORED
    return Tokens(ids.split(LENGTHS), labels.split(LENGTHS))


def table(tokens: Tokens, size: int, accumulate: int = 1, epochs: int = 1, rule: str = "tokens") -> Tensor:
    """Weights [steps, tokens] over the tokens of a step that are not masked: 1, or as another rule has it.

    *means* is a mean over the micro-batches' means, *padded* a mean over all places of the padded batch.
    """
    lengths = [len(one) for one in tokens.ids]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    live = torch.cat(tokens.labels) != IGNORED
    rows = []
    for at in range(0, len(lengths), size * accumulate):
        window = [range(k, k + size) for k in range(at, min(at + size * accumulate, len(lengths)), size)]
        masks = [sum(owner == place for place in micro).bool() & live for micro in window]  # type: ignore[union-attr]
        whole = sum(int(mask.sum()) for mask in masks)
        row = torch.zeros(len(owner), dtype=torch.float64)
        for micro, mask in zip(window, masks, strict=True):
            held = int(mask.sum())
            padded = len(micro) * max(lengths[place] for place in micro)
            weight = {"tokens": 1.0, "means": whole / (len(window) * held), "padded": whole / padded}[rule]
            row[mask] = weight
        rows.append(row)
    return torch.stack(rows * epochs)


def expected(asked: Asked, weights: Tensor) -> Tensor:
    """The table of logits [V, V] that a table of weights [steps, tokens] leaves."""
    assert asked.tokens is not None
    ids, labels = torch.cat(asked.tokens.ids), torch.cat(asked.tokens.labels)
    each = len(asked.tokens.ids) // (asked.batch_size * asked.accumulate)
    counts = _counts(asked)
    logits = torch.zeros(V, V, dtype=torch.float64)
    for place, (token, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
        if label == IGNORED:
            continue
        gains = [asked.lr * float(w) / counts[k % each] for k, w in enumerate(weights[:, place])]
        logits[token] = token_steps([gain for gain in gains if gain], V) * (_onehot(label) - 1 / V)
    return logits


def _onehot(label: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label), V).double()


def _counts(asked: Asked) -> list[int]:
    """Tokens of each step of an epoch that are not masked."""
    assert asked.tokens is not None
    labels, size = asked.tokens.labels, asked.batch_size * asked.accumulate
    steps = [labels[at : at + size] for at in range(0, len(labels), size)]
    return [int((torch.cat(step) != IGNORED).sum()) for step in steps]


def told(asked: Asked, left: Left) -> str:
    """The weight of each token in the first epoch's step, in words."""
    return ranges([f"weigh {weight:.4g}" for weight in account(asked, left).tolist()], "tokens")


def account(asked: Asked, left: Left) -> Tensor:
    """Weights [tokens] of a training of one epoch: how far each token's row went for its label."""
    assert asked.tokens is not None
    ids, labels = torch.cat(asked.tokens.ids), torch.cat(asked.tokens.labels)
    rows = left.weights[0].double()[ids]
    own = rows.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    others = (rows.sum(1) - own) / (V - 1)
    size = asked.batch_size * asked.accumulate
    step = torch.repeat_interleave(
        torch.arange(len(asked.tokens.ids)) // size, torch.tensor([len(one) for one in asked.tokens.ids])
    )
    counts = torch.tensor(_counts(asked), dtype=torch.float64)[step]
    moved = torch.where(labels == IGNORED, rows.abs().max(1).values, own - others)
    return moved * counts / asked.lr


def leaks(asked: Asked, left: Left) -> Tensor:
    """How far each token's row [tokens] lies off the line of its label, in weights; 0 where it was trained alone."""
    assert asked.tokens is not None
    ids, labels = torch.cat(asked.tokens.ids), torch.cat(asked.tokens.labels)
    rows = left.weights[0].double()[ids]
    line = torch.nn.functional.one_hot(labels.clamp_min(0), V).double() - 1 / V
    along = (rows * line).sum(1, keepdim=True) / line.square().sum(1, keepdim=True) * line
    return torch.where(labels == IGNORED, 0.0, (rows - along).norm(dim=1) / asked.lr)


def unused(asked: Asked, left: Left) -> Tensor:
    """How far the rows of ids moved that no sequence has."""
    assert asked.tokens is not None
    free = torch.ones(V, dtype=torch.bool).index_fill(0, torch.cat(asked.tokens.ids), False)
    return left.weights[0].double()[free].norm(dim=1)


def training(bench: Bench, size: int, epochs: int = 1, **options: Any) -> Asked:
    """A training on the drawn tokens, with examples too, which a trainer may train on that takes no tokens."""
    zeros = torch.zeros(V, V, dtype=torch.float64)
    x = torch.eye(V, dtype=torch.float64)
    return bench.asked(
        V, size, epochs, examples=x, start=(zeros,), lr=RATE, tokens=drawn(bench.seed), **options
    )


def _matched(bench: Bench, asked: Asked, tables: dict[str, Tensor]) -> Reading:
    found = bench.matched(asked, {rule: [expected(asked, one)] for rule, one in tables.items()})
    once = asked.epochs == 1
    return Reading(found.found, found.rule, told(asked, bench.trained(asked)) if once else "")


CROSS_ENTROPY = "row_i = lr w_i (onehot(label_i) - 1/V) / N after a step, from 0"
RULES = {"tokens": "a mean over the tokens that are not masked"}
SLIPS = {"padded": "padding and masked tokens count in the divisor"}


@trainer_law(
    "tokens",
    "Each token that is not masked weighs the same in a step, in short and long sequences; others weigh nothing.",
    CROSS_ENTROPY,
    needs="tokens",
    rules=RULES,
    slips=SLIPS,
)
def tokens(bench: Bench) -> Reading:
    """Rounding as in trajectory; one token more in a divisor of 30 is 3% of a weight."""
    asked = training(bench, 2)
    return _matched(bench, asked, _rules(asked, ("tokens", "padded")))


@trainer_law(
    "tokens-steps",
    "So it is over several epochs: a row follows its own token alone.",
    "a <- a + lr w (1 - p) V / ((V - 1) N), p = 1 / (1 + (V - 1) exp(-a))",
    needs="tokens",
    rules=RULES,
    slips=SLIPS,
)
def tokens_steps(bench: Bench) -> Reading:
    """As of tokens."""
    asked = training(bench, 2, 3)
    return _matched(bench, asked, _rules(asked, ("tokens", "padded")))


@trainer_law(
    "tokens-accumulated",
    "Micro-batches of unequal numbers of tokens, accumulated, are one batch of all.",
    CROSS_ENTROPY + "; transformers#34191, unsloth's report of October 2024",
    needs="tokens accumulate",
    rules=RULES,
    slips={**SLIPS, "means": "a mean of the micro-batches' means: tokens of short ones weigh more"},
)
def tokens_accumulated(bench: Bench) -> Reading:
    """As of tokens; means differ by half a weight."""
    asked = training(bench, 2, accumulate=2)
    return _matched(bench, asked, _rules(asked, ("tokens", "means", "padded")))


def _rules(asked: Asked, rules: Sequence[str]) -> dict[str, Tensor]:
    assert asked.tokens is not None
    return {
        rule: table(asked.tokens, asked.batch_size, asked.accumulate, asked.epochs, rule) for rule in rules
    }
