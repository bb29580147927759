"""A layer against another that it is declared to be like, in the dtypes, modes, sizes and layouts that both take."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.layers.base import NotPromised, if_offered, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.numbers import Truth, copy_numbers, named
from identity_props.layers.passes import Gradients, Passes
from identity_props.layers.shaping import sizes_of


def same_layer(bench: LayerBench) -> Discrepancy:
    """Outputs and gradients of a layer and of its reference, from equal parameters, against the reference's float64.

    Rounding as of the law of dtypes, or four times what the reference is off by in the same dtype. Raises
    NotPromised where the reference takes no float64, or draws.
    """
    assert bench.like is not None, "it is declared to be like another"
    other = replace(bench, factory=bench.like, arguments=_taken(bench), like=None)
    if torch.float64 not in other.dtypes:
        raise NotPromised("the reference takes no float64")
    if mismatch := _mismatch(bench, other):
        return mismatch
    modes = [training for training in other.modes if training in bench.modes and not other.draws(training)]
    if not modes:
        raise NotPromised("; ".join(filter(None, other.reasons.values())) or "the reference draws")
    return told([one for training in modes for one in _in_mode(bench, other, training)])


def _taken(bench: LayerBench) -> Mapping[str, object]:
    """Arguments that the reference takes too."""
    parameters = inspect.signature(bench.like).parameters if bench.like else {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return bench.arguments
    return {name: value for name, value in bench.arguments.items() if name in parameters}


def _names(ours: Passes, theirs: Passes) -> dict[str, str]:
    """The layer's parameters and inputs, by the reference's: of the same name, else in the same place."""
    mine, wanted = ([*dict(one.module.named_parameters())] for one in (ours, theirs))
    placed = wanted if {*mine} == {*wanted} else mine
    inputs = ((theirs.input(k), ours.input(k)) for k in range(min(len(ours.names), len(theirs.names))))
    return {**dict(zip(wanted, placed, strict=False)), **dict(inputs)}


def _mismatch(bench: LayerBench, other: LayerBench) -> Discrepancy | None:
    """Parameters that are not those of the reference, by name and shape or by place and shape."""
    passes = [one.passes(False) for one in (bench, other)]
    ours, theirs = (dict(one.module.named_parameters()) for one in passes)
    names = _names(*passes)
    if len(ours) == len(theirs) and all(ours[names[name]].shape == p.shape for name, p in theirs.items()):
        return None
    told_of = ({name: [*p.shape] for name, p in one.items()} for one in (ours, theirs))
    return Discrepancy(1, 0, "forward, its parameters are {}, the reference's {}".format(*told_of))


def _in_mode(bench: LayerBench, other: LayerBench, training: bool) -> Iterator[Discrepancy]:
    for dtype in (one for one in bench.dtypes if one in other.dtypes):
        yield from _compared(bench, other, bench.inputs(dtype=dtype), training, dtype, named(dtype))
    dtype = bench.dtype
    for what, xs in sizes_of(bench):
        yield from if_offered(what, _compared(bench, other, xs, training, dtype, what))
    if bench.offers_bias and other.offers_bias:
        found = _compared(bench, other, bench.inputs(), training, dtype, "no bias", bias=False)
        yield from if_offered("no bias", found)


def _compared(
    bench: LayerBench,
    other: LayerBench,
    xs: list[Tensor],
    training: bool,
    dtype: torch.dtype,
    when: str,
    **others: Any,
) -> Iterator[Discrepancy]:
    """Each output and gradient; the reference's own distance in that dtype is allowed four times."""
    ours, theirs = (one.passes(training, dtype, **others) for one in (bench, other))
    fine, names = other.passes(training, **others), _names(ours, theirs)
    copy_numbers(ours, fine, names)
    copy_numbers(ours, theirs, names)
    truth = Truth(bench, fine, xs, dtype)
    measured, own = _renamed(truth.of(ours), names), truth.of(theirs)
    for name in truth.expected:
        yield truth.apart(name, measured.get(name), f"{ours.when}, {when}", "the reference's", own.get(name))


def _renamed(found: Gradients, names: Mapping[str, str]) -> Gradients:
    """Results of the layer, by the names of the reference."""
    return {**found, **{theirs: found.get(ours) for theirs, ours in names.items()}}
