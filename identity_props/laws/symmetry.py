"""Metamorphic laws: change the data, and the result changes in a known way."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import takewhile

import torch

from identity_props.laws.base import (
    ADAM,
    RMSPROP,
    WEIGHT,
    Case,
    Discrepancy,
    State,
    changed,
    descend,
    law,
    relative,
    rounding,
)
from identity_props.laws.walking import NotOfferedError, offered
from identity_props.stack.stack import Stack, resolve, without_eps
from identity_props.task.models import Variant

# a weight beyond it was divided by an eps of 1e-308: of steps at a rate of 1/128 nothing else comes near
WILD = 1e100
TWO_LINEAR = Variant("linear", 2, "none", bias=False)


def _wild(state: State) -> bool:
    return any(bool((p.abs() > WILD).any()) for p in state.values())


def _tolerance(stack: Stack, case: Case) -> float:
    return rounding(stack.dtype, case.steps, *case.x.shape[1:])


@law(
    "scale-sgd",
    "input c x at rate lr / c^2 gives the same weights under SGD",
    "the gradient of a bias-free linear layer is of second degree in x",
    "sgd three-steps float64 float32",
    needs="gradient-descent, affine layer, mean squared error",
)
def scale_sgd(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps: c = 3 is not a power of two."""
    one = descend(stack, case)
    other = descend(stack, case, x=3 * case.x, lr=case.lr / 9)
    return Discrepancy(relative(other.weights(), one.weights()), _tolerance(stack, case), "|W - W'| / |W|")


@law(
    "scale-adaptive",
    "RMSprop and Adam give the same weights for x and c x as eps goes to 0: scaling the input does nothing",
    "an update is a ratio of moments of the gradient (Kingma, Ba 2015, 1412.6980)",
    "rmsprop adam three-steps",
    needs="scale-free, affine layer, squared error",
)
def scale_adaptive(stack: Stack, case: Case) -> Discrepancy:
    """None: c is a power of two, so that every product is scaled exactly; eps, where there is
    one, is the least normal number, far below a gradient of mere rounding. Where both end beyond
    1e100 it was needed, as by squares of 0 in a basis that turns, and nothing is compared from there on; nor of
    one that raises with so small an eps.
    """
    apart = 0
    for optimizer in (RMSPROP, ADAM):
        arguments = without_eps(stack.optimizer or resolve(optimizer), stack.mode)
        with offered(f"eps={arguments['eps']:.3g}") if arguments else nullcontext():
            one, other = (
                descend(stack, case, optimizer=optimizer, lr=1 / 128, x=c * case.x, arguments=arguments)
                for c in (1, 4)
            )
        both = zip(one.states, other.states, strict=True)
        start, *tame = takewhile(lambda pair: not all(map(_wild, pair)), both)
        if not tame:
            raise NotOfferedError("not offered: steps without eps, by which its first divides")
        apart += sum(changed(a, b) for a, b in (start, *tame))
    return Discrepancy(apart, 0, "weights that differ")


@law(
    "permute",
    "permuting pixels permutes rows and columns of the weights",
    "P W P^T, as no pixel is special",
    "sgd three-steps odd-width",
    needs="gradient-descent, affine layer, mean squared error",
)
def permute(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps, as sums run in another order."""
    order = torch.randperm(case.d, generator=case.generator())
    one = descend(stack, case)
    start = {WEIGHT: one.weights()[0][:, order][:, :, order]}
    other = descend(stack, case, x=case.x[:, :, order], start=start)
    expected = [w[:, order][:, :, order] for w in one.weights()]
    return Discrepancy(relative(other.weights(), expected), _tolerance(stack, case), "|W - P W' P^T| / |W|")


@law(
    "rotate",
    "an orthogonal change of basis Q turns W into Q W Q^T under SGD, and not under an elementwise"
    " adaptive optimizer",
    "the loss is invariant, and so is its gradient's direction",
    "sgd three-steps odd-width",
    needs="gradient-descent, affine layer, mean squared error",
)
def rotate(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps, and of the rotation itself, sums over d pixels."""
    drawn = torch.randn(case.d, case.d, generator=case.generator(), dtype=torch.float64)
    q = torch.linalg.qr(drawn).Q
    one = descend(stack, case)
    other = descend(stack, case, x=case.x @ q.T, start={WEIGHT: q @ one.weights()[0] @ q.T})
    expected = [q @ w @ q.T for w in one.weights()]
    tolerance = _tolerance(stack, case) + rounding(stack.dtype, case.steps, case.d, case.d)
    return Discrepancy(relative(other.weights(), expected), tolerance, "|W - Q W' Q^T| / |W|")


@law(
    "replicate",
    "every example twice gives the same full-batch trajectory",
    "the loss is a mean over examples",
    "sgd three-steps",
    needs="gradient-descent, affine layer",
)
def replicate(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps of sums over twice the examples."""
    one, other = descend(stack, case), descend(stack, case, x=case.x.repeat(1, 2, 1))
    tolerance = rounding(stack.dtype, case.steps, 2 * case.x.shape[1], case.d)
    return Discrepancy(relative(other.weights(), one.weights()), tolerance, "|W - W'| / |W|")
