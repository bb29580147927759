"""Laws of language-model trainers: the row of a token, in a table of logits, is an account of its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.language import V, counts, expected, table
from identity_props.trainers.ledger import ranges
from identity_props.trainers.protocol import IGNORED, Asked, Left
from identity_props.trainers.reading import Reading, first_wrong


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
    live = torch.tensor(counts(asked), dtype=torch.float64)[step]
    moved = torch.where(labels == IGNORED, rows.abs().max(1).values, own - others)
    return moved * live / asked.lr


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


def _matched(bench: Bench, asked: Asked, tables: dict[str, Tensor]) -> Reading:
    found = bench.matched(asked, {rule: [expected(asked, one)] for rule, one in tables.items()})
    once = asked.epochs == 1
    return Reading(found.found, found.rule, told(asked, bench.trained(asked)) if once else "")


LONG = 64  # places of a row, more than all sequences have, with an end each
CROSS_ENTROPY = "row_i = lr w_i (onehot(label_i) - 1/V) / N after a step, from 0"
RULES = {"tokens": "a mean over the tokens that are not masked"}
SLIPS = {
    "padded": "padding and masked tokens count in the divisor",
    "firsts": "the first token of each sequence counts in the divisor, and nothing tells it",
}


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
    asked = bench.sequences(2)
    return _matched(bench, asked, _rules(asked, ("tokens", "padded", "firsts")))


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
    asked = bench.sequences(2, 3)
    return _matched(bench, asked, _rules(asked, ("tokens", "padded", "firsts")))


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
    asked = bench.sequences(2, accumulate=2)
    return _matched(bench, asked, _rules(asked, ("tokens", "means", "padded", "firsts")))


@trainer_law(
    "tokens-packed",
    "Sequences that are packed into rows are trained on as they are apart: whole, once, and each token weighs the same.",
    CROSS_ENTROPY + "; trl#4554: tokens of packed sequences were lost",
    needs="tokens packing",
    rules=RULES,
    slips=SLIPS,
)
def tokens_packed(bench: Bench) -> Reading:
    """As of tokens. All rows are one step, of one row and of eight at most, so that it does not matter which go together."""
    row, rows = bench.sequences(1, packing=LONG), bench.sequences(8, packing=LONG // 4)
    whole = replace(rows, packing=None)
    right = _rules(whole, ("tokens", "firsts"))
    padded = right["tokens"] * counts(whole)[0] / LONG
    found = [_packed(bench, row, whole, {**right, "padded": padded}), _packed(bench, rows, whole, right)]
    return first_wrong(found, ["tokens"])


def _packed(bench: Bench, asked: Asked, whole: Asked, tables: dict[str, Tensor]) -> Reading:
    found = bench.matched(asked, {rule: [expected(whole, one)] for rule, one in tables.items()})
    return Reading(found.found, found.rule, told(whole, bench.trained(asked)))


def _rules(asked: Asked, rules: Sequence[str]) -> dict[str, Tensor]:
    assert asked.tokens is not None
    return {
        rule: table(asked.tokens, asked.batch_size, asked.accumulate, asked.epochs, rule) for rule in rules
    }
