"""Which laws of layers a layer keeps, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from identity_props.conformance.following import GUARD, THREADS, followed
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Plan, Row, judged
from identity_props.errors import InputError
from identity_props.laws import Discrepancy
from identity_props.layers import LAYER_LAWS, LayerBench, LayerLaw, NotPromised
from identity_props.layers.base import FORWARD, KINDS
from identity_props.layers.likeness import same_layer
from identity_props.layers.numbers import named
from identity_props.stack.guard import RAISED, HangError, time_limit
from identity_props.stack.unchanged import unchanged

COMPUTES, LIKE = "computes", "like-layer"


def check_layer(bench: LayerBench, guard: float = GUARD, done: Sequence[Row] = ()) -> Iterator[Row]:
    """A row for each law of layers, after one that says whether it computes at all; alone where it does not."""
    check_made(bench, guard)
    for row in followed(planned(bench), guard, done):
        yield row
        if row.name == COMPUTES and row.verdict == FAIL:
            return


def check_made(bench: LayerBench, guard: float) -> None:
    """Raise InputError for a factory of something else; what it raises of its own is a row."""
    try:
        with unchanged(THREADS), time_limit(guard):
            bench.made()
    except InputError:
        raise
    except (*RAISED, HangError):
        pass


def planned(bench: LayerBench) -> Plan:
    """All rows of ``check_layer``."""
    yield COMPUTES, partial(_computes, bench)
    if bench.like is not None:
        yield LIKE, partial(_like, bench)
    for law in LAYER_LAWS.values():
        yield law.name, partial(row_of, law, bench)


def row_of(law: LayerLaw, bench: LayerBench) -> Row:
    """What a law says of a layer."""
    return _judged(law.name, law.measure, bench, law.kind)


def _like(bench: LayerBench) -> Row:
    """What its reference says of it."""
    return _judged(LIKE, same_layer, bench, KINDS[FORWARD])


def _judged(name: str, measure: Callable[[LayerBench], Discrepancy], bench: LayerBench, kind: str) -> Row:
    """A row; of a wrong output or gradient the kind is the one that is wrong."""
    try:
        found = measure(bench)
    except NotPromised as reason:
        return Row(name, NOT_APPLICABLE, note=str(reason))
    told = KINDS.get(found.what.partition(",")[0], kind)
    return judged(name, found, told if kind in KINDS.values() else kind)


def _computes(bench: LayerBench) -> Row:
    """Finite outputs, some, and finite gradients of a pass back."""
    outs, gradients = bench.passes(False).backward(bench.inputs())
    if not sum(out.numel() for out in outs):
        return Row(COMPUTES, FAIL, kind="wrong output", note="it gives no floating numbers")
    if not all(bool(out.isfinite().all()) for out in outs):
        return Row(
            COMPUTES,
            FAIL,
            kind="diverges",
            note="forward: its output is not finite, of inputs from a standard normal",
        )
    for name, gradient in gradients.items():
        if gradient is not None and not bool(gradient.isfinite().all()):
            return Row(
                COMPUTES, FAIL, kind="diverges", note=f"backward: the gradient of {name} is not finite"
            )
    trained = sum(p.numel() for p in bench.passes(False).parameters.values())
    said = f"{sum(out.numel() for out in outs)} outputs, {trained} parameters that train"
    inside = f"; inside it goes by {named(bench.inside)}" if bench.inside else ""
    return Row(COMPUTES, PASS, note=f"{said}, judged in {named(bench.dtype)}{inside}")
