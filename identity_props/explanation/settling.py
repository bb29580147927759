"""A short run from where training stopped: what more steps remove, and what decaying the rate removes besides.

An adaptive optimizer at a constant rate hovers above the optimum, since its steps stay as long as the rate
is. Two copies of the network go on over the same batches, one at the unchanged rate, the control, and one
whose rate falls linearly to 0. What only the second removes is the floor that the step size sets. Where training
is not as evaluation is, as of dropout, a third goes on as the second, in eval mode: what only it removes is noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from identity_props.engine.training import flushed_denormals
from identity_props.engine.trial import Recipe
from identity_props.errors import InputError
from identity_props.explanation.readout import dtype_of, outputs
from identity_props.stack.loop import shuffled, take_step
from identity_props.stack.stack import resolve
from identity_props.task.data import Pixels
from identity_props.task.metrics import NEAR_IDENTITY

PROBE = 64  # steps; 64 to 512 left the same FVU within 4% on the networks of the question
LONG, WORSE = 512, 1.02  # steps where those end worse than they began, by more than a fiftieth
WARM = 16  # steps at rate 0 before, in which running averages of gradients fill
STEPS = 2 * (WARM + PROBE)  # of both copies; a third takes half as many more
BATCH = 128  # examples that noise is looked for in
NOTHING = 1e-5  # of an output's spread: rounding
LOOKS = 2  # evaluations, over the second half, that the FVU of the unchanged rate is averaged over
SQUARES = (
    "square_avg",
    "exp_avg_sq",
)  # running mean squares of gradients, of RMSprop and of Adam and its kin


@dataclass(frozen=True, eq=False)
class Settled:
    """A network after the short run; FVU ``before`` it, ``steady`` at the unchanged rate, ``after`` the decay.

    ``quiet`` is that of the decay without what training adds to evaluation, NaN where there is nothing.
    ``model`` is the network that was given where the run was not made, or left it worse. ``rate`` is the
    learning rate, over the root mean square gradient where the optimizer divides by it; None if not known.
    """

    model: nn.Module
    before: float
    steady: float
    after: float
    rate: float | None = None
    quiet: float = math.nan
    steps: int = PROBE

    @property
    def unfinished(self) -> float:
        """FVU that more steps remove at the unchanged rate, 0 or more."""
        return max(0.0, self.before - max(self.steady, self.after))

    @property
    def floor(self) -> float:
        """FVU that only the decay removes, 0 or more."""
        return max(0.0, min(self.before, self.steady) - self.after)

    @property
    def noise(self) -> float:
        """FVU that only the run without noise removes, 0 or more."""
        return max(0.0, self.after - self.quiet) if math.isfinite(self.quiet) else 0.0


def settle(
    model: nn.Module,
    pixels: Pixels,
    recipe: Recipe | None,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
    probe: int = PROBE,
    before: float | None = None,
) -> Settled:
    """Train copies of ``model`` for 64 steps more, see the module; none for a rate that has decayed.

    For 512, and decayed from a tenth, where 64 leave it worse than it was: where steps are long, training may have
    ended low by luck, and its averages of gradients are lost.

    ``on_step`` hears each step, from 0 to 2 (16 + 64) - 1. ``before`` is its FVU, where that is known.
    """
    before = fvu(model, pixels) if before is None else before
    trains = any(p.requires_grad for p in model.parameters())
    if recipe is None or not trains or recipe.schedule != "constant":
        return Settled(model, before, before, before, None if recipe is None else recipe.lr)
    hear = on_step or (lambda step: None)
    decay = _decay if probe == PROBE else _decay_from_a_tenth

    def heard(run: int) -> Callable[[int], None]:
        return lambda step: hear(step + run * (WARM + probe))

    with flushed_denormals(), torch.random.fork_rng([]):
        torch.manual_seed(seed)  # of dropout
        steady, _, rate = _go_on(model, pixels, recipe, seed, lambda share: 1.0, heard(0), probe)
        after, settled, _ = _go_on(model, pixels, recipe, seed, decay, heard(1), probe)
        if probe == PROBE and before > NEAR_IDENTITY and after > WORSE * before:
            return settle(model, pixels, recipe, seed, on_step, LONG, before)
        kept = (settled, after) if after < before else (model, before)  # NaN too
        if noisy(model, pixels, seed):
            quiet, calm, _ = _go_on(model, pixels, recipe, seed, decay, heard(2), probe, quiet=True)
            if quiet < kept[1]:
                return Settled(
                    calm, before, steady if after < before else before, kept[1], rate, quiet, probe
                )
    return Settled(kept[0], before, steady if after < before else before, kept[1], rate, steps=probe)


def _decay(share: float) -> float:
    return 1 - share


def _decay_from_a_tenth(share: float) -> float:
    return 0.1 * (1 - share)


def noisy(model: nn.Module, pixels: Pixels, seed: int = 0) -> bool:
    """Whether an example's output in training depends on draws, as with dropout, or on the others of its batch.

    Two copies see it beside others, with other draws. What training changes besides, as the power iteration of a
    spectral norm, is the same in both.
    """
    x, half = pixels.train[:BATCH], min(BATCH, len(pixels.train)) // 2
    batches, seen = (x, torch.cat((x[:half], x[: len(x) - half]))), []
    for k, batch in enumerate(batches):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed + k)
            try:
                seen.append(outputs(copy.deepcopy(model), batch, training=BATCH)[:half])
            except InputError:  # batch statistics of a single example, for one
                return False
    scale = float(seen[0].std()) or 1.0
    return float((seen[0] - seen[1]).square().mean().sqrt()) > NOTHING * scale


def fvu(model: nn.Module, pixels: Pixels) -> float:
    """FVU on test, in float64."""
    return float((outputs(model, pixels.test) - pixels.goal[1]).square().mean()) / pixels.variance


def _go_on(
    model: nn.Module,
    pixels: Pixels,
    recipe: Recipe,
    seed: int,
    factor: Callable[[float], float],
    on_step: Callable[[int], None],
    probe: int,
    quiet: bool = False,
) -> tuple[float, nn.Module, float]:
    """FVU, network and effective rate after the steps; the FVU is a mean over the second half if it is steady."""
    model = copy.deepcopy(model).train(not quiet)
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = resolve(recipe.optimizer)(moved, lr=recipe.lr, **dict(recipe.arguments))
    seen = []
    for step, pair in enumerate(
        islice(pairs(pixels, recipe.batch_size, dtype_of(model), seed), WARM + probe)
    ):
        share = (step - WARM) / probe
        set_rate(optimizer, 0.0 if share < 0 else recipe.lr * factor(share))
        take_step(optimizer, loss_of(model, *pair))
        if factor(1.0) and step >= WARM + probe // 2 and (step + 1 - WARM) % (probe // 2 // LOOKS) == 0:
            seen.append(_fvu_or_nan(model, pixels))
        on_step(step)
    last = sum(seen) / len(seen) if seen else _fvu_or_nan(model, pixels)
    return last, model, recipe.lr / _root_mean_square(optimizer)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups one rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def pairs(pixels: Pixels, size: int | None, dtype: torch.dtype, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ([k, d], [k, d]) of training examples and what they are mapped to, without end."""
    both = pixels.train if pixels.targets is None else torch.cat((pixels.targets[0], pixels.train), 1)
    for batch in shuffled(both.to(dtype), size, [torch.Generator().manual_seed(seed)]):
        rows = batch if batch.ndim == 2 else batch[0]
        yield rows[:, -pixels.d :], rows[:, : pixels.d]


def loss_of(model: nn.Module, x: Tensor, goal: Tensor) -> Callable[[], Tensor]:
    """What a step evaluates: the mean squared error of mapping x [n, d] to its goal."""
    return lambda: nn.functional.mse_loss(model(x), goal)


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
