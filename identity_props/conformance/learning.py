"""Learning: whether a stack learns the identity at a rate of its own, which is searched on a grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from identity_props.claims.registry import Claim, budget, learns
from identity_props.claims.verdict import Outcome, judge, trainer
from identity_props.conformance.facts import by_losses_alone, norms_kept, repeatable
from identity_props.conformance.published import as_published, ends_alike
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Row
from identity_props.conformance.sizes import digits_of
from identity_props.conformance.traits import UNDRAWN, traits
from identity_props.conformance.trying import tried
from identity_props.engine.probe import reason_to_train_alone
from identity_props.engine.training import train
from identity_props.engine.trial import Recipe, Run, Trial
from identity_props.errors import InputError
from identity_props.stack.guard import RAISED
from identity_props.stack.stack import PARTS, Stack
from identity_props.task.data import Pixels
from identity_props.task.metrics import FAILED, NEAR_IDENTITY
from identity_props.task.models import Variant

LEARNS = "learns-identity"
RATES = tuple(10 ** (half / 2) for half in range(-8, 5))  # 1e-4 to 1e2 in half decades
ONE, DECADES = 8, range(4, 13, 2)  # places in RATES, of the rate 1 and of decades from 1e-2
WHITENED = Variant("scaled-input", 1, "whiten", bias=False)  # of mean 0, so a bias has nothing to do
SEARCHED = range(2)  # seeds
CLEARLY = NEAR_IDENTITY / 10


def learning_trial(lr: float, steps: int) -> Trial:
    """A linear layer on whitened pixels, in full batches at a rate that decays to 0."""
    # full batches: Rprop and L-BFGS are made for them, and the others do not mind
    return Trial(WHITENED, Recipe("torch.optim:SGD", lr, schedule="linear-decay", batch_size=None), steps)


def find_rate(
    stack: Stack,
    pixels: Pixels,
    seeds: range = SEARCHED,
    trial: Callable[[float, int], Trial] = learning_trial,
) -> float:
    """The rate of RATES at which a quarter of the budget leaves the least FVU, at the worst of the seeds.

    The grid goes from what adaptive optimizers want to d / lambda_1, gradient descent's critical rate
    on whitened pixels: decades downhill from 1 first, as far as 1e-2 or 1e2, then half a decade to each side, and
    all that are left where none of these ends clearly near-identity. Raises InputError where no rate leaves a finite FVU.
    """
    return _searched(stack, pixels, seeds, trial)[0]


def searched_rate(stack: Stack) -> str:
    """What the search would have made of a stack whose rate was given."""
    try:
        lr, run = _searched(stack, _pixels(stack))
    except InputError as error:
        return str(error)
    return f"the search, lr=None, takes lr {lr:.3g}, with FVU {_worst(run):.2g} in {run.steps[-1]} steps"


def out_of_reach(stack: Stack) -> str:
    """Why its layer may be unable to be the identity: so few numbers train, as of an adapter; empty where enough do."""
    d = _pixels(stack).d
    numbers = sum(p.numel() for p in stack.linear(d, d, bias=False).parameters() if p.requires_grad)
    short = f"{numbers} numbers of its layer train, fewer than the {d * d} of a matrix"
    return f"{short}: the identity may be out of reach" if numbers < d * d else ""


def _pixels(stack: Stack) -> Pixels:
    return digits_of(stack.features, train=512, test=512)


def _searched(
    stack: Stack,
    pixels: Pixels,
    seeds: range = SEARCHED,
    trial: Callable[[float, int], Trial] = learning_trial,
) -> tuple[float, Run]:
    runs: dict[float, Run] = {}

    def best_of(rates: Iterable[float]) -> float:
        runs.update({lr: _quarter(stack, pixels, lr, seeds, trial) for lr in rates if lr not in runs})
        return min(runs, key=lambda lr: _worst(runs[lr]))

    def downhill(at: int, way: int) -> int:
        while at + way in DECADES and best_of([RATES[at], RATES[at + way]]) == RATES[at + way]:
            at += way
        return at

    middle = downhill(ONE, -2)
    middle = downhill(ONE, 2) if middle == ONE else middle
    best = best_of(RATES[max(middle - 1, 0) : middle + 2])
    if not _worst(runs[best]) <= CLEARLY:
        best = best_of(RATES)
    if not math.isfinite(_worst(runs[best])):
        raise InputError(f"lr: expected a finite FVU at one of {RATES[0]:g} to {RATES[-1]:g}, got none")
    return best, runs[best]


def _quarter(
    stack: Stack,
    pixels: Pixels,
    lr: float,
    seeds: range = SEARCHED,
    trial: Callable[[float, int], Trial] = learning_trial,
) -> Run:
    return train(trial(lr, budget(pixels.d) // 4), pixels, seeds, replace(stack, lr=None))


def _worst(run: Run) -> float:
    return float(run.fvu[:, -1].nan_to_num(math.inf).max())


def learning(stack: Stack, seed: int = 0) -> tuple[Outcome, float]:
    """Whether the stack learns the identity: a linear layer on whitened digits, and at which rate.

    What ends clearly near-identity in a quarter of the budget is judged by as many steps, and the same parts are
    trained once in a process, as long as their first steps are the same bit for bit.
    """
    pixels = _pixels(stack)
    key = _fingerprint(stack, pixels, seed)
    if key not in _learned:
        _learned[key] = stack, *_learning(stack, pixels, seed)
    return _learned[key][1:]


_learned: dict[tuple[Any, ...], tuple[Stack, Outcome, float]] = {}  # with the parts, whose ids are in the key


def _fingerprint(stack: Stack, pixels: Pixels, seed: int) -> tuple[Any, ...]:
    """The parts, and 32 steps of theirs: a part that a test replaces within is another."""
    first = train(learning_trial(stack.lr or 1 / 128, 32), pixels, SEARCHED[:1], replace(stack, lr=None))
    steps = tuple(p.double().numpy().tobytes() for p in first.state.values())
    parts = *(id(getattr(stack, part)) for part in PARTS), repr(stack.arguments)
    return steps, parts, stack.device, stack.dtype, stack.mode, stack.ranks, stack.lr, seed, budget(pixels.d)


def _learning(stack: Stack, pixels: Pixels, seed: int) -> tuple[Outcome, float]:
    lr = stack.lr
    lr, short = _searched(stack, pixels) if lr is None else (lr, _quarter(stack, pixels, lr))
    soon = _worst(short) <= CLEARLY and bool((short.fvu_pixels <= CLEARLY).all())
    steps = budget(pixels.d) // 4 if soon else budget(pixels.d)
    claim = Claim(
        name=LEARNS,
        expects="learns",
        statement="a linear layer on whitened pixels ends near-identity within 1,250 steps",
        source="its spectrum is flat: gradient descent needs one step",
        evidence="8 of 8 seeds with each of 13 optimizers of torch 2.15, five times over; 12 in a quarter of it",
        share=1 / 2,
        plan=lambda pixels: (learning_trial(lr, steps),),
        succeeded=learns,
    )
    return judge(claim, pixels, trainer(pixels, replace(stack, lr=lr)), seed=seed), lr


def learns_row(stack: Stack, seed: int) -> Row:
    """The row of ``check`` that says whether it learns; of one whose draws leave a floor it says nothing."""
    if not repeatable(stack):
        return Row(LEARNS, NOT_APPLICABLE, note="not repeatable in training: what it draws sets a floor")
    outcome, lr = learning(stack, seed)
    worst = max(outcome.fvu, key=_badness)
    kind = "" if outcome.holds else _how_it_fails(worst)
    if kind and (excuse := _excuse(stack, kind)):
        return Row(LEARNS, NOT_APPLICABLE, note=excuse)
    of_paper = _of_its_algorithm(stack, outcome, lr, seed) if kind and stack.lr is None else None
    if of_paper and of_paper[0]:
        return Row(LEARNS, NOT_APPLICABLE, note=f"nor does {of_paper[1]}")
    note = f"FVU of {outcome.successes} of {outcome.replicas} seeds near-identity at lr {lr:.3g} in {outcome.budget_steps} steps"
    reason = reason_to_train_alone(stack, learning_trial(lr, 1))
    note += f"; one by one, which is slower: {reason}" if reason else ""
    note += f"; {searched_rate(stack)}" if kind and stack.lr is not None else ""
    note += f"; unlike {of_paper[1]}" if of_paper else ""
    steps = statistics.median(outcome.steps_to_identity)
    return Row(LEARNS, FAIL if kind else PASS, worst, NEAR_IDENTITY, kind, note, lr, steps, outcome.curves)


def _excuse(stack: Stack, kind: str) -> str:
    """Why one that does not learn may be right; empty where nothing says so."""
    if short := out_of_reach(stack):
        return short
    if kind in ("floor", "too slow") and UNDRAWN[0] not in traits(stack):
        return "its steps draw random numbers, which set a floor"
    if tried(by_losses_alone, stack):
        return "it goes by losses alone, for which no budget of steps is set"
    with suppress(*RAISED):
        if kept := norms_kept(stack):
            return f"its steps keep the norm of {kept}, which is not the identity's"
    return ""


def _of_its_algorithm(stack: Stack, outcome: Outcome, lr: float, seed: int) -> tuple[bool, str] | None:
    """Whether the published algorithm that the optimizer is ends where it ended, and how that is told; None of no algorithm."""
    if (found := as_published(stack, seed)) is None:
        return None
    title, published = found
    pixels = _pixels(stack)
    other = judge(outcome.claim, pixels, trainer(pixels, replace(published, lr=lr)), seed=seed)
    alike = not other.holds and ends_alike(outcome.fvu, other.fvu)
    told = f"{title}, which it is on a walk, FVU {max(other.fvu, key=_badness):.2g} at lr {lr:.3g}"
    return alike, f"{told} in {other.budget_steps} steps"


def _badness(fvu: float) -> tuple[bool, float]:
    return math.isnan(fvu), fvu


def _how_it_fails(fvu: float) -> str:
    if not math.isfinite(fvu):
        return "diverges"
    return "flat" if fvu >= 1 else "floor" if fvu >= FAILED else "too slow"
