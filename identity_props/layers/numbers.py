"""The law of dtypes: in fewer digits a layer is off by what rounding its numbers explains, and by no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Gradients, Passes

DRAWS = 3  # of roundings
OUTPUT = "the output"
Results = Gradients  # outputs and gradients by name


@layer_law(
    "layer-dtype",
    "in float32, bfloat16 and float16 outputs and gradients are those of float64, as far as rounding explains",
    "numbers saturate, vanish or are summed in too few digits",
    "Higham, Mary 2019, eq. 3.4; conditioning measured",
    needs="float64 and another dtype, outputs that move smoothly, no draws",
    kind="wrong output",
)
def layer_dtype(bench: LayerBench) -> Discrepancy:
    """4 sqrt(n) E for sums of n terms: E is how far a float64 pass moves where every number that it is given is
    rounded once, the root of the mean square of three draws, and one rounding of the result. No more than a half, as
    a gradient that is 0 is off by 1, unless 4 E is more.
    """
    others = [dtype for dtype in bench.dtypes if dtype != torch.float64]
    if torch.float64 not in bench.dtypes or not others:
        raise NotPromised("it takes " + (", ".join(map(named, bench.dtypes)) or "no dtype") + " alone")
    if reason := bench.reasons[False] or bench.rough:
        raise NotPromised(reason)
    return told(one for dtype in others for one in _in(bench, dtype))


def named(dtype: torch.dtype) -> str:
    """Its name without torch's."""
    return str(dtype).removeprefix("torch.")


def _in(bench: LayerBench, dtype: torch.dtype) -> Iterator[Discrepancy]:
    coarse = bench.passes(False, dtype)
    fine = bench.passes(False, torch.float64)
    _copy(coarse, fine)
    xs = bench.inputs(dtype=dtype)
    wide = [x.double() if x.is_floating_point() else x for x in xs]
    along = [a.to(dtype).double() for a in fine.along(_outs(fine, wide))]
    expected = _results(fine, wide, along)
    moves = [_rounded(bench, fine, wide, along, dtype, draw) for draw in range(DRAWS)]
    measured = _results(coarse, xs, [a.to(dtype) for a in along])
    terms = max(math.prod(shape) for shape in bench.shapes) + sum(a.numel() for a in along)
    eps = eps_of(dtype, bench.device)
    for name, wanted in expected.items():
        yield _apart(name, measured.get(name), wanted, [m[name] for m in moves], eps, terms, named(dtype))


def eps_of(dtype: torch.dtype, device: str) -> float:
    """Rounding of products in a dtype: of float32 that of TF32 where a GPU is told to use it."""
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    if dtype == torch.float32 and torch.device(device).type == "cuda" and tf32:
        return 2.0**-10
    return torch.finfo(dtype).eps


def _copy(source: Passes, target: Passes) -> None:
    """Give one layer the numbers of another, rounded as they are there."""
    for kind in ("named_parameters", "named_buffers"):
        theirs = dict(getattr(source.module, kind)())
        for name, tensor in getattr(target.module, kind)():
            tensor.data.copy_(theirs[name].data)
    target.buffers = {name: b.detach().clone() for name, b in target.module.named_buffers()}


def _outs(passes: Passes, xs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return passes.outs([x.clone() for x in xs])


def _results(passes: Passes, xs: Sequence[Tensor], along: Sequence[Tensor]) -> Results:
    outs, gradients = passes.backward(xs, along)
    named_outs = {OUTPUT + (f" {k}" if k else ""): out.double().cpu() for k, out in enumerate(outs)}
    return {**named_outs, **gradients}


def _rounded(
    bench: LayerBench,
    passes: Passes,
    xs: Sequence[Tensor],
    along: Sequence[Tensor],
    dtype: torch.dtype,
    draw: int,
) -> Results:
    """The results in float64 of numbers that are each rounded once more, up or down."""
    eps = eps_of(dtype, bench.device)
    drawn = torch.Generator().manual_seed(bench.seed + 41 + draw)

    def once(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        signs = 2 * torch.randint(2, tensor.shape, generator=drawn).to(tensor) - 1
        return tensor * (1 + eps / 2 * signs)

    parameters = list(passes.parameters.values())
    kept = [p.detach().clone() for p in parameters]
    passes.module.train()
    for p in parameters:
        p.data.copy_(once(p.detach()))
    try:
        return _results(passes, [once(x) for x in xs], [once(a) for a in along])
    finally:
        passes.module.train()
        for p, was in zip(parameters, kept, strict=True):
            p.data.copy_(was)


def _apart(
    name: str,
    got: Tensor | None,
    wanted: Tensor | None,
    moves: Sequence[Tensor | None],
    eps: float,
    terms: int,
    dtype: str,
) -> Discrepancy:
    way = "forward" if name.startswith(OUTPUT) else "backward"
    what = f"{way}, {name}, {dtype}: |it - float64's| / its size"
    if got is None or wanted is None:
        return Discrepancy(0.0 if got is wanted else math.inf, 0.0, what)
    size = float(wanted.norm()) or 1.0
    squares = [float((m - wanted).square().sum()) for m in moves if m is not None]
    moved = math.sqrt(sum(squares) / max(1, len(squares))) / size + eps
    allowed = max(min(4 * math.sqrt(terms) * moved, 0.5), 4 * moved)
    return Discrepancy(float((got - wanted).norm()) / size, allowed, what)
