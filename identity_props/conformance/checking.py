"""Conformance: the laws and claims that apply to a user's stack, one verdict each.

Which laws apply follows from what the optimizer is found to be (``traits``), or from what it is
declared to be like; then it also has to take the same steps as that reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from identity_props.conformance.facts import all_frozen, dtypes_of, dtypes_taken
from identity_props.conformance.following import THREADS, followed, limited
from identity_props.conformance.hints import hint
from identity_props.conformance.learning import LEARNS, learns_row
from identity_props.conformance.meant import (
    like_plan,
    promised,
    recognised_plan,
    traits_meant,
    unclipped,
    why_not,
)
from identity_props.conformance.promises import ClipsError
from identity_props.conformance.rows import (
    FAIL,
    NOT_APPLICABLE,
    PASS,
    Plan,
    Reference,
    Row,
    declared,
    judged,
)
from identity_props.conformance.sizes import SizeError, families_of, of_its_sizes
from identity_props.conformance.traits import UNKNOWN
from identity_props.engine.probe import reason_to_train_alone
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.laws import LAWS, Case, Law, worst_of
from identity_props.laws.base import LAYER, SGD, changed, descend, ensemble_of, optimizer_of, snapshot
from identity_props.laws.families import Family
from identity_props.laws.walking import NotOfferedError
from identity_props.stack.building import build_once
from identity_props.stack.guard import RAISED, ForkError, HangError, go_on, time_limit
from identity_props.stack.importing import import_all
from identity_props.stack.stack import Stack, at_home
from identity_props.stack.unchanged import unchanged
from identity_props.task.models import Variant

# spectra from flat to steep, more and fewer examples than pixels, dead and equal pixels, odd widths
FAMILIES = (
    Family(d=9, n=20, rank=9),
    Family(d=7, n=5, rank=7, decades=4, factor=0.9, log_scale=0.5),
    Family(d=16, n=24, rank=12, sign="non-negative", dead=3, equal=2, log_scale=-0.5),
)
REPLICAS = 8
MOVES = "moves"


def check(
    stack: Stack,
    like: Reference | None = None,
    seed: int = 0,
    guard: float | None = None,
    quick: bool = False,
) -> Iterator[Row]:
    """Judge a stack: whether it moves, what it is like, the laws that apply, whether it learns.

    ``quick`` stops at whether it moves, what it is, and the contract of torch.optim.

    A row that raises, forks a process that comes back, or whose step takes more than ``guard`` seconds, is a
    failure that says so; the others still run, with a tenth of the guard, though a second or more, once one
    hung. It is a minute unless given, and ten where steps are compiled. After three that hang the rest is not run. ``stack.lr=None`` searches a rate for the last row.
    Raises InputError for a negative seed or guard, and for an optimizer that is none or refuses what it is given.
    """
    yield from resumed(stack, like or Reference(), seed, guard, quick)


def resumed(
    stack: Stack,
    like: Reference,
    seed: int,
    guard: float | None,
    quick: bool = False,
    done: Sequence[Row] = (),
) -> Iterator[Row]:
    """The rows of ``check`` after those that are done."""
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, got {seed}")
    guard = limited(guard, stack.mode)
    if not 0 <= guard < math.inf:
        raise InputError(f"guard: expected seconds, or 0 for none, got {guard}")
    raises = not done and unbuilt(stack, like, guard)  # which has been seen where some rows are done
    moved = done[0] if done else None
    for row in followed(planned(stack, like, seed, quick), guard, done):
        moved = moved or row
        yield _once(failed(row, stack) if row.kind else row, moved)
        if raises and row.name == MOVES and row.verdict == FAIL:
            return  # the other rows would all say the same


def _once(row: Row, moved: Row) -> Row:
    """The row, which says no more where it raises what the first row did: a fault is one failure, not six."""
    again = row.name != moved.name and row.kind == moved.kind == "error" and moved.note.endswith(row.note)
    return Row(row.name, NOT_APPLICABLE, note=f"raises as {moved.name}") if again else row


def unbuilt(stack: Stack, like: Reference, guard: float) -> bool:
    """Whether the optimizer's or layer's constructor raises, through no fault of what it is given, or nothing trains.

    Raises InputError for what is given, for a dtype that the parts do not take, and for a layer that takes
    other sizes.
    """
    import_all()
    try:
        with unchanged(THREADS), time_limit(guard):
            build_once(Stack(optimizer=like.optimizer, arguments=like.arguments or {}), "like")
            raised = build_once(stack) is not None or _layer_raises(stack) or all_frozen(stack)
            if not raised and stack.dtype not in (taken := dtypes_taken(stack) or (stack.dtype,)):
                named = ", ".join(map(_named, taken))
                raise InputError(
                    f"dtype: expected one that the parts take, {named}, got {_named(stack.dtype)}"
                )
    except HangError:  # the rows say so
        return False
    return raised and stack.ranks == 1  # of several, there may be no group here


def _layer_raises(stack: Stack) -> bool:
    """Whether its layer's constructor raises; InputError where it does so at the sizes of the laws alone."""
    d, *_ = (family.d for family in families_of(FAMILIES, stack.features))

    def built(size: int) -> BaseException | None:
        try:
            stack.linear(size, size, bias=False)
        except RAISED as error:
            return error
        return None

    if (error := built(d)) is None:
        return False
    if not stack.features and built(64) is None:
        raise InputError(
            f"linear: expected a layer of any size, got {error}; --features 64 names those it takes"
        )
    return True


def failed(row: Row, stack: object) -> Row:
    """A row that fails, with the stack's name where it is the first."""
    return replace(row, note=f"{stack}: {row.note}") if row.name == MOVES else row


def check_laws(
    stack: Stack, meant: Stack, like: Reference, axis: str | None = None, seed: int = 0
) -> Iterator[Row]:
    """The rows of ``check`` but the last, by the laws that apply to another stack, which this is meant to be.

    With an axis of AXES, the laws that exercise it alone.
    """
    laws = [law for law in LAWS.values() if axis is None or axis in law.axes]
    yield from followed(_plan(stack, like, meant, seed, laws), limited(None, stack.mode))


def planned(stack: Stack, like: Reference, seed: int, quick: bool = False) -> Plan:
    """All rows of ``check``."""
    laws = [law for law in LAWS.values() if not quick or law.kind == "contract"]
    learns: Plan = [] if quick else [(LEARNS, partial(learns_row, stack, seed))]
    return [*_plan(stack, like, declared(stack, like), seed, laws), *learns]


def _plan(stack: Stack, like: Reference, meant: Stack, seed: int, laws: Iterable[Law]) -> Plan:
    yield MOVES, partial(_moves_row, stack, seed)
    yield from like_plan(stack, like, seed)
    yield from recognised_plan(stack, like, seed)
    fits, alone = cache(partial(traits_meant, stack, meant)), cache(partial(trains_alone, stack))
    taken, promises = cache(partial(dtypes_of, stack)), cache(partial(promised, stack, like))
    for law in laws:
        yield law.name, partial(_law_row, law, stack, promises, fits, taken, alone, seed)


# Moving -------------------------------------------------------------------------------------------


def _moves_row(stack: Stack, seed: int) -> Row:
    """Sixteen steps of a small network: finite, of the same dtypes and shapes, and not where it was.

    Sixteen, since RAdam and its kin may stand still for the first five, AdaShift for ten.
    """
    case = replace(families_of(FAMILIES, stack.features)[0], seed=seed).case(1)
    stack = replace(stack, ranks=1)
    network = ensemble_of(stack, case, LAYER)
    if not network.parameters:
        return Row(MOVES, FAIL, kind="flat", note="no parameter of the layer requires a gradient")
    optimizer = optimizer_of(stack, SGD, network.parameters, stack.lr or 1 / 128)
    x, before = case.x.to(stack.device, stack.dtype), snapshot(network)
    kinds = {name: (p.dtype, p.shape) for name, p in network.state.items()}
    for step in range(1, 17):
        network.step(optimizer, x, 2 * x)  # an init may start at the answer
        for name, p in network.state.items():
            if (p.dtype, p.shape) != kinds[name]:
                note = f"{name} is {p.dtype} {[*p.shape]} after step {step}"
                return Row(MOVES, FAIL, kind="other dtype or shape", note=note)
            if not p.isfinite().all():
                return Row(MOVES, FAIL, kind="diverges", note=f"{name} is not finite after step {step}")
    moved = changed(before, snapshot(network))
    note = f"{moved} of {sum(p.numel() for p in before.values())} weights changed in 16 steps"
    return Row(MOVES, PASS, note=note) if moved else Row(MOVES, FAIL, kind="flat", note=note)


# Laws ---------------------------------------------------------------------------------------------


def _law_row(
    law: Law,
    stack: Stack,
    promises: Callable[[], Reference],
    traits_of_stack: Callable[[], frozenset[str]],
    dtypes: Callable[[], tuple[torch.dtype, ...]],
    alone: Callable[[], bool],
    seed: int,
) -> Row:
    like, fits = promises(), traits_of_stack()
    if reason := why_not(law, stack, like, fits):
        # of one that is declared, what it is to be is known
        told = like.optimizer is not None or UNKNOWN in fits
        return Row(
            law.name, NOT_APPLICABLE, note=_with(reason, "" if told else hint(stack, law.needs - fits))
        )
    dtype = _measured_in(law, stack, dtypes())
    if dtype is None:
        note = f"its parts take {', '.join(map(_named, dtypes()))} alone"
        return Row(law.name, NOT_APPLICABLE, note=note)
    stack = of_its_sizes(replace(for_laws(stack, fits), dtype=dtype))
    replicas = 1 if alone() else REPLICAS
    # compiled code is compiled anew for each shape, a second or more each; the contract is not about data
    few = stack.mode == "compiled" or law.kind == "contract"
    families = families_of(FAMILIES, stack.features)[: 1 if few else None]
    cases = [replace(family, seed=seed).case(replicas) for family in families]
    try:
        worst = worst_of(law.measure(unclipped(law, stack, like), case) for case in cases)
    except (ClipsError, NotOfferedError, SizeError) as error:
        return Row(law.name, NOT_APPLICABLE, note=str(error))
    return judged(law.name, worst, _kind(law, stack, seed) if not worst.holds else "")


def _with(reason: str, hint: str) -> str:
    return f"{reason}; {hint}" if hint else reason


def _measured_in(law: Law, stack: Stack, taken: Sequence[torch.dtype]) -> torch.dtype | None:
    """The stack's dtype where the law speaks of it, else float64, else one that law and parts both take."""
    if _named(stack.dtype) in law.axes:
        return stack.dtype
    return next((dtype for dtype in taken if dtype == torch.float64 or _named(dtype) in law.axes), None)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def for_laws(stack: Stack, fits: frozenset[str]) -> Stack:
    """The stack at the rate that laws train with: their own for gradient descent, else a small one."""
    return replace(stack, lr=None if "gradient-descent" in fits else 1 / 128)


def trains_alone(stack: Stack) -> bool:
    """Whether its networks train one by one, see training.reason_to_train_alone."""
    trial = Trial(
        Variant("linear", 2, "none", bias=False), Recipe("torch.optim:SGD", 1 / 128, batch_size=None), 3
    )
    try:
        return reason_to_train_alone(stack, trial) is not None
    except (Exception, HangError, ForkError):  # it does not train at all: the laws say so, one by one
        go_on()
        return True


def _kind(law: Law, stack: Stack, seed: int) -> str:
    """How it fails: for a rate, whether the first step is absent, too short or too long."""
    if law.kind != "rate":
        return law.kind
    case = replace(families_of(FAMILIES, stack.features)[0], seed=seed).case(1)
    expected, measured = (_first_step(one, case) for one in (Stack(dtype=stack.dtype), at_home(stack)))
    share = float((expected * measured).sum() / expected.square().sum())
    if abs(share) < 1e-6:
        return "flat"
    return "too slow" if share < 1 - 1e-6 else "too fast" if share > 1 + 1e-6 else "wrong step"


def _first_step(stack: Stack, case: Case) -> Tensor:
    first, second, *_ = descend(stack, case).weights()
    return second - first
