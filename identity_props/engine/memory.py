"""How many replicas train in one pass: as many as fit into a share of the free memory, and on a CPU into its cache."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from identity_props.engine.trial import Trial

SHARE = 0.25  # of what is free, as other processes of the same run take theirs
COPIES = 6  # of the parameters: themselves, gradients and their parts, two running averages, one temporary
KEPT = 4  # tensors a layer and example: its input, output, and two of the backward pass
CHUNK = 1024  # test examples measured at once, see metrics
CACHED = 2**19  # weights of a pass on a CPU; more leave its cache and are up to twice as slow
ENOUGH = 8  # replicas of a pass that the cache does not cut further


def bytes_each(trial: Trial, d: int, examples: int, dtype: torch.dtype) -> int:
    """Bytes that a replica of d pixels needs, from above: parameters with their copies, and activations."""
    widths, rows = trial.variant.widths(d), max(trial.recipe.batch_size or examples, CHUNK)
    activations = KEPT * len(widths) * rows * max(widths)
    return (COPIES * trial.variant.numbers(d) + activations) * dtype.itemsize


def free_bytes(device: str) -> int:
    """Memory that the device could give now."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def cached(trial: Trial, d: int, device: str) -> float:
    """Replicas of d pixels that the cache holds, 8 at least; any number but on a CPU."""
    if torch.device(device).type != "cpu":
        return math.inf
    return max(ENOUGH, CACHED // trial.variant.numbers(d))


def passes(seeds: Sequence[int], each: int, free: int, most: float = math.inf) -> list[Sequence[int]]:
    """The seeds in as few passes as fit into a quarter of ``free`` bytes and hold no more than ``most``.

    Their sizes are as equal as can be.
    """
    fitting = int(max(1, min(SHARE * free / each, most)))
    count = -(-len(seeds) // fitting)
    size = -(-len(seeds) // count)
    return [seeds[first : first + size] for first in range(0, len(seeds), size)]
