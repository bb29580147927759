"""Why a network is not the identity: its test error in named parts that add up to the FVU.

Each part is the fall of the test error when one more fault is repaired, so the parts sum to the FVU exactly,
and none is negative. The order, which decides where parts overlap:

0. *noise in evaluation*: where two evaluations differ, what they do worse, on average, than one at the means of what is
   drawn. All that follows is of the network at those means.
1. *not trained yet*: where W is as it was drawn, see ``limits``, all that is not a limit of 4 or 7, and the rest is 0,
   as what a drawn network does is no finding.
2. *shifted statistics*: what running averages taken anew over the training data remove. Before any step, since steps
   move them too.
3. *too few steps*, *step-size floor*, *noise in training*: what a short run removes, at the unchanged rate, by decaying
   it besides, and in eval mode besides, see ``settling``. Before what follows, since noise in the weights looks like every other
   fault; the parts below are those of the network that the short run leaves. To the noise is added what the best
   readout that is fitted under it, as with dropout, does worse than the best without.
4. *never seen*, or *not in the input* where the target is not the input; *too narrow*: what the span of the training
   data, or the best affine map, leaves on test, and the best affine map of the rank of the narrowest layer.
5. *saturated hidden units*: what readouts of hidden layers gain from the values that flat units were given.
6. *lost in hidden layers*: what else the best affine readout of the last hidden layer, fitted on train, leaves on test.
   Before the output, as an image passes: an output unit cannot lose what did not reach it.
7. *range*: of what the output gets worse than the readout, what no output in its reach could do without.
8. *dead outputs*, *stuck at 0*, *saturated outputs*: the same where its ReLU is 0, or its activation flat.
9. *bias*, *slow directions*, *output layer*, *other*: the same where the output is alive: affine in the input, affine in the
   last hidden layer, and the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from identity_props.engine.trial import Recipe
from identity_props.explanation.averages import recalibrated
from identity_props.explanation.confined import confined
from identity_props.explanation.from_keras import followed, is_keras
from identity_props.explanation.limits import as_drawn, by_rank
from identity_props.explanation.parts import DECAYED, SAMPLED, in_order, parts, untrained
from identity_props.explanation.parts import DRAWN as DRAWN
from identity_props.explanation.parts import Part as Part
from identity_props.explanation.reachable import unreached
from identity_props.explanation.readout import check_network, dtype_of, evaluating, gram
from identity_props.explanation.settling import PROBE, Settled, fvu, noisy, settle
from identity_props.explanation.still import draws, squares, stilled
from identity_props.explanation.undecayed import undecayed
from identity_props.explanation.views import View, view
from identity_props.explanation.where import by_frequency, by_pixel
from identity_props.task.data import Pixels
from identity_props.task.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.task.theory import critical_rate
from identity_props.task.threads import eigh

JACOBIAN = 16  # test examples that the mean Jacobian is taken over
SHOWN = 8  # examples
STEPS_LEFT, FLOOR, SHIFTED = "too few steps", "step-size floor", "shifted statistics"
DECAYED_WHAT = f"{PROBE} steps without weight decay remove it, and as many with it do not"
SAMPLED_WHAT = "outputs differ from call to call, in eval mode too; at the mean of their draws they do better"
SHIFTED_WHAT = "running averages taken anew over the training data remove it"
BATCH = 128  # of the batches that noise in training is looked for in, where no recipe says
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
    never negative and often 0, ``bypassed`` that something goes round the last hidden layer. ``narrowest`` are the features
    of the narrowest layer, None where none is narrower than the data, ``by_rank`` [d + 1] the FVU of the best
    affine map of each rank, ``by_pixel`` [d] the squared error of each pixel in grey levels, and
    ``reach`` is what every output reaches, None where that cannot be told, ``noisy`` says that training is, ``draws``
    that two evaluations differ, ``of_itself`` that the input is the target.
    ``by_frequency`` [r, 2] its power and that of the target at 0, 1, ... cycles a picture, None without one.
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
    narrowest: int | None = None
    by_rank: Tensor = field(default_factory=lambda: torch.zeros(0))
    by_pixel: Tensor = field(default_factory=lambda: torch.zeros(0))
    by_frequency: Tensor | None = None
    reach: tuple[float, float] | None = None
    noisy: bool = False
    draws: bool = False
    of_itself: bool = True
    advice: tuple[Advice, ...] = ()

    @property
    def unlearned(self) -> Tensor:
        """Directions [d] that are in the data and whose squared deviation is above 1e-3."""
        return (self.along > NEAR_IDENTITY) & (self.eigenvalues > SPANNED * self.eigenvalues[0])

    @property
    def bounded(self) -> bool:
        """Whether its output ends above, as that of a sigmoid."""
        return self.reach is not None and math.isfinite(self.reach[1])

    def width_for(self, wanted: float) -> tuple[int, float]:
        """Least width whose best affine map leaves FVU ``wanted``, all of d if none does, and what it leaves."""
        enough = (self.by_rank <= wanted).nonzero()
        width = int(enough[0]) if len(enough) else len(self.by_rank) - 1
        return width, float(self.by_rank[width])

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
    curve: Sequence[float] | None = None,
) -> Explanation:
    """Split the test error of a trained module, [n, d] to [n, d] on ``pixels`` as scaled for it, into parts.

    A Keras model on torch is followed, see ``from_keras``.
    ``recipe`` is what it was trained with: without one nothing is trained, and no rate is known. ``curve`` are its
    losses while it was trained, if they were kept. The module
    itself is left as it is. ``on_step`` hears each of the 2 (16 + 64) steps of the short run, and half as many more where
    training is noisy. Raises InputError for a module that is not finite, elsewhere, or of another width.
    """
    if is_keras(model):
        model = followed(model, name)
    check_network(model, pixels.test)
    as_given, drawn_anew, drawing = model, 0.0, draws(model, pixels.test)
    if drawing:
        model, drawn_anew = stilled(model, pixels, seed)
    eigenvalues, v = spectrum(pixels.train)
    unspanned = v[:, eigenvalues <= SPANNED * eigenvalues[0]]
    size = ((recipe and recipe.batch_size) or BATCH) if noisy(model, pixels, seed) else None
    drawn = as_drawn(model, pixels.train, pixels.goal[0].double(), curve, seed)
    start = None if drawn else recalibrated(model, pixels.train)
    whole = fvu(model, pixels)
    anew = whole if start is None else fvu(start, pixels)
    shifted = max(0.0, whole - anew)
    began, before = (start, anew) if start is not None and shifted else (model, whole)
    settled = settle(began, pixels, recipe, seed, on_step, before=before)
    settled, shrunk = (settled, 0.0) if drawn else undecayed(settled, began, pixels, recipe, seed, on_step)
    own = drawn or settled.model is model
    given = view(model, pixels, unspanned, size, whole=own)
    ranks = by_rank(given.train.x, given.train.goal, given.test.x, given.test.goal)
    given = confined(given, ranks)
    if drawn:
        found = (*untrained(given, ranks), *(() if recipe else _of_settling(settled, recipe)))
    else:
        seen = given if own else view(settled.model, pixels, unspanned, size, every=False, data=given.data)
        left = confined(seen, ranks)
        apart = unreached(model if own else settled.model, pixels)
        left = replace(left, narrowest=given.narrowest, unreached=apart)
        first = (
            Part(SHIFTED, shifted, SHIFTED_WHAT),
            *_of_settling(settled, recipe),
            Part(DECAYED, shrunk, DECAYED_WHAT),
        )
        found = (*first, *parts(left, v[:, _slow(eigenvalues, settled.rate)], ranks, settled.noise))
    found = (*found, Part(SAMPLED, drawn_anew, SAMPLED_WHAT))
    back, goal = _grey(pixels), given.test.goal
    error = back(given.test.y) - back(goal)
    squared = squares(as_given, pixels, back, seed) if drawn_anew else by_pixel(error)
    best = None if pixels.targets is None else given.data.regression.to(given.train.goal)[:-1]
    slope = given.data.regression.to(given.train.y - given.train.goal)[:-1]
    along = (v.T @ slope).square().sum(1)  # squared norm of the deviation, a direction
    return Explanation(
        name=name,
        fvu=whole + drawn_anew,
        mse=(mse := float(squared.mean())),
        fvu_pixels=mse / pixel_variance(back(goal)),
        parts=in_order(found),
        dead=given.dead,
        shape=pixels.shape,
        eigenvalues=eigenvalues,
        residual=_residual(given, v, slope),
        along=along,
        steps_left=steps_left(eigenvalues, along, settled.rate),
        deviation=deviation(model, pixels.test[:JACOBIAN], best),
        examples=_examples(given, pixels),
        readouts=given.readouts,
        widths=given.widths,
        rectified=bool((given.train.y >= 0).all() and (given.train.y == 0).any()),
        bypassed=given.bypassed,
        narrowest=given.narrowest,
        by_rank=ranks,
        by_pixel=squared,
        by_frequency=pixels.shape and by_frequency(error, back(goal), pixels.shape),
        reach=given.reach and (float(given.reach[0].max()), float(given.reach[1].min())),
        of_itself=pixels.targets is None,
        noisy=size is not None,
        draws=drawing,
    )


def spectrum(train: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d], descending, and eigenvectors [d, d], as columns, of E[x x^T] over train [n, d]."""
    x = train.double()
    eigenvalues, v = eigh(gram(x) / len(x))
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
    error, along = seen.test.y - seen.test.goal, (v.T @ slope).square().sum(1)
    linear = (seen.test.x @ v).square().mean(0) * along / (v.shape[0] * seen.variance)
    rest = seen.fvu(error) - float(linear.sum())
    if rest <= 0:  # rounding, or directions that are correlated on test
        return linear * (seen.fvu(error) / linear.sum().clamp_min(1e-300))
    other = ((error - seen.test.x @ slope) @ v).square().sum(0)
    return linear + rest * other / other.sum().clamp_min(1e-300)


def deviation(model: nn.Module, x: Tensor, best: Tensor | None = None) -> Tensor:
    """Mean Jacobian over x [n, d] minus I [d, d], W - I for one linear layer, or minus the ``best`` map of rows."""

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
    return slope.double() - (torch.eye(len(shift), dtype=torch.float64) if best is None else best.T)


def _examples(seen: View, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Inputs and outputs [8, d] in grey levels, evenly spaced over test."""
    order = torch.linspace(0, len(seen.test.x) - 1, min(SHOWN, len(seen.test.x))).long()
    shown = seen.test.x[order], seen.test.y[order]
    back = _grey(pixels)
    return back(shown[0]), back(shown[1])


def _grey(pixels: Pixels) -> Callable[[Tensor], Tensor]:
    return pixels.scaling.backward if pixels.scaling else lambda z: z


def _of_settling(settled: Settled, recipe: Recipe | None) -> tuple[Part, Part]:
    if recipe is None:
        unknown = "not measured: give --optimizer and --lr, what it trained with"
        return Part(STEPS_LEFT, 0.0, unknown, False), Part(FLOOR, 0.0, unknown, False)
    if recipe.schedule != "constant":
        decayed = "not measured: its rate has decayed, and more steps at 0 move nothing"
        return Part(STEPS_LEFT, 0.0, decayed, False), Part(FLOOR, 0.0, "none, the rate has decayed")
    why = f"{settled.steps} steps more with a rate that decays to 0 remove it, and at the unchanged rate they do not"
    steps = f"{settled.steps} steps more at the unchanged rate remove it, of the mean squared error alone"
    return Part(STEPS_LEFT, settled.unfinished, steps), Part(FLOOR, settled.floor, why)
