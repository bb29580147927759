"""The audit: every fault is planted, and what sees it is written down; clean twins must stay unseen.

A fault is judged by the laws that apply to its clean twin, by a few claims, and by the gate, which
compares its replicas with the twin's of the same seeds, and the twin's with torch's own of others. Trainers are judged
by the laws of trainers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import judge
from identity_props.conformance.checking import check_laws
from identity_props.conformance.rows import FAIL, Reference
from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Run, Trial
from identity_props.errors import InputError
from identity_props.faults import (
    ALL_FAULTS,
    FAULTS,
    LAYER_FAULTS,
    LAYER_TWINS,
    TRAINER_FAULTS,
    TRAINER_TWINS,
    TWINS,
    Fault,
    LayerFault,
    LayerTwin,
    TrainerFault,
    TrainerTwin,
    Twin,
)
from identity_props.faults.layer_audit import failing
from identity_props.faults.trainer_audit import accusing
from identity_props.gate import CHANGED, claim_record, compare_claims
from identity_props.stack.crews import Say, crew, each
from identity_props.stack.stack import Stack, resolve
from identity_props.task.data import Pixels, digits

REPLICAS = 16  # the gate's
# of each kind of part: those that train with its optimizer, quickly
CLAIMS_OF: dict[str | None, tuple[str, ...]] = {
    None: ("linear-1", "residual-1", "plain-relu-1-rmsprop", "scaled-whiten"),
    "torch.optim:SGD": ("scaled-standardise", "scaled-whiten"),
    "torch.optim:RMSprop": ("linear-1", "residual-1", "plain-relu-1-rmsprop"),
    "torch.optim:Adam": ("scale-blind-adam", "plain-relu-1-adam"),
}
AnyFault = Fault | TrainerFault | LayerFault
Judged = TrainerFault | TrainerTwin | LayerFault | LayerTwin  # by laws alone
SEEN, MISSED, BROADLY, CLEAN, ALARM, UNSEEN = (
    "seen",
    "missed",
    "seen broadly",
    "clean",
    "false alarm",
    "unseen",
)


@dataclass(frozen=True)
class Examined:
    """What laws and claims say of one stack; ``record`` holds its claims as a baseline does.

    ``own`` is the record of torch's own parts, with other seeds, that a clean twin is compared with.
    """

    laws: tuple[str, ...]
    claims: tuple[str, ...]
    record: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A row of the kill matrix: the laws, claims and gate rows that saw a fault or a clean twin.

    ``gate`` holds a claim, a figure and a word each, such as "linear-1/rate slower x 1.11".
    """

    name: str
    kind: str
    what: str
    source: str
    laws: tuple[str, ...]
    claims: tuple[str, ...]
    gate: tuple[str, ...]
    equivalent: str = ""

    @property
    def verdict(self) -> str:
        """One of the words above; a fault that no law names, but a claim or the gate, is seen broadly."""
        noticed = bool(self.laws or self.claims or self.gate)
        if self.kind == "twin":
            return ALARM if noticed else CLEAN
        if self.equivalent:
            return ALARM if noticed else UNSEEN
        return SEEN if self.laws else BROADLY if noticed else MISSED

    @property
    def right(self) -> bool:
        """Whether it is as it has to be."""
        return self.verdict in (SEEN, CLEAN, UNSEEN)


def matching(pattern: str) -> list[AnyFault]:
    """Faults whose name matches one of several shell patterns, separated by commas; raises InputError."""
    patterns = [part.strip() for part in pattern.split(",")]
    for part in patterns:
        if not any(fnmatchcase(name, part) for name in ALL_FAULTS):
            raise InputError(f"faults: {part!r} matches none of {', '.join(ALL_FAULTS)}")
    return [one for name, one in ALL_FAULTS.items() if any(fnmatchcase(name, part) for part in patterns)]


def audit(
    faults: Sequence[AnyFault], jobs: int, scheduler: str | None = None, say: Say = lambda line: None
) -> Iterator[Finding]:
    """Plant the faults, and run their clean twins, in ``jobs`` processes, or on a cluster; findings as they come."""
    clean: dict[str, Examined] = {}
    waiting: list[tuple[Fault, Examined]] = []  # for their twins
    for (kind, name), found in _spread(_examined, _tasks(faults), jobs, scheduler, say):
        if kind in ("trainer", "layer"):
            yield _of_laws(_judged_by_laws(kind, name), found)
        elif kind == "twin":
            clean[name] = found
            yield _finding(TWINS[name], found, found.own)
        else:
            waiting.append((FAULTS[name], found))
        ready = [pair for pair in waiting if pair[0].twin.name in clean]
        waiting = [pair for pair in waiting if pair not in ready]
        yield from (_finding(fault, seen, clean[fault.twin.name].record) for fault, seen in ready)


def _tasks(faults: Sequence[AnyFault]) -> list[tuple[str, str]]:
    """What is examined: twins first, since their faults wait for them; all clean loops with any fault of trainers."""
    twins = sorted({fault.twin.name for fault in faults if isinstance(fault, Fault)})
    trainers = [fault.name for fault in faults if isinstance(fault, TrainerFault)]
    loops = [*TRAINER_TWINS, *trainers] if trainers else []
    parts = [("fault", fault.name) for fault in faults if isinstance(fault, Fault)]
    planted = [fault for fault in faults if isinstance(fault, LayerFault)]
    layers = [*sorted({fault.twin.name for fault in planted}), *(fault.name for fault in planted)]
    others = [*(("trainer", name) for name in loops), *(("layer", name) for name in layers)]
    return [*(("twin", name) for name in twins), *parts, *others]


def _judged_by_laws(kind: str, name: str) -> Judged:
    """A fault or twin of trainers or layers, by name."""
    if kind == "layer":
        return LAYER_TWINS.get(name) or LAYER_FAULTS[name]
    return TRAINER_TWINS.get(name) or TRAINER_FAULTS[name]


def _of_laws(one: Judged, found: Examined) -> Finding:
    if isinstance(one, TrainerTwin | LayerTwin):
        return Finding(one.name, "twin", one.what, "", found.laws, (), ())
    return Finding(one.name, "fault", one.what, one.source, found.laws, (), (), one.equivalent)


def _finding(one: Fault | Twin, found: Examined, before: dict[str, Any]) -> Finding:
    changes = compare_claims(before, found.record)
    gate = tuple(f"{c.name} {c.word} x {c.factor:.3g}" for c in changes if c.verdict == CHANGED)
    if isinstance(one, Twin):
        return Finding(one.name, "twin", f"{one.stack}", "", found.laws, found.claims, gate)
    return Finding(
        one.name, "fault", one.what, one.source, found.laws, found.claims, gate, equivalent=one.equivalent
    )


# In a worker ------------------------------------------------------------------------------------------


def _examined(task: tuple[str, str]) -> Examined:
    kind, name = task
    if kind in ("trainer", "layer"):
        one = _judged_by_laws(kind, name)
        seen = failing(one) if isinstance(one, LayerFault | LayerTwin) else accusing(one)
        return Examined(seen, (), {})
    if kind == "twin":
        twin = TWINS[name]
        found = examine(twin.stack, twin)
        return replace(found, own=_own(twin.optimizer) if found.record else {})
    return examine(FAULTS[name].stack, FAULTS[name].twin)


def examine(stack: Stack, twin: Twin, replicas: int = REPLICAS) -> Examined:
    """Laws and claims on a stack that is meant to be the twin's; a part of an axis gets laws alone.

    A step is declared to be like the twin's: by itself it may clip at any norm.
    """
    like = Reference(resolve(twin.optimizer), {}) if twin.optimizer else Reference()
    if stack.step is not twin.stack.step:
        like = replace(like, step=twin.stack.step)
    laws = tuple(r.name for r in check_laws(stack, twin.stack, like, twin.axis) if r.verdict == FAIL)
    if twin.axis:
        return Examined(laws, (), {})
    failing, record = _claims(stack, twin.optimizer, replicas, seed=0)
    return Examined(laws, failing, record)


def _claims(
    stack: Stack, optimizer: str | None, replicas: int, seed: int
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The claims that fail, and the record of those that train at all."""
    failing, record = [], {}
    for name in CLAIMS_OF[optimizer]:
        try:
            outcome = judge(CLAIMS[name], _pixels(), _trainer(stack), replicas, seed)
        except Exception:  # a fault may raise anything, and is seen by that
            failing.append(name)
            continue
        record[name] = claim_record(outcome)
        failing += [name] * (not outcome.holds)
    return tuple(failing), record


@cache
def _own(optimizer: str | None) -> dict[str, Any]:
    """The record of torch's own parts with seeds of their own: what the gate compares a clean twin with."""
    return _claims(Stack(), optimizer, REPLICAS, seed=1000)[1]


@cache
def _pixels() -> Pixels:
    return digits(7)


def _trainer(stack: Stack) -> Callable[[Sequence[Trial], Sequence[int]], list[Run]]:
    def trained(trial: Trial, seeds: Sequence[int]) -> Run:
        # an optimizer under test stands for the recipe's, with the recipe's arguments
        own = replace(stack, arguments=dict(trial.recipe.arguments)) if stack.optimizer else stack
        with flushed_denormals():
            return replace(train(trial, _pixels(), seeds, own), state={})

    return lambda trials, seeds: [trained(trial, seeds) for trial in trials]


def _spread(
    work: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, scheduler: str | None, say: Say
) -> Iterator[tuple[Any, Any]]:
    """Tasks and what came of them, in the order in which they end, one thread a process."""
    with crew(work, jobs, 1, scheduler, say, apart=True) as workers:
        for (task,), found in each(workers, _quietly, ((task,) for task in tasks)):
            yield task, found


def _quietly(work: Callable[[Any], Any], task: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what a fault does
        return work(task)


# False alarms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alarms:
    """How often a judgement of torch's own parts was wrong: ``alarms`` of ``tried``, each of other seeds."""

    name: str
    alarms: int
    tried: int
    note: str = ""

    @property
    def bound(self) -> float:
        """Rate below which the true one lies, at 95%, by Clopper and Pearson; 3 / tried without alarms."""
        from scipy.stats import beta

        right = self.tried - self.alarms
        return float(beta.ppf(0.95, self.alarms + 1, right)) if right else 1.0


LAWS_OF_CHECK = "all laws of check"
CHUNK = 8  # replicas of a first verdict


def false_alarms(
    seeds: int, jobs: int, scheduler: str | None = None, say: Say = lambda line: None
) -> Iterator[Alarms]:
    """Laws and claims on torch's own parts: check with each seed, claims with each eight."""
    claims = [(name, seeds) for name, one in CLAIMS.items() if not one.slow]
    failed: dict[int, list[str]] = {}
    tasks = [*claims, *((LAWS_OF_CHECK, k) for k in range(seeds))]
    for (name, seed), found in _spread(_judged, tasks, jobs, scheduler, say):
        if name != LAWS_OF_CHECK:
            yield found
            continue
        failed[seed] = found
        if len(failed) == seeds:
            notes = (f"{', '.join(laws)} at seed {seed}" for seed, laws in sorted(failed.items()) if laws)
            yield Alarms(name, sum(map(bool, failed.values())), seeds, "; ".join(notes))


def _judged(task: tuple[str, int]) -> Any:
    name, number = task
    if name != LAWS_OF_CHECK:
        return _of_claim(name, number)
    return [row.name for row in check_laws(Stack(), Stack(), Reference(), seed=number) if row.verdict == FAIL]


def _of_claim(name: str, seeds: int) -> Alarms:
    """Verdicts of eight seeds each, more where they are undecided, all trained at once."""
    claim, whole = CLAIMS[name], range(max(CHUNK, seeds))
    pool = {trial: _trainer(Stack())([trial], whole)[0] for trial in claim.plan(_pixels())}

    def taken(trials: Sequence[Trial], wanted: Sequence[int]) -> list[Run]:
        order = [seed % len(whole) for seed in wanted]  # the last chunk goes on with the first seeds
        return [pool[trial].of(order) for trial in trials]

    starts = whole[: len(whole) - CHUNK + 1 : CHUNK]
    verdicts = [judge(claim, _pixels(), taken, CHUNK, seed).holds for seed in starts]
    did = int(claim.succeeded([pool[trial] for trial in claim.plan(_pixels())]).sum())
    return Alarms(name, verdicts.count(False), len(verdicts), f"{did} of {len(whole)} seeds")
