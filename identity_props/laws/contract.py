"""The contract of torch.optim, in what is kept and called: state, copies, groups, shapes, gradients, closures, hooks.

What an optimizer refuses is not offered, and no failure; what it takes and does otherwise is one.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.laws.base import Case, Discrepancy, NotOfferedError, worst_of
from identity_props.laws.walking import (
    EMPTY,
    HALF,
    SCALAR,
    SINGLE,
    STEPS,
    Walk,
    beside,
    coarse,
    contract,
    differing,
    finite,
    flat,
    made,
    offered,
    walk,
)
from identity_props.stack.stack import Stack


def _found(found: Sequence[Discrepancy], missing: Sequence[str]) -> Discrepancy:
    """The worst of what was tried, with what is not offered; raises NotOfferedError where nothing was."""
    if not found:
        raise NotOfferedError("; ".join(missing))
    worst = worst_of(found)
    return replace(worst, what="; ".join((worst.what, *missing)))


def _each(ways: Collection[str], tried: Callable[[str], list[Discrepancy]]) -> Discrepancy:
    """What is found of each way that is offered."""
    found: list[Discrepancy] = []
    missing = []
    for what in ways:
        try:
            with offered(what):
                found += tried(what)
        except NotOfferedError as error:
            missing.append(str(error))
    return _found(found, missing)


# State --------------------------------------------------------------------------------------------------


def _pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


COPIES: dict[str, Callable[[Any], Any]] = {"a deep copy": deepcopy, "a pickle": _pickled}


@contract(
    "copies",
    "a deep copy and a pickle of an optimizer with its parameters go on as it does, bit for bit",
    "torch.optim.Optimizer.__getstate__ keeps defaults, state and groups, and nothing else",
)
def copies(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers."""
    one, whole = walk(stack, case), walk(stack, case).on()
    one.on(HALF)

    def tried(what: str) -> list[Discrepancy]:
        parameters, optimizer = COPIES[what]((one.parameters, one.optimizer))
        other = Walk(parameters, optimizer, one.gradients, HALF).on(STEPS - HALF)
        return [Discrepancy(differing(other, whole), 0, f"weights that differ in {what}")]

    return _each(COPIES, tried)


@contract(
    "loads",
    "a state that is loaded holds the numbers that were saved, and goes on alike in another dtype",
    "training goes on from its state, not from one like it; pytorch#43706",
    axes="sgd adam momentum three-steps float64 float32 bfloat16",
)
def loads(stack: Stack, case: Case) -> Discrepancy:
    """None: the same numbers, whatever dtype holds them. In another dtype the median number is allowed a dozen of the
    coarser one's roundings a step, since rounding may turn a sign, which is a whole step.
    """
    one = walk(stack, case)
    one.on(HALF)
    saved = deepcopy(one.optimizer.state_dict())
    with offered("loading a state"):
        same = _loaded(stack, one, saved, stack.dtype)
        pairs = list(_pairs(saved["state"], same.optimizer.state_dict()["state"]))
    lost = Discrepancy(
        sum(_other(*pair) for pair in pairs), 0, f"of {len(pairs)} tensors of the state those lost"
    )
    return worst_of([lost, _elsewhere(stack, one, saved)])


def _elsewhere(stack: Stack, one: Walk, saved: dict[str, Any]) -> Discrepancy:
    """How the walk goes on in another dtype; nothing where it is refused there."""
    dtype = torch.float32 if stack.dtype == torch.float64 else torch.float64
    what, expected = f"median |W in {str(dtype).removeprefix('torch.')} - W|", one
    try:
        with offered("another dtype"):
            other = _loaded(stack, one, saved, dtype).on(STEPS - HALF)
    except NotOfferedError:
        return Discrepancy(finite(0, one.weights), 0, what)
    middle = (other - expected.on(STEPS - HALF)).abs().median()
    return beside(stack, middle, torch.zeros_like(middle), what, coarse(stack.dtype, dtype))


def _loaded(stack: Stack, one: Walk, saved: dict[str, Any], dtype: torch.dtype) -> Walk:
    """A fresh walk from the weights of one, in a dtype, with the state."""
    parameters = [nn.Parameter(p.detach().to(dtype, copy=True)) for p in one.parameters]
    fresh = made(stack, parameters)
    fresh.load_state_dict(deepcopy(saved))
    gradients = [[g.to(dtype) for g in given] for given in one.gradients]
    return Walk(parameters, fresh, gradients, one.at)


def _pairs(saved: Any, loaded: Any) -> Iterator[tuple[Tensor, Any]]:
    """Tensors in the same places of both, None for one that is not there."""
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            yield from _pairs(value, loaded.get(key) if isinstance(loaded, Mapping) else None)
    elif isinstance(saved, Tensor):
        yield saved, loaded


def _other(saved: Tensor, loaded: Any) -> bool:
    """Whether a tensor holds other numbers; one number may be there by itself."""
    there = torch.as_tensor(loaded) if isinstance(loaded, Tensor | float | int) else None
    return there is None or there.shape != saved.shape or not torch.equal(there.double(), saved.double())


# Groups and shapes --------------------------------------------------------------------------------------


@contract(
    "group-added",
    "parameters that are added after some steps move, and the others go on as if nothing had been added",
    "torch.optim.Optimizer.add_param_group; X2Paddle#613",
)
def group_added(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, of code for several parameters at once. Others that go elsewhere beside a parameter
    that is there from the start are not asked, nor is an added one that does not move by itself.
    """
    grown, late = walk(stack, case, (0,)), walk(stack, case, (1,))
    start = late.weights.clone()
    grown.on(HALF)
    with offered("a group that is added"):
        grown.optimizer.add_param_group({"params": late.parameters})
        own = walk(stack, case)
        both = Walk([*grown.parameters, *late.parameters], grown.optimizer, own.gradients, HALF)
        both.on(STEPS - HALF)
    if bool((flat(late.parameters) == start).all()) and not torch.equal(
        walk(stack, case, (1,)).on(HALF), start
    ):
        return Discrepancy(1, 0, "added parameters that stand still")
    return _undisturbed(stack, case, grown.parameters, own, "|W - W where nothing is added|")


def _undisturbed(
    stack: Stack, case: Case, parameters: Sequence[Tensor], company: Walk, what: str
) -> Discrepancy:
    """The first parameter beside itself alone, if it goes the same way in usual company."""
    alone, measured = walk(stack, case, (0,)).on(), flat(parameters[:1])
    company.on()
    if beside(stack, flat(company.parameters[:1]), alone, what).holds:
        return beside(stack, measured, alone, what)
    return Discrepancy(finite(0, measured), 0, "weights that are no numbers")


ODD = {"an empty parameter": EMPTY, "a parameter without dimensions": SCALAR}


@contract(
    "odd-shapes",
    "an empty parameter and one without dimensions are stepped over and stepped, and disturb no other",
    "a step is the same function of each entry; pytorch/test/test_optim.py: shapes of foreach tests",
    needs="for any shape",
)
def odd_shapes(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step. What goes elsewhere beside any other parameter is not asked, nor whether one moves
    without dimensions where one of a single entry does not.
    """
    what, start = "|W - W where it is not there|", walk(stack, case, (SCALAR,)).weights.clone()
    moves = not torch.equal(walk(stack, case, (SINGLE,)).on(), walk(stack, case, (SINGLE,)).weights)

    def tried(name: str) -> list[Discrepancy]:
        one = walk(stack, case, (0, ODD[name]))
        kinds = [(p.shape, p.dtype) for p in one.parameters]
        one.on()
        odd = flat(one.parameters[1:])
        still = ODD[name] == SCALAR and moves and torch.equal(odd, start)
        wrong = still or kinds != [(p.shape, p.dtype) for p in one.parameters]
        return [
            _undisturbed(stack, case, one.parameters, walk(stack, case), f"{name}: {what}"),
            Discrepancy(finite(wrong, odd), 0, f"{name}: that it stands still, or changes in kind"),
        ]

    return _each(ODD, tried)


# Gradients ------------------------------------------------------------------------------------------------


@contract(
    "gradients-kept",
    "a step leaves gradients as they are, for those who read or add to them after it",
    "pytorch#12218, #18732, #69189: .grad does not change in a step",
)
def gradients_kept(stack: Stack, case: Case) -> Discrepancy:
    """None: nothing is written to them."""
    one, count = walk(stack, case), 0
    for _ in range(STEPS):
        one.given()
        before = [p.grad for p in one.parameters]
        one.optimizer.step()
        given = one.gradients[one.at - 1]
        count += sum(p.grad is not g for p, g in zip(one.parameters, before, strict=True))
        count += sum(differing(g, own) for g, own in zip(before, given, strict=True) if g is not None)
    return Discrepancy(finite(count, one.weights), 0, "entries of gradients that a step changed")


@contract(
    "zero-grad",
    "zero_grad leaves nothing of a gradient, None or 0 as asked, and steps are the same after either",
    "torch.optim.Optimizer.zero_grad; a gradient that is kept is added to the next",
)
def zero_grad(stack: Stack, case: Case) -> Discrepancy:
    """None: adding to 0 rounds nothing."""
    one, other = walk(stack, case), walk(stack, case)
    left = 0
    for to_none, each in ((True, one), (False, other)):
        for _ in range(STEPS):
            _added(each)
            each.optimizer.step()
            with offered(f"zero_grad(set_to_none={to_none})"):
                each.optimizer.zero_grad(set_to_none=to_none)
            left += sum(int((p.grad != 0).sum()) for p in each.parameters if p.grad is not None)
    found = left + differing(one.weights, other.weights)
    return Discrepancy(found, 0, "entries of gradients that are left, and weights that differ")


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
    device = torch.device(stack.device).type
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    scaler.scale(torch.zeros(1, device=stack.device))
    plain.gradients = [g for step, g in enumerate(plain.gradients) if step != HALF]
    with offered("steps under a GradScaler"):
        for step in range(STEPS):
            one.given()
            for p in one.parameters:
                assert p.grad is not None
                p.grad.mul_(scaler.get_scale() if step != HALF else torch.inf)
            scaler.step(one.optimizer)
            scaler.update()
    return beside(stack, one.weights, plain.on(STEPS - 1), "|W - W of unscaled gradients|")


# What is called -------------------------------------------------------------------------------------------


@contract(
    "closure",
    "a step with a closure is the step on the gradients that it computes, and returns its loss",
    "torch.optim.Optimizer.step; peft#3382, SAM#91",
)
def closure(stack: Stack, case: Case) -> Discrepancy:
    """None is expected; a dozen roundings a step are allowed. One that calls it several times, or never, as some
    do on purpose, is not asked, nor what it returns if that is nothing.
    """
    one, plain = walk(stack, case), walk(stack, case)
    wrong = 0
    for step in range(STEPS):
        calls: list[float] = []
        evaluated = _evaluated(one, calls)
        with offered("a closure"):
            returned = one.optimizer.step(evaluated)
        if len(calls) != 1:
            raise NotOfferedError(
                f"not offered: a step of one evaluation, it calls its closure {len(calls)} times"
            )
        wrong += isinstance(returned, float | Tensor) and float(returned) != calls[0]
        one.at = step + 1
    found = beside(stack, one.weights, plain.on(), "|W - W of gradients that are there before|")
    return worst_of([found, Discrepancy(wrong, 0, "losses returned that are not the closure's")])


def _evaluated(one: Walk, calls: list[float]) -> Callable[[], Tensor]:
    """A closure whose loss has the coming step's gradients, while stale ones lie there before it."""
    torch.manual_seed(one.at)
    for p in one.parameters:
        p.grad = torch.ones_like(p)

    def evaluate() -> Tensor:
        for p in one.parameters:
            p.grad = None
        loss: Tensor = sum((p * g).sum() for p, g in zip(one.parameters, one.gradients[one.at], strict=True))  # type: ignore[assignment]
        loss.backward()  # type: ignore[no-untyped-call]
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
