"""Laws of the losses that a trainer reports."""

from __future__ import annotations

from typing import Any

import torch

from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.counting import expected
from identity_props.trainers.distance import tolerance
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotOffered
from identity_props.trainers.reading import Reading, read


@trainer_law(
    "training-loss",
    "The training loss that it reports is the mean over the last epoch's examples, each as its batch met it.",
    "the loss at the weights of each step of the recursion",
    needs="loss",
    kind="wrong figure",
    rules={"examples": "a mean over examples", "final": "a mean over examples, all at the final weights"},
    slips={
        "means": "a mean of the batches' means: examples of the last one count for more",
        "last": "the last batch's",
        "training": "a mean over all epochs' examples",
        "training means": "a mean over all epochs' batches",
        "summed": "a sum over batches",
    },
)
def training_loss(bench: Bench) -> Reading:
    """Twice the relative rounding of weights, as a loss is a square; frameworks that add losses in float32 get its."""
    asked = bench.drawn(10, 4, 2)
    measured = _reported(bench, asked)
    meant = {
        micro: plan(10, 4, epochs=2, micro=micro) for micro in ("examples", "fixed")
    }  # of the last batch
    followed = bench.matched(asked, expected(bench, asked, meant)).rule or "examples"
    states = [*bench.recursion(asked, 6).states(meant[followed])]
    losses = [bench.recursion(asked, 6).losses(layers) for layers in states]
    batches = [losses[k][4 * (k % 3) : 4 * (k % 3) + 4] for k in range(6)]
    means = torch.stack([one.mean() for one in batches])
    return nearest(
        measured,
        {
            "examples": torch.cat(batches[3:]).mean(),
            "final": losses[-1].mean(),
            "means": means[3:].mean(),
            "last": means[-1],
            "training": torch.cat(batches).mean(),
            "training means": means.mean(),
            "summed": means[3:].sum(),
        },
        f"loss that it reports, {measured:.6g}",
    )


@trainer_law(
    "accumulated-loss",
    "So it is over micro-batches: the loss that is reported does not depend on how a batch is cut.",
    "the loss at the weights of each step of the recursion",
    needs="loss accumulate",
    kind="wrong figure",
    rules={"examples": "a mean over examples", "final": "a mean over examples, all at the final weights"},
    slips={
        "summed": "a sum over each step's micro-batches",
        "divided": "divided by the number of micro-batches once more",
        "last": "the last micro-batch's",
    },
)
def accumulated_loss(bench: Bench) -> Reading:
    """As of training-loss."""
    asked = bench.drawn(16, 2, 2, accumulate=4)
    measured = _reported(bench, asked)
    descent = bench.recursion(asked, 4)
    *_, third, fourth, end = descent.states(plan(16, 2, 4, 2))
    losses = torch.cat([descent.losses(third)[:8], descent.losses(fourth)[8:]])
    mean, final = losses.mean(), descent.losses(end).mean()
    rules = {"examples": mean, "final": final, "summed": 4 * mean, "divided": mean / 4}
    rules["last"] = losses[-2:].mean()
    return nearest(measured, rules, f"loss that it reports, {measured:.6g}")


@trainer_law(
    "evaluation-loss",
    "The evaluation loss that it reports is the mean over held-out examples, with an incomplete last batch.",
    "the loss at the final weights of the recursion",
    needs="held",
    kind="wrong figure",
    rules={"examples": "a mean over examples"},
    slips={"means": "a mean of the batches' means: examples of the last one count for more"},
)
def evaluation_loss(bench: Bench) -> Reading:
    """As of training-loss."""
    draw = torch.Generator().manual_seed(bench.seed + 1)
    held = torch.randn(10, 12, generator=draw, dtype=torch.float64)
    asked = bench.drawn(8, 4, 2, held=held.to(bench.dtype))
    trained = bench.trained(asked)
    if trained.evaluated is None:
        raise NotOffered("evaluated, which it does not report")
    out = held
    for layer in trained.weights:
        out = out @ layer.double().mT
    losses = (out - held).square().mean(1)
    means = torch.stack([one.mean() for one in losses.split(4)])
    said = f"evaluation loss that it reports, {float(trained.evaluated):.6g}"
    return nearest(float(trained.evaluated), {"examples": losses.mean(), "means": means.mean()}, said)


def _reported(bench: Bench, asked: Asked) -> float:
    """The loss that it reports of a training in order."""
    measured = bench.trained(asked).loss
    if measured is None:
        raise NotOffered("loss, which it does not report")
    bench.reads_in_order(asked)
    return measured


def nearest(measured: float, rules: dict[str, Any], what: str) -> Reading:
    """A figure beside what each rule says, relative; figures are added in float32 by some, whose rounding is allowed."""
    near = tolerance(torch.float32, 8)
    offs = {rule: abs(measured - float(value)) / abs(float(value)) for rule, value in rules.items()}
    return read(offs, near, f"{what}: distance from what it should be, relative")
