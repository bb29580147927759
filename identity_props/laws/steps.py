"""Laws of an optimizer's steps by themselves, on gradients that are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from identity_props.laws.base import (
    ADAM,
    RMSPROP,
    SGD,
    Case,
    Discrepancy,
    law,
    optimizer_of,
    relative,
    step_eps,
    worst,
)
from identity_props.stack.stack import Stack, at_home, resolve
from identity_props.task.theory import adam_steps, rmsprop_steps

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
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach().double().cpu()


Arrange = Callable[[Tensor], Tensor]


def _arranged(stack: Stack, case: Case, arrange: Arrange, expected: Arrange, what: str) -> Discrepancy:
    """Steps on gradients as ``arrange`` lays them out, against ``expected`` of the steps as they are.

    A dozen roundings a step, as vector and scalar code may contract differently.
    """
    apart = []
    for name, arguments in ((SGD, SGD_ARGUMENTS), (RMSPROP, {}), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        one, other = (_given(stack, case, name, a, **given) for a in (torch.clone, arrange))
        apart.append(relative([other[None]], [expected(one)[None]]))
    return Discrepancy(worst(apart), 16 * case.steps * torch.finfo(stack.dtype).eps, what)


@law(
    "layout",
    "a parameter that is not contiguous takes the same steps as one that is",
    "a layout is no value; pytorch#118115",
    "sgd rmsprop adam decay momentum non-contiguous three-steps",
    needs="stepping on given gradients",
)
def layout(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, as vector and scalar code may contract differently."""

    def transposed(x: Tensor) -> Tensor:
        return x.mT.contiguous().mT  # the same numbers, laid out by columns

    return _arranged(stack, case, transposed, torch.clone, "|W - W'| / |W|")


@law(
    "elementwise",
    "permuting a parameter's entries permutes its steps: each depends on its own gradients alone",
    "SGD, RMSprop and Adam are elementwise",
    "sgd rmsprop adam decay momentum three-steps odd-width",
    needs="elementwise",
)
def elementwise(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, as vector and scalar code may contract differently."""
    order = torch.randperm(case.d, generator=case.generator())

    def shuffled(x: Tensor) -> Tensor:
        return x[order.to(x.device)]

    return _arranged(stack, case, shuffled, shuffled, "|W - P W'| / |W|")


@law(
    "implementations",
    "the for-loop, foreach, fused and capturable implementations of an optimizer take the same steps",
    "one algorithm, many codes",
    "sgd adam decay momentum three-steps",
    needs="implementations",
)
def implementations(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, of operations in another order, see ``step_eps``; capturable runs on
    GPUs alone.
    """
    apart = []
    for name, arguments in ((SGD, SGD_ARGUMENTS), (ADAM, {"weight_decay": 0.01})):
        given = {} if stack.optimizer else arguments
        loop = _given(stack, case, name, torch.clone, **given, foreach=False)
        for way in _ways(stack, name):
            apart.append(
                relative([_given(stack, case, name, torch.clone, **given, **way)[None]], [loop[None]])
            )
    return Discrepancy(worst(apart), 16 * case.steps * step_eps(stack), "|W - W'| / |W|")


def _ways(stack: Stack, name: str) -> list[dict[str, bool]]:
    """Its own choice, and the implementations that the optimizer offers on the stack's device."""
    offered = inspect.signature(stack.optimizer or resolve(name)).parameters
    on_gpu = torch.device(stack.device).type == "cuda"
    names = ("foreach", "fused", "capturable") if on_gpu else ("foreach", "fused")
    return [{}, *({way: True} for way in names if way in offered)]


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


LOST = {torch.bfloat16: 8, torch.float16: 11}  # mantissa bits, the hidden one counted


@law(
    "dtype-floor",
    "a step from 1 is lost up to 2^-9 down and 2^-8 up in bfloat16, 2^-12 and 2^-11 in float16, and no other",
    "numbers below 1 lie 2^-p apart, above 2^(1-p), p = 8 and 11; ties round to even, which is 1",
    "sgd bfloat16",
    needs="gradient-descent",
    kind="floor",
)
def dtype_floor(stack: Stack, case: Case) -> Discrepancy:
    """None: a step is lost or it is not. Steps lie 1/8 off each power of two, and on it."""
    wrong = 0
    for dtype, p in LOST.items():
        sizes = [2.0**-j * f for j in range(p - 4, p + 6) for f in (0.875, 1, 1.125)]
        steps = torch.tensor(sizes + [-size for size in sizes], dtype=torch.float64)
        parameter = torch.nn.Parameter(torch.ones(len(steps), dtype=dtype, device=stack.device))
        parameter.grad = steps.to(parameter)
        optimizer_of(stack, SGD, [parameter], 1.0).step()
        lost = torch.where(steps > 0, steps <= 2.0 ** -(p + 1), -steps <= 2.0**-p)
        wrong += int(((parameter.detach().cpu() == 1) != lost).sum())
    return Discrepancy(wrong, 0, "steps lost that should count, or the other way")


# Steps that are known ----------------------------------------------------------------------------------


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
    needs="adam throughout",
)
def adam_walk(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, see ``step_eps``, relative to lr or to the weight it is added to."""
    return _walked(stack, case, ADAM, lambda gradients: adam_steps(gradients, RATE))


@law(
    "rmsprop-steps",
    "on given gradients RMSprop's steps are g / (sqrt(v) + eps), v the running mean of squares from 0 on",
    "Tieleman, Hinton 2012, lecture 6.5",
    "rmsprop three-steps float64 float32",
    needs="rmsprop",
)
def rmsprop_walk(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, see ``step_eps``, relative to lr or to the weight it is added to."""
    arguments = {"alpha": 0.9, "eps": 1e-7}
    return _walked(stack, case, RMSPROP, lambda g: rmsprop_steps(g, RATE, **arguments), **arguments)
