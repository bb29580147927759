"""Which laws of layers name a fault that is planted in a layer, or accuse a clean one."""

from __future__ import annotations

from identity_props.conformance.layered import check_layer
from identity_props.conformance.rows import FAIL
from identity_props.faults.base import LayerFault, LayerTwin
from identity_props.layers import LayerBench


def bench_of(one: LayerFault | LayerTwin, seed: int = 0) -> LayerBench:
    """The layer on its bench; a fault is built and tried as its twin is."""
    twin = one.twin if isinstance(one, LayerFault) else one
    return LayerBench(one.layer, (twin.shape,), twin.kind, seed=seed)


def failing(one: LayerFault | LayerTwin, seed: int = 0) -> tuple[str, ...]:
    """Rows of ``check --layer`` that fail."""
    return tuple(row.name for row in check_layer(bench_of(one, seed)) if row.verdict == FAIL)
