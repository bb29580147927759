"""The contract of torch.optim, in what an optimizer is given and what it leaves: complex and shared parameters, older
states, schedulers, memory, random numbers.

What an optimizer refuses is not offered, and no failure; what it takes and does otherwise is one.
"""

from __future__ import annotations

import gc
import random
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from identity_props.laws.base import Case, Discrepancy
from identity_props.laws.walking import (
    HALF,
    RATE,
    STEPS,
    NotOfferedError,
    Settings,
    Walk,
    beside,
    coarse,
    contract,
    differing,
    finite,
    made,
    offered,
    same,
    seed_all,
    settings,
    walk,
)
from identity_props.stack.stack import Stack

# Parameters -----------------------------------------------------------------------------------------------


@contract(
    "complex-parameters",
    "a complex parameter moves in its real and in its imaginary part, and both stay numbers",
    "pytorch/test/test_optim.py: test_complex; a cast from complex to real drops the imaginary part",
)
def complex_parameters(stack: Stack, case: Case) -> Discrepancy:
    """None. Torch's own step a complex entry as two real ones; who goes another way is told of, no more, and who casts
    to real numbers is warned by torch, which is no silent fault.
    """
    real = walk(stack, case)
    given = [torch.complex(g, g.flip(0)) for g, _ in real.gradients]
    start = torch.complex(real.parameters[0].detach(), -real.parameters[0].detach())

    def on(seen: Callable[[Tensor], Tensor]) -> Tensor:
        """The weights after steps on what is seen of each number."""
        p = nn.Parameter(seen(start).clone())
        one = Walk([p], made(stack, [p]), [[seen(g)] for g in given])
        for _ in range(STEPS):
            one.given()
            one.optimizer.step()
        return p.detach() if p.is_complex() else torch.view_as_complex(p.detach())

    with offered("a complex parameter"), _casts_refused():
        one = on(torch.Tensor.clone)
    pair, gone = on(torch.view_as_real), torch.view_as_real(one - start)
    if not differing(pair, start):
        raise NotOfferedError("not offered: steps that move anything")
    still = sum(not bool(part.any()) for part in gone.unbind(-1))
    way = "as two real ones" if same(torch.view_as_real(one), torch.view_as_real(pair)) else "in its own way"
    return Discrepancy(finite(still, gone), 0, f"parts of numbers that stand still; it steps them {way}")


@contextmanager
def _casts_refused() -> Iterator[None]:
    """Torch's warning that a cast to real discards the imaginary part is a refusal: who is warned is not misled."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Casting complex values to real discards")
            yield
    finally:
        torch.set_warn_always(always)


@contract(
    "shared-parameters",
    "a parameter that is given in two groups is refused, or moves once a step",
    "torch.optim.Optimizer.add_param_group: some parameters appear in more than one parameter group",
)
def shared_parameters(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step where it is taken; whoever refuses it keeps to the law. What is no subclass of torch's
    Optimizer has not promised to refuse it.
    """
    alone, what = walk(stack, case, (0,)), "|W in two groups - W in one|, of one parameter"
    twice = walk(stack, case, (0,))
    try:
        with offered("a parameter in two groups"):
            groups = [{"params": twice.parameters}, {"params": twice.parameters}]
            twice.optimizer = made(stack, groups)
    except NotOfferedError:
        return Discrepancy(finite(0, alone.on()), 0, "it is refused")
    if not isinstance(twice.optimizer, torch.optim.Optimizer):
        raise NotOfferedError("not offered: what torch.optim.Optimizer makes of a parameter in two groups")
    return beside(stack, twice.on(), alone.on(), what)


# States ---------------------------------------------------------------------------------------------------

LATER = ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay")


@contract(
    "older-states",
    "a state of before a setting was there is loaded with its default, and steps go on as with that",
    "torch.optim.Optimizer.__setstate__; pytorch/test/test_optim.py: test_can_load_older_state_dict",
)
def older_states(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step in float32 at least, as defaults may choose other code. Beside the same state with the
    settings, loaded as that is; the settings are those that torch added over the years.
    """
    one, whole = walk(stack, case), walk(stack, case)
    for each in (one, whole):
        each.on(HALF)
    saved = deepcopy(one.optimizer.state_dict())
    _reload(stack, whole, deepcopy(saved))
    groups = saved.get("param_groups", ())  # what wraps another keeps them elsewhere
    lost = {name for group in groups for name in LATER if group.pop(name, one) is not one}
    if not lost:
        raise NotOfferedError(f"not offered: {', '.join(LATER)}")
    told = ", ".join(sorted(lost))
    with offered(f"a state without {told}"):
        _reload(stack, one, saved)
    what = f"|W - W with {told}|"
    return beside(stack, one.weights, whole.weights, what, coarse(stack.dtype, torch.float32))


def _reload(stack: Stack, one: Walk, saved: dict[str, Any]) -> None:
    """Goes on with a fresh optimizer that loads the state."""
    one.optimizer = made(stack, one.parameters)
    one.optimizer.load_state_dict(saved)
    one.on(STEPS - HALF)


# Schedulers -----------------------------------------------------------------------------------------------

RATES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    "MultiplicativeLR": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda step: 0.75),
    "StepLR": partial(lr_scheduler.StepLR, step_size=2),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[1, 4]),
    "ConstantLR": partial(lr_scheduler.ConstantLR, total_iters=3),
    "LinearLR": partial(lr_scheduler.LinearLR, total_iters=4),
    "ExponentialLR": partial(lr_scheduler.ExponentialLR, gamma=0.75),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=8),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=8),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3),
    "CyclicLR": partial(
        lr_scheduler.CyclicLR, base_lr=RATE / 4, max_lr=RATE, step_size_up=2, cycle_momentum=False
    ),
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=STEPS + 1, cycle_momentum=False),
    "ReduceLROnPlateau": partial(lr_scheduler.ReduceLROnPlateau, patience=0),
}
MOMENTA: dict[str, Callable[[Any], Any]] = {
    "CyclicLR with momentum": partial(lr_scheduler.CyclicLR, base_lr=RATE / 4, max_lr=RATE, step_size_up=2),
    "OneCycleLR with momentum": partial(lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=STEPS + 1),
}


@contract(
    "every-scheduler",
    "under each scheduler of torch steps are those of its rates, and momenta, written into the groups",
    "torch.optim.lr_scheduler writes lr, momentum and betas, and what it keeps for itself is no setting",
)
def every_scheduler(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers. One whose steps write rates of their own is not asked."""
    one = walk(stack, case)
    before = settings(one)
    one.on()
    if settings(one) != before or any(isinstance(value, Tensor) for value in before[0].values()):
        raise NotOfferedError("not offered: rates that its steps leave alone")
    schedulers = RATES | (MOMENTA if before[0].keys() & {"momentum", "betas"} else {})
    wrong, refused = [], []
    for name, scheduler in schedulers.items():
        try:
            with offered(name):
                scheduled, seen = _scheduled(walk(stack, case), scheduler)
        except NotOfferedError:
            refused.append(name)
            continue
        if differing(_set_by_hand(walk(stack, case), seen), scheduled):
            wrong.append(name)
    if len(refused) == len(schedulers):
        raise NotOfferedError("not offered: schedulers")
    told = (
        f"schedulers under which steps are others ({', '.join(wrong)})"
        if wrong
        else "schedulers of which steps are others"
    )
    return Discrepancy(len(wrong), 0, told + (f"; not offered: {', '.join(refused)}" if refused else ""))


def _scheduled(one: Walk, scheduler: Callable[[Any], Any]) -> tuple[Tensor, list[Settings]]:
    """The weights under a scheduler, with the settings before each step."""
    schedule, seen = scheduler(one.optimizer), []
    for _ in range(STEPS):
        seen.append(settings(one))
        one.on(1)
        schedule.step(*[1.0] * isinstance(schedule, lr_scheduler.ReduceLROnPlateau))
    return one.weights, seen


def _set_by_hand(one: Walk, seen: list[Settings]) -> Tensor:
    for step in seen:
        for group, values in zip(one.optimizer.param_groups, step, strict=True):
            group.update(values)
        one.on(1)
    return one.weights


# Memory ---------------------------------------------------------------------------------------------------


@contract(
    "memory-left",
    "parameters of an optimizer that is deleted, with the model, are left nowhere",
    "what nobody holds is collected; a registry of parameters ends a search over models by memory",
)
def memory_left(stack: Stack, case: Case) -> Discrepancy:
    """None: an object is alive or not, once cycles are collected."""
    one = walk(stack, case)
    watched = [weakref.ref(p) for p in one.parameters]
    weights = one.on()
    one.parameters, one.optimizer = [], None
    for generation in range(3):  # the youngest is looked through in no time, and holds them as a rule
        gc.collect(generation)
        left = sum(p() is not None for p in watched)
        if not left:
            break
    return Discrepancy(finite(left, weights), 0, "parameters that are left")


# Random numbers -------------------------------------------------------------------------------------------

GENERATORS: dict[str, Callable[[], Any]] = {
    "torch's": lambda: torch.get_rng_state().numpy().tobytes(),
    "Python's": random.getstate,
    "numpy's": lambda: np.random.get_state(legacy=True)[1].tobytes(),  # type: ignore[index]
}


@contract(
    "generators-left",
    "a step leaves random generators where they were, or where its draws take them: at no seed of its own",
    "torch.manual_seed in a step repeats every draw beside it, as of dropout and shuffling",
)
def generators_left(stack: Stack, case: Case) -> Discrepancy:
    """None: of two walks whose steps begin at other seeds, none ends where the other's does, whatever they draw."""
    one, other = walk(stack, case), walk(stack, case)
    pairs = [(_left(one, step), _left(other, STEPS + step)) for step in range(STEPS)]
    reset = [of for of in GENERATORS if any(a[of] == b[of] for a, b in pairs)]
    told = f" ({', '.join(reset)})" if reset else ""
    return Discrepancy(finite(len(reset), one.weights), 0, f"generators that a step sets to a seed{told}")


def _left(one: Walk, seed: int) -> dict[str, Any]:
    """States of the generators after a step that begins at a seed."""
    one.given()
    seed_all(seed)
    one.optimizer.step()
    return {of: state() for of, state in GENERATORS.items()}
