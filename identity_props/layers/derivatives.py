"""Laws of derivatives: what a backward pass leaves is the derivative of the forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, judged_modes, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Passes, quietly
from identity_props.layers.slopes import (
    Slope,
    direction_of,
    displaced,
    jumps,
    moved,
    slices,
    slope,
    told_axes,
)
from identity_props.layers.widening import widened

SOURCE = "the definition of the derivative; Richardson 1911 for the error of a difference"


@layer_law(
    "parameter-gradient",
    "what a backward pass leaves on each parameter is the derivative of the outputs along it",
    "the layer learns something else than what its outputs ask for, and no loss curve says so",
    SOURCE,
    needs="outputs that move smoothly",
)
def parameter_gradient(bench: LayerBench) -> Discrepancy:
    """Rounding where outputs are affine in a parameter, as the difference is then exact at any step. Elsewhere the
    distance of the coarsest from the finest difference, and rounding over the step. Gradients of sums over n outputs
    are off by rounding too.
    """
    return _worst([found for passes in judged_modes(bench) for found in _of_parameters(bench, passes)])


@layer_law(
    "input-gradient",
    "what a backward pass leaves on the input is the derivative of the outputs along it",
    "every layer below learns something else than what the loss asks for",
    SOURCE,
    needs="inputs of floating numbers, outputs that move smoothly",
)
def input_gradient(bench: LayerBench) -> Discrepancy:
    """As of parameter-gradient."""
    if bench.kind == "tokens":
        raise NotPromised("its inputs are token ids")
    return _worst([found for passes in judged_modes(bench) for found in _of_inputs(bench, passes)])


def _worst(found: Sequence[Discrepancy]) -> Discrepancy:
    if not found:
        raise NotPromised("its outputs do not move smoothly, or nothing of it trains")
    return told(found)


def _of_parameters(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    fixed = documented(passes)
    for name, p in passes.parameters.items():
        found = against(passes, xs, name, p, bench, fixed.get(name))
        if found is not None:
            yield found
        if name in fixed:
            yield _kept(passes, xs, name, fixed[name])


def _of_inputs(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    for k, x in enumerate(xs):
        found = against(passes, xs, passes.input(k), x, bench)
        if found is not None:
            yield found


def documented(passes: Passes) -> dict[str, Tensor]:
    """Masks of the rows that never train as a module documents, a table's ``padding_idx``, by parameter.

    Raises NotPromised where it documents gradients that are no derivatives.
    """
    found = {}
    for prefix, module in passes.module.named_modules():
        if getattr(module, "scale_grad_by_freq", False):
            raise NotPromised("scale_grad_by_freq: its gradient is no derivative, as documented")
        index, weight = getattr(module, "padding_idx", None), getattr(module, "weight", None)
        if isinstance(index, int) and isinstance(weight, Tensor) and 0 <= index < len(weight):
            mask = torch.zeros_like(weight, dtype=torch.bool)
            mask[index] = True
            found[f"{prefix}.weight".removeprefix(".")] = mask
    return found


def _kept(passes: Passes, xs: Sequence[Tensor], name: str, mask: Tensor) -> Discrepancy:
    """No gradient comes to rows that never train."""
    _, gradients = passes.backward(xs)
    came = gradients[name]
    largest = 0.0 if came is None else float(came[mask.cpu()].abs().max())
    return Discrepancy(largest, 0.0, f"backward, {name}, {passes.when}: gradient of padding_idx")


def jointly(bench: LayerBench, passes: Passes, xs: Sequence[Tensor], when: str) -> Iterator[Discrepancy]:
    """The gradients of everything along one drawn direction; tensor by tensor where those are off."""
    fixed = documented(passes)
    smooth = bench.smooth(passes.training)
    tensors = {name: one for name, one in passes.floating(xs).items() if name in smooth}
    ways = {name: _way(tensor, bench, fixed.get(name)) for name, tensor in tensors.items()}
    found = _against(bench, passes, xs, {name: (tensors[name], way) for name, way in ways.items()})
    if found is None:
        return
    if found.holds:
        yield replace(found, what=f"backward, {passes.when}, {when}: |gradient - difference| / |derivative|")
        return
    each = [against(passes, xs, name, one, bench, fixed.get(name)) for name, one in tensors.items()]
    for one in each:
        if one is not None and not one.holds:
            yield replace(one, what=one.what.replace(f"{passes.when}:", f"{passes.when}, {when}:"))
            return
    if None not in each:  # estimates are no derivatives
        yield replace(found, what=f"backward, {passes.when}, {when}: |gradient - difference| / |derivative|")


# One tensor -------------------------------------------------------------------------------------------


def against(
    passes: Passes,
    xs: Sequence[Tensor],
    name: str,
    tensor: Tensor,
    bench: LayerBench,
    fixed: Tensor | None = None,
) -> Discrepancy | None:
    """How far the gradient of one tensor is from the derivative along a drawn direction; None where there is none."""
    way = _way(tensor, bench, fixed)
    found = _against(bench, passes, xs, {name: (tensor, way)})
    if found is None or (not found.holds and estimated(bench, passes, xs, name, tensor, way)):
        return None
    where = "" if found.holds else _where(passes, xs, name, tensor, way, bench)
    what = f"backward, {name}{where}, {passes.when}: |gradient - difference| / |derivative|"
    return replace(found, what=what)


def estimated(
    bench: LayerBench, passes: Passes, xs: Sequence[Tensor], name: str, tensor: Tensor, way: Tensor
) -> bool:
    """Whether a gradient may be an estimate on purpose: one came, outputs jump along the way, and a pass rounds.

    A straight-through estimator (Bengio et al. 2013, 1308.3432) is no derivative, of what has none everywhere.
    """
    _, gradients = passes.backward(xs)
    came = gradients.get(name)
    if came is None or not bool(came.any()) or not bench.stepped:
        return False
    return jumps(moved(passes, xs, [(tensor, way)]))


def _way(tensor: Tensor, bench: LayerBench, fixed: Tensor | None) -> Tensor:
    way = direction_of(tensor, bench.seed + 17)
    return way if fixed is None else way.masked_fill(fixed, 0)


def _against(
    bench: LayerBench, passes: Passes, xs: Sequence[Tensor], ways: Mapping[str, tuple[Tensor, Tensor]]
) -> Discrepancy | None:
    """How far gradients times directions are from the derivative of the smooth outputs; None where none is."""
    found = slope(moved(passes, xs, [*ways.values()]), bench.eps, bench.stepped)
    if found is None or not bool(found.smooth.any()):
        return None
    along = _along(passes, xs, found)
    _, gradients = passes.backward(xs, along)
    pairs = [
        (g, way.double().cpu()) for name, (_, way) in ways.items() if (g := gradients.get(name)) is not None
    ]
    parts = torch.cat([torch.zeros(1, dtype=torch.float64), *((g * way).reshape(-1) for g, way in pairs)])
    weights = torch.cat([a.double().cpu().reshape(-1) for a in along])
    return _apart(parts, weights * found.value, weights * found.error, bench.eps)


def _along(passes: Passes, xs: Sequence[Tensor], found: Slope) -> list[Tensor]:
    """A drawn upstream gradient of the outputs that are smooth."""
    with torch.no_grad():
        along = passes.along(passes.outs([x.detach().clone() for x in xs]))
    masks = found.smooth.split([a.numel() for a in along])
    return [a * mask.reshape(a.shape).to(a) for a, mask in zip(along, masks, strict=True)]


def _apart(got: Tensor, wanted: Tensor, error: Tensor, eps: float) -> Discrepancy:
    """Of two sums of terms, relative to the terms: they may differ by the errors and by rounding."""
    off = float(error.abs().sum())
    sums = 64 * eps * (float(wanted.abs().sum()) + float(got.abs().sum()))
    scale = max(float(wanted.norm()), float(got.norm()), off, torch.finfo(torch.float64).tiny)
    return Discrepancy(abs(float(got.sum() - wanted.sum())) / scale, (off + sums) / scale, "")


def _where(
    passes: Passes, xs: Sequence[Tensor], name: str, tensor: Tensor, way: Tensor, bench: LayerBench
) -> str:
    """Which slices of a tensor are off, where it is some along an axis and not all."""
    _, gradients = passes.backward(xs)
    if gradients.get(name) is None:
        return ", none came"
    wrong: dict[int, list[int]] = {axis: [] for axis in range(tensor.ndim)}
    for axis, index, mask in slices(tensor):
        one = _against(bench, passes, xs, {name: (tensor, way * mask)})
        if one is not None and not one.holds:
            wrong[axis].append(index)
    return told_axes(wrong, tensor.shape)


# Second order -----------------------------------------------------------------------------------------


@layer_law(
    "second-order",
    "where a backward pass can be differentiated, its derivative is that of the gradient",
    "gradient penalties, meta-learning and Hessians are wrong, silently",
    "symmetry of the second derivative; pytorch's gradgradcheck",
    needs="a backward pass that can be differentiated",
)
def second_order(bench: LayerBench) -> Discrepancy:
    """As of parameter-gradient, for the gradient along a drawn direction in place of the outputs."""
    found = [one for passes in judged_modes(bench) for one in _second(bench, passes)]
    return _worst(found)


def _second(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    documented(passes)
    for name, tensor in passes.floating(xs).items():
        way = direction_of(tensor, bench.seed + 23)
        first = slope(moved(passes, xs, [(tensor, way)]), bench.eps, bench.stepped)
        if first is None or not bool(first.smooth.all()):
            continue
        found = _of_gradient(bench, passes, xs, name, tensor, way)
        if found is not None and (found.holds or not estimated(bench, passes, xs, name, tensor, way)):
            yield found


def _of_gradient(
    bench: LayerBench, passes: Passes, xs: Sequence[Tensor], name: str, tensor: Tensor, way: Tensor
) -> Discrepancy | None:
    """The Hessian along a direction, by a second pass back and by differences of the first."""
    with torch.no_grad():
        along = passes.along(passes.outs([x.detach().clone() for x in xs]))

    def at(multiple: float) -> Tensor:
        with displaced(passes, [(tensor, way)], multiple):
            _, gradients = passes.backward(xs, along)
        return torch.cat([g.reshape(-1) for g in gradients.values() if g is not None])

    wanted = slope(at, bench.eps, bench.stepped)
    if wanted is None or not bool(wanted.smooth.all()):
        return None
    try:
        with widened(passes.wide):
            got = _hessian(passes, xs, along, name, way)
    except RuntimeError as error:  # loud, to whoever asks for it
        raise NotPromised(f"not offered: {str(error).splitlines()[0]}") from error
    scale = max(float(wanted.value.norm()), float(at(0.0).norm())) or 1.0
    off = float(wanted.error.norm()) + 64 * bench.eps * math.sqrt(way.numel() + len(wanted.value)) * scale
    if got is None:
        if float(wanted.value.norm()) <= 4 * off:
            return None
        raise NotPromised("not offered: its gradient has no graph")
    apart = float((got - wanted.value).norm())
    what = f"backward twice, along {name}, {passes.when}: |second pass - difference| / |gradient|"
    return Discrepancy(apart / scale, 4 * off / scale, what)


def _hessian(
    passes: Passes, xs: Sequence[Tensor], along: Sequence[Tensor], name: str, way: Tensor
) -> Tensor | None:
    """H way as the derivative of gradient . way, the same by symmetry; None where no gradient has a graph."""
    leaves = passes.leaves(xs)
    outs = passes.outs([x.clone() for x in leaves])
    tensors = {**passes.parameters, **{passes.input(k): x for k, x in enumerate(leaves) if x.requires_grad}}
    first = {name: g for name, g in _grad(outs, tensors, along, True).items() if g is not None}
    if not any(g.requires_grad for g in first.values()):
        return None
    second = _grad([first[name]], tensors, [way], False) if name in first else {}
    found = [second.get(name) for name in first]
    zeros = (torch.zeros_like(tensors[name]) for name in first)
    return torch.cat(
        [
            (zero if g is None else g).detach().double().cpu().reshape(-1)
            for g, zero in zip(found, zeros, strict=True)
        ]
    )


def _grad(
    outs: Sequence[Tensor], tensors: Mapping[str, Tensor], along: Sequence[Tensor], create: bool
) -> dict[str, Tensor | None]:
    pairs = [(out, a) for out, a in zip(outs, along, strict=True) if out.requires_grad]
    if not pairs:
        return dict.fromkeys(tensors)
    with quietly():
        found = torch.autograd.grad(
            [out for out, _ in pairs],
            [*tensors.values()],
            [a for _, a in pairs],
            create_graph=create,
            allow_unused=True,
        )
    return dict(zip(tensors, found, strict=True))
