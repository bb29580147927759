"""Laws of what a trainer carries along: seeds, orders, and all that a stop, a resume or an evaluation may lose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from identity_props.laws import Discrepancy
from identity_props.stack.guard import alive
from identity_props.stack.processes import temporary_folder
from identity_props.trainers.base import trainer_law
from identity_props.trainers.bench import Bench
from identity_props.trainers.distance import apart, tolerance
from identity_props.trainers.ledger import plan
from identity_props.trainers.ordering import alike, maps, slow
from identity_props.trainers.protocol import Asked, Left, NotApplicable, NotOffered
from identity_props.trainers.reading import Reading
from identity_props.trainers.telling import nearest

CARRIED: Mapping[str, Any] = {"shuffle": True, "momentum": 0.5, "schedule": "linear", "average": 0.75}
AGAIN = "distance of the weights, relative to the way they went"


def beside(bench: Bench, asked: Asked, one: Left, other: Left, what: str) -> Reading:
    """Two runs of one training, their averages too; rounding is allowed, as sums may turn with memory's alignment.

    An average that one of them alone reports is infinitely far.
    """
    offs = [apart(one.weights, [w.double() for w in other.weights], asked.start)]
    if one.averaged is not None and other.averaged is not None:
        offs.append(apart(one.averaged, [w.double() for w in other.averaged], asked.start))
    elif one.averaged is not other.averaged:
        offs.append(math.inf)
    off = float(torch.tensor(offs, dtype=torch.float64).max())  # NaN stays
    return Reading(Discrepancy(off, tolerance(bench.dtype, 16), f"{what}, {AGAIN}"))


# Seeds and orders -------------------------------------------------------------------------------------


@trainer_law(
    "repeat",
    "The same training with the same seed leaves the same weights.",
    "what is drawn is drawn from the seed",
    kind="not repeatable",
)
def repeat(bench: Bench) -> Reading:
    """Rounding as in trajectory. Shuffled where a seed is offered, at a rate that falls, so that the order counts."""
    asked = bench.drawn(16, 2, 2, seed=3, **seeded(bench, shuffle=True, schedule="linear"))
    found = beside(bench, asked, bench.trained(asked), bench.once(asked), "once more")
    if not found.found.holds and "seed" not in bench.reads and not bench.in_order:
        raise NotOffered("seed: it reads examples in an order of its own")
    return found


def seeded(bench: Bench, **options: Any) -> dict[str, Any]:
    """Those of some options that are offered, without shuffling where that takes no seed."""
    offered = bench.offers(**options)
    return {name: value for name, value in offered.items() if name != "shuffle" or "seed" in bench.reads}


# Stop and resume --------------------------------------------------------------------------------------


def _resumed(bench: Bench, options: Mapping[str, Any], stop: int, batches: int) -> Reading:
    asked = bench.drawn(2 * batches, 2, 2, **options)
    whole = bench.trained(asked)
    with temporary_folder() as folder:
        here = replace(asked, folder=Path(folder))
        stopped = bench.once(replace(here, stop=stop))
        if apart(stopped.weights, [w.double() for w in whole.weights], asked.start) == 0:
            return Reading(Discrepancy(1.0, 0.0, f"it does not stop after {stop} micro-batches"))
        alive()
        resumed = (bench.again or bench.once)(replace(here, resume=True))
    return beside(bench, asked, resumed, whole, f"resumed after {stop} micro-batches of {2 * batches}")


def _resume(bench: Bench, stop: int, batches: int, **options: Any) -> Reading:
    """All that is carried at once; where that fails, each by itself, so that it is known what is lost."""
    if not bench.offers(stop=1):
        raise NotOffered("stop")
    repeats(bench)
    offered = seeded(bench, **CARRIED)
    found = _resumed(bench, {**options, **offered}, stop, batches)
    if found.found.holds:
        return found
    if not _resumed(bench, options, stop, batches).found.holds:
        return replace(found, words="examples are read again, or passed over")
    lost = [
        name
        for name in offered
        if not _resumed(bench, {**options, name: offered[name]}, stop, batches).found.holds
    ]
    return replace(found, words=f"what is lost: {', '.join(map(CALLED.__getitem__, lost))}" if lost else "")


CALLED = {
    "shuffle": "the order",
    "momentum": "the momentum",
    "schedule": "the schedule",
    "average": "the average",
}


def repeats(bench: Bench) -> None:
    """Raise NotApplicable where two runs of one training differ."""
    holds = False
    with suppress(NotOffered):
        holds = repeat(bench).found.holds
    if not holds:
        raise NotApplicable("it is not repeatable, so that there is nothing to compare with")


RESUMES = "an interrupted training is the same training: pytorch#65342, transformers#36361"


@trainer_law(
    "resume-epoch",
    "Stopped at an epoch's end, saved and resumed in a new process, it ends as if it had gone on.",
    RESUMES,
    needs="stop resume",
    kind="not resumed",
)
def resume_epoch(bench: Bench) -> Reading:
    """Rounding as in trajectory, beside the same trainer's own uninterrupted run."""
    return _resume(bench, 6, 6)


@trainer_law(
    "resume-inside",
    "Stopped within an epoch, saved and resumed in a new process, it ends as if it had gone on.",
    RESUMES,
    needs="stop resume",
    kind="not resumed",
)
def resume_inside(bench: Bench) -> Reading:
    """As of resume-epoch. Shuffled it stops within the second epoch too, whose order is not a new start's."""
    found = _resume(bench, 4, 6)
    return _resume(bench, 10, 6) if found.found.holds and "shuffle" in seeded(bench, **CARRIED) else found


@trainer_law(
    "resume-window",
    "Stopped between two micro-batches of a step, saved and resumed in a new process, it ends as if it had gone on.",
    RESUMES,
    needs="stop resume accumulate",
    kind="not resumed",
)
def resume_window(bench: Bench) -> Reading:
    """As of resume-epoch."""
    if not bench.offers(accumulate=2):
        raise NotOffered("accumulate")
    return _resume(bench, 3, 6, accumulate=2)


# Evaluation -------------------------------------------------------------------------------------------


@trainer_law(
    "evaluation",
    "Evaluating in between changes no weight, and not which examples come next.",
    "a look changes nothing; torch's DataLoader draws a seed from the global stream each time: pytorch#11062",
    needs="held",
    kind="changed by a look",
    rules={
        "same": "nothing is changed",
        "stream": "evaluating draws from the stream that orders the examples: another order comes next",
    },
)
def evaluation(bench: Bench) -> Reading:
    """Rounding as in trajectory, beside the same trainer's own run without.

    Where that differs, it is *stream* if nothing does without shuffling, and shuffled each example is still trained
    on once an epoch.
    """
    options = seeded(bench, **CARRIED)
    found = _looked(bench, options)
    if found.found.holds or "shuffle" not in options:
        return found
    del options["shuffle"]
    if not _looked(bench, options).found.holds:
        return found
    asked = bench.asked(12, 2, 3, shuffle=True, held=_held(bench, 14))
    counted = bench.matched(asked, {"stream": bench.expected(asked, plan(12, 2, epochs=3))})
    if not counted.found.holds:
        return found
    return _same_again(bench, counted)


def _same_again(bench: Bench, otherwise: Reading) -> Reading:
    """Whether the third epoch does what the second did, as where it seeds the stream at each evaluation.

    That two correct orders of 16 examples in pairs are equal has probability 2^8 / 16! < 2e-11.
    """
    asked = [slow(bench, one, shuffle=True, seed=3, held=_held(bench, 12)) for one in (1, 2, 3)]
    first, *others = (bench.trained(one).weights for one in asked)
    second, third = maps(replace(asked[0], start=tuple(first)), *others)
    if not alike(second, third, 8 * tolerance(bench.dtype, 16)):
        return otherwise
    return Reading(Discrepancy(1.0, 0.0, "epochs that repeat the one before, once it evaluates in between"))


def _looked(bench: Bench, options: Mapping[str, Any]) -> Reading:
    asked = bench.drawn(12, 2, 3, **options)
    looked = bench.trained(replace(asked, held=_held(bench, asked.examples.shape[1])))
    repeats(bench)
    found = beside(bench, asked, looked, bench.trained(asked), "evaluated after each epoch")
    return replace(found, rule="same" if found.found.holds else "")


@trainer_law(
    "modes",
    "It trains in training mode, after an evaluation too, and evaluates in evaluation mode.",
    "dropout and batch norm act in one mode alone: joeynmt#184, pytorch-fcn#56, transformers#33844",
    needs="held modes",
    kind="wrong mode",
    rules={
        "switched": "each in its own mode",
        "unswitched": "it evaluates in training mode: dropout would draw, and batch norm go on counting",
    },
    slips={
        "kept": "after an evaluation it trains in evaluation mode",
        "evaluation": "it trains in evaluation mode",
    },
)
def modes(bench: Bench) -> Reading:
    """Rounding as in trajectory. Of a layer that puts out half as much in evaluation mode, W / 2 learns, at 1/4 of the rate.

    An evaluation loss that is neither that of W / 2 nor that of W is judged by evaluation-loss alone.
    """
    held = _held(bench, 12)
    asked = bench.drawn(8, 2, 2, held=held, modes=True)
    first, second = plan(8, 2), plan(8, 2, epochs=2)
    kept = _halved(bench, asked, bench.expected(asked, first), first)
    rules = {"switched": bench.expected(asked, second), "kept": kept}
    found = bench.matched(asked, rules | {"evaluation": _halved(bench, asked, list(asked.start), second)})
    if not found.rule:
        raise NotApplicable("it trains in neither mode as asked; see trajectory and evaluation")
    trained = bench.trained(asked)
    if found.rule != "switched" or trained.evaluated is None:
        return found
    (layer,) = trained.weights
    outs = {
        "switched": held.double() @ layer.double().mT / 2,
        "unswitched": held.double() @ layer.double().mT,
    }
    losses = {rule: (out - held.double()).square().mean() for rule, out in outs.items()}
    told = nearest(trained.evaluated, losses, f"evaluation loss that it reports, {trained.evaluated:.6g}")
    return told if told.rule else found


def _halved(bench: Bench, asked: Asked, start: list[torch.Tensor], table: torch.Tensor) -> list[torch.Tensor]:
    """Layers that are trained on from some in evaluation mode."""
    one = replace(asked, start=tuple(w.double() / 2 for w in start))
    rates = [asked.lr / 4] * len(table)
    return [2 * w for w in bench.expected(one, table, rates=rates)]


def _held(bench: Bench, d: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(bench.seed + 1)
    return torch.randn(6, d, generator=draw, dtype=torch.float64).to(bench.dtype)
