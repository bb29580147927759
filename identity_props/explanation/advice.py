"""Advice: the change that answers each part of an error, and what it gives when it is made.

One registry, CHANGES. A change is advised where the parts that it answers make a twentieth of the error or
more, and tried by training the changed network with the same seed for as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Recipe, Trial
from identity_props.explanation.explain import Advice, Explanation
from identity_props.explanation.networks import retrained
from identity_props.task.data import Pixels
from identity_props.task.models import Variant
from identity_props.task.theory import critical_rate, modes

WORTH = 0.05  # share of the error: at 1% of it the answer is lost among seeds, whose errors differ by a tenth
TOGETHER = "all of these"


@dataclass(frozen=True)
class Change:
    """A change of a trial that answers the parts it names; ``made`` gives the trial itself where it has it already.

    ``of_recipe`` says that it changes what trains, ``leads`` that it is worth its price only where no other part
    is larger.
    """

    name: str
    answers: tuple[str, ...]
    why: str
    made: Callable[[Trial, Pixels], Trial]
    of_recipe: bool = False
    leads: bool = False


def _variant(name: str, of: Sequence[str], trial: Trial, pixels: Pixels) -> Trial:
    wanted = trial.variant.name in of
    return replace(trial, variant=replace(trial.variant, name=name)) if wanted else trial


def _residual(trial: Trial, pixels: Pixels) -> Trial:
    fits = trial.variant.width in (None, pixels.d) and trial.variant.name != "scaled-input"
    return replace(trial, variant=replace(trial.variant, name="residual", width=None)) if fits else trial


def _standardised(trial: Trial, pixels: Pixels) -> Trial:
    unscaled = trial.variant.scaling in ("none", "unit")
    # a ReLU at the output cannot give the negative values that standardised pixels have
    fits = unscaled and trial.variant.name != "plain-relu"
    return replace(trial, variant=replace(trial.variant, scaling="standardise")) if fits else trial


def _decayed(trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, recipe=replace(trial.recipe, schedule="linear-decay"))


def _half_critical(trial: Trial, pixels: Pixels) -> Trial:
    if trial.variant.depth > 1 or not trial.recipe.optimizer.endswith(":SGD"):
        return trial  # the spectrum gives the rate of plain gradient descent on one layer
    scaled = pixels.scaled(trial.variant.scaling)
    rate = critical_rate(modes(scaled.train)[0]) / 2
    return replace(trial, recipe=replace(trial.recipe, lr=rate))


LONGER = 4


def _longer(trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, steps=LONGER * max(trial.steps, 1))


CHANGES = (
    Change(
        "train longer",
        ("too few steps",),
        f"its error still falls at this rate; {LONGER} times the steps",
        _longer,
        of_recipe=True,
        leads=True,
    ),
    Change(
        "linear output",
        ("dead outputs", "stuck at 0"),
        "an output unit without ReLU cannot die or be stuck",
        partial(_variant, "linear-output", ("plain-relu",)),
    ),
    Change(
        "residual blocks",
        ("lost in hidden layers", "dead outputs", "stuck at 0", "slow directions"),
        "the input goes round every layer, so none can lose it, and the start is nearer",
        _residual,
    ),
    Change(
        "standardise",
        ("slow directions", "bias", "too few steps"),
        "pixels of mean 0 and variance 1 have a flatter spectrum",
        _standardised,
    ),
    Change(
        "rate from the spectrum",
        ("slow directions", "too few steps"),
        "half the critical rate d / lambda_1 is the fastest that is safe",
        _half_critical,
        of_recipe=True,
    ),
    Change(
        "decay the rate",
        ("step-size floor", "lost in hidden layers"),
        "a constant rate keeps adaptive steps, and those on batches, from ever settling",
        _decayed,
        of_recipe=True,
    ),
)


def described(found: Explanation, recipe: Recipe | None, scaling: str, steps: int) -> Trial:
    """What comes nearest to a network of one's own: its depth, narrowest layer, and whether its output has a ReLU."""
    hidden = len(found.widths)
    name = "residual" if found.bypassed else "plain-relu" if found.rectified else "linear-output"
    narrow = min(found.widths, default=len(found.dead))
    width = narrow if narrow != len(found.dead) and not found.bypassed else None
    variant = Variant(name if hidden or found.rectified else "linear", min(hidden + 1, 8), scaling, width)
    return Trial(variant, recipe or Recipe("torch.optim:SGD", 1.0), steps)


def advised(found: Explanation, trial: Trial, pixels: Pixels, known: bool = True) -> tuple[Change, ...]:
    """Changes whose parts are a twentieth of the error or more, as far as the trial has not made them.

    ``pixels`` are unscaled. Without a ``known`` recipe none that is a change of it. None for a network that
    is near-identity.
    """
    if found.near_identity:
        return ()
    shares = {part.name: part.fvu / found.fvu for part in found.parts}
    most = max(shares.values())
    return tuple(
        change
        for change in CHANGES
        if sum(shares[name] for name in change.answers) >= (most if change.leads else WORTH)
        and (known or not change.of_recipe)
        and change.made(trial, pixels) != trial
    )


def told(
    found: Explanation, trial: Trial, pixels: Pixels, known: bool = True, model: bool = False
) -> tuple[Advice, ...]:
    """What is advised, and not tried; of a ``model`` that its layers be changed by hand."""
    return tuple(
        Advice(one.name, one.why, found.fvu_pixels, by_hand=model and _of_layers(one, trial, pixels))
        for one in advised(found, trial, pixels, known)
    )


def _of_layers(change: Change, trial: Trial, pixels: Pixels) -> bool:
    """Whether it changes the network, and not only its data or what trains it."""
    made = change.made(trial, pixels).variant
    return replace(made, scaling=trial.variant.scaling) != trial.variant


def planned(
    found: Explanation, trial: Trial, pixels: Pixels, model: bool = False
) -> list[tuple[str, str, Trial]]:
    """What ``tried`` trains: each change, but of a ``model`` those of its layers, and all of them together."""
    changes = advised(found, trial, pixels)
    changes = tuple(one for one in changes if not (model and _of_layers(one, trial, pixels)))
    trials = [(change.name, change.why, change.made(trial, pixels)) for change in changes]
    if len(changes) > 1:
        together = trial
        for change in changes:
            together = change.made(together, pixels)
        trials.append((TOGETHER, "what is left of one fault hides what another repair gives", together))
    return trials


def tried(
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    model: nn.Module | None = None,
) -> Iterator[Advice]:
    """What each change gives, and all of them together, of the same seed under the same budget.

    FVU in grey levels, [0, inf], infinite or NaN where the changed network diverges. A ``model`` is trained from
    where it is; changes of its layers are left to its owner. ``on_step`` hears each step of each training.
    """
    if model is not None:
        yield from (one for one in told(found, trial, pixels, model=True) if one.by_hand)
    for name, why, changed in planned(found, trial, pixels, model is not None):
        with flushed_denormals():
            after = (
                float(train(changed, pixels, [seed], on_step=on_step).fvu_pixels[0])
                if model is None
                else retrained(model, changed, pixels, seed, on_step)
            )
        yield Advice(name, why, found.fvu_pixels, after)
