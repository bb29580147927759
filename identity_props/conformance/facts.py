"""Facts: what the rest of a stack is, layer, loss, init and where it trains, found by trying it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from identity_props.conformance.trying import LR, SHAPE, Walk, draws_steps, same, tried
from identity_props.engine.recorded import recordable
from identity_props.laws.base import SGD, optimizer_of
from identity_props.laws.layers import displaced
from identity_props.laws.precision import step_from_one
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import DTYPES, Stack


def rounds_at_random(stack: Stack) -> bool:
    """Steps draw random numbers in bfloat16 and none in float64, and are as long as their rate says."""
    if stack.optimizer is None:
        return False
    walk, ones = Walk(stack.optimizer, stack.arguments), torch.ones(4, *SHAPE, dtype=torch.float64)
    one, half = (float(step_from_one(stack, lr, 1.0)) for lr in (2.0**-12, 2.0**-13))
    drawn = [draws_steps(walk, ones, dtype) for dtype in (torch.bfloat16, torch.float64)]
    return drawn == [True, False] and one > 0 and abs(one - 2 * half) <= 1e-6 * one


def all_frozen(stack: Stack) -> bool:
    """No parameter of its layer requires a gradient, where it can be built."""

    def frozen() -> bool:
        layer = stack.linear(*stack.sized(5, 7), bias=True)
        return not any(p.requires_grad for p in layer.parameters())

    return tried(frozen)


def by_losses_alone(stack: Stack) -> bool:
    """Evaluates losses itself, and steps as well where gradients are 0, as MeZO (Malladi et al. 2023, 2305.17333).

    It needs as many steps as there are weights for one that takes gradients (Nesterov, Spokoiny 2017).
    """

    def stepped(slope: float) -> tuple[Tensor, int]:
        p, evaluated = torch.nn.Parameter(torch.ones(SHAPE, dtype=torch.float64)), 0

        def loss() -> Tensor:
            nonlocal evaluated
            evaluated += 1
            square = p.square().sum()
            return square.detach() + slope * (square - square.detach())

        with seeded(0):
            optimizer = optimizer_of(stack, SGD, [p], LR)
            stack.step(optimizer, loss)
            before = evaluated  # the first step may have been tried without a closure
            stack.step(optimizer, loss)
        return p.detach(), evaluated - before

    (flat, _), (end, evaluated) = stepped(0.0), stepped(1.0)
    return evaluated > 1 and torch.equal(flat, end) and not bool((end == 1).all())


NORMS = {"each row": 1, "each column": 0, "the whole": (0, 1)}  # by the axes that are summed


def norms_kept(stack: Stack) -> str:
    """Which norms of a matrix its steps keep to rounding, as on a sphere, though it moves; empty where none.

    Drawn, none of them is that of the identity, which is out of reach.
    """
    if stack.optimizer is None:
        return ""
    draw = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(5, 6, 6, generator=draw, dtype=torch.float64)
    with seeded(0):
        p = torch.nn.Parameter(start.clone())
        optimizer = optimizer_of(stack, SGD, [p], LR)
        for p.grad in gradients:
            optimizer.step()
    end = p.detach()
    if not float((end - start).norm()) > 1e-4 * float(start.norm()):
        return ""
    kept = (of for of, axes in NORMS.items() if same(end.norm(dim=axes), start.norm(dim=axes)))
    return next(kept, "")


def affine_layer(stack: Stack) -> bool:
    """Parameters are weight [out, in] and bias [out], and outputs x W^T + b."""
    (dtype, *_), near = dtypes_of(stack), []
    for bias in (True, False):
        layer = displaced(stack.linear(*stack.sized(5, 7), bias=bias).to(dtype))
        parameters = dict(layer.named_parameters())
        if parameters.keys() != ({"weight", "bias"} if bias else {"weight"}):
            return False
        with torch.no_grad():
            x = torch.randn(6, stack.sized(5, 7)[0], dtype=dtype)
            near.append(same(layer(x), torch.nn.functional.linear(x, **parameters)))
    return all(near)


def dtypes_of(stack: Stack) -> tuple[torch.dtype, ...]:
    """Those that layer, activation and loss take, from the widest; all where they take none.

    What raises everywhere is not of one dtype but broken, and the laws say how.
    """
    return dtypes_taken(stack) or tuple(DTYPES.values())


def dtypes_taken(stack: Stack) -> tuple[torch.dtype, ...]:
    """Those that layer, activation and loss take, forward and backward, from the widest."""
    with seeded(0, stack.device):
        return tuple(dtype for dtype in DTYPES.values() if tried(_passes, stack, dtype))


def _passes(stack: Stack, dtype: torch.dtype) -> bool:
    layer = stack.linear(*stack.sized(5, 7), bias=True).to(stack.device, dtype)
    x, y = (torch.randn(6, size, device=stack.device, dtype=dtype) for size in stack.sized(5, 7))
    out: Tensor = stack.activation(layer(x))
    stack.loss(out, y).backward()
    return out.dtype == dtype


def draws(stack: Stack, training: bool = True) -> bool:
    """A pass through layer and activation moves torch's global generator, as dropout does in training."""
    dtype = dtypes_of(stack)[0]
    layer = stack.linear(*stack.sized(5, 7), bias=True).to(stack.device, dtype).train(training)
    before = _drawn(stack)
    stack.activation(layer(torch.ones(6, stack.sized(5, 7)[0], device=stack.device, dtype=dtype)))
    return not torch.equal(before, _drawn(stack))


def repeatable(stack: Stack) -> bool:
    """Layer and activation do not draw in training, as far as they can be tried."""
    with seeded(0, stack.device):
        return not tried(draws, stack)


def changes_buffers(stack: Stack) -> bool:
    """A pass in training changes buffers, as batch norm's, which takes statistics of a whole batch."""
    dtype = dtypes_of(stack)[0]
    layer = stack.linear(*stack.sized(5, 7), bias=True).to(stack.device, dtype)
    before = [b.clone() for b in layer.buffers()]
    layer(torch.randn(6, stack.sized(5, 7)[0], device=stack.device, dtype=dtype))
    return not all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))


def _drawn(stack: Stack) -> Tensor:
    """State of the generator that a stack's layers draw from."""
    if torch.device(stack.device).type == "cuda":
        return torch.cuda.get_rng_state(stack.device)
    return torch.get_rng_state()


def draws_around_affine(stack: Stack) -> bool:
    """Its layer draws in training, and is affine in its input for any draws: their mean is what eval owes."""
    dtype = dtypes_of(stack)[0]
    layer = displaced(stack.linear(*stack.sized(5, 7), bias=True).to(stack.device, dtype))
    a, b = torch.randn(2, 6, stack.sized(5, 7)[0], device=stack.device, dtype=dtype)

    def with_same_draws(x: Tensor) -> Tensor:
        with seeded(0), torch.no_grad():
            out: Tensor = layer(x)
            return out

    def affine() -> bool:
        ends = with_same_draws(a) + with_same_draws(b)
        return same(with_same_draws(a + b) + with_same_draws(torch.zeros_like(a)), ends)

    only_there = draws(stack) and not draws(stack, training=False)
    return only_there and affine() and layer.eval() is layer and affine()


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
    return same(stack.loss(a, b), (a - b).square().mean())


def squared_error(stack: Stack) -> bool:
    """The loss is a multiple of the sum of squares, one that shape alone decides."""
    a, b = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratios = [
        stack.loss(scale * x, scale * y) / (scale * (x - y)).square().sum()
        for scale, x, y in zip((1, 4, 1 / 4), a, b, strict=True)
    ]
    return bool(ratios[0] > 0) and same(torch.stack(ratios), ratios[0].expand(3))


FACTS: dict[str, Callable[[Stack], bool]] = {
    "affine layer": affine_layer,
    "taking float32": lambda stack: torch.float32 in dtypes_of(stack),
    "relu": relu,
    "symmetric init": symmetric_init,
    "mean squared error": mean_squared_error,
    "squared error": squared_error,
    "repeatable in training": repeatable,
    "keeping its buffers": lambda stack: not tried(changes_buffers, stack),
    "drawing around an affine layer": draws_around_affine,
    "rounding at random": rounds_at_random,
    "another device or mode or ranks": lambda stack: (
        (stack.device, stack.mode, stack.ranks) != ("cpu", "eager", 1)
    ),
    "cuda": lambda stack: torch.device(stack.device).type == "cuda",
    "one rank": lambda stack: stack.ranks == 1,
    "torch's own network": recordable,
    "several ranks": lambda stack: stack.ranks > 1,
}
