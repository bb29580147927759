"""Laws of where a stack runs: another device, compiled code, several ranks, coarser products, from a record."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed

from identity_props.engine.ensemble import Ensemble, Single
from identity_props.engine.recorded import RecordedRows, RecordedSingle
from identity_props.laws.base import (
    ADAM,
    LAYER,
    SGD,
    WEIGHT,
    Case,
    Discrepancy,
    descend,
    ensemble_of,
    gentle,
    law,
    optimizer_of,
    relative,
    rounding,
    snapshot,
    worst,
)
from identity_props.stack.stack import Stack, at_home
from identity_props.task.models import Variant

TWO_RELU = Variant("plain-relu", 2, "none")


@law(
    "parity-gradients",
    "loss and gradients are those of the same network on the CPU, eager, in one process",
    "a device, compiler or split of the batch changes how numbers are computed, not which",
    "sgd odd-width compiled two-ranks",
    needs="another device or mode or ranks, repeatable in training",
)
def parity_gradients(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of sums over examples and pixels, two layers deep, in another order."""
    there, here = (_gradients(one, case) for one in (stack, at_home(stack)))
    size = sum(float(g.square().sum()) for g in here) ** 0.5
    off = sum(float((a - b).square().sum()) for a, b in zip(there, here, strict=True)) ** 0.5
    tolerance = rounding(stack.dtype, 1, case.x.shape[1], case.d, case.d)
    return Discrepancy(off / max(size, torch.finfo(torch.float64).tiny), tolerance, "|g - g'| / |g|")


def _gradients(stack: Stack, case: Case) -> list[Tensor]:
    """Of each parameter [K, ...] that trains, after one backward pass; NaN where none came."""
    ensemble = ensemble_of(stack, case, TWO_RELU)
    ensemble.loss(case.x.to(stack.device, stack.dtype)).backward()
    missing = torch.tensor(math.nan)
    return [(missing if p.grad is None else p.grad).double().cpu() for p in ensemble.parameters]


@law(
    "ranks-equal",
    "data-parallel ranks hold the same parameters bit for bit after every step",
    "each applies the same mean gradient to the same numbers; a loss is blind to ranks that drift apart",
    "sgd adam three-steps two-ranks",
    needs="several ranks",
    kind="ranks differ",
)
def ranks_equal(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers."""
    differ = 0
    for optimizer in (SGD, ADAM):
        lr = gentle(stack, case, optimizer)
        for state in descend(stack, case, TWO_RELU, optimizer, lr).states:
            for p in state.values():
                held = [torch.empty_like(p) for _ in range(stack.ranks)]
                distributed.all_gather(held, p.contiguous())
                differ += sum(int((~(other == held[0])).sum()) for other in held)  # NaN differs
    return Discrepancy(differ, 0, "entries of parameters that differ from rank 0's")


@law(
    "recorded",
    "gradients recorded once, of parameters in rows of one tensor, train as those found anew at every step",
    "the same operations on the same numbers",
    "sgd three-steps odd-width float64",
    needs="gradient-descent, torch's own network",
)
def recorded(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps of sums over examples and pixels, two layers deep: a product may take its
    sums in another order where its matrices lie elsewhere. Of 49 pixels, not a bit was seen to change.
    """
    x, trained = case.x.to(stack.device, stack.dtype), []
    lr = min(gentle(stack, case), 0.1)  # biases, the steeper directions of faint pixels, diverge from d on
    alone = case.replicas == 1
    for kind in (Single, RecordedSingle) if alone else (Ensemble, RecordedRows):
        ensemble = kind(TWO_RELU, case.d, case.seeds, stack)
        optimizer = optimizer_of(stack, SGD, ensemble.parameters, lr)
        for _ in range(case.steps):
            ensemble.step(optimizer, x)
        trained.append(snapshot(ensemble))
    plain, other = trained
    apart = worst(relative([other[name]], [plain[name]]) for name in plain)
    tolerance = rounding(stack.dtype, case.steps, case.x.shape[1], case.d, case.d)
    return Discrepancy(apart, tolerance, "|W - W'| / |W|")


def _at_identity(stack: Stack, case: Case) -> tuple[Tensor, Tensor]:
    """Data [K, n, d] in float32, and what a layer with W = I makes of it."""
    stack = at_home(stack, device=stack.device, dtype=torch.float32)
    x = case.x.to(stack.device, stack.dtype)
    start = {WEIGHT: torch.eye(case.d, dtype=torch.float64).expand(case.replicas, -1, -1)}
    with torch.no_grad():
        return x, ensemble_of(stack, case, LAYER, start).predict(x)


@law(
    "autocast-floor",
    "under autocast a layer with W = I rounds its input to bfloat16 and nothing else: a floor of known size",
    "products with 1 and sums of zeros are exact, so only the cast to 8 bits is left",
    "bfloat16",
    needs="affine layer, taking float32",
    kind="floor",
)
def autocast_floor(stack: Stack, case: Case) -> Discrepancy:
    """None: a number is rounded to the nearest of bfloat16, ties to even, or it is not."""
    with torch.autocast(torch.device(stack.device).type, torch.bfloat16):
        x, out = _at_identity(stack, case)
    return Discrepancy(int((~(out == x.bfloat16())).sum()), 0, "outputs that are not their rounded input")


@law(
    "tf32-floor",
    "a layer with W = I gives float32 input bit for bit, and with TF32 allowed off by 2^-10 of it at most",
    "TF32 keeps 11 bits, the hidden one counted, and half a unit or a whole one is lost as it rounds or cuts",
    "float32",
    needs="affine layer, cuda",
    kind="floor",
)
def tf32_floor(stack: Stack, case: Case) -> Discrepancy:
    """None for the first half; one unit in the last place of 11 bits for the second."""
    matmul, off = torch.backends.cuda.matmul, []
    before = matmul.allow_tf32
    try:
        for matmul.allow_tf32, floor in ((False, 0.0), (True, 2.0**-10)):
            x, out = _at_identity(stack, case)
            off.append(float(((out - x).abs() - floor * x.abs()).max()))
    finally:
        matmul.allow_tf32 = before
    return Discrepancy(worst(off), 0.0, "|f(x) - x| beyond its floor")
