"""Laws of a layer, an activation or a loss by itself: derivatives, biases, modes, and what the numbers mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss, pad

from identity_props.laws.base import (
    Case,
    Discrepancy,
    descend,
    law,
    relative,
    rounding,
    worst,
    worst_of,
)
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant
from identity_props.task.theory import gd_weights, second_moment

EXAMPLES = 6


def displaced(layer: nn.Module) -> nn.Module:
    """The layer with noise on all that trains: what multiplies a 0 it starts from shows there, as LoRA's."""
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
    return layer


def _layers(stack: Stack, case: Case) -> Iterator[nn.Module]:
    """Layers from d to d + 2, or to another of the stack's sizes, with bias and without, as drawn and displaced."""
    for bias in (True, False):
        layer = stack.linear(case.d, stack.beside(case.d), bias=bias).to(stack.device, stack.dtype)
        yield layer
        yield displaced(layer)


def _input(stack: Stack, case: Case) -> Tensor:
    return torch.randn(EXAMPLES, case.d, device=stack.device, dtype=stack.dtype)


# Derivatives ----------------------------------------------------------------------------------------

Function = Callable[[Tensor], Tensor]


@law(
    "gradients",
    "what a backward pass leaves on the input and on every parameter is the derivative of the output",
    "central differences of the forward pass",
    "odd-width float64",
    kind="wrong gradient",
)
def gradients(stack: Stack, case: Case) -> Discrepancy:
    """Rounding: along a tensor in which the output is affine, a central difference is the derivative whatever
    its step. Where it is smooth and no more, some gradient has to come where the output moves at all; where it
    is not smooth, as of rounded weights, or a pass changes buffers, nothing is said. What a layer draws is the
    same in all passes.
    """
    tolerance = 4 * rounding(stack.dtype, 1, case.d, case.d, EXAMPLES)
    with seeded(case.seed, stack.device):
        found = [*_of_layers(stack, case, tolerance), *_of_activation(stack, case, tolerance)]
    return worst_of(Discrepancy(apart, tolerance, what) for what, apart in found)


def _of_layers(stack: Stack, case: Case, close: float) -> Iterator[tuple[str, float]]:
    for layer in _layers(stack, case):
        for training in (True, False):
            layer.train(training)
            flags = {name: p.requires_grad for name, p in layer.named_parameters()}

            def alike(x: Tensor, layer: nn.Module = layer) -> Tensor:
                with seeded(case.seed, stack.device):
                    out: Tensor = layer(x)
                    return out

            repeats = _repeats(alike, layer, _input(stack, case))
            for name, p in layer.named_parameters():
                if p.requires_grad != flags[name]:
                    yield f"{name} is frozen or thawed by its first pass", math.inf
            if repeats:
                trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
                yield from _apart(alike, trained, _input(stack, case), 1.0, close)


def _of_activation(stack: Stack, case: Case, close: float) -> Iterator[tuple[str, float]]:
    x = _input(stack, case)
    away = x + 0.1 * x.sign()  # from the kink of a ReLU, which steps of 1e-3 do not reach
    yield from _apart(stack.activation, {}, away, 1e-3, close)


def _repeats(function: Function, layer: nn.Module, x: Tensor) -> bool:
    """Whether a pass gives the same twice and leaves the buffers as they are."""
    before = [b.clone() for b in layer.buffers()]
    with torch.no_grad():
        same = torch.equal(function(x.clone()), function(x.clone()))
    return same and all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))


def _apart(
    function: Function, parameters: Mapping[str, Tensor], x: Tensor, step: float, close: float
) -> Iterator[tuple[str, float]]:
    """How far the derivative along each tensor, in a drawn direction, is from what backward says of it."""
    x.requires_grad_()
    tensors = {"the input": x, **parameters}
    for tensor in tensors.values():
        tensor.grad = None
    out = function(x.clone())  # which may work in place
    along = torch.randn_like(out)
    if out.requires_grad:
        out.backward(along)
    for name, tensor in tensors.items():
        direction = step * torch.randn_like(tensor)
        came = 0.0 if tensor.grad is None else float((tensor.grad * direction).sum())
        note = ", none came" if tensor.grad is None else ""
        what = f"|backward - difference| / |output| along {name}{note}"
        yield what, _judged(_moved(function, x, tensor, direction), along, came, close)


def _moved(function: Function, x: Tensor, tensor: Tensor, direction: Tensor) -> Callable[[float], Tensor]:
    """The output with the tensor moved by a multiple of the direction, and moved back."""

    @torch.no_grad()
    def at(multiple: float) -> Tensor:
        kept = tensor.detach().clone()
        tensor.add_(direction, alpha=multiple)
        out = function(x.detach().clone())
        tensor.copy_(kept)
        return out

    return at


def _judged(at: Callable[[float], Tensor], along: Tensor, came: float, close: float) -> float:
    outs = {multiple: at(multiple) for multiple in (-1, 0, 1, 2)}
    size = float(along.norm() * max(out.norm() for out in outs.values())) or 1.0
    value = {multiple: float((along * out).sum()) for multiple, out in outs.items()}
    bends = (value[1] + value[-1] - 2 * value[0], value[2] + value[0] - 2 * value[1])
    if worst(map(abs, bends)) <= close * size:
        return abs((value[1] - value[-1]) / 2 - came) / size
    coarse, fine = (float((along * (at(h) - at(-h))).sum()) / (2 * h) for h in (1e-2, 1e-4))
    smooth = abs(coarse - fine) <= 1e-2 * abs(fine)
    return abs(fine) / size if smooth and came == 0 else 0.0


# Biases -----------------------------------------------------------------------------------------------


@law(
    "bias-trajectory",
    "full-batch gradient descent of weight and bias is that of the weight [W b] on the data [x 1], whose answer"
    " is [I 0]",
    "gd-trajectory, a bias being the weight of a pixel that is always 1",
    "sgd three-steps odd-width float64 float32",
    needs="gradient-descent, affine layer, mean squared error, for any shape",
    kind="rate",
)
def bias_trajectory(stack: Stack, case: Case) -> Discrepancy:
    """Rounding over k steps of sums over n examples and d + 1 pixels."""
    largest = torch.linalg.eigvalsh(second_moment(pad(case.x, (0, 1), value=1.0)))[:, -1]
    lr = case.factor * case.d / float(largest.max())
    descent = descend(stack, case, Variant("linear", 1, "none"), lr=lr)
    moment = second_moment(pad(descent.x, (0, 1), value=1.0))
    weights, biases = descent.weights(), descent.weights("layers.0.bias")
    both = [torch.cat([w, b[:, :, None]], 2) for w, b in zip(weights, biases, strict=True)]  # [K, d, d + 1]
    constant = torch.eye(case.d + 1, dtype=torch.float64)[-1:].expand(case.replicas, 1, -1)
    start = torch.cat([both[0], constant], 1)  # with the row of the answer that gives the constant
    rate = lr * (case.d + 1) / case.d  # a mean over d outputs, where gd_weights counts d + 1
    expected = [gd_weights(start, moment, rate, k)[:, :-1] for k in range(case.steps + 1)]
    still = all(torch.equal(b, biases[0]) for b in biases)
    what = "|[W b] - predicted| / |predicted|" + ", the bias never moved" * still
    tolerance = rounding(stack.dtype, case.steps, case.x.shape[1], case.d + 1)
    return Discrepancy(relative(both, expected), tolerance, what)


# Modes ------------------------------------------------------------------------------------------------


@law(
    "eval-output",
    "in eval mode an affine layer gives what it gives in training, x W^T + b, before its first pass in training"
    " and after",
    "a layer of weight and bias alone has nothing to switch; transformers#33844",
    "eval odd-width float64 float32",
    needs="affine layer",
    kind="wrong output",
)
def eval_output(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of sums over d pixels."""
    with seeded(case.seed, stack.device):
        off = [_modes_apart(layer, _input(stack, case)) for layer in _layers(stack, case)]
    return Discrepancy(worst(off), rounding(stack.dtype, 1, case.d), "|output - (x W^T + b)| / its size")


@torch.no_grad()
def _modes_apart(layer: nn.Module, x: Tensor) -> float:
    outs = [layer.train(training)(x.clone()).double() for training in (False, True, False)]
    expected = linear(x.double(), **{name: p.double() for name, p in layer.named_parameters()})
    return relative([out[None] for out in outs], [expected[None]] * 3)


PASSES = 2048


@law(
    "mean-in-training",
    "what a layer draws in training is drawn around what it gives in eval mode",
    "inverted dropout: E[mask / (1 - p)] = 1 (Srivastava et al. 2014, section 10)",
    "eval odd-width",
    needs="drawing around an affine layer",
    kind="wrong output",
)
def mean_in_training(stack: Stack, case: Case) -> Discrepancy:
    """Student's t of 2,048 passes on each output, Bonferroni over them, at 1e-7 false alarms for outputs whose
    means are normal: discrepancy -log10 p, allowed 7. A mean that is off by 0.2 of one pass's deviation is
    found with probability .99.
    """
    with seeded(case.seed, stack.device), torch.no_grad():
        layer = displaced(stack.linear(case.d, stack.beside(case.d), bias=True).to(stack.device, stack.dtype))
        x = _input(stack, case)
        expected = layer.eval()(x).double()
        layer.train()
        drawn = torch.stack([layer(x).double() for _ in range(PASSES)])
    return Discrepancy(_surprise(drawn, expected), 7, f"-log10 p of the mean of {PASSES} passes in training")


def _surprise(drawn: Tensor, expected: Tensor) -> float:
    """-log10 of the least p of the means of drawn [N, ...] being those expected, times their number."""
    n, off = len(drawn), (drawn.mean(0) - expected).abs()
    rounded = 1e-6 * expected.abs() + 1e-9  # of outputs that draw nothing
    deviations = ((off - rounded).clamp_min(0) / (drawn.std(0) / math.sqrt(n)).clamp_min(1e-30)).flatten()
    from scipy.special import stdtr  # half a second, which listing the laws does without

    log_p = math.log10(max(stdtr(n - 1, -worst(deviations.tolist())), 1e-300))
    return max(0.0, min(300.0, -(log_p + math.log10(2 * len(deviations)))))


# Losses -----------------------------------------------------------------------------------------------

SHAPES = ((6, 5), (4, 7), (6, 1), (1, 5), (1, 1))
MEANINGS: dict[str, Callable[[int, int], float]] = {
    "the mean squared error": lambda n, d: 1,
    "half the mean squared error": lambda n, d: 1 / 2,
    "summed over pixels": lambda n, d: d,
    "half, summed over pixels": lambda n, d: d / 2,
    "summed over examples": lambda n, d: n,
    "summed over examples and pixels": lambda n, d: n * d,
    "half, summed over examples and pixels": lambda n, d: n * d / 2,
}


@law(
    "mean-squared-error",
    "a loss of squared errors is their mean over examples and pixels, for one pixel and one example too",
    "what a stack's loss is to be; a [n, 1] less a [n] is an [n, n] by broadcasting",
    "float64 float32",
    needs="squared error",
    kind="wrong loss",
)
def mean_squares(stack: Stack, case: Case) -> Discrepancy:
    """Rounding of a mean over n d squares."""
    shapes: list[tuple[int, ...]] = [*SHAPES, tuple(case.x.shape[1:])]
    ratios = {shape: _ratio(stack, case, shape) for shape in shapes}
    tolerance = 2 * rounding(stack.dtype, 1, max(map(math.prod, shapes)))
    off = worst(abs(ratio - 1) for ratio in ratios.values())
    return Discrepancy(off, tolerance, f"|loss / mean squared error - 1|: {_meaning(ratios)}")


def _ratio(stack: Stack, case: Case, shape: tuple[int, ...]) -> float:
    """A loss of drawn predictions and targets of a shape, over their mean squared error."""
    drawn = torch.randn(2, *shape, generator=case.generator(), dtype=torch.float64)
    a, b = drawn.to(stack.device, stack.dtype)
    return float(stack.loss(a, b)) / float(mse_loss(a.double(), b.double()))


def _meaning(ratios: Mapping[tuple[int, ...], float]) -> str:
    for name, multiple in MEANINGS.items():
        wrong = [[n, d] for (n, d), ratio in ratios.items() if abs(ratio / multiple(n, d) - 1) > 1e-3]
        if all(1 in shape for shape in wrong):
            return f"it is {name}" + "".join(f", and another at {shape}" for shape in wrong[:1])
    return f"it is {next(iter(ratios.values())):.3g} times that"
