"""The law of averages of the weights, in the forms that are in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from identity_props.task.minibatch import Layers
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import OFF, apart, tolerance
from identity_props.trainers.ledger import plan
from identity_props.trainers.protocol import Asked, NotOffered
from identity_props.trainers.reading import Reading, first_wrong, read

BETA = 0.75


@trainer_law(
    "average",
    "The averaged weights are a <- beta a + (1 - beta) w after each optimizer step, and training goes on from w.",
    "Polyak, Juditsky 1992; torch.optim.swa_utils; tf.train.ExponentialMovingAverage, num_updates",
    needs="average",
    rules={
        "start": "from the weights at the start",
        "first": "from those after the first step",
        "ramped": "beta rises to it, as (1 + t) / (10 + t), t from 1 or 0, or 1 - (1 + t)^(-2/3), t from 0",
        "corrected": "from 0, divided by 1 - beta^t",
    },
    slips={"zeros": "from 0, and not corrected for it"},
)
def average(bench: Bench) -> Reading:
    """Rounding as in trajectory."""
    found = [_averaged(bench, bench.drawn(8, 2, 2, average=BETA))]
    if accumulated := bench.offers(accumulate=2):
        found.append(_averaged(bench, bench.drawn(8, 2, 2, average=BETA, **accumulated)))
    return first_wrong(found, ["start", "first", "ramped", "corrected"])


def _averaged(bench: Bench, asked: Asked) -> Reading:
    trained = bench.trained(asked)
    if trained.averaged is None:
        raise NotOffered("averaged, which it does not report")
    table = plan(8, 2, asked.accumulate, 2)
    states = [*bench.recursion(asked, len(table)).states(table)]
    weights = bench.matched(asked, {"": states[-1]})
    if not weights.found.holds:
        return replace(
            weights, words="the weights that are trained are not those of a training without average"
        )
    zeros = [torch.zeros_like(one) for one in states[0]]
    from_zero = _mean(zeros, states[1:])
    rules = {
        "start": [_mean(states[0], states[1:])],
        "first": [_mean(states[1], states[2:])],
        "ramped": [_mean(states[0], states[1:], ramp) for ramp in RAMPS],
        "corrected": [[one / (1 - BETA ** (len(states) - 1)) for one in from_zero]],
        "zeros": [from_zero],
    }
    offs = {
        rule: min(apart(trained.averaged, one, asked.start) for one in means) for rule, means in rules.items()
    }
    return read(offs, tolerance(bench.dtype, 16), f"of the averaged weights, {OFF}")


# of the t-th update, from 1, up to beta: torch_ema's, TensorFlow's num_updates, diffusers' and ema_pytorch's
RAMPS: tuple[Callable[[int], float], ...] = (
    lambda t: (1 + t) / (10 + t),
    lambda t: t / (9 + t),
    lambda t: t / (9 + t) if t > 1 else 0.0,
    lambda t: 1 - t ** (-2 / 3),
)


def _mean(start: Layers, states: list[Layers], ramp: Callable[[int], float] = lambda t: BETA) -> Layers:
    mean = start
    for t, state in enumerate(states, 1):
        beta = min(BETA, ramp(t))
        mean = [beta * a + (1 - beta) * w for a, w in zip(mean, state, strict=True)]
    return mean
