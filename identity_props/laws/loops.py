"""Metamorphic laws of loops: train another way, and the weights are the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from identity_props.engine.ensemble import Ensemble
from identity_props.laws.base import (
    ADAM,
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
from identity_props.laws.shown import lost_by_switching, weights_shown
from identity_props.stack.loop import Scheduled, scheduled
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack, rate_of, takes
from identity_props.task.models import Variant

TWO_LINEAR = Variant("linear", 2, "none", bias=False)


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
    for step in range(case.steps):
        with seeded(step, stack.device):
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
    needs="gradient-descent, repeatable in training, keeping its buffers, stepping on given gradients",
)
def accumulate(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over the steps: the same sums, cut at another place, and as far as the layers themselves magnify
    a rounding of the data.
    """
    x, n = case.x.repeat(1, 3, 1), 3 * case.x.shape[1]
    cut = max(1, n // 4)
    many = Case(x, case.factor, case.steps, case.seed)

    def in_parts(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        optimizer.zero_grad()
        for part in (x[:, :cut], x[:, cut:]):
            (ensemble.loss(part) * (part.shape[1] / n)).backward()
        optimizer.step()

    def rounded(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        ensemble.step(optimizer, x * (1 + torch.finfo(x.dtype).eps * x.sign()), x)

    one, other, near = (_stepped(stack, many, SGD, each) for each in (_plain, in_parts, rounded))
    tolerance = rounding(stack.dtype, case.steps, n, case.d) + 16 * _farthest(near, one)
    return Discrepancy(_farthest(other, one), tolerance, "|W - W'| / |W|")


@law(
    "resume",
    "stop, save, load and go on gives what training without a stop gives, bit for bit, with momentum, decay"
    " and schedule",
    "state_dict holds all that a step depends on",
    "sgd adam decay momentum resume three-steps",
    needs="stepping the same again",
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

    def fresh() -> tuple[Ensemble, torch.optim.Optimizer, LambdaLR | Scheduled]:
        ensemble = ensemble_of(stack, case, TWO_LINEAR)
        optimizer = optimizer_of(stack, name, ensemble.parameters, lr, arguments)
        return ensemble, optimizer, scheduled(optimizer, lambda step: 1 - step / (2 * case.steps))

    ensemble, optimizer, scheduler = fresh()
    for step in range(case.steps):
        if step == stop:
            saved = io.BytesIO()
            torch.save((_tensors(ensemble), optimizer.state_dict(), scheduler.state_dict()), saved)
            saved.seek(0)
            # what a state holds is its own affair: queues and numpy's numbers are no tensors
            tensors, for_optimizer, for_scheduler = torch.load(saved, weights_only=False)
            ensemble, optimizer, scheduler = fresh()
            for key, tensor in _tensors(ensemble).items():
                tensor.data.copy_(tensors[key])
            optimizer.load_state_dict(for_optimizer)
            scheduler.load_state_dict(for_scheduler)
        with seeded(step, stack.device):
            _plain(ensemble, optimizer, x)
        scheduler.step()
    return snapshot(ensemble) | weights_shown(ensemble, optimizer)


def _tensors(ensemble: Ensemble) -> dict[str, Tensor]:
    return {**ensemble.state, **ensemble.buffers}


@law(
    "freeze",
    "a frozen layer stays bit for bit while the other trains, and trains once it is unfrozen",
    "no gradient, no step; the first step after thawing is that of a layer never frozen",
    "sgd adam freeze three-steps",
    needs="without noise, affine layer, one rank",
)
def freeze(stack: Stack, case: Case) -> Discrepancy:
    """None: counts weights that moved while frozen, and replicas whose layer never moved after, in as many steps as
    it takes a layer that was never frozen to move at all.
    """
    wrong = 0
    for optimizer in (SGD, ADAM):
        longer = replace(case, steps=case.steps + 2 * _resting(stack, case, optimizer))
        frozen, thawed, other = _switched(stack, longer, optimizer, frozen_first=True)
        wrong += changed(*frozen) + _still(*thawed) + _still(*other)
    return Discrepancy(wrong, 0, "weights that moved frozen, and layers that stood still thawed")


@law(
    "freeze-later",
    "a layer that has trained stays bit for bit from the step on before which it is frozen",
    "no gradient, no step, for an optimizer that remembers none",
    "sgd adam freeze three-steps",
    needs="gradient-descent, affine layer, one rank",
)
def freeze_later(stack: Stack, case: Case) -> Discrepancy:
    """None: counts weights that moved while frozen, and replicas whose layer never moved before."""
    wrong = 0
    for optimizer in (SGD, ADAM):
        frozen, trained, _ = _switched(stack, case, optimizer, frozen_first=False)
        wrong += changed(*frozen) + _still(*trained)
    return Discrepancy(wrong, 0, "weights that moved frozen, and layers that stood still before")


def _switched(stack: Stack, case: Case, optimizer: str, frozen_first: bool) -> tuple[list[State], ...]:
    """The first layer before and after it was frozen, and while it was not; the other in the first half."""
    case = replace(case, steps=max(2, case.steps))
    half, done = case.steps // 2, 0

    def switch_half_way(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        nonlocal done
        leaf = ensemble.leaves[WEIGHT].requires_grad_((done < half) != frozen_first)
        leaf.grad = leaf.grad if leaf.requires_grad else None  # not one of 0, on which momentum goes on
        _plain(ensemble, optimizer, x)
        done += 1

    states = _stepped(stack, case, optimizer, switch_half_way)
    own, other = ([{name: states[k][name]} for k in (0, half, -1)] for name in (WEIGHT, "layers.1.weight"))
    halves = (own[:2], own[1:])
    return (*(halves if frozen_first else reversed(halves)), other[:2])


RESTS = 16  # steps at most that an optimizer collects gradients for, as RAdam 5 and AdaShift 10


def _resting(stack: Stack, case: Case, optimizer: str) -> int:
    """Steps from the first on that move nothing in some layer, where none is frozen; 0 of RESTS."""
    first, *states = _stepped(stack, replace(case, steps=RESTS), optimizer, _plain)
    return next((step for step, state in enumerate(states) if not _still(first, state)), 0)


def _still(before: State, after: State) -> int:
    """Replicas of which not one weight moved."""
    return sum(int((before[name] == after[name]).flatten(1).all(1).sum()) for name in before)


@law(
    "evaluate",
    "evaluating between steps, without gradients and in eval mode, changes nothing, bit for bit, and gives the"
    " same twice, and before a first pass in training as after it; after an optimizer's own eval() and train() weights are"
    " what they were, and a second eval() changes nothing",
    "a measurement is not a step",
    "sgd adam eval three-steps",
    needs="stepping the same again",
    kind="not repeatable",
)
def evaluate(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers. A pass that changes buffers, as of running means, may
    change what comes after it. What an optimizer's eval() and train() bring back is compared to rounding, as they
    may compute it, and a second eval() may be refused.
    """
    apart = _changed_by_training(stack, case) + lost_by_switching(stack, case, TWO_LINEAR)

    def with_evaluation(ensemble: Ensemble, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        nonlocal apart
        _plain(ensemble, optimizer, x)
        apart += int((~(_evaluated(ensemble, x) == _evaluated(ensemble, x))).sum())

    for optimizer in (SGD, ADAM):
        one, other = (_stepped(stack, case, optimizer, each) for each in (_plain, with_evaluation))
        apart += sum(changed(a, b) for a, b in zip(one, other, strict=True))
    return Discrepancy(apart, 0, "weights and outputs that differ")


@torch.no_grad()
def _evaluated(ensemble: Ensemble, x: Tensor) -> Tensor:
    ensemble.model.eval()
    ensemble.loss(2 * x)
    out = ensemble.predict(x)
    ensemble.model.train()
    return out


@torch.no_grad()
def _changed_by_training(stack: Stack, case: Case) -> int:
    """Outputs in eval mode that are others after a pass in training that changed no buffer."""
    ensemble, x = ensemble_of(stack, case, TWO_LINEAR), case.x.to(stack.device, stack.dtype)
    with seeded(case.seed, stack.device):
        for p in ensemble.parameters:
            p.add_(torch.randn_like(p))  # what multiplies a 0 it starts from shows there
        before = {name: tensor.clone() for name, tensor in _tensors(ensemble).items()}
        first = _evaluated(ensemble, x)
        ensemble.loss(x)
        moved = changed(before, _tensors(ensemble))
        return 0 if moved else int((~(_evaluated(ensemble, x) == first)).sum())


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
    return Discrepancy(
        relative(alone.weights(), expected),
        rounding(stack.dtype, case.steps, *case.x.shape[1:]),
        "|W alone - W| / |W|",
    )
