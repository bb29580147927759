"""Laws of sums: gradients of examples, of micro-batches and of several uses add up, and so do two passes back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, beside_mixing, if_offered, judged_modes, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.derivatives import documented
from identity_props.layers.passes import Gradients, Passes, size

SOURCE = "the gradient of a sum is the sum of the gradients"


def near(bench: LayerBench, *terms: int) -> float:
    """Relative distance by which two ways to sum as many terms may differ."""
    return 64 * bench.eps * sum(math.sqrt(max(1, n)) for n in terms)


def compared(
    measured: Gradients,
    expected: Gradients,
    near: float,
    when: str,
    parts: Sequence[Gradients] = (),
    rounded: Gradients | None = None,
) -> Iterator[Discrepancy]:
    """One a tensor: |a - b| over the largest of what is summed; a gradient that is missing is one of zeros.

    One that is rounding beside the largest of the layer, as of a bias before a norm, is measured by that.
    ``rounded`` is what is expected of numbers that are rounded once more: 64 times as far is allowed too.
    """
    largest = max((float(one.norm()) for one in expected.values() if one is not None), default=0.0)
    for name, wanted in expected.items():
        got = measured.get(name)
        if got is None and wanted is None:
            continue
        shaped = wanted if wanted is not None else got
        assert shaped is not None, "one of the two is there"
        a, b = (torch.zeros_like(shaped) if one is None else one for one in (got, wanted))
        what = f"backward, {name}, {when}: |gradient - expected| / its size" + ", none came" * (got is None)
        if a.shape != b.shape:
            yield Discrepancy(math.inf, near, f"{what}, its shape is {[*a.shape]}, not {[*b.shape]}")
            continue
        summed = [each.get(name) for each in parts]
        sizes = [float(one.norm()) for one in (a, b, *summed) if one is not None]
        own, other = max(sizes), (rounded or {}).get(name)
        size = (own if own > 100 * near * largest else largest) or 1.0
        off = 0.0 if other is None else 64 * float((other - b).norm()) / size
        yield Discrepancy(float((a - b).norm()) / size, near + off, what)


def same_outputs(
    measured: Sequence[Tensor],
    expected: Sequence[Tensor],
    near: float,
    when: str,
    rounded: Sequence[Tensor] = (),
) -> Iterator[Discrepancy]:
    """One an output, ``rounded`` as of gradients."""
    if len(measured) != len(expected):
        yield Discrepancy(math.inf, near, f"forward, {when}: {len(measured)} outputs, not {len(expected)}")
        return
    for a, b, other in zip(measured, expected, rounded or expected, strict=True):
        what = f"forward, the output, {when}: |output - expected| / its size"
        if a.shape != b.shape:
            yield Discrepancy(math.inf, near, f"{what}, its shape is {[*a.shape]}, not {[*b.shape]}")
            continue
        one, wanted, third = (each.detach().double().cpu() for each in (a, b, other))
        size = max(float(one.norm()), float(wanted.norm())) or 1.0
        off = 64 * float((third - wanted).norm()) / size
        yield Discrepancy(float((one - wanted).norm()) / size, near + off, what)


def _added(gradients: Sequence[Gradients]) -> Gradients:
    total: Gradients = {}
    for each in gradients:
        for name, g in each.items():
            held = total.get(name)
            total[name] = held if g is None else g if held is None else held + g
    return total


def _parameters(gradients: Gradients, passes: Passes) -> Gradients:
    return {name: gradients[name] for name in passes.parameters}


@layer_law(
    "gradients-add",
    "gradients of single examples add up to the batch's, of micro-batches on what is there, and of two uses of one"
    " layer in a network to that of both; outputs come at their own examples' places",
    "what is saved for a pass back is overwritten by the next pass, or gradients replace each other",
    SOURCE,
)
def gradients_add(bench: LayerBench) -> Discrepancy:
    """Rounding of sums over the examples and outputs, in another order; 64 times what rounding each input once more moves.
    A single example, or a second use, that a layer refuses is no fault: it is loud."""
    documented(bench.passes(False))
    found = [one for passes in judged_modes(bench) for one in _sums(bench, passes)]
    if not found:
        raise NotPromised("nothing of it trains")
    return beside_mixing(bench, told(found))


def _sums(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    if not passes.training:
        alone = _of_examples if bench.apart else _in_order
        yield from if_offered("one example", alone(bench, passes))
    yield from _of_micro_batches(bench, passes)
    yield from if_offered("two uses", _of_uses(bench, passes))


def _of_examples(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """Outputs and gradients of each example alone."""
    xs = bench.inputs()
    with torch.no_grad():
        along = passes.along(passes.outs([x.clone() for x in xs]))
    whole, expected = passes.backward(xs, along)
    around, moved = passes.backward([rounded_once(x, 2 * bench.eps) for x in xs], along)
    alone = [
        passes.backward([x[k : k + 1] for x in xs], [a[k : k + 1] for a in along])
        for k in range(bench.examples)
    ]
    allowed = near(bench, sum(map(Tensor.numel, along)))
    outs = [torch.cat(each) for each in zip(*(outs for outs, _ in alone), strict=True)]
    when = f"{passes.when}, examples one by one"
    yield from same_outputs(outs, whole, allowed, when, around)
    parts = [gradients for _, gradients in alone]
    total = _parameters(_added(parts), passes)
    once = _parameters(moved, passes)
    yield from compared(total, _parameters(expected, passes), allowed, when, parts, once)
    for k in range(len(xs)):
        name = passes.input(k)
        if expected.get(name) is None or any(one.get(name) is None for one in parts):
            continue
        each = torch.cat([one[name] for one in parts])  # type: ignore[misc]
        yield from compared({name: each}, {name: expected[name]}, allowed, when)


def rounded_once(x: Tensor, eps: float) -> Tensor:
    """Numbers that are each rounded once more by as much at most."""
    if not (eps and x.is_floating_point()):
        return x
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x * (1 + eps * (2 * noise - 1)).to(x)


def _in_order(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """Where each output is that of one example alone, it is that of its own."""
    xs = bench.inputs()
    whole = passes.outs([x.clone() for x in xs])
    alone = [passes.outs([x[k : k + 1].clone() for x in xs]) for k in range(bench.examples)]
    for out, *each in zip(whole, *alone, strict=True):
        if out.ndim and len(out) == bench.examples and all(one.shape[0] == 1 for one in each):
            rows, singles = out.detach().flatten(1).double(), torch.cat(each).detach().flatten(1).double()
            apart = (
                torch.cdist(rows, singles) <= near(bench, rows.shape[1]) * size(rows) * rows.shape[1] ** 0.5
            )
            if bool((apart.sum(1) == 1).all()) and bool((apart.sum(0) == 1).all()):
                count = len(out) - int(apart.diagonal().sum())
                yield Discrepancy(
                    count, 0, f"forward, {passes.when}: outputs that come at another example's place"
                )


def _of_micro_batches(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """A second pass back adds to what the first has left."""
    batches = [bench.inputs(salt=k) for k in (1, 2)]
    parts = [_parameters(passes.backward(xs)[1], passes) for xs in batches]
    passes.clear()
    for xs in batches:
        outs = passes.outs([x.clone() for x in passes.leaves(xs)])
        passes.back(outs, passes.along(outs))
    measured = passes.gradients([])
    yield from compared(measured, _added(parts), near(bench, 16), f"{passes.when}, two micro-batches", parts)


def _of_uses(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """Two passes forward before any back, as in a network that uses a layer twice; the first's gradients, then both."""
    batches = [bench.inputs(salt=k) for k in (1, 2)]
    parts = [passes.backward(xs)[1] for xs in batches]
    passes.clear()
    leaves = [passes.leaves(xs) for xs in batches]
    outs = [passes.outs([x.clone() for x in each]) for each in leaves]
    passes.back([*outs[0], *outs[1]], [*passes.along(outs[0]), *passes.along(outs[1])])
    when = f"{passes.when}, used twice before the pass back"
    allowed = near(bench, 16)
    for k, each in enumerate(leaves):
        inputs = {n: g for n, g in passes.gradients(each).items() if n not in passes.parameters}
        yield from compared(inputs, {n: parts[k][n] for n in inputs}, allowed, when)
    total = _added([_parameters(one, passes) for one in parts])
    yield from compared(passes.gradients([]), total, allowed, when, parts)


@layer_law(
    "twice",
    "a second pass back through one graph, kept by retain_graph, adds the same gradients again",
    "what is saved for a pass back is changed by it",
    SOURCE + "; retain_graph in torch.autograd.backward",
)
def twice(bench: LayerBench) -> Discrepancy:
    """Rounding of one sum."""
    found = [one for passes in judged_modes(bench) for one in _again(bench, passes)]
    if not found:
        raise NotPromised("nothing of it trains")
    return told(found)


def _again(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    _, once = passes.backward(xs)
    passes.clear()
    leaves = passes.leaves(xs)
    outs = passes.outs([x.clone() for x in leaves])
    along = passes.along(outs)
    try:
        passes.back(outs, along, retain=True)
        passes.back(outs, along)
    except RuntimeError as error:  # loud
        raise NotPromised(f"not offered: {str(error).splitlines()[0]}") from error
    double = {name: None if g is None else 2 * g for name, g in once.items()}
    yield from compared(passes.gradients(leaves), double, near(bench, 16), f"{passes.when}, two passes back")
