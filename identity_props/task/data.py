"""Pixels: data sets whose target is the input itself, and the scalings of their input.

``digits`` is drawn on the spot; ``mnist`` is read through torchvision (LeCun, Cortes, Burges 1998).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identity_props.errors import InputError, MissingError
from identity_props.task.keeping import CACHE
from identity_props.task.metrics import pixel_variance
from identity_props.task.rendering import rendered
from identity_props.task.threads import eigh

SIDES = (7, 14, 28)
DATA_VARIABLE = "IDENTITY_PROPS_DATA"


@dataclass(frozen=True, eq=False)
class Scaling:
    """An invertible affine map of the input, fitted on the training half only.

    z = (x - mean) @ matrix and x = z @ inverse + mean; mean [d], matrix and inverse [d, d].
    """

    name: str
    mean: Tensor
    matrix: Tensor
    inverse: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [n, d] to scaled input [n, d], in the dtype of ``x``."""
        return ((x.double() - self.mean) @ self.matrix).to(x.dtype)

    def backward(self, z: Tensor) -> Tensor:
        """Scaled input [n, d] back to pixels [n, d], in the dtype of ``z``."""
        return (z.double() @ self.inverse + self.mean).to(z.dtype)


@dataclass(frozen=True, eq=False)
class Pixels:
    """A data set whose target is itself: train [n, d], test [m, d], both finite and floating.

    ``shape`` is (height, width) where the pixels are an image. ``scaling`` is the map that led here
    from grey levels 0-255, or None. ``targets`` ([n, d], [m, d]) are what the two halves are to be mapped to where
    that is not themselves, and ``top`` what the scaling unit divides by. Raises InputError where the two
    halves do not fit together, hold NaN or infinity, or where the test half is constant, since FVU divides by its
    variance.
    """

    name: str
    train: Tensor
    test: Tensor
    shape: tuple[int, int] | None = None
    scaling: Scaling | None = None
    targets: tuple[Tensor, Tensor] | None = None
    top: float = 255.0

    def __post_init__(self) -> None:
        halves = [("train", self.train), ("test", self.test)]
        if self.targets is not None:
            halves += [*zip(("train target", "test target"), self.targets, strict=True)]
        for half, x in halves:
            if x.ndim != 2 or len(x) == 0 or not x.is_floating_point():
                given = f"{x.dtype} {list(x.shape)}"
                raise InputError(f"{self.name} {half}: expected floating [n, d], n >= 1, got {given}")
            if not torch.isfinite(x).all():
                raise InputError(f"{self.name} {half}: expected finite values, got NaN or infinity")
        if self.train.shape[1] != self.test.shape[1]:
            widths = f"{self.train.shape[1]} and {self.test.shape[1]}"
            raise InputError(f"{self.name}: expected train and test of one width, got {widths}")
        if self.shape is not None and math.prod(self.shape) != self.d:
            raise InputError(f"{self.name}: shape {self.shape} does not hold {self.d} pixels")
        for (half, x), (_, goal) in zip(halves[:2], halves[2:], strict=False):
            if x.shape != goal.shape:
                shapes = f"{[*x.shape]}, as its input, got {[*goal.shape]}"
                raise InputError(f"{self.name} {half}: expected a target {shapes}")
        goal = self.goal[1]
        if not (goal != goal[0]).any():
            raise InputError(f"{self.name} test: expected pixels that vary, got a constant")

    @property
    def goal(self) -> tuple[Tensor, Tensor]:
        """What train and test are to be mapped to: themselves where there are no ``targets``."""
        return self.targets or (self.train, self.test)

    @cached_property
    def variance(self) -> float:
        """Mean over the pixels of the variance of what test is to be mapped to, which FVU divides by."""
        return pixel_variance(self.goal[1])

    @property
    def d(self) -> int:
        """Number of pixels, the width of every network trained on them."""
        return self.train.shape[1]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both halves, to tell whether two runs saw the same data."""
        digest = hashlib.sha256()
        for x in (self.train, self.test, *(self.targets or ())):
            digest.update(np.ascontiguousarray(x.cpu().numpy()).tobytes())
        return digest.hexdigest()

    def scaled(self, name: str) -> Pixels:
        """The same data under a scaling of SCALINGS, fitted on ``train``; raises InputError."""
        if name not in SCALINGS:
            raise InputError(f"scaling: expected one of {', '.join(SCALINGS)}, got {name!r}")
        if self.scaling is not None:
            raise InputError(f"{self.name}: already scaled by {self.scaling.name!r}")
        fit = SCALINGS[name]
        if fit is None:
            return self
        scaling = fit(self.train.double(), self.top)
        train, test = scaling.forward(self.train), scaling.forward(self.test)
        goals = self.targets and (scaling.forward(self.targets[0]), scaling.forward(self.targets[1]))
        return replace(self, train=train, test=test, scaling=scaling, targets=goals)


def _alive(spread: Tensor, floor: float) -> Tensor:
    """Spreads [d] to divide by: below ``floor`` x the largest a direction counts as dead.

    Dividing a dead direction by its own tiny spread would blow up the few test images that differ
    there; dividing it by the largest keeps the map invertible and such images harmless.
    """
    if not spread.max() > 0:
        raise InputError("scaling: expected training pixels that vary, got a constant")
    return torch.where(spread > floor * spread.max(), spread, spread.max())


def _diagonal(name: str, mean: Tensor, spread: Tensor) -> Scaling:
    return Scaling(name, mean, torch.diag(1 / spread), torch.diag(spread))


def _unit(train: Tensor, top: float) -> Scaling:
    levels = torch.full_like(train[0], top)
    return _diagonal("unit", torch.zeros_like(levels), levels)


def _standardise(train: Tensor, top: float) -> Scaling:
    # Floor 0.02: on both data sets at every side FVU 1e-3 then takes at most 1.5 times the steps
    # that the training spectrum predicts; at 0.005 the test outliers of digits 28x28 never get there.
    return _diagonal("standardise", train.mean(0), _alive(train.std(0, correction=0), 0.02))


def _whiten(train: Tensor, top: float) -> Scaling:
    """Symmetric (ZCA) whitening: matrix = V diag(1/s) V^T with covariance V diag(s^2) V^T."""
    mean = train.mean(0)
    eigenvalues, v = eigh((train - mean).T @ (train - mean) / len(train))
    # Floor 0.003: at 0.015 the directions left unwhitened keep 28x28 from FVU 1e-3 in pixels.
    s = _alive(eigenvalues.clamp_min(0).sqrt(), 0.003)
    return Scaling("whiten", mean, (v / s) @ v.T, (v * s) @ v.T)


SCALINGS: dict[str, Callable[[Tensor, float], Scaling] | None] = {
    "none": None,
    "unit": _unit,
    "standardise": _standardise,
    "whiten": _whiten,
}


def pooled(images: Tensor, side: int) -> Tensor:
    """Average-pool images [n, 28, 28] to pixels [n, side * side], float32 in 0-255.

    Raises InputError unless ``side`` is 7, 14 or 28.
    """
    if side not in SIDES:
        raise InputError(f"side: expected one of {', '.join(map(str, SIDES))}, got {side}")
    k = 28 // side
    blocks = images.float().reshape(-1, side, k, side, k)
    return blocks.mean((2, 4)).reshape(-1, side * side)


def digits(side: int = 28, train: int = 8192, test: int = 2048, seed: int = 0) -> Pixels:
    """Digits drawn with Pillow's own font, warped, fitted to a box and centred like MNIST.

    train [n, side^2] and test [m, side^2] in 0-255, from two disjoint random streams. One seed
    gives the same bytes on every machine with the same Pillow, see rendering. Raises InputError for
    an empty half.
    """
    if min(train, test) < 1:
        raise InputError(f"digits: expected at least one image a half, got {train} and {test}")
    drawn = rendered(train, f"{seed}/train"), rendered(test, f"{seed}/test")
    return Pixels("digits", pooled(drawn[0], side), pooled(drawn[1], side), (side, side))


def mnist(side: int = 28, data_dir: str | Path | None = None, download: bool = False) -> Pixels:
    """MNIST through torchvision: train [60000, side^2] and test [10000, side^2] in 0-255.

    Looks for ``MNIST/raw`` under ``data_dir``, else under $IDENTITY_PROPS_DATA, else under
    ~/.cache/identity-props, and downloads it there, with torchvision's checksums, only if
    ``download``. Raises MissingError where it is absent, InputError where a file is damaged.
    """
    root = Path(data_dir or os.environ.get(DATA_VARIABLE) or CACHE)
    raw = root / "MNIST" / "raw"
    files = [raw / f"{half}-images-idx3-ubyte" for half in ("train", "t10k")]
    if not all(os.path.isfile(file) for file in files):  # False of a path that cannot be followed, too
        if not download:
            advice = f"give --data-dir, set {DATA_VARIABLE}, or allow --download"
            raise MissingError(f"MNIST: expected {files[0].name} and {files[1].name} in {raw}: {advice}")
        _download(root)
    images = [_read_images(file) for file in files]
    return Pixels("mnist", pooled(images[0], side), pooled(images[1], side), (side, side))


def _torchvision_mnist() -> Any:
    """The module torchvision.datasets.mnist, imported only where it is used."""
    try:
        from torchvision.datasets import mnist as module
    except (ImportError, RuntimeError) as error:
        cause = str(error).splitlines()[0]
        advice = "install both from one index: pip install --force-reinstall torch torchvision"
        raise MissingError(
            f"torchvision does not load with torch {torch.__version__} ({cause}): {advice}"
        ) from error
    return module


def _download(root: Path) -> None:
    module = _torchvision_mnist()
    try:
        module.MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise MissingError(f"MNIST: download to {root} failed: {str(error).splitlines()[0]}") from error


def _read_images(file: Path) -> Tensor:
    module = _torchvision_mnist()
    try:
        images: Tensor = module.read_image_file(str(file))
    except Exception as error:  # torchvision asserts, and struct, int and frombuffer raise their own
        raise InputError(f"{file}: expected an IDX file of 28x28 images, got a damaged one") from error
    if images.shape[1:] != (28, 28) or len(images) == 0:
        raise InputError(f"{file}: expected images [n, 28, 28], got {list(images.shape)}")
    return images
