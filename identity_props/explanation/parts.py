"""The parts of a test error, by repairing one fault after the other; see ``explain`` for their order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from identity_props.explanation.readout import affine, apply, bypassed, watched
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance

SAMPLE = 20_480  # training examples that readouts are fitted on: 26 to a feature at 784 pixels


@dataclass(frozen=True)
class Part:
    """One named share of the test error: ``fvu`` is what it contributes, ``what`` a sentence for people.

    One that is not ``measured`` contributes nothing, and what it would is in the others.
    """

    name: str
    fvu: float
    what: str
    measured: bool = True


@dataclass(frozen=True, eq=False)
class Half:
    """Half of the data as a network sees it, all [n, d] in float64.

    ``x`` in, ``y`` out, ``seen`` x on the span of the training data, ``read`` the best affine readout of the last
    hidden layer, fitted on train, or ``seen`` where there is none.
    """

    x: Tensor
    y: Tensor
    seen: Tensor
    read: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """Both halves, the FVU of the best affine readout of each hidden layer that is read, and how many there are.

    ``widths`` are the features of those that are read, ``bypassed`` whether something goes round the last.
    """

    train: Half
    test: Half
    readouts: tuple[float, ...]
    hidden: int
    variance: float
    widths: tuple[int, ...] = ()
    bypassed: bool = False

    @property
    def dead(self) -> Tensor:
        """Output units [d] that are 0 on all data."""
        return (self.train.y == 0).all(0) & (self.test.y == 0).all(0)

    def fvu(self, error: Tensor) -> float:
        """FVU of errors [m, d] on test, or of some of their entries."""
        return float(error.square().sum()) / (self.test.x.numel() * self.variance)


def view(model: nn.Module, pixels: Pixels, unspanned: Tensor, every: bool = True) -> View:
    """What the parts are made from; ``unspanned`` [d, u] are directions that the training data does not have.

    Readouts of every hidden layer, or of the last alone, are fitted on the first 20,480 training examples.
    The last is read together with the output where something goes round the layer.
    """
    halves = pixels.train[:SAMPLE], pixels.test
    xs = [x.double() for x in halves]
    ys, inner = zip(*(watched(model, x) for x in halves), strict=True)
    seen = [x - x @ unspanned @ unspanned.T for x in xs]
    layers = list(zip(*inner, strict=True))[0 if every else -1 :]
    maps = [affine(train.values, xs[0]) for train, _ in layers]
    reads = [apply(readout, test.values) for readout, (_, test) in zip(maps, layers, strict=True)]
    last = [apply(maps[-1], layers[-1][0].values), reads[-1]] if maps else seen
    around = bool(maps) and bypassed(model, layers[-1][0].module, pixels.test)
    if around:
        together = [torch.cat([y, half.values], 1) for y, half in zip(ys, layers[-1], strict=True)]
        readout = affine(together[0], xs[0])
        last = [apply(readout, half) for half in together]
    train, test = (Half(*columns) for columns in zip(xs, ys, seen, last, strict=True))
    variance = pixel_variance(test.x)
    readouts = tuple(float((read - test.x).square().mean()) / variance for read in reads)
    widths = tuple(one.values.shape[1] for one, _ in layers)
    return View(train, test, readouts, len(inner[0]), variance, widths, around)


@dataclass(frozen=True, eq=False)
class _Repair:
    """The better of output and readout, for each pixel, where the unit is dead, where it is stuck, where it is live.

    A choice of whole columns and not of entries, which would be choosing by the answer.
    """

    groups: tuple[Tensor, Tensor, Tensor]  # entries [m, d]: dead, stuck, live
    best: Tensor  # [m, d]
    taken: Tensor  # [d] live units whose readout is the better


def _repair(seen: View) -> _Repair:
    x, y, read = seen.test.x, seen.test.y, seen.test.read
    dead = seen.dead.expand_as(x)
    stuck = (y == 0) & (x != 0) & ~dead
    best, taken, groups = y.clone(), seen.dead, (dead, stuck, ~dead & ~stuck)
    for group in groups:
        own, other = (((z - x).square() * group).sum(0) for z in (y, read))
        taken = other < own
        best = torch.where(group & taken, read, best)
    return _Repair(groups, best, taken)


def parts(seen: View, slow: Tensor) -> tuple[Part, ...]:
    """The error of a view in parts, ``slow`` [d, s] being the eigenvectors that are slow to learn."""
    x, y, repair = seen.test.x, seen.test.y, _repair(seen)
    left = seen.fvu(repair.best - x)
    unseen = min(left, seen.fvu(seen.test.seen - x))
    dead, stuck, live = (seen.fvu((y - x)[g]) - seen.fvu((repair.best - x)[g]) for g in repair.groups)
    bias, along = _affine_parts(seen, repair, slow, live)
    units, columns = int(seen.dead.sum()), slow.shape[1]
    useless = int((seen.dead & (x != 0).any(0)).sum())
    stuck_units = int(repair.groups[1].any(0).sum())
    return (
        Part(
            "never seen",
            unseen,
            "the test images leave the span of the training images, and no training helps",
        ),
        Part(
            "lost in hidden layers",
            left - unseen,
            f"the best linear readout of the last of {seen.hidden} hidden layers does not recover it"
            if seen.hidden
            else "there is no hidden layer",
        ),
        Part(
            "dead outputs",
            dead,
            f"{units} output units are 0 on all data, {useless} of them where pixels are not",
        ),
        Part(
            "stuck at 0", stuck, f"{stuck_units} units that are alive are 0 on some images whose pixel is not"
        ),
        Part("bias", bias, "a constant that is added to every output"),
        Part(
            "slow directions", along, f"linear in {columns} of {x.shape[1]} eigenvectors, which learn slowest"
        ),
        Part("other", live - bias - along, "what has none of these names"),
    )


def _affine_parts(seen: View, repair: _Repair, slow: Tensor, live: float) -> tuple[float, float]:
    """Falls of the error where units are alive, by taking away its constant, then its slow linear part."""
    train, (*_, entries) = seen.train, repair.groups
    on = (train.y != 0) | (train.x == 0)
    excess = (train.y - train.read) * (on & repair.taken & ~seen.dead)
    fit = affine(train.x, excess)
    entries = entries & repair.taken
    error = (seen.test.y - seen.test.x) * entries
    unbiased = error - fit[-1] * entries
    straight = unbiased - (seen.test.x @ slow @ (slow.T @ fit[:-1])) * entries
    falls = seen.fvu(error) - seen.fvu(unbiased), seen.fvu(unbiased) - seen.fvu(straight)
    bias = min(max(falls[0], 0.0), live)
    return bias, min(max(falls[1], 0.0), live - bias)
