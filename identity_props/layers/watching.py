"""What a pass is seen to do: whether it rounds, casts to 16 bits, or sets an autocast of its own."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from identity_props.layers.passes import Passes
from identity_props.layers.widening import SIXTEEN
from identity_props.stack.guard import RAISED

MUCH = 1 / 8  # of outputs: what 16 bits make of them is less
# which of some, or which side
CHOOSING = {"argmax", "argmin", "bucketize", "searchsorted", "gt", "ge", "lt", "le"}
ROUNDING = {"round", "sign", "sgn", "floor", "ceil", "trunc", "heaviside", "fix"}


def rounds(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether a pass forward rounds numbers, takes their signs or codes, or calls what torch does not know.

    Quantised layers do, whose gradients may be estimates.
    """
    with _Rounding() as seen:  # type: ignore[no-untyped-call]
        passes.flat(xs)
    return seen.rounded


class _Rounding(TorchDispatchMode):
    """Whether an operation on floating numbers has been one of those that round."""

    rounded = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        home, name = func.namespace, func.overloadpacket.__name__
        floating = any(isinstance(one, Tensor) and one.is_floating_point() for one in args)
        known = home in ("aten", "prim", "prims") and not name.startswith("fake_quantize")
        self.rounded |= floating and (not known or name.rstrip("_") in ROUNDING | CHOOSING)
        return func(*args, **kwargs or {})


def casts(passes: Passes, xs: Sequence[Tensor]) -> torch.dtype | None:
    """The coarsest 16 bits that a pass casts numbers to; None where it casts none."""
    with _Casting() as seen:
        passes.flat(xs)
    return max(seen.dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=None)


class _Casting(TorchDispatchMode):
    """To which 16 bits numbers have been cast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (*args, *(kwargs or {}).values())
        self.dtypes |= {one for one in given if isinstance(one, torch.dtype) and one in SIXTEEN}
        return func(*args, **kwargs or {})


def much_the_same(real: Passes, wide: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether what nothing casts to 16 bits passes forward and back, and gives nearly what the layer does."""
    try:
        wide.backward(xs)
        one, other = real.flat(xs), wide.flat(xs)
    except RAISED:
        return False
    return one.shape == other.shape and bool((one - other).norm() <= MUCH * other.norm())


def autocasts(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether a pass sets an autocast, which says so to whoever reads it."""
    with _Autocasting() as seen:
        passes.flat(xs)
    return seen.set


class _Autocasting(TorchFunctionMode):
    """Whether a function has been called under an autocast."""

    set = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        devices = {one.device.type for one in args if isinstance(one, Tensor)}
        self.set |= any(map(torch.is_autocast_enabled, devices))
        return func(*args, **kwargs or {})


def apart(passes: Passes, xs: Sequence[Tensor], drawn: Sequence[Tensor]) -> bool:
    """Whether what comes of each of four examples, but the second, stays as it is with another for the second."""
    others = [x.clone() for x in xs]
    for x, other in zip(others, drawn, strict=True):  # larger than all, for scales of a batch
        x[1] = 8 * other[1] if x.is_floating_point() else other[1]
    with torch.no_grad():
        before, after = (passes.outs([x.clone() for x in one]) for one in (xs, others))
    return all(
        a.ndim > 0 and len(a) == 4 and torch.equal(a[[0, 2, 3]], b[[0, 2, 3]])
        for a, b in zip(before, after, strict=True)
    )


def heard(passes: Passes, xs: Sequence[Tensor], seeds: int) -> bool:
    """Whether outputs are others with one of so many seeds."""
    still = passes.flat(xs)
    return any(not torch.equal(still, passes.flat(xs, seed=passes.seed + k + 1)) for k in range(seeds))


def draws(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether a pass moves a generator, a global one or one of its own: what is seldom drawn shows in no one output."""
    found, call = [], passes.call or passes.module

    def watched(*given: Any) -> Any:
        before = _states(passes)
        out = call(*given)
        found.append(before != _states(passes))
        return out

    passes.call, kept = watched, passes.call
    try:
        passes.flat(xs)
    finally:
        passes.call = kept
    return any(found)


def _states(passes: Passes) -> list[bytes]:
    """Of the global generators and of its own."""
    states = [torch.get_rng_state(), random.getstate(), np.random.get_state()]
    if torch.device(passes.device).type == "cuda":
        states.append(torch.cuda.get_rng_state(passes.device))
    for own, _ in passes.streams:
        get = getattr(own, "get_state", None) or getattr(own, "getstate", None)
        states.append(get() if get else own.bit_generator.state)
    return [pickle.dumps(state.numpy() if isinstance(state, Tensor) else state) for state in states]
