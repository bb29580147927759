"""What parts are made from: a network's outputs, what its last hidden layer still holds, and what limits it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

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
Later = Callable[[], Tensor]  # computed when it is asked for


@dataclass(frozen=True, eq=False)
class Data:
    """What views of one data set share, whatever the network: train and test, all [n, d] in float64.

    ``x`` in, ``goal`` what it is mapped to, ``unspanned`` [d, u] directions that train does not have.
    """

    x: tuple[Tensor, Tensor]
    goal: tuple[Tensor, Tensor]
    unspanned: Tensor

    @cached_property
    def regression(self) -> Regression:
        """From x, fitted on train."""
        return Regression(self.x[0])

    def seen(self, half: int) -> Tensor:
        """What any affine map of x could give, on train or test."""
        x = self.x[half]
        if self.goal[0] is self.x[0]:
            return x - x @ self.unspanned @ self.unspanned.T
        return apply(self.regression.to(self.goal[0]), x)


@dataclass(frozen=True, eq=False)
class Half:
    """Half of the data as a network sees it, all [n, d] in float64.

    ``x`` in, ``y`` out, ``goal`` what it is mapped to. What takes long is computed when it is asked for, once.
    """

    x: Tensor
    y: Tensor
    goal: Tensor
    see: Later
    reading: Later

    @property
    def seen(self) -> Tensor:
        """What any affine map of the input could give."""
        return self.see()

    @property
    def read(self) -> Tensor:
        """The best affine readout of the last hidden layer, fitted on train, or ``seen`` where there is none."""
        return self.reading()


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
    data: Data
    widths: tuple[int, ...] = ()
    bypassed: bool = False
    narrowest: int | None = None
    flattened: float = 0.0
    units: int = 0
    flat: Tensor | None = None
    reach: tuple[Tensor, Tensor] | None = None
    shrunk: list[Tensor] | None = None
    unreached: float = 0.0

    @cached_property
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
    data: Data | None = None,
) -> View:
    """What the parts are made from; ``unspanned`` [d, u] are directions that the training data does not have.

    Readouts of hidden layers, of ``every`` one or of none but the last, are fitted on the first 20,480
    training examples. The last is read together with the output where something goes round the layer. ``noise``
    is the batch size of a network whose training is noisy. One that is not ``whole`` lacks what saturates or is noise.
    ``data`` is that of an earlier view of the same pixels.
    """
    data = data or _data(pixels, unspanned)
    xs, goals = data.x, data.goal
    last, saturated = last_module(model, pixels.test), saturation(model, pixels.train)
    flat_layers = saturated.hidden if whole else {}
    ys, inner = zip(*(watched(model, x, flat_layers) for x in xs), strict=True)
    layers: list[tuple[Layer, Layer]] = list(zip(*inner, strict=True))
    variance = pixel_variance(goals[1])
    around = bool(layers) and bypassed(model, layers[-1][0].module, pixels.test)
    see: list[Later] = [cache(partial(data.seen, half)) for half in range(2)]
    read: list[Later]
    wide = convolved(model, last, pixels, goals[0]) if last is not None else None
    is_last = bool(layers) and layers[-1][0].module is last
    if wide is not None and not (is_last and around):
        read, refit = [cache(partial(wide.apply, x)) for x in xs], _refit_convolved(wide, model, last, pixels)
        around = False
    else:
        wide = None
        read, refit = _readout(data, _features(layers, ys, around), see)
    last_is_read = bool(layers) and not around and wide is None
    others = (layers[:-1] if last_is_read else layers) if every else []
    readouts = [_fvu_of(Regression(one.values), test.values, goals, variance) for one, test in others]
    if every and last_is_read:
        readouts.append(float((read[1]() - goals[1]).square().mean()) / variance)
    halves = [Half(*columns) for columns in zip(xs, ys, goals, see, read, strict=True)]
    return View(
        train=halves[0],
        test=halves[1],
        readouts=tuple(readouts),
        hidden=len(layers) + (wide is not None and not is_last),
        variance=variance,
        refit=refit,
        data=data,
        widths=tuple(one.values.shape[1] for one, _ in layers),
        bypassed=around,
        narrowest=_narrowest(model, layers, pixels) if every else None,
        flattened=_flattened(layers, goals, variance),
        units=saturated.units,
        flat=flat_outputs(model, last, pixels.test, saturated.output) if whole else None,
        reach=reach(model, last, pixels.test),
        shrunk=None
        if noise is None or around or wide or not whole
        else _shrunk(model, last, xs, goals, noise),
    )


def _data(pixels: Pixels, unspanned: Tensor) -> Data:
    x = pixels.train[:SAMPLE].double(), pixels.test.double()
    if pixels.targets is None:
        return Data(x, x, unspanned)
    return Data(x, (pixels.targets[0][:SAMPLE].double(), pixels.targets[1].double()), unspanned)


def _features(layers: list[tuple[Layer, Layer]], ys: tuple[Tensor, ...], around: bool) -> list[Tensor] | None:
    """Values of the last hidden layer, beside the outputs where something goes round it; None without one."""
    if not layers:
        return None
    values = [half.values for half in layers[-1]]
    return [torch.cat(both, 1) for both in zip(ys, values, strict=True)] if around else values


def _readout(
    data: Data, features: list[Tensor] | None, see: list[Later]
) -> tuple[list[Later], Callable[[Tensor], Tensor]]:
    """What is read out of features on train and test, and the best affine map of them to what is given on train, on test."""
    of_last = cache(lambda: data.regression if features is None else Regression(features[0]))
    best = cache(lambda: of_last().to(data.goal[0]))
    last = data.x if features is None else features

    def refit(wanted: Tensor) -> Tensor:
        return apply(of_last().to(wanted), last[1])

    if features is None:
        return see, refit
    return [cache(partial(_applied, best, half)) for half in features], refit


def _applied(readout: Later, features: Tensor) -> Tensor:
    return apply(readout(), features)


def _refit_convolved(
    wide: Convolved, model: nn.Module, last: nn.Module | None, pixels: Pixels
) -> Callable[[Tensor], Tensor]:
    def refit(wanted: Tensor) -> Tensor:
        again = convolved(model, last, pixels, wanted)
        return (again or wide).apply(pixels.test.double())

    return refit


def _fvu_of(fitted: Regression, test: Tensor, goals: tuple[Tensor, Tensor], variance: float) -> float:
    """FVU on test of the best affine readout of features, [m, p] there."""
    return float((apply(fitted.to(goals[0]), test) - goals[1]).square().mean()) / variance


def _flattened(layers: list[tuple[Layer, Layer]], goals: tuple[Tensor, Tensor], variance: float) -> float:
    """FVU that is lost where units are flat: what readouts gain from the values before the activation, layer by layer.

    Of fewer examples than a readout alone, since there are up to twice as many features.
    """
    few, gains = (goals[0][:FEWER], goals[1][: FEWER // 4]), []
    for train, test in layers:
        if train.before is None or test.before is None:
            continue
        values, p = test.values[: FEWER // 4], test.values.shape[1]
        both = Regression(torch.cat([train.values[:FEWER], train.before[:FEWER]], 1))
        with_before = torch.cat([values, test.before[: FEWER // 4]], 1)
        gains.append(
            _fvu_of(both.first(p), values, few, variance) - _fvu_of(both, with_before, few, variance)
        )
    return sum(max(0.0, gain) for gain in gains)


def _narrowest(model: nn.Module, layers: list[tuple[Layer, Layer]], pixels: Pixels) -> int | None:
    narrow = sorted(
        (one for one, _ in layers if one.values.shape[1] < pixels.d), key=lambda one: one.values.shape[1]
    )
    return next((one.values.shape[1] for one in narrow if not bypassed(model, one.module, pixels.test)), None)


def _shrunk(
    model: nn.Module,
    last: nn.Module | None,
    xs: tuple[Tensor, Tensor],
    goals: tuple[Tensor, Tensor],
    size: int,
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
