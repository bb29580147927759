"""Learning: whether a stack learns the identity at a rate of its own, which is searched on a grid."""

from __future__ import annotations

import math
from dataclasses import replace

from identity_props.claims.registry import Claim, budget, learns
from identity_props.claims.verdict import Outcome, judge, trainer
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels, digits
from identity_props.task.models import Variant

LEARNS = "learns-identity"
RATES = tuple(10 ** (half / 2) for half in range(-8, 5))  # 1e-4 to 1e2 in half decades
WHITENED = Variant("scaled-input", 1, "whiten", bias=False)  # of mean 0, so a bias has nothing to do


def learning_trial(lr: float, steps: int) -> Trial:
    """A linear layer on whitened pixels, in full batches at a rate that decays to 0."""
    # full batches: Rprop and L-BFGS are made for them, and the others do not mind
    return Trial(WHITENED, Recipe("torch.optim:SGD", lr, schedule="linear-decay", batch_size=None), steps)


def find_rate(stack: Stack, pixels: Pixels, seeds: range = range(2)) -> float:
    """The rate of RATES at which a quarter of the budget leaves the least FVU, at the worst of the seeds.

    The grid goes from what adaptive optimizers want to d / lambda_1, gradient descent's critical rate
    on whitened pixels. Raises InputError where no rate leaves a finite one.
    """
    steps = budget(pixels.d) // 4
    ends = {}
    for lr in RATES:
        run = train(learning_trial(lr, steps), pixels, seeds, replace(stack, lr=None))
        ends[lr] = float(run.fvu[:, -1].nan_to_num(math.inf).max())
    best = min(ends, key=lambda lr: ends[lr])
    if not math.isfinite(ends[best]):
        raise InputError(f"lr: expected a finite FVU at one of {RATES[0]:g} to {RATES[-1]:g}, got none")
    return best


def learning(stack: Stack, seed: int = 0) -> tuple[Outcome, float]:
    """Whether the stack learns the identity: a linear layer on whitened digits, and at which rate."""
    pixels = digits(7, train=512, test=512)
    lr = find_rate(stack, pixels) if stack.lr is None else stack.lr
    claim = Claim(
        name=LEARNS,
        expects="learns",
        statement="a linear layer on whitened pixels ends near-identity within 1,250 steps",
        source="its spectrum is flat: gradient descent needs one step",
        evidence="8 of 8 seeds with each of 13 optimizers of torch 2.15, five times over",
        share=1 / 2,
        plan=lambda pixels: (learning_trial(lr, budget(pixels.d)),),
        succeeded=learns,
    )
    return judge(claim, pixels, trainer(pixels, replace(stack, lr=lr)), seed=seed), lr
