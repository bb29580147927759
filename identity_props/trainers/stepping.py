"""Laws of a step: clipping, the rate, momentum and decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from identity_props.task.minibatch import Layers, linear_rates
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotOffered
from identity_props.trainers.reading import Reading, first_wrong

DESCENT = "the recursion of mini-batch gradient descent, in float64"


# Clipping ---------------------------------------------------------------------------------------------


@trainer_law(
    "clip",
    "The gradient of all layers and of a whole step is multiplied by min(1, c / its norm), once.",
    "Pascanu, Mikolov, Bengio 2013; Lightning#9330: clipped while still scaled",
    needs="clip",
    rules={"norm": "by the norm of all of it"},
    slips={"unclipped": "nothing is clipped", "layers": "each layer by its own norm"},
)
def clip(bench: Bench) -> Reading:
    """Rounding as in trajectory, and 2e-6 / c, as torch adds 1e-6 to the norm and others do not.

    Clipped to half of the first gradient, and to a norm that none reaches; then, where those are offered, over
    micro-batches, and over two layers.
    """
    accumulated = bench.offers(accumulate=4)
    asked = [bench.drawn(12, 4, 2), bench.drawn(16, 2, 2, **accumulated)]
    found = [_clipped(bench, one, share) for one in asked for share in (1 / 2, 16.0)]
    with suppress(NotOffered):  # by a program that trains one layer
        found.append(_clipped(bench, bench.drawn(12, 4, 2, layers=2), 1 / 2))
    return first_wrong(found, ["norm"])


def _clipped(bench: Bench, asked: Asked, share: float) -> Reading:
    """Clipped at a share of the first gradient's norm."""
    table = plan(len(asked.examples), asked.batch_size, asked.accumulate, asked.epochs)
    free = bench.recursion(asked, len(table))
    norms = [g.norm() for g in free.gradients([one.double() for one in asked.start], table[0])]
    asked = replace(asked, clip=share * float(torch.stack(norms).norm()))
    assert asked.clip is not None
    rules = {"norm": bench.expected(asked, table)}
    if share < 1:
        rules["unclipped"] = free.end(table)
    return bench.matched(asked, rules, slack=2e-6 / asked.clip)


# The rate ---------------------------------------------------------------------------------------------


@trainer_law(
    "schedule",
    "The rate of step k of K is the one asked for, counted in optimizer steps.",
    "linear: lr (1 - k / K), k from 0; accelerate#3256, pytorch#60265",
    needs="schedule",
    rules={"steps": "counted in optimizer steps from 0"},
    slips={
        "constant": "the rate does not change",
        "early": "a step ahead",
        "late": "a step behind",
        "micro-batches": "counted in micro-batches",
        "micro-batches-end": "counted in micro-batches, and read at the last of a window",
        "window-end": "read at the last micro-batch of a window: a part of a step ahead",
        "epochs": "changed at an epoch's end alone",
        "whole-windows": "its length counts whole windows alone: it ends before the training does",
        "whole-batches": "its length counts whole batches alone: it ends before the training does",
    },
)
def schedule(bench: Bench) -> Reading:
    """Rounding as in trajectory; a rate off by one step is off by 1/12 of the largest.

    Over micro-batches, with incomplete windows that are stepped on, and of two layers, each in a group of its own perhaps, where those are offered.
    """
    found = [_scheduled(bench, bench.asked(12, 2, 2, schedule="linear")), *_with_a_short_batch(bench)]
    if accumulated := bench.offers(accumulate=2):
        found.append(_scheduled(bench, bench.asked(16, 2, 2, schedule="linear", **accumulated)))
        found += _with_short_windows(bench)
    with suppress(NotOffered):  # by a program that trains one layer
        found.append(_scheduled(bench, bench.drawn(12, 4, 2, layers=2, schedule="linear")))
    return first_wrong(found, ["steps"])


def _with_a_short_batch(bench: Bench) -> Iterator[Reading]:
    """Where an incomplete batch is stepped on, that step counts too."""
    asked = bench.asked(10, 4, 3)
    tables = {rule: plan(10, 4, epochs=3, micro=rule) for rule in ("examples", "fixed")}
    stepped = bench.matched(asked, {rule: bench.expected(asked, one) for rule, one in tables.items()})
    if stepped.rule:
        yield _shortened(bench, asked, tables[stepped.rule], 6, "whole-batches")


def _shortened(bench: Bench, asked: Asked, table: Tensor, whole: int, slip: str) -> Reading:
    """Under a rate that falls over all steps, or over the whole ones alone."""
    asked, count = replace(asked, schedule="linear"), len(table)
    rates = {
        "steps": linear_rates(asked.lr, count),
        slip: [*linear_rates(asked.lr, whole), *[0.0] * (count - whole)],
    }
    return bench.matched(
        asked, {rule: bench.expected(asked, table, rates=one) for rule, one in rates.items()}
    )


def _with_short_windows(bench: Bench) -> Iterator[Reading]:
    """Where an incomplete window is stepped on, that step counts too."""
    asked = bench.asked(12, 2, 3, accumulate=4)
    tables = {rule: plan(12, 2, 4, 3, window=rule) for rule in ("mean", "fixed")}
    stepped = bench.matched(asked, {rule: bench.expected(asked, one) for rule, one in tables.items()})
    if stepped.rule:
        yield _shortened(bench, asked, tables[stepped.rule], 3, "whole-windows")


def _scheduled(bench: Bench, asked: Asked) -> Reading:
    table = plan(len(asked.examples), asked.batch_size, asked.accumulate, asked.epochs)
    count = len(table)
    exact = linear_rates(asked.lr, count)
    epoch = count // asked.epochs
    rates = {
        "steps": exact,
        "constant": [asked.lr] * count,
        "early": [*exact[1:], 0.0],
        "late": [asked.lr, *exact[:-1]],
        "epochs": [asked.lr * (1 - k // epoch / asked.epochs) for k in range(count)],
    }
    if (size := asked.accumulate) > 1:
        ends = [size * k + size - 1 for k in range(count)]  # micro-batches before each window's last
        rates["micro-batches"] = [asked.lr * max(0.0, 1 - size * k / count) for k in range(count)]
        rates["micro-batches-end"] = [asked.lr * max(0.0, 1 - end / count) for end in ends]
        rates["window-end"] = [asked.lr * (1 - end / (size * count)) for end in ends]
    return bench.matched(
        asked, {rule: bench.expected(asked, table, rates=one) for rule, one in rates.items()}
    )


# Momentum and decay -----------------------------------------------------------------------------------


@trainer_law(
    "velocity",
    "The velocity is v = m v + g, and the weights move by rate v.",
    "Polyak 1964, as torch.optim.SGD has it",
    needs="momentum",
    rules={
        "velocity": "v = m v + g",
        "nesterov": "the weights move by rate (g + m v), as Nesterov's look-ahead does",
    },
    slips={"none": "no momentum", "dampened": "v = m v + (1 - m) g"},
)
def velocity(bench: Bench) -> Reading:
    """Rounding as in trajectory: 1 / (1 - m) = 2 times as far at most, which its factor of 8 covers.

    Of two layers too, where those are offered.
    """
    found = [_going(bench, bench.drawn(12, 4, 3, momentum=0.5))]
    with suppress(NotOffered):  # by a program that trains one layer
        found.append(_going(bench, bench.drawn(12, 4, 3, layers=2, momentum=0.5)))
    return first_wrong(found, ["velocity", "nesterov"])


def _going(bench: Bench, asked: Asked) -> Reading:
    table = plan(12, 4, epochs=3)
    rules = {
        rule: bench.expected(asked, table, nesterov=rule == "nesterov") for rule in ("velocity", "nesterov")
    }
    rules["none"] = bench.expected(replace(asked, momentum=0.0), table)
    rules["dampened"] = bench.expected(asked, table, rates=[asked.lr / 2] * len(table), nesterov=False)
    return bench.matched(asked, rules)


@trainer_law(
    "momentum-rate",
    "Under a rate that changes, the velocity is a sum of gradients, times the rate of the step.",
    "v = m v + g, w = w - rate v (torch), or v = m v - rate g, w = w + v (Sutskever 2013, Keras)",
    needs="momentum schedule",
    rules={
        "torch": "v = m v + g, w = w - rate v",
        "keras": "v = m v - rate g, w = w + v: steps taken at a higher rate go on at it",
    },
)
def momentum_rate(bench: Bench) -> Reading:
    """Rounding as of velocity; the rules differ by the change of the rate."""
    asked = bench.drawn(12, 4, 3, momentum=0.5, schedule="linear")
    table = plan(12, 4, epochs=3)
    rules = {
        name: bench.expected(asked, table, rate_inside=inside)
        for name, inside in (("torch", False), ("keras", True))
    }
    return bench.matched(asked, rules)


@trainer_law(
    "decay",
    "Weight decay adds decay w to the gradient.",
    "Krogh, Hertz 1991 (coupled, as torch.optim.SGD); Loshchilov, Hutter 2019 (decoupled)",
    needs="decay",
    rules={
        "coupled": "decay w is added to the gradient",
        "decoupled": "the weights are multiplied by 1 - rate decay",
    },
    slips={"none": "nothing decays", "summed": "by as many times as there are micro-batches"},
)
def decay(bench: Bench) -> Reading:
    """Rounding as in trajectory. Without momentum the two are one, so it is tried with momentum where that is offered.

    Over micro-batches too, and of two layers, where those are offered.
    """
    momentum = bench.offers(momentum=0.5)
    found = [_decayed(bench, bench.drawn(12, 4, 3, decay=0.1, **momentum))]
    if accumulated := bench.offers(accumulate=2):
        found.append(_decayed(bench, bench.drawn(16, 2, 3, decay=0.1, **momentum, **accumulated)))
    with suppress(NotOffered):  # by a program that trains one layer
        found.append(_decayed(bench, bench.drawn(12, 4, 3, layers=2, decay=0.1, **momentum)))
    return first_wrong(found, ["coupled", "decoupled"])


def _decayed(bench: Bench, asked: Asked) -> Reading:
    table = plan(len(asked.examples), asked.batch_size, asked.accumulate, asked.epochs)
    rules = {
        "coupled": bench.expected(asked, table),
        "decoupled": bench.expected(asked, table, decoupled=True),
        "none": bench.expected(replace(asked, decay=0.0), table),
    }
    if asked.accumulate > 1:
        rules["summed"] = bench.expected(replace(asked, decay=asked.accumulate * asked.decay), table)
    return bench.matched(asked, rules)


@trainer_law(
    "decay-rate",
    "Under a rate that changes, what decay takes from the weights is the rate of the step, times decay, times the weights.",
    "torch.optim.SGD and AdamW: the rate multiplies the decay",
    needs="decay schedule",
    rules={
        "rate": "it follows the rate",
        "independent": "it is that of the first rate throughout, independent of the schedule (Wortsman et al. 2023)",
    },
    slips={"twice": "the decay falls too, beside the rate", "none": "nothing decays"},
)
def decay_rate(bench: Bench) -> Reading:
    """Rounding as in trajectory. Without momentum coupled decay and decoupled are one."""
    asked = bench.drawn(12, 4, 3, decay=0.1, schedule="linear")
    fallen = [rate / asked.lr for rate in linear_rates(asked.lr, 9)]
    shares = {
        "rate": [1.0] * 9,
        "independent": [1 / one for one in fallen],
        "twice": fallen,
        "none": [0.0] * 9,
    }
    return bench.matched(asked, {rule: _decaying(bench, asked, one) for rule, one in shares.items()})


def _decaying(bench: Bench, asked: Asked, shares: Sequence[float]) -> Layers:
    """Layers where the decay of each step is a share of what was asked for."""
    layers = [*asked.start]
    for row, rate, share in zip(plan(12, 4, epochs=3), linear_rates(asked.lr, 9), shares, strict=True):
        one = replace(asked, start=tuple(layers), decay=share * asked.decay)
        layers = bench.recursion(one, 1, rates=[rate]).end(row[None])
    return layers
