"""Traits: what the parts of a stack are, found by trying them and never by their names.

A law that speaks of gradient descent says nothing of Adam; which laws apply follows from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from identity_props.engine.recorded import recordable
from identity_props.stack.guard import RAISED, HangError, go_on
from identity_props.stack.stack import Stack, ready, seeded, without_eps
from identity_props.task.theory import adam_first_step, adam_steps, rmsprop_steps

LR, STEPS, SHAPE = 1 / 128, 4, (5, 7)
CLOSE = 1e-9  # of the largest change; rounding leaves 1e-13, a wrong coefficient 1e-3 or more


@dataclass(frozen=True)
class Walk:
    """Changes [STEPS, ...] of a parameter of ones on gradients [STEPS, ...], one after the other."""

    optimizer: Callable[..., torch.optim.Optimizer]
    arguments: Mapping[str, Any]

    def __call__(self, gradients: Tensor, **arguments: Any) -> Tensor:
        start = torch.ones_like(gradients[0])
        parameter = torch.nn.Parameter(start.clone())
        optimizer = ready(self.optimizer([parameter], lr=LR, **{**self.arguments, **arguments}))
        changes = []
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
            changes.append(parameter.detach() - start)
        return torch.stack(changes)


UNKNOWN = "unknown"  # the trait of an optimizer that hangs
TRAITS: dict[str, Callable[[Walk, Tensor], bool]] = {}


def traits(stack: Stack) -> frozenset[str]:
    """Names in TRAITS and FACTS that fit the stack; all of TRAITS if it has no optimizer of its own."""
    with seeded(0):
        return _of_optimizer(stack) | {name for name, holds in FACTS.items() if _tried(holds, stack)}


def _of_optimizer(stack: Stack) -> frozenset[str]:
    if stack.optimizer is None:
        return frozenset(TRAITS)
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(STEPS, *SHAPE, generator=generator, dtype=torch.float64)
    walk = Walk(stack.optimizer, stack.arguments)
    try:
        return frozenset(name for name, fits in TRAITS.items() if _tried(fits, walk, gradients))
    except HangError:  # the next step would hang as well
        go_on()
        return frozenset({UNKNOWN})


def _tried(fits: Callable[..., bool], *arguments: Any) -> bool:
    try:
        return fits(*arguments)
    except RAISED:  # an argument that it does not take, a closure or another shape that it wants
        return False


def trait(name: str) -> Callable[[Callable[[Walk, Tensor], bool]], Callable[[Walk, Tensor], bool]]:
    """Register a test of a trait: whether ``walk(gradients, **arguments)`` goes as the trait says."""

    def register(fits: Callable[[Walk, Tensor], bool]) -> Callable[[Walk, Tensor], bool]:
        TRAITS[name] = fits
        return fits

    return register


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= CLOSE * b.abs().max())


@trait("gradient-descent")
def gradient_descent(walk: Walk, gradients: Tensor) -> bool:
    """Changes are -lr times the sum of the gradients."""
    return _same(walk(gradients), -LR * gradients.cumsum(0))


@trait("stepping on given gradients")
def closure_free(walk: Walk, gradients: Tensor) -> bool:
    """Steps without a closure that evaluates the loss again."""
    return bool(walk(gradients).isfinite().all())


@trait("for any shape")
def any_shape(walk: Walk, gradients: Tensor) -> bool:
    """Takes vectors as well as matrices."""
    return bool(walk(gradients[:, 0]).isfinite().all())


@trait("momentum")
def momentum(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``momentum`` and is the heavy ball: v <- mu v + g, change -lr v."""
    velocity = [gradients[0]]
    for gradient in gradients[1:]:
        velocity.append(0.9 * velocity[-1] + gradient)
    return _same(walk(gradients, momentum=0.9), -LR * torch.stack(velocity).cumsum(0))


@trait("decay")
def decay(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``weight_decay`` and couples it: one step is -lr (g + wd w), from w = 1."""
    return _same(walk(gradients[:1], weight_decay=0.1), -LR * (gradients[:1] + 0.1))


@trait("still")
def still(walk: Walk, gradients: Tensor) -> bool:
    """Moves nothing, bit for bit, where the gradient is 0 and always was."""
    return not walk(torch.zeros_like(gradients)).any()


@trait("elementwise")
def elementwise(walk: Walk, gradients: Tensor) -> bool:
    """Permuting the entries permutes the changes."""
    order = torch.randperm(gradients[0].numel(), generator=torch.Generator().manual_seed(1))

    def shuffled(x: Tensor) -> Tensor:
        return x.flatten(1)[:, order].reshape(x.shape)

    return _same(walk(shuffled(gradients)), shuffled(walk(gradients)))


@trait("scale-free")
def scale_free(walk: Walk, gradients: Tensor) -> bool:
    """Gradients 16 times as large change nothing, bit for bit, once eps is out of the way."""
    eps = without_eps(walk.optimizer)
    return bool(torch.equal(walk(16 * gradients, **eps), walk(gradients, **eps)))


@trait("adam")
def adam(walk: Walk, gradients: Tensor) -> bool:
    """Its first step is -lr g / (|g| + 1e-8)."""
    return _same(walk(gradients[:1]), adam_first_step(gradients[:1], LR))


@trait("rmsprop")
def rmsprop(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``alpha`` and ``eps`` and divides by the root of the running mean of squares."""
    return _same(walk(gradients, alpha=0.9, eps=1e-30), rmsprop_steps(gradients, LR, 0.9, 1e-30))


@trait("adam throughout")
def adam_throughout(walk: Walk, gradients: Tensor) -> bool:
    """Is Adam in all its steps, which others are in the first alone."""
    return _same(walk(gradients), adam_steps(gradients, LR))


@trait("implementations")
def implementations(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``foreach``."""
    return bool(walk(gradients[:1], foreach=True).isfinite().all())


# Of the rest of a stack ------------------------------------------------------------------------------


def affine_layer(stack: Stack) -> bool:
    """Parameters are weight [out, in] and bias [out], and outputs x W^T + b."""
    x, near = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), []
    for bias in (True, False):
        layer = stack.linear(5, 7, bias=bias).double()
        parameters = dict(layer.named_parameters())
        if parameters.keys() != ({"weight", "bias"} if bias else {"weight"}):
            return False
        with torch.no_grad():
            near.append(_same(layer(x), torch.nn.functional.linear(x, **parameters)))
    return all(near)


def relu(stack: Stack) -> bool:
    """The activation is max(x, 0), bit for bit."""
    x = torch.linspace(-3, 3, 97, dtype=torch.float64)
    return torch.equal(stack.activation(x), x.clamp_min(0))


def symmetric_init(stack: Stack) -> bool:
    """Weights are as often positive as not, to six deviations, and biases 0."""
    if stack.init is None:
        return True
    layer = torch.nn.Linear(64, 64)
    stack.init(layer)
    positive = float((layer.weight > 0).float().mean())
    return abs(positive - 0.5) <= 6 * 0.5 / 64 and not bool(layer.bias.any())


def mean_squared_error(stack: Stack) -> bool:
    """The loss is the mean of squares over examples and pixels."""
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return _same(stack.loss(a, b), (a - b).square().mean())


FACTS: dict[str, Callable[[Stack], bool]] = {
    "affine layer": affine_layer,
    "relu": relu,
    "symmetric init": symmetric_init,
    "mean squared error": mean_squared_error,
    "another device or mode or ranks": lambda stack: (
        (stack.device, stack.mode, stack.ranks) != ("cpu", "eager", 1)
    ),
    "cuda": lambda stack: torch.device(stack.device).type == "cuda",
    "one rank": lambda stack: stack.ranks == 1,
    "torch's own network": recordable,
    "several ranks": lambda stack: stack.ranks > 1,
}
