"""Data sets small enough to train on in no time."""

import torch

from identity_props.task.data import Pixels


def drawn(d=4, train=64, test=32, seed=0, low=0.0, high=255.0):
    """Pixels [n, d], uniform on low to high, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(train + test, d, generator=generator, dtype=torch.float64)
    return Pixels("drawn", x[:train], x[train:])
