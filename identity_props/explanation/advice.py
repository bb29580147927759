"""Advice: the change that answers each part of an error, and what it gives when it is made.

One registry, CHANGES. A change is advised where the parts that it answers make a twentieth of the error or
more, and tried by training the changed network with the same seed for as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Trial
from identity_props.explanation.explain import Advice, Explanation
from identity_props.task.data import Pixels
from identity_props.task.theory import critical_rate, modes

WORTH = 0.05  # share of the error: at 1% of it the answer is lost among seeds, whose errors differ by a tenth
TOGETHER = "all of these"


@dataclass(frozen=True)
class Change:
    """A change of a trial that answers the parts it names; ``made`` gives the trial itself where it has it already."""

    name: str
    answers: tuple[str, ...]
    why: str
    made: Callable[[Trial, Pixels], Trial]


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


CHANGES = (
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
    ),
    Change(
        "decay the rate",
        ("step-size floor", "lost in hidden layers"),
        "an adaptive step is as long as its rate, so at a constant one the weights never settle",
        _decayed,
    ),
)


def advised(found: Explanation, trial: Trial | None, pixels: Pixels) -> tuple[Change, ...]:
    """Changes whose parts are a twentieth of the error or more; of a trial, those that it has not made.

    ``pixels`` are unscaled. None for a network that is near-identity.
    """
    if found.near_identity:
        return ()
    shares = {part.name: part.fvu / found.fvu for part in found.parts}
    answering = [change for change in CHANGES if sum(shares[name] for name in change.answers) >= WORTH]
    return tuple(c for c in answering if trial is None or c.made(trial, pixels) != trial)


def tried(
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Advice]:
    """What each change gives, and all of them together, of the same seed under the same budget.

    FVU in grey levels, [0, inf], infinite or NaN where the changed network diverges. ``on_step`` hears each
    step of each training.
    """
    changes = advised(found, trial, pixels)
    trials = [(change.name, change.why, change.made(trial, pixels)) for change in changes]
    if len(changes) > 1:
        together = trial
        for change in changes:
            together = change.made(together, pixels)
        trials.append((TOGETHER, "what is left of one fault hides what another repair gives", together))
    for name, why, changed in trials:
        with flushed_denormals():
            run = train(changed, pixels, [seed], on_step=on_step)
        yield Advice(name, why, found.fvu_pixels, float(run.fvu_pixels[0]))
