"""Laws of an optimizer's steps by themselves, on gradients that are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from identity_props.laws.base import (
    ADAM,
    LAYER,
    RMSPROP,
    SGD,
    WEIGHT,
    Case,
    Discrepancy,
    ensemble_of,
    law,
    optimizer_of,
    relative,
    step_eps,
    worst,
    worst_of,
)
from identity_props.laws.walking import NotOfferedError, offered
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack, at_home, names, resolve
from identity_props.task.theory import adam_first_step, adam_steps, rmsprop_steps

RATE = 1 / 128
SGD_ARGUMENTS = {"momentum": 0.9, "weight_decay": 0.01}


def _drawn(stack: Stack, case: Case) -> list[Tensor]:
    """A parameter [d, d] and case.steps gradients, drawn from the case."""
    draw = torch.randn(case.steps + 1, case.d, case.d, generator=case.generator(), dtype=torch.float64)
    return [g.to(stack.device, stack.dtype) for g in draw]


def _given(
    stack: Stack, case: Case, name: str, arrange: Callable[[Tensor], Tensor], **arguments: Any
) -> Tensor:
    """The parameter after steps on the gradients, laid out by ``arrange``."""
    start, *gradients = map(arrange, _drawn(stack, case))
    parameter = torch.nn.Parameter(start.clone())
    optimizer = optimizer_of(stack, name, [parameter], RATE, arguments)
    with seeded(case.seed, stack.device):
        for gradient in gradients:
            parameter.grad = gradient
            optimizer.step()
    return parameter.detach().double().cpu()


Arrange = Callable[[Tensor], Tensor]


def _arranged(stack: Stack, case: Case, arrange: Arrange, expected: Arrange, what: str) -> Discrepancy:
    """Steps on gradients as ``arrange`` lays them out, against ``expected`` of the steps as they are.

    A dozen roundings a step, as vector and scalar code may contract differently. Steps that mix entries sum
    them in another order too, some in float32, and magnify that: a basis of eigenvectors turns by much more
    than its matrix. They are allowed a dozen times a step what such a rounding of their gradients does to them.
    """
    eps, found = torch.finfo(stack.dtype).eps, []
    for name, arguments in ((SGD, SGD_ARGUMENTS), (RMSPROP, {}), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        one, other = (_given(stack, case, name, a, **given)[None] for a in (torch.clone, arrange))
        allowed, apart = 16 * case.steps * eps, relative([other], [expected(one[0])[None]])
        if allowed < apart < MOST:
            allowed += 16 * case.steps * _magnified(stack, case, name, one, given)
        found.append(Discrepancy(apart, allowed, what))
    return worst_of(found)


MOST = 1e-3  # that magnified roundings of float32 may come to, and less than another order of entries does


def _magnified(stack: Stack, case: Case, name: str, exact: Tensor, arguments: dict[str, Any]) -> float:
    """How far roundings of gradients to float32 take steps that mix entries; 0 for those that do not."""
    eps, generator = torch.finfo(torch.float32).eps, case.generator()
    order = torch.randperm(case.d**2, generator=generator)

    def shuffled(x: Tensor) -> Tensor:
        return x.flatten(-2)[..., order.to(x.device)].reshape(x.shape)

    def rounded(x: Tensor) -> Tensor:
        return x * (1 + eps * (2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1)).to(x)

    def apart(arrange: Arrange, expected: Tensor) -> float:
        return relative([_given(stack, case, name, arrange, **arguments)[None]], [expected])

    mixes = apart(shuffled, shuffled(exact)) > MOST
    return max(apart(rounded, exact) for _ in range(2)) if mixes else 0.0


@law(
    "layout",
    "a parameter that is not contiguous takes the same steps as one that is",
    "a layout is no value; pytorch#118115",
    "sgd rmsprop adam decay momentum non-contiguous three-steps",
    needs="without noise, stepping on given gradients",
)
def layout(stack: Stack, case: Case) -> Discrepancy:
    """See ``_arranged``. One that raises at such a parameter refuses it."""

    def transposed(x: Tensor) -> Tensor:
        return x.mT.contiguous().mT  # the same numbers, laid out by columns

    with offered("a parameter that is not contiguous"):
        _given(stack, case, SGD, transposed)
    return _arranged(stack, case, transposed, torch.clone, "|W - W'| / |W|")


@law(
    "elementwise",
    "permuting a parameter's entries permutes its steps: each depends on its own gradients alone",
    "SGD, RMSprop and Adam are elementwise",
    "sgd rmsprop adam decay momentum three-steps odd-width",
    needs="elementwise, stepping on given gradients",
)
def elementwise(stack: Stack, case: Case) -> Discrepancy:
    """See ``_arranged``."""
    order = torch.randperm(case.d, generator=case.generator())

    def shuffled(x: Tensor) -> Tensor:
        return x[order.to(x.device)]

    return _arranged(stack, case, shuffled, shuffled, "|W - P W'| / |W|")


@law(
    "neighbours",
    "a parameter takes the same steps beside others as alone, one of its shape among them, whatever gradients"
    " those get, none among them",
    "an optimizer that reads no entry for another's step shares no count either; flashlight#143, DeepSpeed#8471",
    "sgd rmsprop adam decay momentum three-steps odd-width",
    needs="each entry for itself, stepping on given gradients",
)
def neighbours(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, as code for many parameters at once may contract differently. What steps
    otherwise beside another row of the same tensor shares on purpose, and nothing is said of it, nor of one whose
    groups have rates by the place of a parameter among the others, as some decay them from layer to layer, or whose
    whole ways without decay are multiples by the place.
    """
    tolerance, what, apart = 16 * case.steps * torch.finfo(stack.dtype).eps, "|W beside - W| / |W|", [0.0]
    for name, arguments in ((SGD, SGD_ARGUMENTS), (RMSPROP, {}), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        alone = _given(stack, case, name, torch.clone, **given)[None]
        joined, before, after = (
            _beside(stack, case, name, how, given)[None] for how in ("joined", "before", "after")
        )
        if not relative([joined], [alone]) > tolerance:  # NaN is no sharing
            found = [relative([before], [alone]), relative([after], [alone])]
            if worst(found) > tolerance and _by_place(stack, case, name, tolerance):
                raise NotOfferedError("not offered: one rate for all places")
            apart += found
    return Discrepancy(worst(apart), tolerance, what)


def _by_place(stack: Stack, case: Case, name: str, tolerance: float) -> bool:
    """Whether its whole ways are multiples by the place, without decay, which squares a rate."""
    factory = stack.optimizer or resolve(name)
    given = {"weight_decay": 0.0} if names(factory, "weight_decay") else {}
    alone = _given(stack, case, name, torch.clone, **given)[None]
    ways = (_beside(stack, case, name, how, given)[None] for how in ("before", "after"))
    before, after = (_share(stack, case, one, alone, tolerance) for one in ways)
    return bool(before and after) and abs(before - after) > tolerance


def _share(stack: Stack, case: Case, one: Tensor, alone: Tensor, tolerance: float) -> float:
    """Which multiple of another's whole way its own is, in each entry; 0 where it is none."""
    start, *_ = _drawn(stack, case)
    own, other = one - start.double().cpu(), alone - start.double().cpu()
    share = float((own * other).sum() / other.square().sum())
    return (
        share if share > 0 and float((own - share * other).norm()) <= tolerance * float(one.norm()) else 0.0
    )


def _beside(stack: Stack, case: Case, name: str, how: str, arguments: dict[str, Any]) -> Tensor:
    """As ``_given``, beside one of its shape and a row that has no gradient at every second step: joined to them,
    before or after them.
    """
    start, *gradients = _drawn(stack, case)
    one, twin, other = (torch.nn.Parameter(p.clone()) for p in (start, -start, -start[:1]))
    both = torch.nn.Parameter(torch.cat([start, -start, -start[:1]]))
    parameters = {"joined": [both], "before": [one, twin, other], "after": [other, twin, one]}[how]
    optimizer = optimizer_of(stack, name, parameters, RATE, arguments)
    if len({float(group.get("lr", RATE)) for group in optimizer.param_groups}) > 1:
        raise NotOfferedError("not offered: one rate for all parameters")
    for step, gradient in enumerate(gradients):
        row, mirrored = 4 * gradient[:1], 2 * gradient.flip(0)
        one.grad, twin.grad, other.grad = gradient, mirrored, None if step % 2 else row
        both.grad = torch.cat([gradient, mirrored, 0 * row if step % 2 else row])
        optimizer.step()
    stepped = both[: case.d] if how == "joined" else one
    return stepped.detach().double().cpu()


@law(
    "implementations",
    "the for-loop, foreach, fused and capturable implementations of an optimizer take the same steps",
    "one algorithm, many codes",
    "sgd adam decay momentum three-steps",
    needs="implementations, stepping on given gradients",
)
def implementations(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, of operations in another order, see ``step_eps``; capturable runs on
    GPUs alone. An implementation that it refuses is none that it has.
    """
    apart = []
    for name, arguments in ((SGD, SGD_ARGUMENTS), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        loop, own = (
            _given(stack, case, name, torch.clone, **given, **way) for way in ({"foreach": False}, {})
        )
        apart.append(relative([own[None]], [loop[None]]))
        for way in _ways(stack, name):
            with suppress(NotImplementedError):
                stepped = _given(stack, case, name, torch.clone, **given, **{way: True})
                apart.append(relative([stepped[None]], [loop[None]]))
    return Discrepancy(worst(apart), 16 * case.steps * step_eps(stack), "|W - W'| / |W|")


def _ways(stack: Stack, name: str) -> list[str]:
    """The implementations that the optimizer offers on the stack's device."""
    offered = inspect.signature(stack.optimizer or resolve(name)).parameters
    on_gpu = torch.device(stack.device).type == "cuda"
    return [
        way
        for way in ("foreach", "fused", "capturable")
        if way in offered and (on_gpu or way != "capturable")
    ]


@law(
    "parity-steps",
    "steps on given gradients are those of the same optimizer on the CPU, eager",
    "a device or compiler changes how numbers are computed, not which",
    "sgd rmsprop adam decay momentum three-steps compiled",
    needs="stepping on given gradients, another device or mode or ranks",
)
def parity_steps(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, of operations in another order, see ``step_eps``."""
    apart = []
    for name, arguments in ((SGD, SGD_ARGUMENTS), (RMSPROP, {}), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        there, here = (_given(one, case, name, torch.clone, **given) for one in (stack, at_home(stack)))
        apart.append(relative([there[None]], [here[None]]))
    return Discrepancy(worst(apart), 16 * case.steps * step_eps(stack), "|W - W'| / |W|")


# Steps that are known ----------------------------------------------------------------------------------


@law(
    "adam-first-step",
    "Adam's first step is -lr g / (|g| + eps), so lr long wherever there is a gradient",
    "Kingma, Ba 2015, 1412.6980, derived in theory.adam_first_step",
    "adam float64 float32",
    needs="adam, affine layer, stepping on given gradients",
)
def adam_step(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings of the step, relative to lr, see ``step_eps``, and one of the weight it is added to."""
    lr, eps = 1 / 8, 1e-8
    ensemble = ensemble_of(stack, case, LAYER)
    parameter = ensemble.leaves[WEIGHT]
    optimizer = optimizer_of(stack, ADAM, [parameter], lr)
    ensemble.loss(case.x.to(stack.device, stack.dtype)).backward()
    assert parameter.grad is not None
    before, gradient = parameter.detach().double().clone(), parameter.grad.double()
    optimizer.step()
    off = (parameter.detach().double() - before - adam_first_step(gradient, lr, eps)).abs().max() / lr
    largest = 1 + float(before.abs().max()) / lr
    return Discrepancy(float(off), 16 * step_eps(stack) * largest, "|step - predicted| / lr")


def _walked(
    stack: Stack, case: Case, name: str, changes: Callable[[Tensor], Tensor], **arguments: Any
) -> Discrepancy:
    start, *gradients = (g.double().cpu() for g in _drawn(stack, case))
    expected = start + changes(torch.stack(gradients))[-1]
    measured = _given(stack, case, name, torch.clone, **arguments)
    # relative to the rate: a step is as long as that, whatever the gradient
    off = float((measured - expected).abs().max()) / RATE
    tolerance = 16 * case.steps * step_eps(stack) * (1 + float(start.abs().max()) / RATE)
    return Discrepancy(off, tolerance, "|W - predicted| / lr")


@law(
    "adam-steps",
    "on given gradients Adam's steps are those of its paper: averages, their correction, eps outside the root",
    "Kingma, Ba 2015, 1412.6980, algorithm 1",
    "adam three-steps float64 float32",
    needs="adam throughout, stepping on given gradients",
)
def adam_walk(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, see ``step_eps``, relative to lr or to the weight it is added to."""
    return _walked(stack, case, ADAM, lambda gradients: adam_steps(gradients, RATE))


@law(
    "rmsprop-steps",
    "on given gradients RMSprop's steps are g / (sqrt(v) + eps), v the running mean of squares from 0 on",
    "Tieleman, Hinton 2012, lecture 6.5",
    "rmsprop three-steps float64 float32",
    needs="rmsprop, stepping on given gradients",
)
def rmsprop_walk(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, see ``step_eps``, relative to lr or to the weight it is added to."""
    arguments = {"alpha": 0.9, "eps": 1e-7}
    return _walked(stack, case, RMSPROP, lambda g: rmsprop_steps(g, RATE, **arguments), **arguments)
