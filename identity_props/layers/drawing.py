"""The law of draws: what a layer draws in training is drawn around what it gives in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.adding import near
from identity_props.layers.base import NotPromised, layer_law
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Passes, size
from identity_props.layers.watching import heard

PASSES = 1024
ERRORS = 8.0  # standard errors
SEEDS = 64  # in which what is seldom drawn shows
# of its size, by which the mean of an output, and of all along themselves, may be off
EACH, WHOLE = 1 / 2, 1 / 16


@layer_law(
    "layer-mean",
    "what a layer drops or scales at random in training has on the whole as its mean what it gives in evaluation",
    "what is dropped is not made up for, or twice, and what is evaluated is something else than what was trained",
    "inverted dropout: E[mask / (1 - p)] = 1 (Srivastava et al. 2014, section 10)",
    needs="affine in its input for equal draws, draws that multiply what its parameters give, all of them used in"
    " evaluation too",
    kind="wrong output",
)
def layer_mean(bench: LayerBench) -> Discrepancy:
    """1,024 passes in training, of draws of their own. The null hypothesis is that their mean, of inputs of 0 and as a multiple
    of what evaluation gives of those, is 1 but for a 16th, and that of each output is off by half of its own size at most, or
    of theirs: DropBlock keeps more at borders, and makes up for that on the whole. The largest distance beyond, in standard
    errors, of which 8 are allowed: a false alarm in 1e-8 for a million outputs whose means are normal, in 1e-7 for twenty that
    are kept one time in ten. Dropout of a fifth of 20 outputs, or of a path, without its scale is found.

    Of what is affine for each draw the mean is that of the draws. Draws that are not heard where inputs are 0 may be meant
    to change the input, as augmentations do, those that are heard where parameters are 0 too add something, as noise and
    AlphaDropout's values, and a parameter that evaluation does not use stands in for what is masked. Branches or edges that are dropped without
    scale on purpose, as by LayerDrop and DropEdge, are off by it all the same where all else is affine.
    """
    _check_draws(bench)
    training, evaluating, xs = bench.passes(True), bench.passes(False), bench.inputs()
    expected = evaluating.flat(xs)
    if training.flat(xs).shape != expected.shape:
        raise NotPromised("in training its outputs are of other shapes")
    if not all(_affine(bench, passes, xs) for passes in (training, evaluating)):
        raise NotPromised("not affine in its input")
    zeros = [torch.zeros_like(x) for x in xs]
    _check_what_draws(bench, zeros)
    errors = max(_each(training, xs, expected), _whole(training, zeros, evaluating.flat(zeros)))
    what = f"forward, training: |mean of {PASSES} passes - evaluation's output|, in standard errors"
    return Discrepancy(errors, ERRORS, what)


def _check_draws(bench: LayerBench) -> None:
    """Raise NotPromised for what does not draw in training alone, or is no function of its draws."""
    if bench.kind == "tokens":
        raise NotPromised("its inputs are token ids")
    if reasons := [reason for reason in bench.reasons.values() if reason]:
        raise NotPromised("; ".join(reasons))
    evaluating, training = (heard(bench.passes(mode), bench.inputs(), SEEDS) for mode in (False, True))
    if evaluating or not training:
        raise NotPromised("evaluating, it draws" if evaluating else "it draws nothing")


def _affine(bench: LayerBench, passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether outputs are affine in the inputs, of equal draws."""
    others = bench.inputs(salt=1)
    still = passes.flat([torch.zeros_like(x) for x in xs])
    one, other, both = (
        passes.flat(each) - still
        for each in (xs, others, [x - 2 * y for x, y in zip(xs, others, strict=True)])
    )
    largest = max(float(each.norm()) for each in (one, other, both))
    return float((both - one + 2 * other).norm()) <= near(bench, len(still)) * largest


def _check_what_draws(bench: LayerBench, zeros: Sequence[Tensor]) -> None:
    """Raise NotPromised where draws do something else than to multiply what parameters give that evaluation uses."""
    passes = bench.passes(True)
    if not heard(passes, zeros, SEEDS):
        raise NotPromised("what it draws changes its input alone, as augmentations do")
    _, gradients = bench.passes(False).backward(bench.inputs())
    unused = [name for name in passes.parameters if (g := gradients[name]) is None or not bool(g.any())]
    if unused:
        raise NotPromised(f"evaluation does not use {unused[0]}")
    passes.module.train()
    with torch.no_grad():
        for p in passes.module.parameters():
            p.zero_()
    if any(bool((passes.flat(zeros, seed=bench.seed + k) != 0).any()) for k in range(SEEDS)):
        raise NotPromised("what it draws is more than a factor, as noise or AlphaDropout's values")


def _errors(
    passes: Passes, xs: Sequence[Tensor], expected: Tensor, allowed: Tensor, read: Callable[[Tensor], Tensor]
) -> float:
    """The most standard errors by which the mean of what is read of outputs is further from what is expected than allowed."""
    drawn = torch.Generator().manual_seed(passes.seed + 53)
    total, squares = torch.zeros_like(allowed), torch.zeros_like(allowed)
    for seed in torch.randint(2**31, (PASSES,), generator=drawn).tolist():
        off = read(passes.flat(xs, seed=seed) - expected)
        total += off
        squares += off.square()
    mean = total / PASSES
    deviation = ((squares / PASSES - mean.square()).clamp_min(0) / (PASSES - 1)).sqrt()
    return float(((mean.abs() - allowed).clamp_min(0) / deviation.clamp_min(1e-9)).max())


def _each(passes: Passes, xs: Sequence[Tensor], expected: Tensor) -> float:
    """Of each output, relative to their size."""
    allowed = EACH * (expected.abs() / size(expected)).clamp_min(1)
    return _errors(passes, xs, expected, allowed, lambda off: off / size(expected))


def _whole(passes: Passes, xs: Sequence[Tensor], expected: Tensor) -> float:
    """Of all outputs along what is expected, as a multiple of that."""
    square = expected.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    allowed = torch.tensor([WHOLE], dtype=torch.float64)
    return _errors(passes, xs, expected, allowed, lambda off: ((off * expected).sum() / square)[None])
