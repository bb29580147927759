"""The layer that the options name, and what laws say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.conformance.rows import Row
    from identity_props.layers import LayerBench

CONVOLUTION = ("in_channels=2", "out_channels=3", "kernel_size=3")


def layer_of(config: pytest.Config) -> LayerBench:
    """The layer of the options, a small convolution where they name none."""
    from identity_props.layers import bench_of

    names = ("layer", "input-shape", "input-kind", "layer-arg", "like-layer", "seed", "device", "mode")
    layer, *given = (config.getoption("identity_" + name.replace("-", "_")) for name in names)
    if layer is None:
        if given[0] or given[2] or given[3]:
            raise InputError("--identity-layer: expected a factory that its other options are of, got none")
        layer, given[0], given[2] = "torch.nn:Conv2d", ["2,5,5"], CONVOLUTION
    return bench_of(layer, *given)


@pytest.fixture(scope="session")
def identity_layer(pytestconfig: pytest.Config) -> Callable[[str], Row]:
    """What a law of layers, by name, says of the layer that --identity-layer names."""
    from identity_props.conformance.layered import row_of
    from identity_props.layers import LAYER_LAWS

    bench = layer_of(pytestconfig)
    return lambda law: row_of(LAYER_LAWS[law], bench)
