"""Traits: what the parts of a stack are, found by trying them and never by their names.

A law that speaks of gradient descent says nothing of Adam; which laws apply follows from these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from identity_props.conformance.facts import FACTS, rounds_at_random
from identity_props.conformance.trying import LARGE, LR, SHAPE, STEPS, Walk, draws_steps, same, tried
from identity_props.laws.precision import LOST
from identity_props.stack.guard import RAISED, HangError, go_on
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack, without_eps
from identity_props.task.theory import adam_first_step, adam_steps, rmsprop_steps

UNKNOWN = "unknown"  # the trait of an optimizer that hangs
UNDRAWN = "without noise", "stepping the same again"  # of one that takes no step, nothing else is known
CLOSURE_FREE = "stepping on given gradients"
TRAITS: dict[str, Callable[[Walk, Tensor], bool]] = {}


def traits(stack: Stack) -> frozenset[str]:
    """Names in TRAITS and FACTS that fit the stack; all of TRAITS if it has no optimizer of its own."""
    with seeded(0):
        of_optimizer = _of_optimizer(stack)
        hangs = UNKNOWN in of_optimizer
        of_others = (name for name, fits in FACTS.items() if not (hangs and fits is rounds_at_random))
        return of_optimizer | {name for name in of_others if tried(FACTS[name], stack)}


def _of_optimizer(stack: Stack) -> frozenset[str]:
    if stack.optimizer is None:
        return frozenset(TRAITS)
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(STEPS, *SHAPE, generator=generator, dtype=torch.float64)
    walk = Walk(stack.optimizer, stack.arguments)
    try:
        return frozenset(name for name, fits in TRAITS.items() if tried(fits, walk, gradients))
    except HangError:  # the next step would hang as well
        go_on()
        return frozenset({UNKNOWN, *UNDRAWN})


def trait(name: str) -> Callable[[Callable[[Walk, Tensor], bool]], Callable[[Walk, Tensor], bool]]:
    """Register a test of a trait: whether ``walk(gradients, **arguments)`` goes as the trait says."""

    def register(fits: Callable[[Walk, Tensor], bool]) -> Callable[[Walk, Tensor], bool]:
        TRAITS[name] = fits
        return fits

    return register


@trait("gradient-descent")
def gradient_descent(walk: Walk, gradients: Tensor) -> bool:
    """Changes are -lr times the sum of the gradients."""
    return same(walk.parts(gradients), -LR * gradients.cumsum(0))


@trait(CLOSURE_FREE)
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
    return same(walk.parts(gradients, momentum=0.9), -LR * torch.stack(velocity).cumsum(0))


@trait("decay")
def decay(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``weight_decay`` and couples it: steps are -lr (g + wd w), from w = 1."""
    w = [torch.ones_like(gradients[0])]
    for gradient in gradients:
        w.append(w[-1] - LR * (gradient + 0.1 * w[-1]))
    return same(walk.parts(gradients, weight_decay=0.1), torch.stack(w[1:]) - 1)


@trait("still")
def still(walk: Walk, gradients: Tensor) -> bool:
    """Moves nothing, bit for bit, where the gradient is 0 and always was, beside entries that have one too.

    Their gradients are across the weights, along which some project steps (Heo et al. 2021, 2006.08217); and a weight
    that float32 does not hold shows what rounds all of them to that. Large weights show what bounds norms of them.
    """
    beside = gradients.clone()
    beside[:, 1:, 1:] -= beside[:, 1:, 1:].mean(2, keepdim=True)
    beside[:, 0], beside[:, :, 0] = 0, 0

    def stays(start: float) -> bool:
        begun = replace(walk, start=start)
        walked = begun(beside)
        return not (begun(torch.zeros_like(beside)).any() or walked[:, 0].any() or walked[:, :, 0].any())

    return stays(1 / 3) and stays(1024 / 3) and not tried(_moves_vectors, walk, beside)


def _moves_vectors(walk: Walk, gradients: Tensor) -> bool:
    """Moves a vector whose gradient is 0, as by a decay of vectors alone; who takes none moves none."""
    return bool(walk(torch.zeros_like(gradients[:, 0])).any())


@trait(UNDRAWN[0])
def noiseless(walk: Walk, gradients: Tensor) -> bool:
    """Draws nothing for its steps: torch's generator stands still, and entries of one past move alike.

    What raises without gradients, or ends in NaN, is not said to draw.
    """
    try:
        alike = walk(torch.zeros_like(gradients[:4]))
    except RAISED:
        return True
    differ = bool(alike.isfinite().all()) and not same(alike, alike[:, :1, :1].expand_as(alike))
    return not differ and not draws_steps(walk, gradients, torch.float64)


@trait(UNDRAWN[1])
def repeats(walk: Walk, gradients: Tensor) -> bool:
    """Takes the same steps twice, bit for bit, where all generators that a caller can seed are.

    What wants a closure is not tried.
    """

    def walked() -> Tensor:
        with seeded(0):
            return walk(gradients)

    try:
        return torch.allclose(walked(), walked(), rtol=0, atol=0, equal_nan=True)
    except RAISED:
        return True


@trait("elementwise")
def elementwise(walk: Walk, gradients: Tensor) -> bool:
    """Permuting the entries permutes the changes, of a large parameter too: some are quantised in blocks."""
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(4, *LARGE, generator=generator, dtype=gradients.dtype)

    def permutes(gradients: Tensor) -> bool:
        order = torch.randperm(gradients[0].numel(), generator=generator)

        def shuffled(x: Tensor) -> Tensor:
            return x.flatten(1)[:, order].reshape(x.shape)

        return same(walk(shuffled(gradients)), shuffled(walk(gradients)))

    return permutes(gradients) and permutes(large)


@trait("taking gradients uncentred")
def uncentred(walk: Walk, gradients: Tensor) -> bool:
    """A constant added to a gradient changes steps: where it does not, an entry without gradient moves with others.

    Gradients are centralised on purpose (Yong et al. 2020, 2004.01461).
    """
    return not same(walk(gradients + gradients[:, :1, :1]), walk(gradients))


@trait("each entry for itself")
def separable(walk: Walk, gradients: Tensor) -> bool:
    """Entries keep their changes, whatever gradients the others get: no norm, mean or estimate is shared.

    Gradients of one sign, so that what an optimizer learns from the way it has gone shows; what draws
    random numbers differs by itself.
    """
    gradients = gradients.abs()
    alternating = (-torch.ones(len(gradients), 1, 1).to(gradients)).cumprod(0)

    def kept(factor: Tensor | float) -> bool:
        others = torch.cat([gradients[:, :2], factor * gradients[:, 2:].flip(0)], 1)
        return same(walk(others)[:, :2], walk(gradients)[:, :2])

    return all(kept(factor) for factor in (4.0, 2 + 2 * alternating, 1000 * alternating))


@trait("rounding to nearest")
def nearest(walk: Walk, gradients: Tensor) -> bool:
    """Draws no random numbers for its steps, in a low precision either."""
    steps = bool(walk(gradients[:4]).isfinite().all())
    return steps and not any(draws_steps(walk, gradients, dtype) for dtype in LOST)


@trait("scale-free")
def scale_free(walk: Walk, gradients: Tensor) -> bool:
    """Gradients 16 times as large, or 4096 times as small, change nothing, bit for bit, once eps is out of the way."""
    eps = without_eps(walk.optimizer)

    def scaled(gradients: Tensor) -> bool:
        walked = walk(gradients, **eps)
        return all(torch.equal(walk(scale * gradients, **eps), walked) for scale in (16, 1 / 4096))

    # beside entries without one too, where 0 / 0 is not a step; and one that shares a mean shows it where all have one
    return scaled(gradients) and scaled(torch.cat([0 * gradients[:, :1], gradients[:, 1:]], 1))


@trait("adam")
def adam(walk: Walk, gradients: Tensor) -> bool:
    """Its first step is -lr g / (|g| + 1e-8), where g is as small as that too, and beside entries of 0."""
    first = gradients[:1]
    tried = first, 1e-8 * first, torch.cat([0 * first[:, :1], first[:, 1:]], 1)
    return all(same(walk(each), adam_first_step(each, LR)) for each in tried)


@trait("rmsprop")
def rmsprop(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``alpha`` and ``eps`` and divides by the root of the running mean of squares."""
    return same(walk.parts(gradients, alpha=0.9, eps=1e-30), rmsprop_steps(gradients, LR, 0.9, 1e-30))


@trait("adam throughout")
def adam_throughout(walk: Walk, gradients: Tensor) -> bool:
    """Is Adam in all its steps, which others are in the first alone."""
    return same(walk.parts(gradients), adam_steps(gradients, LR))


@trait("implementations")
def implementations(walk: Walk, gradients: Tensor) -> bool:
    """Takes ``foreach``."""
    return bool(walk(gradients[:1], foreach=True).isfinite().all())
