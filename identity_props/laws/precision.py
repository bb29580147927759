"""Laws of steps in a low precision: which of them rounding loses, and that rounding at random loses none in the mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from identity_props.laws.base import SGD, Case, Discrepancy, law, optimizer_of, worst
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack

LOST = {torch.bfloat16: 8, torch.float16: 11}  # mantissa bits, the hidden one counted


@law(
    "dtype-floor",
    "a step from 1 is lost up to 2^-9 down and 2^-8 up in bfloat16, 2^-12 and 2^-11 in float16, and no other",
    "numbers below 1 lie 2^-p apart, above 2^(1-p), p = 8 and 11; ties round to even, which is 1",
    "sgd bfloat16",
    needs="gradient-descent, rounding to nearest, stepping on given gradients",
    kind="floor",
)
def dtype_floor(stack: Stack, case: Case) -> Discrepancy:
    """None: a step is lost or it is not. Steps lie 1/8 off each power of two, and on it."""
    wrong = 0
    for dtype, p in LOST.items():
        sizes = [2.0**-j * f for j in range(p - 4, p + 6) for f in (0.875, 1, 1.125)]
        steps = torch.tensor(sizes + [-size for size in sizes], dtype=torch.float64)
        parameter = torch.nn.Parameter(torch.ones(len(steps), dtype=dtype, device=stack.device))
        parameter.grad = steps.to(parameter)
        optimizer_of(stack, SGD, [parameter], 1.0).step()
        lost = torch.where(steps > 0, steps <= 2.0 ** -(p + 1), -steps <= 2.0**-p)
        wrong += int(((parameter.detach().cpu() == 1) != lost).sum())
    return Discrepancy(wrong, 0, "steps lost that should count, or the other way")


ENTRIES = 2**16


@law(
    "stochastic-rounding",
    "steps that are rounded at random to bfloat16 are lost in no mean: of those a sixteenth as long as the"
    " distance of two numbers one in sixteen is taken",
    "E[round(x)] = x (Gupta et al. 2015, 1502.02551)",
    "bfloat16",
    needs="rounding at random, stepping on given gradients",
    kind="floor",
)
def stochastic_rounding(stack: Stack, case: Case) -> Discrepancy:
    """A binomial test of 65,536 entries, down from 1 and up from it, at 1e-7 false alarms each: discrepancy
    -log10 p, allowed 7. A share that is off by a tenth of itself is found with probability .99; rounding in the
    arithmetic of the step itself, to 8 bits, is off by 0.4%.
    """
    from scipy.special import bdtr, bdtrc  # half a second, which listing the laws does without

    surprises = []
    for sign, apart in ((1.0, 2.0**-8), (-1.0, 2.0**-7)):
        with seeded(case.seed, stack.device):
            exact = float(step_from_one(stack, apart / 16, sign))
            steps = step_from_one(stack, apart / 16, sign, ENTRIES, torch.bfloat16)
        taken = float(steps.double().sum()) / apart
        share = exact / apart
        tail = 2 * min(bdtr(taken, ENTRIES, share), bdtrc(taken - 1, ENTRIES, share))
        surprises.append(-math.log10(max(tail, 1e-300)))
    return Discrepancy(worst(surprises), 7, f"-log10 p of steps taken of {ENTRIES}")


def step_from_one(
    stack: Stack, lr: float, sign: float, entries: int = 1, dtype: torch.dtype = torch.float64
) -> Tensor:
    """How far against a gradient of ``sign`` each of some entries goes from 1 in a step."""
    parameter = torch.nn.Parameter(torch.ones(entries, dtype=dtype, device=stack.device))
    parameter.grad = torch.full_like(parameter, sign)
    optimizer_of(stack, SGD, [parameter], lr).step()
    return sign * (1 - parameter.detach()).cpu()
