"""The contract of torch.optim, in what is called: steps leave gradients, scalers, closures and hooks work.

What an optimizer refuses is not offered, and no failure; what it takes and does otherwise is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from identity_props.laws.base import Case, Discrepancy, worst_of
from identity_props.laws.walking import (
    HALF,
    STEPS,
    NotOfferedError,
    Walk,
    beside,
    contract,
    differing,
    finite,
    offered,
    same,
    seed_all,
    walk,
)
from identity_props.stack.stack import Stack, names

# Gradients ------------------------------------------------------------------------------------------------


@contract(
    "zero-grad",
    "zero_grad leaves nothing of a gradient, None or 0 as asked, and steps are the same after either",
    "torch.optim.Optimizer.zero_grad: a gradient that is kept is added to the next",
)
def zero_grad(stack: Stack, case: Case) -> Discrepancy:
    """None: adding to 0 rounds nothing. A step that writes into gradients is told of, and no failure: torch's own
    never do (pytorch#12218, #18732, #69189), a third of the others in use do, to save memory.
    """
    decay: dict[str, Any] = {"weight_decay": 0.1} if _named(stack, "weight_decay") else {}
    one, other = walk(stack, case, **decay), walk(stack, case, **decay)
    left, written = 0, False
    for to_none, each in ((True, one), (False, other)):
        for _ in range(STEPS):
            _added(each)
            each.optimizer.step()
            written |= _written(each)
            with offered(f"zero_grad(set_to_none={to_none})"):
                each.optimizer.zero_grad(set_to_none=to_none)
            left += sum(int((p.grad != 0).sum()) for p in each.parameters if p.grad is not None)
    what = "entries of gradients that are left, and weights that differ"
    told = f"{what}; a step writes into gradients" if written else what
    return Discrepancy(left + differing(one.weights, other.weights), 0, told)


def _named(stack: Stack, argument: str) -> bool:
    return names(stack.optimizer or torch.optim.SGD, argument)


def _written(one: Walk) -> bool:
    """Whether gradients are others than those that the last step was given."""
    pairs = zip(one.parameters, one.gradients[one.at - 1], strict=True)
    return any(p.grad is None or bool(differing(p.grad, g)) for p, g in pairs)


def _added(one: Walk) -> None:
    """The step's gradients, added to those that are there."""
    kept = [p.grad for p in one.parameters]
    one.given()
    for p, grad in zip(one.parameters, kept, strict=True):
        if grad is not None and p.grad is not None:
            p.grad = grad.add_(p.grad)


@contract(
    "grad-scaler",
    "under a GradScaler steps are those of unscaled gradients, and none is taken where one is infinite",
    "a scale that is a power of 2 rounds nothing; pytorch#94060",
)
def grad_scaler(stack: Stack, case: Case) -> Discrepancy:
    """None is expected; a dozen roundings a step are allowed."""
    one, plain = walk(stack, case), walk(stack, case)
    scaler = torch.amp.GradScaler(torch.device(stack.device).type, init_scale=1024.0)
    scaler.scale(torch.zeros(1, device=stack.device))
    with offered("steps under a GradScaler"):
        for step in range(STEPS):
            one.given()
            for p in one.parameters:
                assert p.grad is not None
                p.grad.mul_(scaler.get_scale() if step != HALF else torch.inf)
            scaler.step(one.optimizer)
            scaler.update()
    plain.on(HALF)
    plain.at += 1
    return beside(stack, one.weights, plain.on(STEPS - HALF - 1), "|W - W of unscaled gradients|")


# What is called -------------------------------------------------------------------------------------------


@contract(
    "closure",
    "a step with a closure is the step on the gradients that it computes, and returns its loss",
    "torch.optim.Optimizer.step; peft#3382, sam#91",
)
def closure(stack: Stack, case: Case) -> Discrepancy:
    """None is expected; a dozen roundings a step are allowed. One that calls it several times, or never, as some
    do on purpose, is not asked, nor whose steps depend on the loss, nor what it returns if that is nothing, nor one
    that moves another way with a closure, as without what a subclass does to the gradients that are there before: it is
    wrong where those matter, which the closure overwrites, or where nothing moves.
    """
    (weights, wrong), expected = _with_closure(stack, case), walk(stack, case).on()
    found = beside(stack, weights, expected, "|W - W of gradients that are there before|")
    if not found.holds and not same(weights, _with_closure(stack, case, flat=True)[0]):
        raise NotOfferedError("not offered: steps that do not depend on the loss")
    moves = bool(weights.isfinite().all()) and not same(weights, walk(stack, case).weights)
    if not found.holds and moves and same(weights, _with_closure(stack, case, before=-2.0)[0]):
        raise NotOfferedError("not offered: steps with a closure that are those without")
    return worst_of([found, Discrepancy(wrong, 0, "losses returned that are not the closure's")])


def _with_closure(stack: Stack, case: Case, flat: bool = False, before: float = 1.0) -> tuple[Tensor, int]:
    """Weights after steps with closures, whose losses are all 0 if flat, and how many returned another loss."""
    one, wrong = walk(stack, case), 0
    for step in range(STEPS):
        calls: list[float] = []
        seed_all(step)
        with offered("a closure"):
            returned = one.optimizer.step(_evaluated(one, step, calls, flat, before))
        if len(calls) != 1:
            raise NotOfferedError(
                f"not offered: one evaluation a step, it calls its closure {len(calls)} times"
            )
        wrong += (
            isinstance(returned, float | Tensor) and float(torch.as_tensor(returned).detach()) != calls[0]
        )
    return one.weights, wrong


def _evaluated(one: Walk, step: int, calls: list[float], flat: bool, before: float) -> Callable[[], Tensor]:
    """A closure whose loss has the step's gradients; before it, others lie there."""
    for p in one.parameters:
        p.grad = torch.full_like(p, before)

    def evaluate() -> Tensor:
        terms = [(p * g).sum() for p, g in zip(one.parameters, one.gradients[step], strict=True)]
        one.optimizer.zero_grad()
        loss = torch.stack(terms).sum()
        loss = loss - loss.detach() if flat else loss  # of the same gradient
        loss.backward()
        calls.append(float(loss.detach()))
        return loss

    return evaluate


@contract(
    "step-hooks",
    "hooks that are registered before and after steps are called in each",
    "torch.optim.Optimizer.register_step_pre_hook, register_step_post_hook",
)
def step_hooks(stack: Stack, case: Case) -> Discrepancy:
    """None. Nothing is said of one that is called more than once: a step that calls that of its base class does."""
    one = walk(stack, case)
    called = {"before": 0, "after": 0}

    def count(when: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            called[when] += 1

        return hook

    with offered("hooks of steps"):
        one.optimizer.register_step_pre_hook(count("before"))
        one.optimizer.register_step_post_hook(count("after"))
    one.on()
    missed = sum(max(0, STEPS - calls) for calls in called.values())
    return Discrepancy(finite(missed, one.weights), 0, f"of {2 * STEPS} hooks those that were not called")
