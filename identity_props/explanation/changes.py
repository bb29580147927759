"""The registry of changes: which parts each answers, and how it is made of a trial, or of a module from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from identity_props.engine.trial import Trial
from identity_props.explanation.averages import recalibrated
from identity_props.explanation.changed import gone_round, without_dropout, without_output
from identity_props.explanation.explain import Explanation
from identity_props.explanation.still import held_still
from identity_props.explanation.undecayed import without_decay
from identity_props.task.data import Pixels
from identity_props.task.theory import critical_rate, modes

ANOTHER_RATE, ALONE = "another rate", "squared error alone"

Wrapped = Callable[[nn.Module, Tensor], nn.Module | None]


@dataclass(frozen=True)
class Change:
    """A change of a trial that answers the parts it names, with the share of each that it is expected to remove.

    ``made`` gives the trial itself where it has it already or does not fit, ``wrapped`` the changed module of a
    network of one's own, or None. ``fits`` says where it is worth a word. ``of_recipe`` says that it changes what
    trains, ``leads`` that it is worth its price only where no other part is larger, ``by_hand`` that nobody can make it
    from outside, ``otherwise`` is what it is called where that is so of one network.
    """

    name: str
    answers: Mapping[str, float]
    why: str
    made: Callable[[Trial, Pixels], Trial] = lambda trial, pixels: trial
    wrapped: Wrapped | None = None
    fits: Callable[[Explanation], bool] = lambda found: True
    of_recipe: bool = False
    otherwise: str | None = None
    leads: bool = False
    by_hand: bool = False

    def expected(self, found: Explanation) -> float:
        """Share of the error that it is expected to remove."""
        shares = {part.name: part.fvu / found.fvu for part in found.parts}
        return sum(shares.get(name, 0.0) * weight for name, weight in self.answers.items())


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


def _unit(trial: Trial, pixels: Pixels) -> Trial:
    fits = trial.variant.name != "scaled-input"
    return replace(trial, variant=replace(trial.variant, scaling="unit")) if fits else trial


def _reaches_unit(found: Explanation) -> bool:
    return found.reach is not None and found.reach[0] <= 0 and found.reach[1] >= 1


def _falls_short(found: Explanation) -> bool:
    """Whether some error is out of reach of its output, whose units may depend on each other."""
    return any(part.name == "range" and part.fvu > 0 for part in found.parts)


def _hovers(found: Explanation) -> bool:
    """Whether a decay removed half of what as many steps did, or more: where the error still falls, it is no help."""
    fvu = {part.name: part.fvu for part in found.parts}
    return fvu["step-size floor"] > fvu["too few steps"] / 2


def _decayed(trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, recipe=replace(trial.recipe, schedule="linear-decay"))


def _half_critical(trial: Trial, pixels: Pixels) -> Trial:
    if trial.variant.depth > 1 or not trial.recipe.optimizer.endswith(":SGD"):
        return trial  # the spectrum gives the rate of plain gradient descent on one layer
    scaled = pixels.scaled(trial.variant.scaling)
    rate = critical_rate(modes(scaled.train)[0]) / 2
    return replace(trial, recipe=replace(trial.recipe, lr=rate))


def _without_decay(trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, recipe=without_decay(trial.recipe))


LONGER = 4


def _longer(trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, steps=LONGER * max(trial.steps, 1))


def _at_rate(factor: float, trial: Trial, pixels: Pixels) -> Trial:
    return replace(trial, recipe=replace(trial.recipe, lr=trial.recipe.lr * factor))


CHANGES = (
    Change(
        "train it",
        {"not trained yet": 1},
        "its weights are as they were drawn; at the best of six rates",
        partial(_at_rate, 10.0),
    ),
    Change(
        "averages anew",
        {"shifted statistics": 1},
        "running averages taken over the training data, and nothing trained",
        wrapped=recalibrated,
    ),
    Change(
        "no draws in evaluation",
        {"noise in evaluation": 1},
        "the mean of what is drawn, wherever it is in eval mode, and nothing trained",
        wrapped=held_still,
    ),
    Change(
        ALONE,
        {
            "noise in evaluation": 1,
            "noise in training": 1,
            "too few steps": 1,
            "lost in hidden layers": 0.5,
            "output layer": 0.5,
        },
        "under it alone draws cost and bring nothing: what keeps them up is another term of the loss, as of a variational"
        " autoencoder",
        wrapped=lambda model, x: model,
        fits=lambda found: found.draws,
    ),
    Change(
        "train longer",
        {"too few steps": 1},
        f"its error still falls at this rate; {LONGER} times the steps",
        _longer,
        of_recipe=True,
        leads=True,
    ),
    Change(
        "no weight decay",
        {"weight decay": 1},
        "it holds the weights nearer to 0 than the identity is",
        _without_decay,
        of_recipe=True,
    ),
    Change("widen", {"too narrow": 1}, "no map through so few units does better", by_hand=True),
    Change(
        "linear output",
        {"dead outputs": 1, "stuck at 0": 1, "saturated outputs": 1, "range": 1},
        "an output unit without an activation cannot die, be flat or end",
        partial(_variant, "linear-output", ("plain-relu",)),
        without_output,
        lambda found: found.rectified or found.reach is not None or _falls_short(found),
    ),
    Change(
        "scale into range",
        {"range": 0.9},
        "targets of 0 to 1 are in reach of the output",
        _unit,
        fits=_reaches_unit,
    ),
    Change(
        "no dropout",
        {"noise in training": 1, "lost in hidden layers": 0.5, "output layer": 0.5},
        "what is best under noise is not what is best without",
        wrapped=without_dropout,
        otherwise="less noise in training",
        fits=lambda found: found.noisy,
    ),
    Change(
        "residual blocks",
        {
            "lost in hidden layers": 1,
            "saturated hidden units": 1,
            "dead outputs": 0.9,
            "stuck at 0": 0.9,
            "saturated outputs": 0.9,
            "slow directions": 0.9,
            "output layer": 0.9,
        },
        "the input goes round what would lose it, and the start is nearer",
        _residual,
        gone_round,
        lambda found: found.narrowest is None and not found.bypassed and found.of_itself,
    ),
    Change(
        "another activation",
        {"saturated hidden units": 0.8},
        "one that has a slope everywhere, or smaller weights to start from",
        fits=lambda found: not found.bypassed,
        by_hand=True,
    ),
    Change(
        "standardise",
        {"slow directions": 0.7, "bias": 0.7, "too few steps": 0.5},
        "pixels of mean 0 and variance 1 have a flatter spectrum",
        _standardised,
        fits=lambda found: not found.bounded,
    ),
    Change(
        "rate from the spectrum",
        {"slow directions": 0.7, "too few steps": 0.9, "not trained yet": 0.9},
        "half the critical rate d / lambda_1 is the fastest that is safe",
        _half_critical,
        of_recipe=True,
    ),
    Change(
        ANOTHER_RATE,
        {"too few steps": 0.8, "lost in hidden layers": 0.4, "slow directions": 0.6, "output layer": 0.6},
        "the best of six after 64 steps, if it is better than its own after a quarter of all",
        partial(_at_rate, 10.0),
        of_recipe=True,
    ),
    Change(
        "decay the rate",
        {"step-size floor": 1},  # what a short decay left, a long one removed of one network in eight
        "a constant rate keeps adaptive steps, and those on batches, from ever settling",
        _decayed,
        fits=_hovers,
        of_recipe=True,
    ),
)
UNTRAINED = ("averages anew", "no draws in evaluation")
SEARCHING = ("train it", ANOTHER_RATE)
