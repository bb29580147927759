"""How many replicas train in one pass: as many as fit into a share of the memory that is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from identity_props.training import Trial

SHARE = 0.25  # of what is free, as other processes of the same run take theirs
COPIES = 6  # of the parameters: themselves, gradients and their parts, two running averages, one temporary
KEPT = 4  # tensors a layer and example: its input, output, and two of the backward pass
CHUNK = 1024  # test examples measured at once, see metrics


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


def passes(seeds: Sequence[int], each: int, free: int) -> list[Sequence[int]]:
    """The seeds in as few passes as fit into a quarter of ``free`` bytes, of sizes as equal as can be."""
    fitting = max(1, int(SHARE * free / each))
    count = -(-len(seeds) // fitting)
    size = -(-len(seeds) // count)
    return [seeds[first : first + size] for first in range(0, len(seeds), size)]
