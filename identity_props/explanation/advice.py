"""Advice: the change that answers each part of an error, and what it gives when it is made.

A change of the registry says which share of each part it is expected to remove; it is advised where that is a
twentieth of the error or more, in the order of it, and tried by training the changed network with the same seed
for as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

from torch import nn

from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Recipe, Trial
from identity_props.explanation.changed import best_rate
from identity_props.explanation.changes import ALONE, CHANGES, SEARCHING, UNTRAINED, Change
from identity_props.explanation.explain import Advice, Explanation
from identity_props.explanation.networks import Fit, measured, retrained
from identity_props.task.data import Pixels
from identity_props.task.metrics import NEAR_IDENTITY
from identity_props.task.models import Variant

WORTH = 0.05  # share of the error: at 1% of it the answer is lost among seeds, whose errors differ by a tenth
TOGETHER = "all of these"


def described(found: Explanation, recipe: Recipe | None, scaling: str, steps: int) -> Trial:
    """What comes nearest to a network of one's own: its depth, narrowest layer, and whether its output has a ReLU."""
    hidden = len(found.widths)
    name = "residual" if found.bypassed else "plain-relu" if found.rectified else "linear-output"
    narrow = min(found.widths, default=len(found.dead))
    width = narrow if narrow != len(found.dead) and not found.bypassed else None
    variant = Variant(name if hidden or found.rectified else "linear", min(hidden + 1, 8), scaling, width)
    return Trial(variant, recipe or Recipe("torch.optim:SGD", 1.0), steps)


def advised(
    found: Explanation, trial: Trial, pixels: Pixels, known: bool = True, model: bool = False
) -> tuple[Change, ...]:
    """Changes that are expected to remove a twentieth of the error or more, most first, as far as they fit.

    ``pixels`` are unscaled. Without a ``known`` recipe none that is a change of it. None for a network
    that is near-identity.
    """
    if found.near_identity:
        return ()
    most = max(part.fvu for part in found.parts) / found.fvu
    fitting = [
        change
        for change in CHANGES
        if change.expected(found) >= (most if change.leads else WORTH)
        and (known or not change.of_recipe)
        and change.fits(found)
        and (change.made(trial, pixels) != trial or change.by_hand or (model and change.wrapped is not None))
    ]
    return tuple(sorted(fitting, key=lambda change: -change.expected(found)))


@dataclass(frozen=True, eq=False)
class Plan:
    """What a change trains: a trial, of a changed module where there is one; neither where it is by hand."""

    name: str
    why: str
    trial: Trial
    module: nn.Module | None = None
    by_hand: bool = False


def planned(
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    model: nn.Module | None = None,
    known: bool = True,
    fit: Fit | None = None,
    wanted: float = NEAR_IDENTITY,
) -> list[Plan]:
    """What ``tried`` trains: each change, and all together that can be made from outside.

    ``fit`` trains a model by rules of its own, so changes of a recipe are by hand.
    """
    scaled = cache(pixels.scaled)  # of 60,000 images of 784 pixels a second and a half, each time
    plans = [
        _plan(change, found, trial, pixels, scaled, model, fit, wanted)
        for change in advised(found, trial, pixels, known, model is not None)
    ]
    made = [plan for plan in plans if not plan.by_hand and plan.name not in SEARCHING]
    if len(made) > 1:
        names = {plan.name for plan in made}
        changes = [change for change in CHANGES if change.name in names]
        together, module = trial, model
        for change in changes:
            together = change.made(together, pixels)
            if module is not None and change.wrapped is not None:
                module = change.wrapped(module, scaled(together.variant.scaling).train) or module
        plans.append(
            Plan(TOGETHER, "what is left of one fault hides what another repair gives", together, module)
        )
    return plans


def _plan(
    change: Change,
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    scaled: Callable[[str], Pixels],
    model: nn.Module | None,
    fit: Fit | None,
    wanted: float,
) -> Plan:
    name, why = change.name, change.why
    if name == "widen":
        width, least = found.width_for(wanted)
        name, why = f"widen to {width}", f"the best linear map of that width leaves FVU {least:.1e}"
    made = change.made(trial, pixels)
    if change.by_hand:
        return Plan(name, why, trial, by_hand=True)
    if model is None:
        return Plan(name, why, made)
    if change.wrapped is not None:
        module = change.wrapped(model, scaled(trial.variant.scaling).train)
        name = name if module is not None else change.otherwise or name
        by_hand = module is None or (fit is not None and change.name == ALONE)  # the loss of fit is its own
        return Plan(name, why, trial, module, by_hand)
    of_layers = replace(made.variant, scaling=trial.variant.scaling) != trial.variant
    by_hand = of_layers or (fit is not None and change.of_recipe)  # what fit trains with is its own
    return Plan(name, why, made, model, by_hand)


def told(
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    known: bool = True,
    model: nn.Module | None = None,
    wanted: float = NEAR_IDENTITY,
) -> tuple[Advice, ...]:
    """What is advised, and not tried; of a ``model`` what cannot be changed from outside is by hand."""
    plans = planned(found, trial, pixels, model, known, wanted=wanted)
    return tuple(
        Advice(one.name, one.why, found.fvu_pixels, by_hand=one.by_hand)
        for one in plans
        if one.name != TOGETHER
    )


def tried(
    found: Explanation,
    trial: Trial,
    pixels: Pixels,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    model: nn.Module | None = None,
    fit: Fit | None = None,
    trained: nn.Module | None = None,
    wanted: float = NEAR_IDENTITY,
) -> Iterator[Advice]:
    """What each change gives, and all of them together, of the same seed under the same budget.

    FVU in grey levels, [0, inf], infinite or NaN where the changed network diverges. A ``model`` is trained from
    where it is, by ``fit`` if that is given; what cannot be changed from outside is left to its owner. What
    needs no training is done to the ``trained`` network. ``on_step`` hears each step of each training.
    """
    for plan in planned(found, trial, pixels, model, fit=fit, wanted=wanted):
        if plan.by_hand:
            yield Advice(plan.name, plan.why, found.fvu_pixels, by_hand=True)
            continue
        again = partial(_trained, pixels=pixels, seed=seed, on_step=on_step, module=plan.module, fit=fit)
        with flushed_denormals():
            if plan.name in UNTRAINED:
                scaled = pixels.scaled(trial.variant.scaling)
                (change,) = [change for change in CHANGES if change.name == plan.name]
                assert change.wrapped is not None
                calm = None if trained is None else change.wrapped(trained, scaled.train)
                after = found.fvu_pixels if calm is None else measured(calm, scaled)
                yield Advice(plan.name, plan.why, found.fvu_pixels, after)
                continue
            changed, why = plan.trial, plan.why
            if plan.name in SEARCHING and fit is None:
                rate = best_rate(trial, again)
                changed = replace(trial, recipe=replace(trial.recipe, lr=rate))
                why = f"{why}: {rate:.2g}" + ", its own" * (changed == trial)
            # what was trained here ends where it did; a model's start and batches were others
            same = plan.module is None and changed == trial
            yield Advice(plan.name, why, found.fvu_pixels, found.fvu_pixels if same else again(changed))


def _trained(
    trial: Trial,
    pixels: Pixels,
    seed: int,
    on_step: Callable[[int], None] | None,
    module: nn.Module | None,
    fit: Fit | None,
) -> float:
    if module is None:
        return float(train(trial, pixels, [seed], on_step=on_step).fvu_pixels[0])
    return retrained(module, trial, pixels, seed, on_step, fit)
