"""What parts are meant to be: rows that compare them with it, and the laws that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from identity_props.conformance.facts import dtypes_of
from identity_props.conformance.likeness import same_layer, same_steps
from identity_props.conformance.promises import (
    Below,
    Loss,
    clipping_seen,
    clips_at,
    plain_below,
    same_batches,
    same_clipping,
    same_loss,
    same_updates,
)
from identity_props.conformance.recognised import NONE
from identity_props.conformance.recognition import recognise
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Plan, Reference, Row, judged
from identity_props.conformance.traits import CLOSURE_FREE, TRAITS, UNKNOWN, traits
from identity_props.conformance.trying import Walk, steps_alone
from identity_props.conformance.walks import SHAPES
from identity_props.errors import InputError
from identity_props.laws import Discrepancy, Law
from identity_props.stack.guard import RAISED, HangError, go_on
from identity_props.stack.loop import take_step
from identity_props.stack.stack import Stack, takes


def like_plan(stack: Stack, like: Reference, seed: int) -> Plan:
    """A row for each part that is declared to be like another, and for a norm that is clipped at."""
    if like.optimizer is not None:
        yield "like-optimizer", partial(_steps_row, stack, like, seed)
    if like.linear is not None:
        yield "like-linear", partial(_layer_row, stack, like, seed)
    if like.loss is not None:
        yield "like-loss", partial(_loss_row, stack, like.loss, like.tolerance, seed)
    if like.step is not None:
        made = partial(stack.optimizer or torch.optim.SGD, **stack.arguments)
        compared = partial(same_updates, stack.step, like.step, made, seed, like.tolerance)
        yield "like-step", partial(_part_row, "like-step", "wrong step", compared)
    if like.batches is not None:
        compared = partial(same_batches, stack.batches, like.batches, seed)
        yield "like-batches", partial(_part_row, "like-batches", "wrong batches", compared)
    if like.clip is not None:
        compared = partial(same_clipping, stack.step, like.clip, like.step or take_step, seed)
        yield "like-clip", partial(_part_row, "like-clip", "wrong step", compared)
    elif like.step is None and stack.step is not take_step:
        yield "like-clip", partial(_clipping_row, stack, seed)


def recognised_plan(stack: Stack, like: Reference, seed: int) -> Plan:
    """The row of an optimizer that is not declared to be like another."""
    if stack.optimizer is not None and like.optimizer is None:
        yield "recognised", partial(_recognised_row, stack, like, seed)


def _recognised_row(stack: Stack, like: Reference, seed: int) -> Row:
    if stack.optimizer is None:
        raise InputError("recognised: expected an optimizer, got none")
    try:
        found = recognise(partial(stack.optimizer, **stack.arguments), seed)
    except HangError:  # other rows say so
        go_on()
        return Row("recognised", NOT_APPLICABLE, note="its steps hang")
    if found.verdict == NONE or (found.accused and like.novel):
        return Row(
            "recognised", NOT_APPLICABLE, note=f"{'novel' if found.accused else 'none known'}; {found.note}"
        )
    verdict, kind = (FAIL, "wrong step") if found.accused else (PASS, "")
    return Row("recognised", verdict, found.distance, found.near, kind, found.note)


def _part_row(name: str, kind: str, compared: Callable[[], Discrepancy]) -> Row:
    return judged(name, compared(), kind)


def _clipping_row(stack: Stack, seed: int) -> Row:
    """Of a step that is declared to be nothing: whether what it gives to clip_grad_norm_ has a gradient."""
    if not (seen := clipping_seen(stack.step, seed)):
        return Row("like-clip", NOT_APPLICABLE, note="no clip is declared, and it calls no clip_grad_norm_")
    clip, largest = max(seen, key=lambda one: one[1])
    blind = sum(norm == 0 for _, norm in seen) if largest == 0 else 0
    what = f"calls of clip_grad_norm_ at {clip:g} that are given no gradient, as by an iterator that is exhausted"
    return judged("like-clip", Discrepancy(blind, 0, what), "wrong step")


def _steps_row(stack: Stack, like: Reference, seed: int) -> Row:
    if stack.optimizer is None or like.optimizer is None:
        raise InputError("like: expected an optimizer to compare, got none")
    arguments = like.arguments or {}
    fits = traits(Stack(optimizer=like.optimizer, arguments=arguments))
    if CLOSURE_FREE not in fits:
        return Row("like-optimizer", NOT_APPLICABLE, note="the reference wants a closure")
    shapes = SHAPES if "for any shape" in fits else SHAPES[:-1]
    ours, theirs = partial(stack.optimizer, **stack.arguments), partial(like.optimizer, **arguments)
    told = not steps_alone(Walk(stack.optimizer, stack.arguments))
    found = same_steps(ours, theirs, seed, shapes, stack.dtype, like.tolerance, told)
    return judged("like-optimizer", found, "wrong step")


def _loss_row(stack: Stack, reference: Loss, tolerance: float, seed: int) -> Row:
    return judged(
        "like-loss", same_loss(stack.loss, reference, seed, tolerance, dtypes_of(stack)[0]), "wrong loss"
    )


def _layer_row(stack: Stack, like: Reference, seed: int) -> Row:
    if like.linear is None:
        raise InputError("like: expected a linear layer to compare with, got none")
    found = same_layer(
        stack.linear, like.linear, seed, like.tolerance, dtypes_of(stack)[0], stack.sized(5, 7)
    )
    return judged(
        "like-linear", found, "wrong output" if found.what.startswith("forward") else "wrong gradient"
    )


# Laws ---------------------------------------------------------------------------------------------

# switches that a law gives to an optimizer, by the trait that it needs for that
GIVEN: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "scale-free": {"eps": 1e-30},
    "rmsprop": {"alpha": 0.9, "eps": 1e-30},
    "implementations": {"foreach": True},
}
# traits of a law that predicts steps from the whole gradient
PREDICTS = {"gradient-descent", "momentum", "decay", "scale-free", "adam", "adam throughout", "rmsprop"}


# of how a part is called, rounds and trains, which no declaration changes
OWN = {CLOSURE_FREE, "rounding to nearest", "rounding at random", "torch's own network", UNKNOWN}


def traits_meant(stack: Stack, meant: Stack) -> frozenset[str]:
    """Traits of what a stack is meant to be, but for those that are its own."""
    found = traits(meant)
    return found if meant == stack else found - OWN | traits(stack) & OWN


def why_not(law: Law, stack: Stack, like: Reference, fits: frozenset[str]) -> str:
    """Why a law says nothing of a stack that is declared to be like that, or nothing.

    Its traits are those of ``traits_meant``, so it may want a switch that the reference takes and the part does not.
    """
    missing = law.needs - fits
    if missing:
        hangs = UNKNOWN in fits and missing & TRAITS.keys()
        return f"{'its steps hang, so not known to be' if hangs else 'not'} {', '.join(sorted(missing))}"
    if stack.optimizer is not None and like.optimizer is not None:
        given = {name: value for need in law.needs for name, value in GIVEN.get(need, {}).items()}
        ours, theirs = stack.optimizer, like.optimizer
        absent = [n for n, v in given.items() if takes(theirs, n, v) and not takes(ours, n, v)]
        if absent:
            return f"not offered: {', '.join(absent)}"
    if like.step is not None and PREDICTS & law.needs and not same_updates(like.step, take_step).holds:
        return "the step that is declared is not a plain one"
    if law.name == "mean-squared-error" and like.loss is not None and "mean squared error" not in fits:
        return "the loss that is declared is another"
    if law.name == "epoch" and like.batches is not None:
        return "what is declared judges them: like-batches"
    return ""


def promised(stack: Stack, like: Reference) -> Reference:
    """What is declared, with the norm from which a step is found to clip where none is: a correct step may clip."""
    if like.clip is not None or stack.step is take_step:
        return like
    try:
        return replace(like, clip=clips_at(stack.step) or plain_below(stack.step))
    except RAISED:  # the rows say how
        return like


def unclipped(law: Law, stack: Stack, like: Reference) -> Stack:
    """The stack for a law that predicts steps from the whole gradient: where one is clipped it raises ClipsError."""
    if like.clip is None or not PREDICTS & law.needs:
        return stack
    return replace(stack, step=Below(stack.step, like.clip))
