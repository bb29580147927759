"""Laws of layers that are linear in their parameters: gradient descent on any target is known at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, judged_modes, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.derivatives import documented
from identity_props.layers.passes import Passes, size
from identity_props.layers.slopes import where_off

STEPS = 8
MOST = 4096  # parameters, and 2^23 numbers of J
FAR = 1024.0  # a displacement at which what saturates shows


@dataclass(eq=False)
class Linear:
    """A layer as f(theta) = f(theta_0) + J (theta - theta_0); J is found by forward passes alone."""

    passes: Passes
    xs: list[Tensor]

    def at(self, theta: Tensor) -> Tensor:
        """Outputs [n] at parameters [P]."""
        self.put(theta)
        return self.passes.flat(self.xs)

    def put(self, theta: Tensor) -> None:
        """Put parameters in place."""
        self.passes.module.train()
        with torch.no_grad():
            for p, part in zip(self.tensors.values(), theta.split(self.sizes), strict=True):
                p.copy_(part.reshape(p.shape))

    @cached_property
    def tensors(self) -> dict[str, torch.nn.Parameter]:
        return self.passes.parameters

    @cached_property
    def sizes(self) -> list[int]:
        return [p.numel() for p in self.tensors.values()]

    @cached_property
    def start(self) -> Tensor:
        """theta_0 [P]."""
        return self.now()

    def now(self) -> Tensor:
        """Parameters [P] as they are."""
        return torch.cat([p.detach().double().cpu().reshape(-1) for p in self.tensors.values()])

    @cached_property
    def origin(self) -> Tensor:
        """f(theta_0) [n]."""
        return self.at(self.start)

    @cached_property
    def jacobian(self) -> Tensor:
        """J [n, P], column j being f(theta_0 + e_j) - f(theta_0)."""
        columns = []
        for j in range(len(self.start)):
            theta = self.start.clone()
            theta[j] += 1
            columns.append(self.at(theta) - self.origin)
        self.put(self.start)
        return torch.stack(columns, 1)

    def off(self, displacement: Tensor) -> float:
        """How far two displacements are from adding up, relative to what they do."""
        found = _off(lambda way: self.at(self.start + way) - self.origin, displacement)
        self.put(self.start)
        return found

    def off_in_inputs(self, far: float) -> float:
        """The same of inputs that are floating numbers, moved at once."""
        sizes = [x.numel() for x in self.xs]
        start = torch.cat([x.double().cpu().reshape(-1) for x in self.xs])

        def moved(way: Tensor) -> Tensor:
            parts = (start + way).split(sizes)
            at = [part.reshape(x.shape).to(x) for part, x in zip(parts, self.xs, strict=True)]
            return self.passes.flat(at) - self.origin

        drawn = torch.Generator().manual_seed(self.passes.seed + 37)
        return _off(moved, far * torch.randn(len(start), generator=drawn, dtype=torch.float64))


def _off(done: Callable[[Tensor], Tensor], displacement: Tensor) -> float:
    one, other = displacement, displacement.roll(1).flip(0)
    a, b, both = (done(way) for way in (one, other, one - 2 * other))
    size = max(float(each.norm()) for each in (a, b, both))
    return float((both - a + 2 * b).norm()) / (size or 1.0)


def linear_of(bench: LayerBench) -> Linear:
    """The layer in training, where its passes say something there, else evaluating; raises NotPromised."""
    *_, passes = judged_modes(bench)
    documented(passes)
    if not passes.parameters:
        raise NotPromised("nothing of it trains")
    return Linear(passes, bench.inputs())


def _drawn(bench: LayerBench, linear: Linear) -> Tensor:
    drawn = torch.Generator().manual_seed(bench.seed + 31)
    return torch.randn(len(linear.start), generator=drawn, dtype=torch.float64)


def _near(bench: LayerBench, linear: Linear) -> float:
    return 64 * bench.eps * math.sqrt(len(linear.start))


def _check_linear(bench: LayerBench, linear: Linear) -> None:
    off = linear.off(_drawn(bench, linear))
    if not off <= _near(bench, linear):
        raise NotPromised(f"not linear in its parameters, off by {off:.2g} of its output")


@layer_law(
    "linear-in-parameters",
    "a layer whose outputs are linear in its parameters, or in its input, near those is so far from them too: nothing"
    " saturates",
    "numbers that grow are clipped in the forward pass, and what lies behind stops learning",
    "f(theta) = f(theta_0) + J (theta - theta_0)",
    needs="linear in its parameters",
    kind="wrong output",
)
def linear_in_parameters(bench: LayerBench) -> Discrepancy:
    """Rounding of sums over P parameters; displacements of 1 say whether it is linear, of 1,024 whether it stays so."""
    linear = linear_of(bench)
    _check_linear(bench, linear)
    near = _near(bench, linear)
    far = min(FAR, torch.finfo(bench.dtype).max ** (1 / 4))  # what float16 holds of sums of products
    found = {"parameters": linear.off(far * _drawn(bench, linear))}
    if bench.kind == "float" and linear.off_in_inputs(1.0) <= near:
        found["inputs"] = linear.off_in_inputs(far)
    when = f"{linear.passes.when}, {far:.0f} away"
    return told(
        Discrepancy(off, near, f"forward, {name}, {when}: |f(u + v) - f(u) - f(v) + f| / |f|")
        for name, off in found.items()
    )


@layer_law(
    "layer-trajectory",
    "gradient descent on any target is theta_(k+1) = theta_k - lr (g + H (theta_k - theta_0)), H = 2/n J^T J,"
    " g = 2/n J^T (f(theta_0) - t), J by forward passes alone",
    "the layer learns at another rate, or something else, than its own outputs ask for",
    "mean squared error of a function that is linear in theta; derived here",
    needs="linear in its parameters",
    kind="wrong step",
)
def layer_trajectory(bench: LayerBench) -> Discrepancy:
    """Rounding over 8 steps of sums over n outputs and P parameters, at half the critical rate, where none of it
    grows. The target is the input where shapes allow, else drawn.
    """
    linear = linear_of(bench)
    _check_linear(bench, linear)
    parameters, outputs = len(linear.start), len(linear.origin)
    if parameters > MOST or parameters * outputs > 2**23:
        raise NotPromised(
            f"{parameters} parameters, {outputs} outputs: too many for J, parameter-gradient judges"
        )
    return _followed(bench, linear)


def _followed(bench: LayerBench, linear: Linear) -> Discrepancy:
    jacobian, n = linear.jacobian.clone(), len(linear.origin)
    fixed = documented(linear.passes)
    still = torch.cat(
        [fixed.get(name, torch.zeros(p.shape)).reshape(-1).bool().cpu() for name, p in linear.tensors.items()]
    )
    jacobian[:, still] = 0
    top = float(torch.linalg.matrix_norm(jacobian, 2))
    if not top > 0:
        raise NotPromised("no parameter moves an output")
    rate = n / (2 * top**2)  # half of 2 / lambda_1
    target, aim = _target(bench, linear)
    expected, measured = [linear.start], _trained(linear, target, rate)
    for _ in range(STEPS):
        error = linear.origin + jacobian @ (expected[-1] - linear.start) - aim
        expected.append(expected[-1] - rate * 2 / n * (jacobian.mT @ error))
    reach = float((linear.origin - aim).norm()) / top  # how far the largest mode moves
    near = 8 * (STEPS + 1) * bench.eps * (math.sqrt(n) + math.sqrt(len(linear.start)))
    coarse = float(linear.origin.norm()) * math.sqrt(len(linear.start)) / float(jacobian.norm())
    allowed = near * (reach + size(linear.start) * math.sqrt(len(linear.start)) + coarse)
    return told(_parts(linear, expected, measured, allowed))


def _target(bench: LayerBench, linear: Linear) -> tuple[list[Tensor], Tensor]:
    """The input where it is one output of its shape, else drawn, as large as the outputs."""
    with torch.no_grad():
        outs = linear.passes.outs([x.clone() for x in linear.xs])
    if len(outs) == 1 and linear.xs[0].is_floating_point() and outs[0].shape == linear.xs[0].shape:
        target = [linear.xs[0]]
    else:
        target = [a * size(out) for a, out in zip(linear.passes.along(outs, 3), outs, strict=True)]
    return target, torch.cat([one.double().cpu().reshape(-1) for one in target])


def _trained(linear: Linear, target: list[Tensor], rate: float) -> list[Tensor]:
    """Parameters [P] before each of 8 steps of torch's SGD on the mean squared error, and after the last."""
    optimizer = torch.optim.SGD(linear.tensors.values(), lr=rate)
    states = [linear.now()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        outs = linear.passes.outs([x.clone() for x in linear.xs])
        n = sum(out.numel() for out in outs)
        linear.passes.back(outs, [2 / n * (out.detach() - t) for out, t in zip(outs, target, strict=True)])
        linear.passes.module.train()
        optimizer.step()
        states.append(linear.now())
    linear.put(linear.start)
    return states


def _parts(
    linear: Linear, expected: list[Tensor], measured: list[Tensor], allowed: float
) -> list[Discrepancy]:
    """One a parameter, at the first step at which it is off."""
    found = []
    split = [[one.split(linear.sizes) for one in states] for states in (expected, measured)]
    for place, (name, p) in enumerate(linear.tensors.items()):
        off = [(b[place] - a[place]) for a, b in zip(*split, strict=True)]
        first = next((k for k, one in enumerate(off) if not float(one.norm()) <= allowed), STEPS)
        moves = (split[0][first][place] - linear.start.split(linear.sizes)[place]).norm()
        scale = max(float(moves), allowed) or 1.0
        where = (
            where_off(off[first].reshape(p.shape), allowed)
            if first < STEPS or off[first].norm() > allowed
            else ""
        )
        share = _share(measured, expected, linear, place)
        what = f"backward, {name}{where}, {linear.passes.when}, step {first}: |theta - predicted| / |moved|{share}"
        found.append(Discrepancy(float(off[first].norm()) / scale, allowed / scale, what))
    return found


def _share(measured: list[Tensor], expected: list[Tensor], linear: Linear, place: int) -> str:
    """The first step as a multiple of the one predicted, where it is one and not 1."""
    first, wanted = ((one[1] - one[0]).split(linear.sizes)[place] for one in (measured, expected))
    if not float(wanted.norm()) > 0:
        return ""
    share = float((first * wanted).sum() / wanted.square().sum())
    if abs(share - 1) < 1e-6 or float((first - share * wanted).norm()) > 1e-6 * float(wanted.norm()):
        return ""
    return f"; its first step is {share:.3g} times that"
