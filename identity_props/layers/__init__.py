"""Layers of any kind, judged by their own forward pass: what a backward pass leaves has to be its derivative.

One registry, LAYER_LAWS, in the order in which they are asked.
"""

from identity_props.layers import trajectory, derivatives, adding, numbers, shaping, modes, drawing  # isort: skip
from identity_props.layers.base import LAYER_LAWS, LayerLaw, NotPromised
from identity_props.layers.bench import LayerBench
from identity_props.layers.given import bench_of

__all__ = [
    "LAYER_LAWS",
    "LayerBench",
    "LayerLaw",
    "NotPromised",
    "adding",
    "bench_of",
    "derivatives",
    "drawing",
    "modes",
    "numbers",
    "shaping",
    "trajectory",
]
