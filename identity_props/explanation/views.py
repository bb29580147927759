"""What parts are made from: a network's outputs, what its last hidden layer still holds, and what limits it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from identity_props.explanation.convolved import Convolved, convolved
from identity_props.explanation.readout import (
    WIDEST,
    Layer,
    Regression,
    affine,
    apply,
    bypassed,
    outputs,
    watched,
)
from identity_props.explanation.slopes import flat_outputs, last_module, reach, saturation
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance

FEWER = 8192  # training examples, and a quarter of it for test, that gains of flat units are measured on
SAMPLE = 20_480  # training examples that readouts are fitted on: 26 to a feature at 784 pixels


@dataclass(frozen=True, eq=False)
class Half:
    """Half of the data as a network sees it, all [n, d] in float64.

    ``x`` in, ``y`` out, ``goal`` what it is mapped to, ``seen`` what any affine map of the input could give, ``read``
    the best affine readout of the last hidden layer, fitted on train, or ``seen`` where there is none.
    """

    x: Tensor
    y: Tensor
    goal: Tensor
    seen: Tensor
    read: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """Both halves, the FVU of the best affine readout of each hidden layer that is read, and how many there are.

    ``widths`` are the features of those that are read, ``bypassed`` whether something goes round the last,
    ``narrowest`` the features of the narrowest layer that nothing goes round, None where all are as wide as the data.
    ``flattened`` is the FVU that saturated hidden units lose, ``units`` how many they are. ``flat`` [m, d] are
    entries of the test output with a flat slope, ``reach`` the least and largest output. ``refit`` is the best affine
    map of the last hidden layer to what is given on train, on test, ``unreached`` the FVU that outputs which depend on
    each other cannot do without, and ``shrunk`` [n, d] and [m, d] what noise
    in training takes from the best readout.
    """

    train: Half
    test: Half
    readouts: tuple[float, ...]
    hidden: int
    variance: float
    refit: Callable[[Tensor], Tensor]
    widths: tuple[int, ...] = ()
    bypassed: bool = False
    narrowest: int | None = None
    flattened: float = 0.0
    units: int = 0
    flat: Tensor | None = None
    reach: tuple[Tensor, Tensor] | None = None
    shrunk: list[Tensor] | None = None
    unreached: float = 0.0

    @property
    def dead(self) -> Tensor:
        """Output units [d] that are 0 on all data."""
        return (self.train.y == 0).all(0) & (self.test.y == 0).all(0)

    @property
    def bounded(self) -> bool:
        """Whether some output can grow no further, as that of a sigmoid."""
        return self.reach is not None and bool(torch.isfinite(self.reach[1]).any())

    def fvu(self, error: Tensor) -> float:
        """FVU of errors [m, d] on test, or of some of their entries."""
        return float(error.square().sum()) / (self.test.x.numel() * self.variance)


def view(
    model: nn.Module,
    pixels: Pixels,
    unspanned: Tensor,
    noise: int | None = None,
    every: bool = True,
    whole: bool = True,
) -> View:
    """What the parts are made from; ``unspanned`` [d, u] are directions that the training data does not have.

    Readouts of hidden layers, of ``every`` one or as many as are needed, are fitted on the first 20,480
    training examples. The last is read together with the output where something goes round the layer. ``noise``
    is the batch size of a network whose training is noisy. One that is not ``whole`` lacks what saturates or is noise.
    """
    xs = [pixels.train[:SAMPLE].double(), pixels.test.double()]
    goals = (
        xs
        if pixels.targets is None
        else [half.double() for half in (pixels.targets[0][:SAMPLE], pixels.targets[1])]
    )
    last, saturated = last_module(model, pixels.test), saturation(model, pixels.train)
    flat_layers = saturated.hidden if whole else {}
    ys, inner = zip(*(watched(model, x, flat_layers) for x in xs), strict=True)
    layers: list[tuple[Layer, Layer]] = list(zip(*inner, strict=True))
    variance = pixel_variance(goals[1])
    seen = _seen(pixels, xs, goals, unspanned)
    around = bool(layers) and bypassed(model, layers[-1][0].module, pixels.test)
    wide = convolved(model, last, pixels, goals[0]) if last is not None else None
    is_last = bool(layers) and layers[-1][0].module is last
    if wide is not None and not (is_last and around):
        read, refit = [wide.apply(x) for x in xs], _refit_convolved(wide, model, last, pixels)
        around = False
    else:
        wide = None
        features = _features(layers, ys, around) or xs
        of_last = Regression(features[0])
        read = _readout(of_last, features, goals, seen, bool(layers))

        def refit(wanted: Tensor) -> Tensor:
            return apply(of_last.to(wanted), features[1])

    needed = [one for one in layers if every or one is layers[-1] or one[0].module in flat_layers]
    last_is_read = bool(layers) and not around and wide is None
    readouts = [_fvu_of(one, goals, variance) for one in (needed[:-1] if last_is_read else needed)]
    if last_is_read:
        readouts.append(float((read[1] - goals[1]).square().mean()) / variance)
    halves = [Half(*columns) for columns in zip(xs, ys, goals, seen, read, strict=True)]
    return View(
        train=halves[0],
        test=halves[1],
        readouts=tuple(readouts),
        hidden=len(layers) + (wide is not None and not is_last),
        variance=variance,
        refit=refit,
        widths=tuple(one.values.shape[1] for one, _ in layers),
        bypassed=around,
        narrowest=_narrowest(model, layers, pixels) if every else None,
        flattened=_flattened(needed, goals, variance),
        units=saturated.units,
        flat=flat_outputs(model, last, pixels.test, saturated.output) if whole else None,
        reach=reach(model, last, pixels.test),
        shrunk=None
        if noise is None or around or wide or not whole
        else _shrunk(model, last, xs, goals, noise),
    )


def _seen(pixels: Pixels, xs: list[Tensor], goals: list[Tensor], unspanned: Tensor) -> list[Tensor]:
    if pixels.targets is None:
        return [x - x @ unspanned @ unspanned.T for x in xs]
    best = affine(xs[0], goals[0])
    return [apply(best, x) for x in xs]


def _features(layers: list[tuple[Layer, Layer]], ys: tuple[Tensor, ...], around: bool) -> list[Tensor] | None:
    """Values of the last hidden layer, beside the outputs where something goes round it; None without one."""
    if not layers:
        return None
    values = [half.values for half in layers[-1]]
    return [torch.cat(both, 1) for both in zip(ys, values, strict=True)] if around else values


def _readout(
    of_last: Regression, features: list[Tensor], goals: list[Tensor], seen: list[Tensor], hidden: bool
) -> list[Tensor]:
    if not hidden:
        return seen
    best = of_last.to(goals[0])
    return [apply(best, half) for half in features]


def _refit_convolved(
    wide: Convolved, model: nn.Module, last: nn.Module | None, pixels: Pixels
) -> Callable[[Tensor], Tensor]:
    def refit(wanted: Tensor) -> Tensor:
        again = convolved(model, last, pixels, wanted)
        return (again or wide).apply(pixels.test.double())

    return refit


def _fvu_of(
    layer: tuple[Layer, Layer], goals: list[Tensor], variance: float, with_before: bool = False
) -> float:
    """FVU on test of the best affine readout of a layer, or of it and what its flat units were given."""
    train, test = layer
    values = [train.values, test.values]
    if with_before and train.before is not None and test.before is not None:
        values = [torch.cat([train.values, train.before], 1), torch.cat([test.values, test.before], 1)]
    best = affine(values[0], goals[0])
    return float((apply(best, values[1]) - goals[1]).square().mean()) / variance


def _flattened(layers: list[tuple[Layer, Layer]], goals: list[Tensor], variance: float) -> float:
    """FVU that is lost where units are flat: what readouts gain from the values before the activation, layer by layer.

    Of fewer examples than a readout alone, since there are up to twice as many features.
    """
    few, gains = [goals[0][:FEWER], goals[1][: FEWER // 4]], []
    for train, test in layers:
        if train.before is None or test.before is None:
            continue
        halves = (
            Layer(train.module, train.values[:FEWER], train.before[:FEWER]),
            Layer(test.module, test.values[: FEWER // 4], test.before[: FEWER // 4]),
        )
        gains.append(_fvu_of(halves, few, variance) - _fvu_of(halves, few, variance, with_before=True))
    return sum(max(0.0, gain) for gain in gains)


def _narrowest(model: nn.Module, layers: list[tuple[Layer, Layer]], pixels: Pixels) -> int | None:
    narrow = sorted(
        (one for one, _ in layers if one.values.shape[1] < pixels.d), key=lambda one: one.values.shape[1]
    )
    return next((one.values.shape[1] for one in narrow if not bypassed(model, one.module, pixels.test)), None)


def _shrunk(
    model: nn.Module, last: nn.Module | None, xs: list[Tensor], goals: list[Tensor], size: int
) -> list[Tensor] | None:
    """What the best readout of what the last module is given loses by the noise that it is trained under, [n, d] and [m, d]."""
    if last is None:
        return None
    copied = copy.deepcopy(model)
    twin = dict(zip(model.modules(), copied.modules(), strict=True))[last]
    calm = [_entering(copied, twin, x, None) for x in xs]
    loud = _entering(copied, twin, xs[0], size)
    if calm[0] is None or calm[1] is None or loud is None or len(loud) != len(xs[0]):
        return None
    quiet, noisy = affine(calm[0], goals[0]), affine(loud, goals[0])
    return [apply(noisy, half) - apply(quiet, half) for half in (calm[0], calm[1])]


def _entering(model: nn.Module, module: nn.Module, x: Tensor, size: int | None) -> Tensor | None:
    seen: list[Tensor] = []

    def record(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0].flatten(1))

    hook = module.register_forward_pre_hook(record)
    try:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            outputs(model, x, size)
    finally:
        hook.remove()
    return torch.cat(seen).double() if seen and seen[0].shape[1] <= WIDEST else None
