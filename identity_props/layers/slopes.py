"""The derivative of a forward pass along a direction, by passes alone, with what it may be off by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from identity_props.layers.passes import Passes, size

At = Callable[[float], Tensor]  # outputs [n] in float64, with something moved by a multiple of a direction
ROUNDED = 64  # roundings of an output's size that a sum of many terms may be off by
MEDIUM, WIDE = 2.0**-6, 2.0**-3  # steps at which what moves in steps shows


@dataclass(frozen=True, eq=False)
class Slope:
    """The derivative [n] of each output, how far off it may be, and which outputs are smooth there."""

    value: Tensor
    error: Tensor
    smooth: Tensor
    exact: bool


def slope(at: At, eps: float, stepped: bool = True) -> Slope | None:
    """The derivative at 0; None where outputs move in steps, as of rounded weights, or are not finite near it.

    What is not ``stepped``, as it rounds nothing, has a derivative where it jumps elsewhere, as a choice among experts.

    Of an affine function it is (f(1) - f(-1)) / 2. Of others it is Richardson's estimate from central differences at h,
    h/2 and h/4, h = eps^(1/5), said to be off by as much as the first and the last of those differ, of order h^2, which
    holds of a small kink between them too, and by rounding eps / h. An output whose second difference does not shrink
    as h^2 has a kink there, and is left out. A smaller one, of slopes c apart, at a distance a < h/4 hides in what
    curves: all three differences are off by up to c/2 alike, and second differences D by D(h) - 4 D(h/2) = c (3a - h),
    which is of order h^4 without one, so that it counts too.
    """
    f = {h: at(h) for h in (0.0, -1.0, 1.0, 2.0)}
    finite = [one for one in f.values() if bool(one.isfinite().all())]
    if not finite or finite[0] is not f[0.0] or not f[0.0].numel():
        return None
    near = ROUNDED * eps * float(torch.stack(finite).norm()) / f[0.0].numel() ** 0.5
    bends = torch.stack([f[1.0] + f[-1.0] - 2 * f[0.0], f[2.0] + f[0.0] - 2 * f[1.0]])
    everywhere = torch.ones_like(f[0.0], dtype=torch.bool)
    if bool((bends.abs() <= near).all()):
        value = (f[1.0] - f[-1.0]) / 2
        return Slope(value, torch.full_like(value, near), everywhere, True)
    return _curved(at, f, eps, near, stepped)


def _curved(at: At, f: Mapping[float, Tensor], eps: float, near: float, stepped: bool) -> Slope | None:
    h = 2.0 ** round(torch.log2(torch.tensor(eps ** (1 / 5))).item())
    sides = [(at(step), at(-step)) for step in (h, h / 2, h / 4)]
    first, second, third = (
        (up - down) / (2 * step) for (up, down), step in zip(sides, (h, h / 2, h / 4), strict=True)
    )
    if not bool(third.isfinite().all()) or _in_steps(at, third, f, near, stepped):
        return None
    value = (4 * third - second) / 3
    curve, finer, finest = (up + down - 2 * f[0.0] for up, down in sides)
    kinked = (finer.abs() > 0.4 * curve.abs()) & (finer.abs() > near)
    spread = (first - third).abs()
    bent = torch.maximum((curve - 4 * finer).abs(), 2 * (finer - 4 * finest).abs()) / h
    apart = spread > 0.05 * (value.abs() + value.square().mean().sqrt())
    return Slope(value, spread + bent + 4 * near / h, ~kinked & ~apart, False)


def _in_steps(at: At, fine: Tensor, f: Mapping[float, Tensor], near: float, stepped: bool) -> bool:
    """Whether outputs jump: differences over wider steps are others than the derivative."""
    if float(fine.norm()) == 0:
        return bool(((f[1.0] - f[0.0]).abs() > near).any())
    if not stepped:
        return False
    medium, wide = ((at(step) - at(-step)) / (2 * step) for step in (MEDIUM, WIDE))
    size = float(fine.norm())
    return float((medium - fine).norm()) > 0.3 * size or float((wide - fine).norm()) > size


def grainy(at: At) -> bool:
    """Whether outputs answer to a move of 2^-20 of a direction, but not to 2^-40 of it by as much less: float32 does that."""
    still, fine, coarse = (at(step) for step in (0.0, 2.0**-40, 2.0**-20))
    expected = (coarse - still) * 2.0**-20
    if float((coarse - still).norm()) <= 2.0**-30 * float(still.norm()):
        return False  # it hears nothing of that
    return not float((fine - still - expected).norm()) <= float(expected.norm()) / 2


def jumps(at: At) -> bool:
    """Whether outputs jump somewhere within four times the direction: a step that stays as its interval shrinks.

    The three largest of 128 differences are followed to intervals of 2^-24: what is continuous falls below a quarter.
    """
    ends = [4 * (k / 64 - 1) for k in range(129)]
    values = [at(end) for end in ends]
    apart = [float((b - a).norm()) for a, b in pairwise(values)]
    steepest = sorted(range(len(apart)), key=apart.__getitem__)[-3:]
    return any(_stays(at, ends[k], ends[k + 1], values[k], values[k + 1]) for k in steepest)


def _stays(at: At, low: float, high: float, below: Tensor, above: Tensor) -> bool:
    whole = float((above - below).norm())
    for _ in range(20):
        middle = (low + high) / 2
        value = at(middle)
        if float((value - below).norm()) > float((above - value).norm()):
            high, above = middle, value
        else:
            low, below = middle, value
    return float((above - below).norm()) > whole / 4


# Directions -------------------------------------------------------------------------------------------


Ways = Sequence[tuple[Tensor, Tensor]]  # tensors, and the direction of each


@contextmanager
def displaced(passes: Passes, ways: Ways, multiple: float) -> Iterator[None]:
    """Tensors moved by a multiple of their directions, in place, and moved back.

    In training, as what evaluation has merged or folded is of the parameters as they were.
    """
    kept = [tensor.detach().clone() for tensor, _ in ways]
    passes.module.train()
    with torch.no_grad():  # not by .data, of which a cache that goes by versions hears nothing
        for tensor, way in ways:
            tensor.add_(way, alpha=multiple)
    try:
        yield
    finally:
        passes.module.train()
        with torch.no_grad():
            for (tensor, _), was in zip(ways, kept, strict=True):
                tensor.copy_(was)


def moved(passes: Passes, xs: Sequence[Tensor], ways: Ways) -> At:
    """The outputs with parameters or inputs moved by a multiple of their directions."""

    def at(multiple: float) -> Tensor:
        with displaced(passes, ways, multiple):
            return passes.flat(xs)

    return at


def direction_of(tensor: Tensor, seed: int) -> Tensor:
    """A drawn direction, as large as the tensor."""
    drawn = torch.Generator().manual_seed(seed)
    noise = torch.randn(tensor.shape, generator=drawn, dtype=torch.float64)
    return (noise * size(tensor)).to(tensor)


def ways_of(tensors: Mapping[str, Tensor], seed: int) -> Ways:
    """A drawn direction for each."""
    return [(one, direction_of(one, seed + k)) for k, one in enumerate(tensors.values())]


def slices(tensor: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Axis, index, and a mask of that slice, of a tensor with at most 64 along the axis."""
    for axis in range(tensor.ndim):
        for index in range(tensor.shape[axis] if tensor.shape[axis] <= 64 else 0):
            mask = torch.zeros_like(tensor)
            mask.select(axis, index).fill_(1)
            yield axis, index, mask


def told_axes(wrong: Mapping[int, Sequence[int]], shape: Sequence[int]) -> str:
    """Where along each axis something is off: " [axis 0: 2 of 4, at 1, 3]"; of all, all."""
    some = [
        f"axis {axis}: {len(at)} of {shape[axis]}, at {', '.join(map(str, at[:4]))}" + ", ..." * (len(at) > 4)
        for axis, at in wrong.items()
        if 0 < len(at) < shape[axis]
    ]
    return f" [{'; '.join(some)}]" if some else f", all of {[*shape]}"


def where_off(off: Tensor, allowed: float) -> str:
    """Which slices of a difference are larger than what is allowed, along each axis."""
    wrong = {
        axis: [i for i in range(off.shape[axis]) if not float(off.select(axis, i).norm()) <= allowed]
        for axis in range(off.ndim)
    }
    return told_axes(wrong, off.shape)
