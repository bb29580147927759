"""Why a network is not the identity: its test error in named parts that add up to the FVU.

Each part is the fall of the test error when one more fault is repaired, so the parts sum to the FVU exactly,
and none is negative. The order, which decides where parts overlap:

1. *too few steps*, *step-size floor*: what a short run removes, at the unchanged rate and by decaying it
   besides, see ``settling``. First, since noise in the weights looks like every other fault; the parts
   below are those of the network that the short run leaves.
2. *never seen*, *lost in hidden layers*: what the best affine readout of the input and of the last hidden
   layer, fitted on train, leaves on test. Before the output, as an image passes: an output unit cannot lose
   what did not reach it.
3. *dead outputs*, *stuck at 0*: what the output gets worse than the readout where its ReLU is 0.
4. *bias*, *slow directions*, *other*: the same where the output is alive, affine in the input and the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from identity_props.engine.trial import Recipe
from identity_props.explanation.parts import Part as Part
from identity_props.explanation.parts import View, parts, view
from identity_props.explanation.readout import affine, check_network, dtype_of, evaluating
from identity_props.explanation.settling import PROBE, Settled, settle
from identity_props.task.data import Pixels
from identity_props.task.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.task.theory import critical_rate

JACOBIAN = 16  # test examples that the mean Jacobian is taken over
SHOWN = 8  # examples
STEPS_LEFT, FLOOR = "too few steps", "step-size floor"
SPANNED = 1e-12  # of the largest eigenvalue: below it a direction is not in the data


@dataclass(frozen=True)
class Advice:
    """A change worth trying, and the FVU in grey levels before and after; None until it was tried.

    ``by_hand`` says that it is one of a model's own layers, which is not tried here.
    """

    name: str
    why: str
    before: float
    after: float | None = None
    by_hand: bool = False


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a network's test error comes from; FVU is that of the space the network works in.

    ``mse`` and
    ``fvu_pixels`` are the error in grey levels. ``parts`` sum to ``fvu``, in the order taken. ``dead`` [d] are the output units that are 0 on all data.
    ``eigenvalues`` [d] are those of the training second moment, descending, ``residual`` [d] the FVU left
    along each eigenvector, ``along`` [d] the squared deviation there, |(W - I) v|^2, and ``steps_left`` [d] the steps that one linear layer still needs there at this
    rate, until an error has shrunk to FVU 1e-3 (infinite: never, NaN: no rate known). ``deviation`` [d, d] is
    the mean Jacobian minus I, ``examples`` inputs and outputs [8, d] in grey levels, ``readouts`` the FVU of
    the best affine readout of each hidden layer, of ``widths`` features. ``rectified`` says that the output is
    never negative and often 0, ``bypassed`` that something goes round the last hidden layer.
    """

    name: str
    fvu: float
    mse: float
    fvu_pixels: float
    parts: tuple[Part, ...]
    dead: Tensor
    shape: tuple[int, int] | None
    eigenvalues: Tensor
    residual: Tensor
    along: Tensor
    steps_left: Tensor
    deviation: Tensor
    examples: tuple[Tensor, Tensor]
    readouts: tuple[float, ...]
    widths: tuple[int, ...] = ()
    rectified: bool = False
    bypassed: bool = False
    advice: tuple[Advice, ...] = ()

    @property
    def unlearned(self) -> Tensor:
        """Directions [d] that are in the data and whose squared deviation is above 1e-3."""
        return (self.along > NEAR_IDENTITY) & (self.eigenvalues > SPANNED * self.eigenvalues[0])

    @property
    def near_identity(self) -> bool:
        """Whether there is nothing to explain: FVU 1e-3 or less."""
        return self.fvu <= NEAR_IDENTITY


def explain(
    model: nn.Module,
    pixels: Pixels,
    recipe: Recipe | None = None,
    name: str = "network",
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Explanation:
    """Split the test error of a trained module, [n, d] to [n, d] on ``pixels`` as scaled for it, into parts.

    ``recipe`` is what it was trained with: without one nothing is trained, and no rate is known. The module
    itself is left as it is. ``on_step`` hears each of the 2 (16 + 64) steps of the short run. Raises
    InputError for a module that is not finite, elsewhere, or of another width.
    """
    check_network(model, pixels.test)
    eigenvalues, v = spectrum(pixels.train)
    unspanned = v[:, eigenvalues <= SPANNED * eigenvalues[0]]
    settled, given = settle(model, pixels, recipe, seed, on_step), view(model, pixels, unspanned)
    left = given if settled.model is model else view(settled.model, pixels, unspanned, every=False)
    slope = affine(given.train.x, given.train.y - given.train.x)[:-1]
    along = (v.T @ slope).square().sum(1)  # squared norm of the deviation, a direction
    return Explanation(
        name=name,
        fvu=settled.before,
        mse=(mse := _in_grey_levels(given, pixels)),
        fvu_pixels=mse / pixel_variance(_grey(pixels)(given.test.x)),
        parts=(*_of_settling(settled, recipe), *parts(left, v[:, _slow(eigenvalues, settled.rate)])),
        dead=given.dead,
        shape=pixels.shape,
        eigenvalues=eigenvalues,
        residual=_residual(given, v, slope),
        along=along,
        steps_left=steps_left(eigenvalues, along, settled.rate),
        deviation=deviation(model, pixels.test[:JACOBIAN]),
        examples=_examples(given, pixels),
        readouts=given.readouts,
        widths=given.widths,
        rectified=bool((given.train.y >= 0).all() and (given.train.y == 0).any()),
        bypassed=given.bypassed,
    )


def spectrum(train: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d], descending, and eigenvectors [d, d], as columns, of E[x x^T] over train [n, d]."""
    x = train.double()
    eigenvalues, v = torch.linalg.eigh(x.T @ x / len(x))
    return eigenvalues.flip(0).clamp_min(0), v.flip(1)


def steps_left(eigenvalues: Tensor, along: Tensor, rate: float | None) -> Tensor:
    """Steps [d] of gradient descent on one linear layer until each squared deviation is 1e-3.

    log(along / 1e-3) / (-2 log |1 - 2 rate lambda / d|); 0 where it is less already and where data has
    nothing, infinite at and above the critical rate, NaN for no rate.
    """
    if rate is None:
        return torch.full_like(eigenvalues, math.nan)
    shrink = (1 - 2 * rate / len(eigenvalues) * eigenvalues).abs()
    steps = (along / NEAR_IDENTITY).log() / (-2 * shrink.log())
    steps = torch.where(shrink < 1, steps, math.inf)
    done = (along <= NEAR_IDENTITY) | (eigenvalues <= SPANNED * eigenvalues.max())
    return torch.where(done, 0.0, steps)


def _slow(eigenvalues: Tensor, rate: float | None) -> Tensor:
    """Directions [d] that the short run cannot teach: from a deviation of 1 they need more steps than it has.

    Where no rate is known, at half the critical one, gradient descent's best for an unknown spectrum.
    """
    rate = rate or critical_rate(eigenvalues.numpy()) / 2
    return steps_left(eigenvalues, torch.ones_like(eigenvalues), rate) > PROBE


def _residual(seen: View, v: Tensor, slope: Tensor) -> Tensor:
    """FVU [d] along each eigenvector, which sums to the FVU.

    Power times squared deviation for what is linear in the input; what is not, or constant, is spread by the
    directions in which it points.
    """
    error, along = seen.test.y - seen.test.x, (v.T @ slope).square().sum(1)
    linear = (seen.test.x @ v).square().mean(0) * along / (v.shape[0] * seen.variance)
    rest = seen.fvu(error) - float(linear.sum())
    if rest <= 0:  # rounding, or directions that are correlated on test
        return linear * (seen.fvu(error) / linear.sum().clamp_min(1e-300))
    other = ((error - seen.test.x @ slope) @ v).square().sum(0)
    return linear + rest * other / other.sum().clamp_min(1e-300)


def deviation(model: nn.Module, x: Tensor) -> Tensor:
    """Mean Jacobian over x [n, d] minus I [d, d], W - I for one linear layer."""

    def mean(by: Tensor) -> Tensor:
        y: Tensor = model(x.to(by.dtype) + by).mean(0)
        return y

    shift = torch.zeros_like(x[0], dtype=dtype_of(model))
    jacobian: Callable[..., Tensor] = torch.autograd.functional.jacobian
    with evaluating(model):
        try:
            slope = jacobian(mean, shift, vectorize=True)
        except RuntimeError:  # a module that vmap refuses
            slope = jacobian(mean, shift)
    return slope.double() - torch.eye(len(shift), dtype=torch.float64)


def _examples(seen: View, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Inputs and outputs [8, d] in grey levels, evenly spaced over test."""
    order = torch.linspace(0, len(seen.test.x) - 1, min(SHOWN, len(seen.test.x))).long()
    shown = seen.test.x[order], seen.test.y[order]
    back = _grey(pixels)
    return back(shown[0]), back(shown[1])


def _grey(pixels: Pixels) -> Callable[[Tensor], Tensor]:
    return pixels.scaling.backward if pixels.scaling else lambda z: z


def _in_grey_levels(seen: View, pixels: Pixels) -> float:
    back = _grey(pixels)
    return float((back(seen.test.y) - back(seen.test.x)).square().mean())


def _of_settling(settled: Settled, recipe: Recipe | None) -> tuple[Part, Part]:
    if recipe is None:
        unknown = "not measured: give --optimizer and --lr, what it trained with"
        return Part(STEPS_LEFT, 0.0, unknown, False), Part(FLOOR, 0.0, unknown, False)
    if recipe.schedule != "constant":
        decayed = "not measured: its rate has decayed, and more steps at 0 move nothing"
        return Part(STEPS_LEFT, 0.0, decayed, False), Part(FLOOR, 0.0, "none, the rate has decayed")
    why = f"{PROBE} steps more with a rate that decays to 0 remove it, and at the unchanged rate they do not"
    steps = f"{PROBE} steps more at the unchanged rate remove it"
    return Part(STEPS_LEFT, settled.unfinished, steps), Part(FLOOR, settled.floor, why)
