"""A short run from where training stopped: what more steps remove, and what decaying the rate removes besides.

An adaptive optimizer at a constant rate hovers above the optimum, since its steps stay as long as the rate
is. Two copies of the network go on over the same batches, one at the unchanged rate, the control, and one
whose rate falls linearly to 0. What only the second removes is the floor that the step size sets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from identity_props.engine.training import flushed_denormals
from identity_props.engine.trial import Recipe
from identity_props.explanation.readout import dtype_of, outputs
from identity_props.stack.loop import shuffled, take_step
from identity_props.stack.stack import resolve
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance

PROBE = 64  # steps; 64 to 512 left the same FVU within 4% on the networks of the question
WARM = 16  # steps at rate 0 before, in which running averages of gradients fill
STEPS = 2 * (WARM + PROBE)  # of both copies
LOOKS = 2  # evaluations, over the second half, that the FVU of the unchanged rate is averaged over
SQUARES = (
    "square_avg",
    "exp_avg_sq",
)  # running mean squares of gradients, of RMSprop and of Adam and its kin


@dataclass(frozen=True, eq=False)
class Settled:
    """A network after the short run; FVU ``before`` it, ``steady`` at the unchanged rate, ``after`` the decay.

    ``model`` is the network that was given where the run was not made, or left it worse. ``rate`` is the
    learning rate, over the root mean square gradient where the optimizer divides by it; None if not known.
    """

    model: nn.Module
    before: float
    steady: float
    after: float
    rate: float | None = None

    @property
    def unfinished(self) -> float:
        """FVU that more steps remove at the unchanged rate, 0 or more."""
        return max(0.0, self.before - max(self.steady, self.after))

    @property
    def floor(self) -> float:
        """FVU that only the decay removes, 0 or more."""
        return max(0.0, min(self.before, self.steady) - self.after)


def settle(
    model: nn.Module,
    pixels: Pixels,
    recipe: Recipe | None,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Settled:
    """Train copies of ``model`` for 64 steps more, see the module; none for a rate that has decayed.

    ``on_step`` hears each step, from 0 to 2 (16 + 64) - 1.
    """
    before = fvu(model, pixels)
    trains = any(p.requires_grad for p in model.parameters())
    if recipe is None or not trains or recipe.schedule != "constant":
        return Settled(model, before, before, before, None if recipe is None else recipe.lr)
    hear = on_step or (lambda step: None)
    with flushed_denormals():
        steady, _, rate = _go_on(model, pixels, recipe, seed, lambda share: 1.0, hear)
        after, settled, _ = _go_on(
            model, pixels, recipe, seed, lambda share: 1 - share, lambda s: hear(s + WARM + PROBE)
        )
    if not after < before:  # NaN too
        return Settled(model, before, before, before, rate)
    return Settled(settled, before, steady, after, rate)


def fvu(model: nn.Module, pixels: Pixels) -> float:
    """FVU on test, in float64."""
    error = outputs(model, pixels.test) - pixels.test
    return float(error.square().mean()) / pixel_variance(pixels.test)


def _go_on(
    model: nn.Module,
    pixels: Pixels,
    recipe: Recipe,
    seed: int,
    factor: Callable[[float], float],
    on_step: Callable[[int], None],
) -> tuple[float, nn.Module, float]:
    """FVU, network and effective rate after the steps; the FVU is a mean over the second half if it is steady."""
    model = copy.deepcopy(model).train()
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = resolve(recipe.optimizer)(moved, lr=recipe.lr, **dict(recipe.arguments))
    data = pixels.train.to(dtype_of(model))
    batches = shuffled(data, recipe.batch_size, [torch.Generator().manual_seed(seed)])
    seen = []
    for step, batch in enumerate(islice(batches, WARM + PROBE)):
        share = (step - WARM) / PROBE
        set_rate(optimizer, 0.0 if share < 0 else recipe.lr * factor(share))
        take_step(optimizer, loss_of(model, batch if batch.ndim == 2 else batch[0]))
        if factor(1.0) and step >= WARM + PROBE // 2 and (step + 1 - WARM) % (PROBE // 2 // LOOKS) == 0:
            seen.append(_fvu_or_nan(model, pixels))
        on_step(step)
    last = sum(seen) / len(seen) if seen else _fvu_or_nan(model, pixels)
    return last, model, recipe.lr / _root_mean_square(optimizer)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups one rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def loss_of(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """What a step evaluates: the mean squared error of reproducing x [n, d]."""
    return lambda: nn.functional.mse_loss(model(x), x)


def _fvu_or_nan(model: nn.Module, pixels: Pixels) -> float:
    """FVU, NaN where a run diverged."""
    finite = all(torch.isfinite(p).all() for p in model.parameters())
    return fvu(model, pixels) if finite else float("nan")


def _root_mean_square(optimizer: torch.optim.Optimizer) -> float:
    """By what an optimizer divides a gradient: the median over its weights, 1 where it keeps no such average."""
    squares = [s[key].flatten() for s in optimizer.state.values() for key in SQUARES if key in s]
    known = torch.cat(squares) if squares else torch.ones(1)
    known = known[known > 0]  # a dead unit has no gradient
    return float(known.median().sqrt()) if len(known) else 1.0
