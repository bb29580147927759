"""Laws of deep linear, residual and ReLU networks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from identity_props.laws.base import (
    ADAM,
    RMSPROP,
    SGD,
    Case,
    Discrepancy,
    changed,
    descend,
    ensemble_of,
    gentle,
    isotropic,
    law,
    rounding,
    worst,
)
from identity_props.laws.linear import astray
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant
from identity_props.task.theory import (
    bottleneck_floor,
    relu_floor,
    saxe_mode,
    second_moment,
)

TWO_LINEAR = Variant("linear", 2, "none", bias=False)
TWO_RELU = Variant("plain-relu", 2, "none")
FIRST, SECOND = "layers.0.weight", "layers.1.weight"


@law(
    "balanced",
    "W_2^T W_2 - W_1 W_1^T changes only by the squares of the steps, (dW_2)^T dW_2 - dW_1 dW_1^T: gradient"
    " flow keeps it",
    "Du, Hu, Lee 2018, 1806.00900; the discrete form follows from W_2^T G_2 = G_1 W_1^T",
    "sgd three-steps odd-width float64",
    needs="gradient-descent, affine layer",
)
def balanced(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over k steps of sums over examples and pixels, of products of weights."""
    descent = descend(stack, case, TWO_LINEAR, lr=gentle(stack, case))

    def gap(first: Tensor, second: Tensor) -> Tensor:
        return second.mT @ second - first @ first.mT

    pairs = list(zip(descent.weights(FIRST), descent.weights(SECOND), strict=True))
    squares = sum(gap(b - a, d - c) for (a, c), (b, d) in pairwise(pairs))
    drift = gap(*pairs[-1]) - gap(*pairs[0]) - squares
    largest = worst(float(w.norm(dim=(1, 2)).max()) for pair in pairs for w in pair)
    size = max(largest**2, torch.finfo(torch.float64).tiny)
    tolerance = rounding(stack.dtype, case.steps, case.d, case.x.shape[1])
    return Discrepancy(float(drift.norm(dim=(1, 2)).max()) / size, tolerance, "unexplained drift / |W|^2")


SAXE_STEP, SAXE_STEPS, SAXE_START = 1 / 64, 128, 0.1  # eta lambda, so t = 2, and u_0


@law(
    "saxe-mode",
    "two aligned linear layers learn a mode as u(t) = s e^(2st) / (e^(2st) - 1 + s / u_0): a plateau, then a"
    " sudden rise",
    "Saxe, McClelland, Ganguli 2014, 1312.6120",
    "sgd three-steps",
    needs="gradient-descent, affine layer, mean squared error",
    kind="rate",
)
def saxe(stack: Stack, case: Case) -> Discrepancy:
    """Euler's error for da/dt = a (1 - a^2), u = a^2, is at most h (max |a''| / 2)(e^t - 1) in a, since
    1 - 3 a^2 <= 1; |a''| <= 0.28 on [0, 1], and du = 2 a da.
    """
    examples, h = isotropic(case), SAXE_STEP
    eye = torch.eye(case.d, dtype=torch.float64).expand(case.replicas, -1, -1)
    start = {FIRST: eye * SAXE_START**0.5, SECOND: eye * SAXE_START**0.5}

    def often(x: Tensor) -> Iterable[Tensor]:
        return [x] * SAXE_STEPS

    lr = h * case.critical_rate / 2  # isotropic data, so lambda = d / critical rate
    descent = descend(stack, case, TWO_LINEAR, lr=lr, x=examples, batches=often, start=start)
    pairs = zip(descent.weights(FIRST), descent.weights(SECOND), strict=True)
    modes = [(second @ first).diagonal(dim1=1, dim2=2) for first, second in pairs]
    expected = torch.from_numpy(saxe_mode([h * k for k in range(SAXE_STEPS + 1)], SAXE_START))
    off = float((torch.stack(modes) - expected[:, None, None]).abs().max())
    tolerance = h * 0.28 * (math.exp(h * SAXE_STEPS) - 1)
    return Discrepancy(off, tolerance, "largest |u - u(t)|")


@law(
    "negative-eigenvalue",
    "from the identity, small steps never learn a map with an eigenvalue of -1: that mode of a deep linear"
    " net shrinks to 0 and stays",
    "Bartlett, Helmbold, Long 2018, 1802.06093; derived here: with h (a^2 + 1) < 1 a mode a of both layers"
    " stays positive, so the product never falls below 0",
    "sgd three-steps",
    needs="gradient-descent, affine layer, mean squared error",
    kind="wrong fixed point",
)
def negative_eigenvalue(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of the product; half of the statement, that the mode does shrink, is checked by sign."""
    examples = isotropic(case)
    eye = torch.eye(case.d, dtype=torch.float64)
    flip = eye.clone()
    flip[0, 0] = -1
    start = {name: eye.expand(case.replicas, -1, -1) for name in (FIRST, SECOND)}

    def often(x: Tensor) -> Iterable[Tensor]:
        return [x] * 24

    lr = case.critical_rate / 8  # eta lambda = 1/4
    target = examples @ flip
    descent = descend(stack, case, TWO_LINEAR, lr=lr, x=examples, batches=often, start=start, target=target)
    mode = (descent.weights(SECOND)[-1] @ descent.weights(FIRST)[-1])[:, 0, 0]
    below, above = float((-mode).max()), float(mode.max()) - 0.1
    return Discrepancy(worst([below, above]), rounding(stack.dtype, 24, case.d), "mode outside of 0 to 0.1")


@law(
    "bottleneck",
    "a linear net of width r has an error of sum_(i > r) lambda_i / d or more, whatever the training, and"
    " attains it with the r leading eigenvectors",
    "Eckart, Young 1936; Baldi, Hornik 1989",
    "sgd odd-width float64",
    needs="affine layer",
    kind="floor",
)
def bottleneck(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of errors, sums over examples and pixels of the size of the data's own."""
    width = max(1, case.d // 2)
    variant = Variant("linear", 2, "none", width=width, bias=False)
    eigenvalues, v = torch.linalg.eigh(second_moment(case.x.to(stack.dtype)))
    floor, total = bottleneck_floor(eigenvalues, width), eigenvalues.sum(1) / case.d
    leading = v[:, :, -width:]
    best = {FIRST: leading.mT, SECOND: leading}
    x = case.x.to(stack.device, stack.dtype)
    trained = descend(stack, case, variant, lr=gentle(stack, case))
    under = worst(float(((floor - _error(trained.x, state)) / total).max()) for state in trained.states)
    attained = ensemble_of(stack, case, variant, best)
    error = (attained.predict(x).detach() - x).double().square().mean((1, 2)).cpu()
    missed = float(((error - floor).abs() / total).max())
    tolerance = rounding(stack.dtype, 1, case.d, case.x.shape[1])
    return Discrepancy(worst([under, missed]), tolerance, "error below, or optimum off, the floor / E[x^2]")


def _error(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    return (x @ state[FIRST].mT @ state[SECOND].mT - x).square().mean((1, 2))


@law(
    "start-at-identity",
    "a residual net whose branches are 0 is the identity at step 0, bit for bit, and stays it",
    "x + relu(0); ReZero 2003.04887, Fixup 1901.09321. It is no proof of learning: a dead optimizer passes",
    "sgd",
    needs="without noise, for any shape, affine layer, relu",
    kind="wrong output",
)
def start_at_identity(stack: Stack, case: Case) -> Discrepancy:
    """None: zeros are added, and the gradient of a perfect answer is 0."""
    variant = Variant("residual", 4, "none")
    ensemble = ensemble_of(stack, case, variant)
    zeros = {name: torch.zeros_like(p) for name, p in ensemble.state.items()}
    trained = descend(stack, case, variant, start=zeros)
    ensemble = ensemble_of(stack, case, variant, trained.states[-1])
    x = case.x.to(stack.device, stack.dtype)
    wrong = int((~(ensemble.predict(x) == x)).sum()) + changed(trained.states[0], trained.states[-1])
    return Discrepancy(wrong, 0, "outputs and weights that changed")


@law(
    "representable",
    "on x >= 0 a ReLU stack with W = I and b = 0 is the identity, bit for bit: that it is not found is a"
    " matter of optimisation, not of capacity",
    "relu(x) = x for x >= 0",
    "sgd",
    needs="affine layer, relu",
    kind="wrong output",
)
def representable(stack: Stack, case: Case) -> Discrepancy:
    """None: each output is one product with 1 and sums of zeros."""
    variant = Variant("plain-relu", 4, "none")
    x = case.x.abs().to(stack.device, stack.dtype)
    ensemble = ensemble_of(stack, case, variant)
    for p in ensemble.state.values():
        p.data.copy_(torch.eye(case.d) if p.ndim == 3 else torch.zeros(case.d))
    return Discrepancy(int((~(ensemble.predict(x) == x)).sum()), 0, "outputs that are not their input")


@law(
    "output-floor",
    "a network that ends in a ReLU has an error of E[min(x, 0)^2] or more, whatever the training, and attains"
    " it with W = I",
    "derived in theory.relu_floor",
    "sgd adam",
    needs="for any shape, affine layer, relu",
    kind="floor",
)
def output_floor(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of a mean over examples and pixels."""
    trained = descend(stack, case, TWO_RELU, ADAM, lr=gentle(stack, case, ADAM))
    floor, size = relu_floor(trained.x), trained.x.square().mean((1, 2))
    x = case.x.to(stack.device, stack.dtype)
    eye = torch.eye(case.d, dtype=torch.float64).expand(case.replicas, -1, -1)
    bias = torch.zeros(case.replicas, case.d, dtype=torch.float64)
    perfect = {FIRST: eye, SECOND: eye, "layers.0.bias": bias, "layers.1.bias": bias}
    errors = []
    for state in (trained.states[0], trained.states[-1], perfect):
        out = ensemble_of(stack, case, TWO_RELU, state).predict(x).detach()
        errors.append((out - x).double().square().mean((1, 2)).cpu())
    under = worst(float(((floor - error) / size).max()) for error in errors)
    missed = float(((errors[-1] - floor).abs() / size).max())
    tolerance = rounding(stack.dtype, 1, case.d, case.x.shape[1])
    # W = I attains E[relu(relu(x)) - x]^2 too, so one optimum serves any depth
    return Discrepancy(worst([under, missed]), tolerance, "error below, or optimum off, the floor / E[x^2]")


@law(
    "dead-stays-dead",
    "a unit that is 0 on every example has no gradient and never moves, nor do the weights that read it",
    "the derivative of relu is 0 below 0; exact without decay",
    "sgd rmsprop adam momentum three-steps",
    needs="still, taking gradients uncentred, for any shape, affine layer, relu",
    kind="off-span moved",
)
def dead_stays_dead(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps of a number, as of dead columns. The unit's bias lies below anything W x can reach."""
    wrong = 0
    for optimizer, arguments in ((SGD, {"momentum": 0.9}), (RMSPROP, {}), (ADAM, {})):
        start = {"layers.0.bias": _killed(stack, case)}
        given = {} if stack.optimizer else arguments
        lr = gentle(stack, case, optimizer)
        trained = descend(stack, case, TWO_RELU, optimizer, lr, start=start, arguments=given)
        first, last = (_unit(state) for state in (trained.states[0], trained.states[-1]))
        wrong += astray(stack, case, first, last)
    return Discrepancy(wrong, 0, "weights of a dead unit that moved")


def _killed(stack: Stack, case: Case) -> Tensor:
    """Biases [K, d] of which the first lies below -max |w||x|: Glorot's weights are below 2."""
    bias = torch.zeros(case.replicas, case.d, dtype=torch.float64)
    bias[:, 0] = -10 * case.x.norm(dim=2).max() * case.d
    return bias


def _unit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "in": state[FIRST][:, 0],
        "bias": state["layers.0.bias"][:, 0],
        "out": state[SECOND][:, :, 0],
    }


@law(
    "reflection",
    "without biases one hidden ReLU layer gives f(x) - f(-x) = W_2 W_1 x, f(x) + f(-x) = W_2 |W_1 x| and"
    " f(c x) = c f(x) for c > 0, for any weights",
    "relu(z) - relu(-z) = z and relu(z) + relu(-z) = |z|",
    "odd-width",
    needs="affine layer, relu",
    kind="wrong output",
)
def reflection(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of sums over d pixels, twice."""
    hidden = Variant("plain-relu", 1, "none", bias=False)
    first, second = (
        ensemble_of(stack, case, hidden),
        ensemble_of(stack, case, Variant("linear", 1, "none", bias=False)),
    )
    x = case.x.to(stack.device, stack.dtype)
    w1, w2 = (e.state["layers.0.weight"].detach().double() for e in (first, second))

    def f(x: Tensor) -> Tensor:
        return second.predict(first.predict(x)).detach().double()

    inner = x.double() @ w1.mT
    apart = (
        f(x) - f(-x) - inner @ w2.mT,
        f(x) + f(-x) - inner.abs() @ w2.mT,
        f(3 * x) - 3 * f(x),
    )
    size = (inner.norm(dim=(1, 2)) * w2.norm(dim=(1, 2))).clamp_min(torch.finfo(torch.float64).tiny)
    off = worst(float((a.norm(dim=(1, 2)) / size).max()) for a in apart)
    return Discrepancy(off, 3 * rounding(stack.dtype, 1, case.d), "|f - its parts| / |W_2||W_1 x|")
