"""Laws of one linear layer: its whole trajectory is known."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from identity_props.laws.base import (
    ADAM,
    RMSPROP,
    SGD,
    WEIGHT,
    Case,
    Descent,
    Discrepancy,
    State,
    descend,
    isotropic,
    law,
    relative,
    rounding,
    worst,
)
from identity_props.stack.stack import Stack
from identity_props.task.theory import (
    gd_weights,
    momentum_edge,
    momentum_weights,
    off_span_limit,
    rmsprop_floor,
)


def _exact(stack: Stack, descent: Descent, expected: list[Tensor], what: str) -> Discrepancy:
    n, d = descent.x.shape[1:]
    tolerance = rounding(stack.dtype, len(expected) - 1, n, d)
    return Discrepancy(relative(descent.weights(), expected), tolerance, what)


@law(
    "gd-trajectory",
    "full-batch gradient descent is W_k - I = (W_0 - I)(I - eta S)^k: each eigenmode shrinks by"
    " |1 - eta lambda_i| a step, neither slower nor faster",
    "derived in theory.gd_weights",
    "sgd three-steps odd-width float64 float32",
    needs="gradient-descent, affine layer, mean squared error",
    kind="rate",
)
def gd_trajectory(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over k steps of sums over n examples and d pixels."""
    descent = descend(stack, case)
    start, lr = descent.weights()[0], descent.lr
    expected = [gd_weights(start, descent.moment, lr, k) for k in range(case.steps + 1)]
    return _exact(stack, descent, expected, "|W - predicted| / |predicted|")


def _on_largest(descent: Descent) -> Tensor:
    """|(W - I) v_1| [K] at the end over that at the start, v_1 the largest eigenvector."""
    v = torch.linalg.eigh(descent.moment).eigenvectors[:, :, -1:]
    eye = torch.eye(v.shape[1], dtype=v.dtype)
    first, last = (((w - eye) @ v).norm(dim=(1, 2)) for w in (descent.weights()[0], descent.weights()[-1]))
    return last / first


def _wrong_side(below: Tensor, above: Tensor, what: str) -> Discrepancy:
    wrong = (~(below < 1)).sum() + (~(above > 1)).sum()
    return Discrepancy(float(wrong), 0, what)


@law(
    "critical-step",
    "gradient descent converges for a rate below d / lambda_1 and diverges above it",
    "|1 - 2 lr lambda_1 / d| < 1, from gd-trajectory",
    "sgd three-steps",
    needs="gradient-descent, affine layer, mean squared error",
    kind="rate",
)
def critical_step(stack: Stack, case: Case) -> Discrepancy:
    """None: 2% off the critical rate the largest mode changes by 4% a step, far above rounding."""
    below, above = (descend(stack, case, lr=side * case.critical_rate) for side in (0.98, 1.02))
    return _wrong_side(_on_largest(below), _on_largest(above), "data sets on the wrong side at 2%")


@law(
    "fvu-prediction",
    "the error after k steps is sum_i lambda_i e_i (1 - eta lambda_i)^(2k) / d, e_i = |(W_0 - I) v_i|^2",
    "gd-trajectory on each eigenvector",
    "sgd three-steps odd-width float64 float32",
    needs="gradient-descent, affine layer, mean squared error",
    kind="rate",
)
def fvu_prediction(stack: Stack, case: Case) -> Discrepancy:
    """That of gd-trajectory, twice since errors are squared, relative to the first error."""
    descent = descend(stack, case)
    eigenvalues, v = torch.linalg.eigh(descent.moment)
    eye = torch.eye(case.d, dtype=torch.float64)
    strength = ((descent.weights()[0] - eye) @ v).square().sum(1)  # [K, d]
    shrink = (1 - 2 * descent.lr / case.d * eigenvalues) ** 2
    expected = torch.stack([(eigenvalues * strength * shrink**k).sum(1) for k in range(case.steps + 1)])
    outputs = (descent.x @ w.mT for w in descent.weights())
    error = torch.stack([(out - descent.x).square().sum(2).mean(1) for out in outputs])  # [steps + 1, K]
    off = ((error - expected).abs() / expected[0]).max()
    tolerance = 2 * rounding(stack.dtype, case.steps, *descent.x.shape[1:])
    return Discrepancy(float(off), tolerance, "|error - predicted| / first error")


@law(
    "off-span",
    "the limit is W_0 (I - P) + P, P the projector on the span of the data: off it W_0 stays, so a"
    " perfect W is not I, and f(x) = x on the data all the same",
    "gd-trajectory where lambda_i = 0",
    "sgd three-steps float64",
    needs="gradient-descent, affine layer, mean squared error",
    kind="off-span moved",
)
def off_span(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps. Examples of one length, in fewer directions than pixels: at half the
    critical rate each step projects, so the limit is reached in one and kept from there.
    """
    spanned = isotropic(case)[:, : max(1, case.d // 2)]
    descent = descend(stack, case, x=spanned, lr=_projecting(spanned))
    limit = off_span_limit(descent.weights()[0], descent.moment)
    expected = [descent.weights()[0], *[limit] * case.steps]
    return _exact(stack, descent, expected, "|W - limit| / |limit|")


def _projecting(examples: Tensor) -> float:
    """The rate at which a full-batch step on orthogonal examples [K, n, d] of one length ends the task.

    eta lambda = 1 with lambda = |x|^2 / n: half the critical rate.
    """
    n, d = examples.shape[1:]
    return d * n / (2 * float(examples[0, 0].square().sum()))


@law(
    "dead-columns",
    "the weights of an always-zero pixel never move under SGD, RMSprop and Adam without decay",
    "their gradient is a sum of zeros",
    "sgd rmsprop adam momentum three-steps",
    needs="still, taking gradients uncentred, affine layer",
    kind="off-span moved",
)
def dead_columns(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps of a number: nothing is added, but some write weights anew, or turn gradients in
    a basis and back.
    """
    x = case.x.clone()
    x[:, :, 0] = 0
    moved = 0
    for optimizer, arguments in ((SGD, {"momentum": 0.9}), (RMSPROP, {}), (ADAM, {})):
        given = {} if stack.optimizer else arguments
        descent = descend(stack, case, optimizer=optimizer, x=x, arguments=given)
        first, *_, last = ({WEIGHT: w[:, :, :1]} for w in descent.weights())
        moved += astray(stack, case, first, last)
    return Discrepancy(moved, 0, "weights of dead pixels that moved")


def astray(stack: Stack, case: Case, first: State, last: State) -> int:
    """Number of entries that moved by more than rounding of the largest of their tensor; NaN has."""
    least = rounding(stack.dtype, case.steps, 1)
    return sum(int((~((last[name] - w).abs() <= least * w.abs().max())).sum()) for name, w in first.items())


@law(
    "equal-pixels",
    "pixels that are always equal get equal updates, and swapping their weights leaves every output: a"
    " whole space of perfect solutions",
    "their columns of the gradient are the same sum; W x depends on the sum of their weights alone",
    "sgd three-steps",
    needs="gradient-descent, affine layer, mean squared error",
)
def equal_pixels(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of the outputs, sums over d pixels; updates are compared over the same k steps."""
    x = case.x.clone()
    x[:, :, 0] = x[:, :, -1]
    descent = descend(stack, case, x=x, lr=case.lr / 2)  # doubling a pixel at most doubles lambda_1
    first, last = descent.weights()[0], descent.weights()[-1]
    apart = (last - first)[:, :, 0] - (last - first)[:, :, -1]
    swapped = last.clone()
    swapped[:, :, [0, -1]] = last[:, :, [-1, 0]]
    outputs = relative([descent.x @ swapped.mT], [descent.x @ last.mT])
    moved = float((apart.norm(dim=1) / last.norm(dim=(1, 2))).max())
    tolerance = rounding(stack.dtype, case.steps, *x.shape[1:])
    return Discrepancy(worst([outputs, moved]), tolerance, "updates or outputs apart after a swap")


@law(
    "weight-decay",
    "coupled decay leads to W* = S (S + (d wd / 2) I)^-1, on a trajectory known at every step",
    "derived in theory.gd_weights",
    "sgd decay three-steps odd-width float64",
    needs="gradient-descent, decay, affine layer, mean squared error",
    kind="wrong fixed point",
)
def weight_decay(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over k steps; a decay of 0.05 a step leaves every mode stable."""
    decay = 0.05 / case.lr
    descent = descend(stack, case, arguments={"weight_decay": decay})
    start, lr = descent.weights()[0], descent.lr
    expected = [gd_weights(start, descent.moment, lr, k, decay) for k in range(case.steps + 1)]
    return _exact(stack, descent, expected, "|W - predicted| / |predicted|")


@law(
    "no-noise-floor",
    "single examples at a constant rate reach the answer down to rounding: the target can be realised, so"
    " there is no noise to hover in",
    "Ma, Bassily, Belkin 2018, 1712.06559; derived here for orthogonal examples, where each step projects",
    "sgd float64 float32",
    needs="gradient-descent, affine layer, mean squared error",
    kind="floor",
)
def no_noise_floor(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps: at eta = 1 / |x|^2 each step ends the error on its example, and leaves
    that on the others, which are orthogonal to it.
    """
    examples = isotropic(case)

    def one_by_one(x: Tensor) -> Iterable[Tensor]:
        return x.split(1, dim=1)

    lr = _projecting(examples[:, :1])
    descent = descend(stack, case, x=examples, lr=lr, batches=one_by_one)
    end = descent.weights()[-1]
    eye = torch.eye(case.d, dtype=torch.float64).expand_as(end)
    tolerance = rounding(stack.dtype, case.d, 1, case.d)
    return Discrepancy(relative([end], [eye]), tolerance, "|W - I| / |I| after one pass")


@law(
    "momentum",
    "heavy-ball momentum is W_k - I = (W_0 - I) p_k(S), p_(k+1) = (1 + mu - eta lambda) p_k - mu p_(k-1)",
    "Polyak 1964, derived in theory.momentum_weights",
    "sgd momentum three-steps odd-width float64",
    needs="momentum, affine layer, mean squared error",
    kind="rate",
)
def momentum(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over k steps, each carried on by at most 1 / (1 - mu) = 10 times through the velocity."""
    descent = descend(stack, case, arguments={"momentum": 0.9})
    start, lr = descent.weights()[0], descent.lr
    expected = [momentum_weights(start, descent.moment, lr, 0.9, k) for k in range(case.steps + 1)]
    exact = _exact(stack, descent, expected, "|W - predicted| / |I|")
    size = case.d**0.5  # weights pass through zero on their way, so they are compared with |I|
    apart = worst(
        float((a - b).norm(dim=(1, 2)).max()) for a, b in zip(descent.weights(), expected, strict=True)
    )
    return Discrepancy(apart / size, 10 * exact.tolerance * (1 + _spread(start)), exact.what)


def _spread(start: Tensor) -> float:
    eye = torch.eye(start.shape[-1], dtype=start.dtype)
    return float((start - eye).norm(dim=(1, 2)).max()) / start.shape[-1] ** 0.5


EDGE_STEPS = 60  # 2% below the edge modes shrink by 0.95 a step, 2% above they grow by 1.26


@law(
    "momentum-edge",
    "heavy-ball momentum converges for a rate below d (1 + mu) / lambda_1 and diverges above it",
    "Polyak 1964: a root of r^2 - (1 + mu - eta lambda) r + mu reaches -1",
    "sgd momentum three-steps",
    needs="momentum, affine layer, mean squared error",
    kind="rate",
)
def momentum_stability(stack: Stack, case: Case) -> Discrepancy:
    """None: after 60 steps the largest mode has shrunk or grown by a factor of 10 at least."""
    edge = momentum_edge([1.0], 0.9) * case.critical_rate

    def often(x: Tensor) -> Iterable[Tensor]:
        return [x] * EDGE_STEPS

    below, above = (
        descend(stack, case, lr=side * edge, batches=often, arguments={"momentum": 0.9})
        for side in (0.98, 1.02)
    )
    return _wrong_side(_on_largest(below), _on_largest(above), "data sets on the wrong side at 2%")


@law(
    "adaptive-floor",
    "RMSprop at a constant rate ends, and stays, within lr / sqrt(1 - alpha) of the answer, but not below"
    " rounding: the rate has to decay",
    "derived in theory.rmsprop_floor",
    "rmsprop three-steps",
    needs="rmsprop, affine layer, mean squared error",
    kind="floor",
)
def adaptive_floor(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of weights near 1. Weights start within 1 + sqrt(6 / 2d) < 3 of the answer and each step
    is lr or longer once the running mean has caught up with the gradient, 64 steps of 1/16 at most.
    """
    lr, alpha = 1 / 16, 0.9

    def often(x: Tensor) -> Iterable[Tensor]:
        return [x] * 96

    arguments = {"alpha": alpha, "eps": 1e-30}
    descent = descend(
        stack, case, x=isotropic(case), lr=lr, optimizer=RMSPROP, batches=often, arguments=arguments
    )
    eye = torch.eye(case.d, dtype=torch.float64)
    farthest = worst(float((w - eye).abs().max()) for w in descent.weights()[64:])
    tolerance = rmsprop_floor(lr, alpha) * (1 + rounding(stack.dtype, 96, case.d))
    return Discrepancy(farthest, tolerance, "largest |W - I| from step 64 on")
