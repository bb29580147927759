"""The law of dtypes: in fewer digits a layer is off by what rounding its numbers explains, and by no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Gradients, Passes
from identity_props.layers.slopes import displaced, where_off

NOUGHT = 1e-9  # of the largest gradient: what is less is rounding
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
    a gradient that is 0 is off by 1, unless 4 E is more. Float32 is judged as 16 bits where a layer goes by those inside
    whatever it is given, or sets an autocast of its own.
    """
    others = [dtype for dtype in bench.dtypes if dtype != torch.float64]
    if torch.float64 not in bench.dtypes or not others:
        raise NotPromised("it takes " + (", ".join(map(named, bench.dtypes)) or "no dtype") + " alone")
    rough = {training: bench.rough(training) for training in (False, True)}
    training = next((mode for mode, reason in rough.items() if not reason), None)
    if training is None:
        raise NotPromised("; ".join(dict.fromkeys(rough.values())))
    return told(one for dtype in others for one in _in(bench, dtype, training))


def named(dtype: torch.dtype) -> str:
    """Its name without torch's."""
    return str(dtype).removeprefix("torch.")


def _in(bench: LayerBench, dtype: torch.dtype, training: bool) -> Iterator[Discrepancy]:
    coarse, fine = bench.passes(training, dtype), bench.passes(training, torch.float64, bench.wide)
    copy_numbers(coarse, fine)
    xs = bench.inputs(dtype=dtype)
    truth = Truth(bench, fine, xs, dtype, bench.inside if dtype == torch.float32 else None)
    measured = truth.of(coarse)
    for name in truth.expected:
        yield truth.apart(name, measured.get(name), named(dtype), "float64's")


@dataclass(eq=False)
class Truth:
    """What a layer gives in float64 of numbers that are rounded to a dtype, and how far one more rounding moves it."""

    bench: LayerBench
    fine: Passes
    xs: list[Tensor]
    dtype: torch.dtype
    inside: torch.dtype | None = None  # 16 bits that it goes by openly, which is its precision then

    @property
    def eps(self) -> float:
        return eps_of(self.inside or self.dtype, self.bench.device)

    @cached_property
    def along(self) -> list[Tensor]:
        """Upstream gradients, rounded to the dtype."""
        with torch.no_grad():
            outs = self.fine.outs([wide(x) for x in self.xs])
        return [a.to(self.dtype) for a in self.fine.along(outs)]

    def of(self, passes: Passes) -> Results:
        """What a layer gives in the dtype."""
        return _results(passes, self.xs, self.along)

    @cached_property
    def expected(self) -> Results:
        return _results(self.fine, [wide(x) for x in self.xs], [wide(a) for a in self.along])

    @cached_property
    def moves(self) -> list[Results]:
        """The same of numbers that are each rounded once more, up or down, three times."""
        return [self._rounded(draw) for draw in range(DRAWS)]

    def _rounded(self, draw: int) -> Results:
        eps = self.eps
        drawn = torch.Generator().manual_seed(self.bench.seed + 41 + draw)

        def once(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            signs = 2 * torch.randint(2, tensor.shape, generator=drawn).to(tensor) - 1
            return wide(tensor) * (1 + eps / 2 * signs)

        ways = [(p, once(p.detach()) - p.detach()) for p in self.fine.parameters.values()]
        with displaced(self.fine, ways, 1):
            return _results(self.fine, [once(x) for x in self.xs], [once(a) for a in self.along])

    def apart(
        self, name: str, got: Tensor | None, when: str, whose: str, other: Tensor | None = None
    ) -> Discrepancy:
        """How far a result is from what is expected; four times as far as another layer is allowed too."""
        wanted = self.expected[name]
        way = "forward" if name.startswith(OUTPUT) else "backward"
        if got is None or wanted is None:
            lacks = "no gradient comes" if got is None else "a gradient comes where none is expected"
            what = f"{way}, {name}, {when}: {lacks}"
            return Discrepancy(0.0 if got is wanted else math.inf, 0.0, what)
        if got.shape != wanted.shape:
            what = f"{way}, {name}, {when}: its shape is {[*got.shape]}, not {[*wanted.shape]}"
            return Discrepancy(math.inf, 0.0, what)
        size, allowed = float(wanted.norm()) or 1.0, self._allowed(name, wanted)
        if way == "backward" and size <= NOUGHT * self._largest:  # as of a bias before a norm
            size, allowed = self._largest, 4 * math.sqrt(self._terms) * self.eps
        if other is not None and other.shape == wanted.shape:
            allowed = max(allowed, 4 * float((other - wanted).norm()) / size)
        off = got - wanted
        where = "" if float(off.norm()) <= allowed * size else where_off(off, allowed * size)
        what = f"{way}, {name}{where}, {when}: |it - {whose}| / its size"
        return Discrepancy(float(off.norm()) / size, allowed, what)

    @cached_property
    def _largest(self) -> float:
        """Size of the largest gradient."""
        gradients = (g for name, g in self.expected.items() if not name.startswith(OUTPUT) and g is not None)
        return max((float(g.norm()) for g in gradients), default=0.0)

    @cached_property
    def _terms(self) -> int:
        """How many are summed at most."""
        return max(math.prod(shape) for shape in self.bench.shapes) + sum(a.numel() for a in self.along)

    def _allowed(self, name: str, wanted: Tensor) -> float:
        size = float(wanted.norm()) or 1.0
        squares = [float((m - wanted).square().sum()) for one in self.moves if (m := one[name]) is not None]
        moved = math.sqrt(sum(squares) / max(1, len(squares))) / size
        moved += self.eps
        return max(min(4 * math.sqrt(self._terms) * moved, 0.5), 4 * moved)


def wide(tensor: Tensor) -> Tensor:
    """A copy in float64 of floating numbers, of others as they are."""
    return tensor.detach().double() if tensor.is_floating_point() else tensor.clone()


def eps_of(dtype: torch.dtype, device: str) -> float:
    """Rounding of products in a dtype: of float32 that of TF32 where a GPU is told to use it."""
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    if dtype == torch.float32 and torch.device(device).type == "cuda" and tf32:
        return 2.0**-10
    return torch.finfo(dtype).eps


def copy_numbers(source: Passes, target: Passes, names: Mapping[str, str] | None = None) -> None:
    """Give one layer the numbers of another, rounded as they are there; ``names`` are the source's, by the target's."""
    for kind in ("named_parameters", "named_buffers"):
        theirs = dict(getattr(source.module, kind)())
        for name, tensor in getattr(target.module, kind)():
            if (named := (names or {}).get(name, name)) in theirs:
                with torch.no_grad():
                    tensor.copy_(theirs[named])
    target.buffers = {name: b.detach().clone() for name, b in target.module.named_buffers()}


def _results(passes: Passes, xs: Sequence[Tensor], along: Sequence[Tensor]) -> Results:
    outs, gradients = passes.backward(xs, along)
    named_outs = {OUTPUT + (f" {k}" if k else ""): out.double().cpu() for k, out in enumerate(outs)}
    return {**named_outs, **gradients}
