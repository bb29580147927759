"""Metamorphic laws: change the data or the way of training, and the result changes in a known way."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from identity_props.engine.ensemble import Ensemble
from identity_props.laws.base import (
    ADAM,
    RMSPROP,
    SGD,
    WEIGHT,
    Case,
    Discrepancy,
    State,
    changed,
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
from identity_props.stack.stack import Stack, rate_of, resolve, takes, without_eps
from identity_props.task.models import Variant

TWO_LINEAR = Variant("linear", 2, "none", bias=False)


def _tolerance(stack: Stack, case: Case) -> float:
    return rounding(stack.dtype, case.steps, *case.x.shape[1:])


# Changes of the data -------------------------------------------------------------------------------


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
    needs="scale-free, affine layer",
)
def scale_adaptive(stack: Stack, case: Case) -> Discrepancy:
    """None: c is a power of two, so that every product is scaled exactly; eps, where there is
    one, is the least normal number, far below a gradient of mere rounding.
    """
    apart = 0
    for optimizer in (RMSPROP, ADAM):
        arguments = without_eps(stack.optimizer or resolve(optimizer), stack.mode)
        one, other = (
            descend(stack, case, optimizer=optimizer, lr=1 / 128, x=c * case.x, arguments=arguments)
            for c in (1, 4)
        )
        apart += sum(changed(a, b) for a, b in zip(one.states, other.states, strict=True))
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


# Changes of the way of training ---------------------------------------------------------------------


def _stepped(
    stack: Stack,
    case: Case,
    optimizer: str,
    each: Callable[[Ensemble, torch.optim.Optimizer, Tensor], None],
    arguments: dict[str, Any] | None = None,
    variant: Variant = TWO_LINEAR,
) -> list[State]:
    """States of a training loop whose steps are ``each(ensemble, optimizer, x)``."""
    ensemble = ensemble_of(stack, case, variant)
    lr = gentle(stack, case, optimizer)
    stepper = optimizer_of(stack, optimizer, ensemble.parameters, lr, arguments)
    x, states = case.x.to(stack.device, stack.dtype), [snapshot(ensemble)]
    for _ in range(case.steps):
        each(ensemble, stepper, x)
        states.append(snapshot(ensemble))
    return states


def _plain(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    ensemble.step(optimizer, x)


def _farthest(a: list[State], b: list[State]) -> float:
    return worst(relative([s[name] for s in a], [s[name] for s in b]) for name in a[0])


@law(
    "accumulate",
    "gradients summed over micro-batches of unequal size, each weighted by its size, are those of one batch",
    "the loss is a mean over examples",
    "sgd micro-batches three-steps",
    needs="gradient-descent",
)
def accumulate(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps: the same sums, cut at another place."""
    x, n = case.x.repeat(1, 3, 1), 3 * case.x.shape[1]
    cut = max(1, n // 4)
    many = Case(x, case.factor, case.steps, case.seed)

    def in_parts(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        optimizer.zero_grad()
        for part in (x[:, :cut], x[:, cut:]):
            (ensemble.loss(part) * (part.shape[1] / n)).backward()
        optimizer.step()

    one, other = (_stepped(stack, many, SGD, each) for each in (_plain, in_parts))
    tolerance = rounding(stack.dtype, case.steps, n, case.d)
    return Discrepancy(_farthest(other, one), tolerance, "|W - W'| / |W|")


@law(
    "resume",
    "stop, save, load and go on gives what training without a stop gives, bit for bit, with momentum, decay"
    " and schedule",
    "state_dict holds all that a step depends on",
    "sgd adam decay momentum resume three-steps",
    kind="not repeatable",
)
def resume(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers."""
    apart = 0
    mild = {"momentum": 0.9, "weight_decay": 0.01 / case.lr}  # a small case has a large rate
    for optimizer, arguments in ((SGD, mild), (ADAM, {"weight_decay": 0.01})):
        given = arguments if stack.optimizer is None else _momentum(stack.optimizer)
        ends = [_with_stop(stack, case, optimizer, given, stop) for stop in (None, case.steps // 2)]
        apart += changed(*ends)
    return Discrepancy(apart, 0, "weights that differ")


def _momentum(optimizer: Callable[..., Any]) -> dict[str, float]:
    """Something to lose, where the optimizer can be given it."""
    return {"momentum": 0.9} if takes(optimizer, "momentum") else {}


def _with_stop(stack: Stack, case: Case, name: str, arguments: dict[str, Any], stop: int | None) -> State:
    lr, x = rate_of(stack, gentle(stack, case, name)), case.x.to(stack.device, stack.dtype)

    def fresh() -> tuple[Ensemble, torch.optim.Optimizer, LambdaLR]:
        ensemble = ensemble_of(stack, case, TWO_LINEAR)
        optimizer = optimizer_of(stack, name, ensemble.parameters, lr, arguments)
        return ensemble, optimizer, LambdaLR(optimizer, lambda step: 1 - step / (2 * case.steps))

    ensemble, optimizer, scheduler = fresh()
    for step in range(case.steps):
        if step == stop:
            saved = io.BytesIO()
            torch.save((_tensors(ensemble), optimizer.state_dict(), scheduler.state_dict()), saved)
            saved.seek(0)
            tensors, for_optimizer, for_scheduler = torch.load(saved, weights_only=True)
            ensemble, optimizer, scheduler = fresh()
            for key, tensor in _tensors(ensemble).items():
                tensor.data.copy_(tensors[key])
            optimizer.load_state_dict(for_optimizer)
            scheduler.load_state_dict(for_scheduler)
        _plain(ensemble, optimizer, x)
        scheduler.step()
    return snapshot(ensemble)


def _tensors(ensemble: Ensemble) -> dict[str, Tensor]:
    return {**ensemble.state, **ensemble.buffers}


@law(
    "freeze",
    "a frozen layer stays bit for bit while the other trains, and trains once it is unfrozen",
    "no gradient, no step; the first step after thawing is that of a layer never frozen",
    "sgd adam freeze three-steps",
    needs="affine layer, one rank",
)
def freeze(stack: Stack, case: Case) -> Discrepancy:
    """None: counts weights that moved while frozen, and replicas whose layer never moved after."""
    wrong = 0
    for optimizer in (SGD, ADAM):
        half, done = max(1, case.steps // 2), 0

        def thaw_half_way(
            ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor, half: int = half
        ) -> None:
            nonlocal done
            ensemble.leaves[WEIGHT].requires_grad_(done >= half)
            _plain(ensemble, optimizer, x)
            done += 1

        states = _stepped(stack, case, optimizer, thaw_half_way)
        frozen = [{WEIGHT: state[WEIGHT]} for state in states]
        wrong += changed(frozen[0], frozen[half])
        if case.steps > half:
            still = (frozen[-1][WEIGHT] == frozen[half][WEIGHT]).flatten(1).all(1)
            wrong += int(still.sum())
        free = states[half]["layers.1.weight"] == states[0]["layers.1.weight"]
        wrong += int(free.flatten(1).all(1).sum())
    return Discrepancy(wrong, 0, "weights that moved frozen, and layers that stood still thawed")


@law(
    "evaluate",
    "evaluating between steps, without gradients and in eval mode, changes nothing, bit for bit, and gives the"
    " same twice",
    "a measurement is not a step",
    "sgd adam eval three-steps",
    kind="not repeatable",
)
def evaluate(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers."""
    apart = 0

    def with_evaluation(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        nonlocal apart
        _plain(ensemble, optimizer, x)
        ensemble.model.eval()
        with torch.no_grad():
            ensemble.loss(2 * x)
            once, again = ensemble.predict(x), ensemble.predict(x)
        ensemble.model.train()
        apart += int((~(once == again)).sum())

    for optimizer in (SGD, ADAM):
        one, other = (_stepped(stack, case, optimizer, each) for each in (_plain, with_evaluation))
        apart += sum(changed(a, b) for a, b in zip(one, other, strict=True))
    return Discrepancy(apart, 0, "weights and outputs that differ")


@law(
    "replica",
    "a network of an ensemble is the same network trained alone",
    "its loss is its own, and an elementwise optimizer mixes nothing",
    "sgd rmsprop adam three-steps odd-width",
    needs="gradient-descent, affine layer",
)
def replica(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps under SGD. An adaptive step is lr g / |g| at first, so where |g| is near 0
    rounding is magnified: those run from the same gradients in ``elementwise``.
    """
    together = descend(stack, case)
    k = case.replicas - 1
    single = Case(case.x[k:], case.factor, case.steps, case.seed + k)
    alone = descend(stack, single, lr=together.lr)
    expected = [w[k:] for w in together.weights()]
    return Discrepancy(relative(alone.weights(), expected), _tolerance(stack, case), "|W alone - W| / |W|")
