"""Laws of mixed precision: what is kept in float32, what a loss scale does, and what it must not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identity_props.stack.processes import temporary_folder
from identity_props.task.minibatch import linear_rates
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench, in_dtype
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotApplicable, NotOffered
from identity_props.trainers.reading import Reading, first_wrong
from identity_props.trainers.resuming import beside, repeats

HALVES = 2.0**-4  # of a movement: a dozen terms, each rounded to 2^-9 a few times, and rests of those


@trainer_law(
    "bfloat16",
    "Mixed precision in bfloat16 keeps float32 weights: steps of 2^-12 of a weight are not lost.",
    "Micikevicius et al. 2018, section 3.1; ao#1124, torchtune#2254",
    needs="precision",
    kind="lost steps",
)
def bfloat16(bench: Bench) -> Reading:
    """1/16 of the movement, over micro-batches too where they are offered; rounding of gradients to 2^-9 takes less, weights kept in bfloat16 do not move at all."""
    return _kept(bench, "bfloat16")


@trainer_law(
    "float16",
    "Mixed precision in float16 keeps float32 weights, and the scale of its loss cancels.",
    "Micikevicius et al. 2018, section 3.2; DeepSpeed#7839, pytorch#94060",
    needs="precision",
    kind="lost steps",
)
def float16(bench: Bench) -> Reading:
    """As of bfloat16. Gradients are so small that a scale of 2^16 overflows none of them; one of 2^32 takes its time."""
    _check_scale(bench)
    return _kept(bench, "float16")


@trainer_law(
    "float16-clip",
    "Under a loss scale the gradient is clipped once it has been divided by the scale.",
    "Micikevicius et al. 2018, section 3.2; catalyst#1319, Lightning#9330",
    needs="precision clip",
    rules={"norm": "by the norm of what is divided by the scale"},
    slips={"unclipped": "nothing is clipped"},
)
def float16_clip(bench: Bench) -> Reading:
    """As of float16, clipped to half of the first gradient; clipped while it is scaled, hardly anything is left."""
    _check_scale(bench)
    asked = _small(bench, "float16")
    free = bench.recursion(asked, 4)
    table = plan(8, 4, epochs=2)
    norm = float(free.gradients([one.double() for one in asked.start], table[0])[0].norm())
    asked = replace(asked, clip=norm / 2)
    rules = {"norm": bench.expected(asked, table), "unclipped": free.end(table)}
    return bench.matched(asked, rules, slack=HALVES)


@trainer_law(
    "overflow",
    "A step whose gradient overflows in float16 is skipped, and not counted: the rate of the next step is its own.",
    "Micikevicius et al. 2018, section 3.2; pytorch-lightning#18828",
    needs="precision",
    rules={
        "skipped": "it is skipped, and not counted",
        "told": "it is skipped, and counted among the steps that it reports",
    },
    slips={"counted": "it is skipped, and the schedule goes on"},
)
def overflow(bench: Bench) -> Reading:
    """As of float16. Examples of the second of four batches are 2^14 times as large: no scale helps.

    Under rates that fall to 1/4, where those are offered, a step counted takes a fifth of the way.
    """
    _check_scale(bench)
    asked = _small(bench, "float16", epochs=1, n=16, **bench.offers(schedule="linear"))
    x = asked.examples.clone()
    x[4:8] *= 2.0**14
    asked = replace(asked, examples=x, lr=4 * asked.lr)
    rows = plan(16, 4)[[0, 2, 3]]
    falling = linear_rates(asked.lr, 4) if asked.schedule == "linear" else [asked.lr] * 4
    rules = {"skipped": falling[:3], "counted": [falling[0], *falling[2:]]}
    layers = {rule: bench.recursion(asked, 4, rates=rates).end(rows) for rule, rates in rules.items()}
    found = bench.matched(asked, layers, slack=HALVES)
    told = found.rule == "skipped" and bench.trained(asked).steps == 4
    return replace(found, rule="told") if told else found


@trainer_law(
    "resume-scale",
    "A loss scale that has been lowered is still low after a resume.",
    "an interrupted training is the same training: transformers#11663, ultralytics#22189",
    needs="stop resume precision",
    kind="not resumed",
)
def resume_scale(bench: Bench) -> Reading:
    """As of resume-epoch: short binary numbers, so that float16 rounds none of them.

    Gradients of the second and last of four batches overflow under a scale of 2^16, at which torch's begins, and
    not under 2^15: the second is skipped, and the last is not unless the scale is back.
    """
    if not bench.offers(precision="float16"):
        raise NotOffered("precision")
    lengths = torch.tensor([1.0, 1, 2, 2, 1, 1, 2, 2])
    x = torch.eye(4).repeat(2, 1) * lengths[:, None]
    asked = Asked((torch.zeros(4, 4),), x, lr=2.0**-6, batch_size=2, epochs=1, precision="float16")
    whole = bench.trained(asked)
    _check_scale(bench)
    if not bench.offers(stop=1):
        raise NotOffered("stop")
    repeats(bench)
    with temporary_folder() as folder:
        here = replace(asked, folder=Path(folder))
        bench.once(replace(here, stop=2))
        resumed = (bench.again or bench.once)(replace(here, resume=True))
    return beside(bench, asked, resumed, whole, "resumed after a step that was skipped")


def _check_scale(bench: Bench) -> None:
    """Raise NotApplicable where a loss scale begins so high that all four steps are skipped, and some of 80 are not."""
    asked = _small(bench, "float16")
    longer = replace(asked, epochs=40)
    if _stands(bench, asked) and not _stands(bench, longer):
        raise NotApplicable("its loss scale begins so high that the first steps are skipped until it fits")


def _stands(bench: Bench, asked: Asked) -> bool:
    return all(
        torch.equal(w, start) for w, start in zip(bench.trained(asked).weights, asked.start, strict=True)
    )


def _small(bench: Bench, precision: str, n: int = 8, epochs: int = 2, **options: Any) -> Asked:
    """Steps of 2^-10 of what is missing or so, in float32."""
    asked = bench.drawn(n, 4, epochs, precision=precision, **options)
    small: Tensor = asked.examples / 4  # second moment 1/16, so a step takes 2 lr / (16 d) of what is missing
    return in_dtype(replace(asked, examples=small, lr=12 * 2.0**-9), torch.float32)


def _kept(bench: Bench, precision: str) -> Reading:
    """Beside the descent, over batches and over micro-batches, which a loop of its own may take otherwise."""
    found = []
    for accumulated in ({}, bench.offers(accumulate=2)):
        asked = _small(bench, precision, **accumulated)
        table = plan(8, 4, asked.accumulate, asked.epochs)
        found.append(bench.matched(asked, {"": bench.expected(asked, table)}, slack=HALVES))
    return first_wrong(found)
