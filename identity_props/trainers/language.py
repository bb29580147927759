"""What a language model is asked to learn, and what of it is exactly known: token by token, in a table of logits.

A table [V, V] from 0, each input token used once: its row moves by lr w (onehot(label) - 1/V) / N in the first
step, N the tokens of the step that are not masked, and stays on that line.
"""

from __future__ import annotations

import torch
from torch import Tensor

from identity_props.task.minibatch import token_steps
from identity_props.trainers.protocol import IGNORED, Asked, Tokens

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

    *means* is a mean over the micro-batches' means, *padded* a mean over all places of the padded batch, *firsts* one
    over first tokens too, which nothing tells.
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
            row[mask] = {
                "tokens": 1.0,
                "means": whole / (len(window) * held),
                "padded": whole / (len(micro) * max(lengths[place] for place in micro)),
                "firsts": whole / (whole + sum(map(len, window))),
            }[rule]
        rows.append(row)
    return torch.stack(rows * epochs)


def packed(tokens: Tokens, places: int) -> Tokens:
    """Sequences put whole into rows of so many places at most, one after the other."""
    rows: list[list[int]] = []
    for at, ids in enumerate(tokens.ids):
        if not rows or sum(len(tokens.ids[one]) for one in rows[-1]) + len(ids) > places:
            rows.append([])
        rows[-1].append(at)
    joined = ([torch.cat([group[at] for at in row]) for row in rows] for group in (tokens.ids, tokens.labels))
    return Tokens(*map(tuple, joined))


def in_order(asked: Asked) -> Tensor:
    """The table of logits [V, V] that is right."""
    assert asked.tokens is not None
    return expected(asked, table(asked.tokens, asked.batch_size, asked.accumulate, asked.epochs))


def expected(asked: Asked, weights: Tensor) -> Tensor:
    """The table of logits [V, V] that a table of weights [steps, tokens] leaves."""
    assert asked.tokens is not None
    ids, labels = torch.cat(asked.tokens.ids), torch.cat(asked.tokens.labels)
    live = counts(asked)
    logits = torch.zeros(V, V, dtype=torch.float64)
    for place, (token, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
        if label == IGNORED:
            continue
        gains = [asked.lr * float(w) / live[k % len(live)] for k, w in enumerate(weights[:, place])]
        logits[token] = token_steps([gain for gain in gains if gain], V) * (_onehot(label) - 1 / V)
    return logits


def _onehot(label: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label), V).double()


def counts(asked: Asked) -> list[int]:
    """Tokens of each step of an epoch that are not masked."""
    assert asked.tokens is not None
    labels, size = asked.tokens.labels, asked.batch_size * asked.accumulate
    steps = [labels[at : at + size] for at in range(0, len(labels), size)]
    return [int((torch.cat(step) != IGNORED).sum()) for step in steps]
